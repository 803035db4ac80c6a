"""Downloads from a server that breaks, stalls and lies; what is unpacked; CIFAR in its published format."""

import contextlib
import dataclasses
import hashlib
import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import types
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cifar_miniature
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sln.datasets.downloads import download

from sln.datasets import downloads, registry
from sln.datasets.images import read_cifar
from sln.utils import files

CONTENT = np.random.default_rng(0).bytes(5000)
OTHER = np.random.default_rng(1).bytes(5000)


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def md5(content):
    return f"md5:{hashlib.md5(content).hexdigest()}"


# --- a server that does as it is told -----------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """How one request is answered: with which bytes, broken off or silent after how many, as what."""

    content: bytes = CONTENT
    breaks: int | None = None
    stalls: int | None = None
    status: int = 200
    ranges: bool = True
    length: bool = True
    extent: str | None = None  # another Content-Range than the true one


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them

    def __init__(self, answers, default):
        self.answers, self.default = list(answers), default
        self.asked, self.served, self.paths = (
            [],
            [],
            [],
        )  # first byte, number of bytes, address of each request
        self.go_on, self.mutex = threading.Event(), threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/thing.bin"

    def handle_error(self, request, client_address):  # a client that went away
        pass


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wants = self.server, self.headers.get("Range")
        start = int(wants.removeprefix("bytes=").removesuffix("-")) if wants else 0
        with server.mutex:
            answer = server.answers.pop(0) if server.answers else server.default
            server.asked.append(start)
            server.served.append(0)
            server.paths.append(self.path)
            number = len(server.asked) - 1
        content = answer.content[self.path] if isinstance(answer.content, dict) else answer.content
        if answer.status != 200:
            self.send_error(answer.status)
            return
        if wants and answer.ranges and start >= len(content):
            self.send_error(416)
            return
        partial = wants and answer.ranges
        body = content[start:] if partial else content
        if answer.stalls == -1:  # not even a status
            server.go_on.wait()
            return
        self.send_response(206 if partial else 200)
        if partial:
            true_extent = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", answer.extent or true_extent)
        if answer.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body[: next((n for n in (answer.breaks, answer.stalls) if n is not None), None)]
        with server.mutex:
            server.served[number] = len(sent)
        self.wfile.write(sent)
        if answer.stalls is not None:
            server.go_on.wait()
            self.wfile.write(body[answer.stalls :])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(*answers, default=None):
    server = Server(answers, default or Answer())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """No pauses, no proxy between this process and itself; gives the pauses that were asked for."""
    pauses = []
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads, "time", types.SimpleNamespace(sleep=pauses.append))
    return pauses


@pytest.fixture
def path(tmp_path):
    return tmp_path / "thing.bin"


def left_behind(path):
    """Names of the files beside `path`, without locks."""
    return sorted(p.name for p in path.parent.iterdir() if p.is_file() and not p.name.startswith("."))


# --- breaks and resumption ----------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.booleans()), max_size=downloads.TRIES - 1),
    st.sampled_from([0, 0, 1, 2500, 4999]),
    st.sampled_from([sha256(CONTENT), sha256(CONTENT)[:15], md5(CONTENT), md5(CONTENT).upper()]),
)
@settings(max_examples=40)
def test_after_any_breaks_the_bytes_are_the_servers_and_only_the_rest_is_asked_for(breaks, part, checksum):
    answers = [Answer(breaks=n, ranges=ranges) for n, ranges in breaks]
    have, expected = part, []  # the first byte of each request, by a plain replay
    for n, ranges in [*breaks, (len(CONTENT), True)]:
        expected.append(have)
        have = min((have if ranges else 0) + n, len(CONTENT))
        if have == len(CONTENT):
            break
    with tempfile.TemporaryDirectory() as folder, serving(*answers) as server:
        path = Path(folder) / "deep" / "thing.bin"
        path.parent.mkdir()
        if part:
            path.with_name("thing.bin.part").write_bytes(CONTENT[:part])
        assert download(server.url, path, checksum, what="the thing") == path
        assert path.read_bytes() == CONTENT
        assert left_behind(path) == ["thing.bin"]
        assert server.asked == expected
        if all(ranges for _, ranges in breaks):
            assert sum(server.served) == len(CONTENT) - part


