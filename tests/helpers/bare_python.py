"""An interpreter like the one on a borrowed GPU machine: PyTorch and some libraries, but not this package."""

import importlib.metadata
import re
import sys
from pathlib import Path

THERE = (
    *("torch", "torchvision", "triton", "numpy", "pandas", "scipy", "scikit-learn", "matplotlib", "seaborn"),
    *("pillow", "tqdm", "filelock", "safetensors", "psutil", "joblib", "jinja2", "attrs", "rich", "typer"),
    *("packaging", "requests", "timm", "lightning", "torchmetrics", "statsmodels", "pip", "setuptools"),
    *("pytest", "pytest-cov", "pytest-timeout", "pytest-xdist", "hypothesis"),
)
# imported by the interpreter when it starts
START = """
import sys
from importlib.abc import MetaPathFinder

class NotThere(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in NAMES:
            raise ModuleNotFoundError(f"No module named {name!r}, as on the machine with the GPU", name=name)

sys.meta_path[:] = [NotThere(), *(finder for finder in sys.meta_path if "editable" not in repr(finder))]
sys.path[:] = [entry for entry in sys.path if entry != ROOT]
"""


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions():
    """What is installed there: THERE, and what these need."""
    found, waiting = set(), [normalised(name) for name in THERE]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += [normalised(re.match(r"[\w.-]+", line)[0]) for line in needed if "extra ==" not in line]
    return found


def environment(folder):
    """Variables with which `sys.executable` is that interpreter, children included; writes to `folder`."""
    there = distributions()
    modules = importlib.metadata.packages_distributions()
    hidden = {name for name, of in modules.items() if not there & set(map(normalised, of))} - {"sln"}
    root = str(Path(__file__).resolve().parents[2])
    folder.mkdir(parents=True, exist_ok=True)
    start = f"NAMES, ROOT = {hidden!r}, {root!r}\n{START}"
    (folder / "sitecustomize.py").write_text(start)
    return {"PYTHONPATH": str(folder)}


def command(*arguments):
    return [sys.executable, *map(str, arguments)]
