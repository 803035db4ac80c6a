"""A Ray cluster of two machines of one processor each, both this one: a program that a test starts.

    RAY_TMPDIR=FOLDER python ray_cluster.py

Prints its address, and the process ids of the two machines' raylets, as one line of JSON. A line on the
standard input takes the second machine away, as a power cut would; the end of the input ends the rest.
"""  # fmt: skip

import json
import sys

from ray.cluster_utils import Cluster

SHARED = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80_000_000}


def raylet(node):
    """The process id of a machine's raylet, which starts its workers."""
    return node.all_processes["raylet"][0].process.pid


def first_machine():
    """A cluster of one machine. Ray gives up on a processor that is busy: there is a second try."""
    options = {"initialize_head": True, "head_node_args": SHARED | {"include_dashboard": False}}
    try:
        return Cluster(**options)
    except Exception:  # noqa: BLE001  as Ray raises it
        return Cluster(**options)


def main():
    """Start it, say so, and wait for the end of the standard input."""
    cluster = first_machine()
    try:
        second = cluster.add_node(**SHARED)
        raylets = [raylet(cluster.head_node), raylet(second)]
        print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
        if sys.stdin.readline():
            cluster.remove_node(second, allow_graceful=False)
            sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