DOWNLOADER = """
import signal, sys, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
package = types.ModuleType("sln")  # without all that the package's own __init__ imports
package.__path__ = [sys.argv[1]]
sys.modules["sln"] = package
from pathlib import Path
from sln.datasets.downloads import download
download(sys.argv[2], Path(sys.argv[3]), sys.argv[4], what="the thing")
"""


def downloader(server, path):
    told = [str(Path(downloads.__file__).parents[1]), server.url, path, sha256(CONTENT)]
    return subprocess.Popen([sys.executable, "-c", DOWNLOADER, *told], stderr=subprocess.PIPE, text=True)


def wait_until(condition):
    deadline, pause = time.monotonic() + 60, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.01)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_what_a_killed_or_interrupted_process_got_is_not_got_again(how, path):
    part = path.with_name("thing.bin.part")
    with serving(Answer(stalls=3210)) as server:
        with downloader(server, path) as process:
            wait_until(lambda: part.exists() and part.stat().st_size == 3210)
            process.send_signal(how)
            process.communicate(timeout=60)
        assert process.returncode != 0
        assert left_behind(path) == ["thing.bin.part"]
        download(server.url, path, sha256(CONTENT), what="the thing")
        assert server.asked == [0, 3210]
    assert path.read_bytes() == CONTENT


def test_of_two_processes_one_downloads_and_the_other_waits_for_it(path):
    with serving(Answer(stalls=1000)) as server:
        with downloader(server, path) as first:
            wait_until(lambda: server.served == [1000])
            with downloader(server, path) as second:
                assert "waiting for another process" in second.stderr.readline()
                server.go_on.set()
                for process in (first, second):
                    assert process.communicate(timeout=60)[1] == ""
        assert (first.returncode, second.returncode) == (0, 0)
        assert server.asked == [0]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("new", [OTHER, OTHER[:4000], OTHER + OTHER, OTHER[:10]])
def test_a_file_that_changes_on_the_server_midway_is_got_again_whole(new, path):
    with serving(Answer(breaks=2000), default=Answer(new)) as server:
        download(server.url, path, sha256(new), what="the thing")
        assert server.asked == [0, 2000, 0]
    assert path.read_bytes() == new


def test_the_rest_of_a_file_of_another_length_is_not_waited_for(path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    with serving(Answer(breaks=2000), Answer(OTHER * 2, stalls=10), default=Answer(OTHER * 2)) as server:
        download(server.url, path, sha256(OTHER * 2), what="the thing")
        assert server.asked == [0, 2000, 0]
    assert path.read_bytes() == OTHER * 2


@pytest.mark.parametrize("part", [OTHER[:99], OTHER, OTHER * 2, CONTENT + b"x", b"x"])
def test_a_part_of_something_else_does_no_harm(part, path):
    path.with_name("thing.bin.part").write_bytes(part)
    with serving() as server:
        download(server.url, path, sha256(CONTENT), what="the thing")
        assert server.asked == [len(part), 0]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "extent", ["bytes 0-4999/5000", "bytes 2001-4999/5000", "pages 1-2/3", "bytes 2000-"]
)
def test_a_server_that_sends_another_part_than_asked_for_is_asked_again(extent, path):
    with serving(Answer(breaks=2000), Answer(extent=extent)) as server:
        download(server.url, path, sha256(CONTENT), what="the thing")
        assert server.asked[-1] == 0
    assert path.read_bytes() == CONTENT


def test_a_part_whose_whole_length_the_server_does_not_know_is_used(path):
    with serving(Answer(breaks=2000), Answer(extent="bytes 2000-4999/*")) as server:
        download(server.url, path, sha256(CONTENT), what="the thing")
        assert server.asked == [0, 2000]
    assert path.read_bytes() == CONTENT


def test_what_is_there_and_right_is_not_asked_for(path):
    with serving() as server:
        path.write_bytes(CONTENT)
        download(server.url, path, sha256(CONTENT), what="the thing")
        path.rename(path.with_name("thing.bin.part"))  # killed between the last byte and its name
        download(server.url, path, sha256(CONTENT), what="the thing")
        assert server.asked == []
    assert path.read_bytes() == CONTENT
    assert left_behind(path) == ["thing.bin"]


# --- wrong bytes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [sha256(CONTENT), sha256(CONTENT)[:15], md5(CONTENT)])
@pytest.mark.parametrize("answer", [Answer(OTHER), Answer(b"<html>log in first</html>"), Answer(b""),
                                    Answer(CONTENT[:4000], length=False)])  # fmt: skip
def test_wrong_bytes_are_kept_aside_and_never_used(answer, checksum, path, refused):
    aside = path.with_name("thing.bin.wrong-checksum")
    digits = checksum.split(":")[1]
    found = hashlib.new(checksum.split(":")[0], answer.content).hexdigest()[: len(digits)]
    with serving(answer) as server:
        with refused("the thing", server.url, found, f"expected {digits}", str(aside)):
            download(server.url, path, checksum, what="the thing")
        assert left_behind(path) == [aside.name]
        assert aside.read_bytes() == answer.content
        download(server.url, path, checksum, what="the thing")  # the wrong bytes are not gone on with
        assert server.asked == [0, 0]
    assert path.read_bytes() == CONTENT


def test_a_wrong_file_in_the_way_is_set_aside_and_said(path, capsys):
    path.write_bytes(OTHER)
    with serving() as server:
        download(server.url, path, sha256(CONTENT), what="the thing")
    assert path.read_bytes() == CONTENT
    assert path.with_name("thing.bin.wrong-checksum").read_bytes() == OTHER
    assert str(path.with_name("thing.bin.wrong-checksum")) in capsys.readouterr().err


def test_a_file_without_a_stated_length_is_whole_when_its_checksum_is_right(path):
    with serving(default=Answer(length=False)) as server:
        download(server.url, path, sha256(CONTENT), what="the thing")
    assert path.read_bytes() == CONTENT


# --- silence and refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stalls", [-1, 0, 1500])
def test_a_silent_connection_is_given_up_and_made_again(stalls, path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    with serving(Answer(stalls=stalls)) as server:
        download(server.url, path, sha256(CONTENT), what="the thing")
        assert server.asked == [0, max(stalls, 0)]
    assert path.read_bytes() == CONTENT


def test_a_server_that_stays_silent_is_given_up(path, monkeypatch, refused):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.1)
    with serving(default=Answer(stalls=0)) as server:
        start = time.monotonic()
        with refused("the thing", server.url, "timed out", "5 tries", str(path)):
            download(server.url, path, sha256(CONTENT), what="the thing")
        assert time.monotonic() - start < 10  # half a second, where nothing else runs
        assert len(server.asked) == downloads.TRIES


def test_pauses_grow_until_new_bytes_come_and_then_it_gives_up_and_keeps_the_part(path, at_once, refused):
    with serving(Answer(breaks=0), Answer(breaks=700), default=Answer(breaks=0)) as server:
        with refused("connection closed after 700 of 5,000 bytes", "5 tries"):
            download(server.url, path, sha256(CONTENT), what="the thing")
        assert server.asked == [0, 0, 700, 700, 700, 700]
    assert at_once == [1, 1, 2, 4, 8]
    assert path.with_name("thing.bin.part").read_bytes() == CONTENT[:700]


@pytest.mark.parametrize("places", [(900, 900), (900, 800)])
def test_a_server_that_breaks_early_and_cannot_resume_is_given_up(places, path, refused):
    answers = [Answer(breaks=n, ranges=False) for n in places * downloads.TRIES]
    with serving(*answers) as server:
        with refused("900 of 5,000 bytes"):
            download(server.url, path, sha256(CONTENT), what="the thing")
        assert len(server.asked) == downloads.TRIES


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (410, 1), (500, 5), (503, 5), (429, 5)])
def test_only_refusals_that_may_pass_are_asked_again(status, requests, path, refused):
    with serving(default=Answer(status=status)) as server:
        with refused("the thing", server.url, f"HTTP {status}", str(path)):
            download(server.url, path, sha256(CONTENT), what="the thing")
        assert len(server.asked) == requests
    assert left_behind(path) == []


def test_a_busy_server_is_asked_until_it_answers(path):
    with serving(Answer(status=503), Answer(status=429), Answer(breaks=10), Answer(status=500)) as server:
        download(server.url, path, sha256(CONTENT), what="the thing")
        assert server.asked == [0, 0, 0, 10, 10]
    assert path.read_bytes() == CONTENT


def test_without_network_it_says_so_at_once_with_the_way_out(path, at_once, refused):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/thing.bin"
        with refused("the thing", url, "refused", f"put the file at {path}", "mirror"):
            download(url, path, sha256(CONTENT), what="the thing")
    assert at_once == []


def test_a_file_address_is_a_mirror_too(path, tmp_path, refused):
    (tmp_path / "mirror").write_bytes(CONTENT)
    download((tmp_path / "mirror").as_uri(), path, sha256(CONTENT), what="the thing")
    assert path.read_bytes() == CONTENT
    for wrong in ("absent", ""):
        with refused("the thing", "directory"):
            download((tmp_path / wrong).as_uri(), tmp_path / "other", sha256(CONTENT), what="the thing")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "data:,x", "thing.bin", "/thing.bin", ""])
def test_other_addresses_are_refused(url, path, refused):
    with refused(repr(url), "http, https or file"):
        download(url, path, sha256(CONTENT), what="the thing")


@pytest.mark.parametrize("url", ["http://", "http://[x/y", "http://127.0.0.1/a b", "http://127.0.0.1:x/"])
def test_addresses_that_are_none_are_refused_without_a_second_try(url, path, at_once, refused):
    with refused("the thing", url):
        download(url, path, sha256(CONTENT), what="the thing")
    assert at_once == []


@pytest.mark.parametrize("checksum", ["", "sha256:", "sha256:12", "sha1:" + "0" * 40, "md5:12345678",
                                      "0" * 64, "sha256:" + "0" * 65, "sha256:" + "x" * 64])  # fmt: skip
def test_a_checksum_that_is_none_is_refused_before_anything_is_got(checksum, path, refused):
    with serving() as server:
        with refused(repr(checksum), "sha256:", "md5:"):
            download(server.url, path, checksum, what="the thing")
        assert server.asked == []


def test_a_place_that_cannot_be_written_to_is_named(path, tmp_path, refused):
    (tmp_path / "taken").write_text("a file, no folder")
    with serving() as server:
        with refused("cannot write", str(tmp_path / "taken"), "SLN_DATA"):
            download(server.url, tmp_path / "taken" / "thing.bin", sha256(CONTENT), what="the thing")
        path.with_name("thing.bin.part").symlink_to("/dev/full")
        with refused("cannot write", str(path), "No space left"):
            download(server.url, path, sha256(CONTENT), what="the thing")


def test_large_downloads_say_how_far_they_are_and_small_ones_nothing(path, capsys):
    large = np.random.default_rng(2).bytes(10_500_000)
    with serving(Answer(large, breaks=3_400_000), Answer(large)) as server:
        download(server.url, path, sha256(large), what="the thing")
        assert server.asked == [0, 3_400_000]
        assert capsys.readouterr().err.startswith("the thing: 10/10 MB (")
        download(server.url, path.with_name("small"), sha256(CONTENT), what="the thing")
        assert capsys.readouterr().err == ""


# --- what can be got ----------------------------------------------------------------------------------------


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def tar(members):
    """A .tar.gz of names and bytes; a str is the target of a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(params=["cifar10", "cifar100"])
def mini(request, tmp_path, monkeypatch):
    """CIFAR in miniature, its MD5s in the place of the published ones, and an empty data folder."""
    monkeypatch.setenv("SLN_DATA", str(tmp_path / "data"))
    return cifar_miniature.make(request.param, monkeypatch)


def archived(mini, monkeypatch, members=None):
    """The archive of `members` or of all files, its MD5 now the expected one."""
    content = tar(members or [(f"{mini.folder}/{name}", data) for name, data in mini.contents.items()])
    monkeypatch.setattr(mini.kind, "tgz_md5", hashlib.md5(content).hexdigest())
    return content


@pytest.mark.parametrize("layout", ["", "of the released script"])
def test_cifar_is_read_as_it_was_written(mini, layout):
    mini.lay(files.data_folder() / (registry.DATAPATHS[mini.name] if layout else ""))
    assert registry.present(mini.name)
    for train in (True, False):
        images, labels, classes = read_cifar(mini.name, train)
        flat = mini.images[train]
        assert images.dtype == np.uint8
        assert images.flags.c_contiguous
        assert images.shape == (len(flat), 3, 32, 32)
        for n, channel, row, column in [(0, 0, 0, 0), (1, 0, 0, 31), (2, 1, 30, 2), (3, 2, 31, 31)]:
            assert images[n, channel, row, column] == flat[n, channel * 1024 + row * 32 + column]
        assert (images.reshape(len(flat), -1) == flat).all()
        assert labels.dtype == np.int64
        assert labels.tolist() == mini.labels[train]
        assert classes == mini.classes


class Evil:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return Path.touch, (self.sentinel,)


def test_the_evil_pickle_of_these_tests_does_run_where_it_is_read(tmp_path):
    pickle.loads(pickle.dumps(Evil(tmp_path / "ran")))  # noqa: S301
    assert (tmp_path / "ran").exists()


def test_no_file_of_cifar_is_read_before_every_one_is_checked(mini, tmp_path, refused):
    for name in mini.contents:
        mini.lay(files.data_folder())
        path = files.data_folder() / mini.folder / name
        path.write_bytes(pickle.dumps(Evil(tmp_path / "ran"), protocol=2))
        found = hashlib.md5(path.read_bytes()).hexdigest()
        expected = hashlib.md5(mini.contents[name]).hexdigest()
        for train in (True, False):
            with refused(str(path), f"MD5 {found}", expected, f"python -m sln data get {mini.name}"):
                read_cifar(mini.name, train)
    assert not (tmp_path / "ran").exists()
    assert not registry.present(mini.name)


def test_a_whole_copy_is_used_where_the_other_is_damaged(mini):
    mini.lay(files.data_folder())
    mini.lay(files.data_folder() / registry.DATAPATHS[mini.name])
    (files.data_folder() / mini.folder / mini.kind.meta["filename"]).write_bytes(b"")
    assert read_cifar(mini.name, True)[1].tolist() == mini.labels[True]


def test_missing_cifar_is_said_with_the_command_and_the_way_without_network(mini, refused):
    folder = files.data_folder()
    both = (str(folder / mini.folder), str(folder / registry.DATAPATHS[mini.name] / mini.folder))
    offline = f"put {mini.kind.url} into {folder}"
    with refused(*both, f"python -m sln data get {mini.name}", offline):
        read_cifar(mini.name, True)
    mini.lay(folder)
    test = folder / mini.folder / mini.kind.test_list[0][0]
    test.unlink()
    with refused(f"{test} is missing", f"python -m sln data get {mini.name}"):
        read_cifar(mini.name, True)


def test_a_data_set_that_is_not_cifar_is_refused(refused):
    with refused("'cifar'", "cifar10, cifar100"):
        read_cifar("cifar", True)


def test_cifar_is_got_unpacked_and_its_archive_removed(mini, monkeypatch):
    archive = Answer(archived(mini, monkeypatch))
    with serving(dataclasses.replace(archive, breaks=1000), default=archive) as server:
        mirror = f"http://127.0.0.1:{server.server_port}/somewhere/"
        got = registry.get(mini.name, mirror=mirror)
        assert server.asked == [0, 1000]
        assert set(server.paths) == {f"/somewhere/{mini.kind.filename}"}
        assert {path.name: path.read_bytes() for path in got} == mini.contents
        assert left_behind(files.data_folder() / "any") == []
        assert read_cifar(mini.name, False)[1].tolist() == mini.labels[False]
        assert registry.get(mini.name, mirror=mirror) == []
        assert len(server.asked) == 2


def test_a_complete_folder_need_not_be_one_that_can_be_written_to(mini):
    mini.lay(files.data_folder())
    (files.data_folder() / f".{mini.name}.lock").mkdir()  # no lock can be had there
    assert registry.get(mini.name) == []


def test_of_two_that_get_cifar_at_once_one_downloads_and_unpacks(mini, monkeypatch):
    """The other finds everything there when it has the lock."""
    with serving(Answer(archived(mini, monkeypatch), stalls=100)) as server:
        got = []
        threads = [
            threading.Thread(target=lambda: got.append(registry.get(mini.name, server.url.rsplit("/", 1)[0])))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: server.served == [100])
        server.go_on.set()
        for thread in threads:
            thread.join()
        assert server.asked == [0]
    assert sorted(map(len, got)) == [0, len(mini.contents)]


def test_an_archive_put_there_by_hand_is_unpacked_without_network_and_kept(mini, monkeypatch):
    archive = files.data_folder() / mini.kind.filename
    put(archive, archived(mini, monkeypatch))
    with serving(default=Answer(status=404)) as server:
        registry.get(mini.name, mirror=server.url)
        assert server.asked == []
    assert archive.exists()
    assert registry.present(mini.name)


def test_only_the_damaged_file_is_put_right_and_the_damaged_one_kept_aside(mini, monkeypatch):
    mini.lay(files.data_folder())
    name = mini.kind.train_list[-1][0]
    damaged = files.data_folder() / mini.folder / name
    damaged.write_bytes(b"scratched")
    before = {path: path.stat().st_ino for path in damaged.parent.iterdir() if path != damaged}
    with serving(Answer(archived(mini, monkeypatch))) as server:
        # the address of the file itself is a mirror, too
        assert registry.get(mini.name, f"http://127.0.0.1:{server.server_port}/{mini.kind.filename}") == [
            damaged
        ]
        assert server.paths == [f"/{mini.kind.filename}"]
    assert registry.present(mini.name)
    assert damaged.with_name(f"{name}.wrong-checksum").read_bytes() == b"scratched"
    assert {path: path.stat().st_ino for path in before} == before


def test_nothing_but_the_listed_files_leaves_an_archive(mini, monkeypatch, tmp_path):
    outside = tmp_path / "outside"
    members = [("../outside", b"x"), (str(outside), b"x"), (f"{mini.folder}/../../outside", b"x"),
               (f"{mini.folder}/extra", b"x"), (f"{mini.folder}/link", str(outside))]  # fmt: skip
    members += [(f"{mini.folder}/{name}", content) for name, content in mini.contents.items()]
    put(files.data_folder() / mini.kind.filename, archived(mini, monkeypatch, members))
    registry.get(mini.name)
    assert not outside.exists()
    assert {p.name for p in (files.data_folder() / mini.folder).iterdir()} == set(mini.contents)


def test_a_link_in_the_place_of_a_file_and_other_bytes_than_listed_are_refused(mini, monkeypatch, refused):
    name = mini.kind.test_list[0][0]
    archive, target = files.data_folder() / mini.kind.filename, files.data_folder() / mini.folder / name
    for content, words in (("/etc/hostname", [f"no file {mini.folder}/{name}"]), (b"other", [name, "MD5"])):
        members = {**mini.contents, name: content}
        put(archive, archived(mini, monkeypatch, [(f"{mini.folder}/{n}", c) for n, c in members.items()]))
        with refused(str(archive), *words):
            registry.get(mini.name)
        assert not os.path.lexists(target)


@pytest.fixture
def few_labels(tmp_path, monkeypatch):
    """Two label files in the place of the published ones."""
    monkeypatch.setenv("SLN_DATA", str(tmp_path / "data"))
    contents = {"A/one.csv": b"label,label_noisy\n0,1\n", "B/two.csv": b"label,label_noisy\n1,1\n"}
    few = tuple(
        registry.File((f"labels/{r}", f"elsewhere/{r}", "shared/x.csv"), sha256(c), r)
        for r, c in contents.items()
    )
    monkeypatch.setattr(registry, "SLN_LABELS", dataclasses.replace(registry.SLN_LABELS, files=few))
    return contents


def test_of_several_files_those_that_lack_are_got(few_labels, capsys):
    folder = files.data_folder()
    put(folder / "elsewhere/A/one.csv", few_labels["A/one.csv"])
    put(folder / "labels/B/two.csv", b"damaged")
    assert not registry.present("sln-labels")
    with serving(default=Answer({f"/m/{name}": content for name, content in few_labels.items()})) as server:
        mirror = f"http://127.0.0.1:{server.server_port}/m"
        assert registry.get("sln-labels", mirror) == [folder / "labels/B/two.csv"]
        assert server.paths == ["/m/B/two.csv"]
    assert registry.present("sln-labels")
    assert (folder / "labels/B/two.csv").read_bytes() == few_labels["B/two.csv"]
    assert (folder / "labels/B/two.csv.wrong-checksum").read_bytes() == b"damaged"
    assert "two.csv" in capsys.readouterr().err


def test_missing_names_the_file_where_it_was_looked_for_and_how_to_get_it(few_labels):
    folder, address = files.data_folder(), registry.SLN_LABELS.address
    message = str(registry.missing("sln-labels"))
    for words in ("labels/A/one.csv", "elsewhere/A/one.csv", f"{address}/A/one.csv", "data get sln-labels"):
        assert words in message
    put(folder / "shared/x.csv", few_labels["B/two.csv"])  # right, of the other data set
    assert str(registry.missing("sln-labels")) == message
    put(folder / "elsewhere/A/one.csv", b"damaged")
    assert f"{folder / 'elsewhere/A/one.csv'} has SHA-256 {sha256(b'damaged')[7:]}" in str(
        registry.missing("sln-labels")
    )


def test_the_listing_says_what_is_there(few_labels):
    for name, content in few_labels.items():
        put(files.data_folder() / "labels" / name, content)
    table = registry.listing().set_index("name")
    assert list(table.index) == list(registry.NAMES)
    assert table["present"].to_dict() == {name: name == "sln-labels" for name in registry.NAMES}
    assert table["where"]["sln-labels"] == str(files.data_folder() / "labels")
    assert "CC BY-NC 4.0" in table["licence"]["cifar-n"]


def test_an_unknown_name_is_refused_with_the_nearest(refused):
    with refused("'cifar-10'", "did you mean 'cifar10'"):
        registry.get("cifar-10")


@pytest.mark.parametrize("name", registry.NAMES)
def test_every_source_has_places_of_its_own_below_the_data_folder_and_checksums(name):
    of = registry.source(name)
    firsts = [file.places[0] for file in of.files]
    assert len(set(firsts)) == len(firsts)
    for file in (*of.files, *([of.archive] if of.archive else [])):
        assert not any(place.startswith("/") or ".." in place for place in file.places)
        assert not downloads.verified(Path("absent"), file.checksum)  # which must be one, or this raises
    assert of.address.startswith("https://")


# --- the real files -----------------------------------------------------------------------------------------


def test_the_real_cifar10_has_its_published_shape_and_balance():
    if not registry.present("cifar10"):
        pytest.skip(f"CIFAR-10 is not in {files.data_folder()}; `python -m sln data get cifar10` gets it")
    for train, each in ((True, 5000), (False, 1000)):
        images, labels, classes = read_cifar("cifar10", train)
        assert images.shape == (10 * each, 3, 32, 32)
        assert np.bincount(labels).tolist() == [each] * 10
    assert classes[3] == "cat"
    assert classes[9] == "truck"
