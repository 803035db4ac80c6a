"""Downloads from a server that breaks and lies; what is unpacked; CIFAR in its published format."""

import contextlib
import dataclasses
import hashlib
import io
import os
import pickle
import runpy
import signal
import socket
import sys
import tarfile
import threading
import time
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cifar_miniature
import numpy as np
import pooch
import pytest

from sln.datasets import download
from sln.datasets.images import read_cifar
from sln.utils import files

CONTENT, OTHER = (np.random.default_rng(seed).bytes(500_000) for seed in (0, 1))
SMALL = CONTENT[:5000]


# --- a server that breaks -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer: these bytes; after `breaks` of them the end, or after `stalls` silence; ranges or not."""

    content: bytes = CONTENT
    breaks: int | None = None
    stalls: int | None = None
    status: int = 200
    ranges: bool = True


class Server(ThreadingHTTPServer):
    """`asked`: the first byte of each request; `paths`: its address."""

    daemon_threads = False  # so that closing waits for them

    def __init__(self, answers, default):
        self.answers, self.default, self.asked, self.paths = list(answers), default, [], []
        self.go_on = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request, client_address):  # a client that went away
        pass


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        answer = self.server.answers.pop(0) if self.server.answers else self.server.default
        self.server.asked.append(start)
        self.server.paths.append(self.path)
        if answer.status != 200 or (answer.ranges and start >= len(answer.content)):
            self.send_error(answer.status if answer.status != 200 else 416)
            return
        partial = "Range" in self.headers and answer.ranges
        body = answer.content[start:] if partial else answer.content
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(answer.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: next((n for n in (answer.breaks, answer.stalls) if n is not None), None)])
        if answer.stalls is not None:
            self.server.go_on.wait()
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


def address(server):
    return f"http://127.0.0.1:{server.server_port}/m"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch, tmp_path):
    """No pauses between tries, no proxy before this process, and an empty data folder."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("SLN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(pooch.core, "time", types.SimpleNamespace(sleep=lambda seconds: None))


def checksum(kind, content):
    return f"{kind}:{hashlib.new(kind, content).hexdigest()}"


def offer(monkeypatch, *contents):
    """Put files a, b, ... with these contents in the place of the released labels."""
    offered = tuple(
        download.File((f"labels/{name}", f"elsewhere/{name}"), checksum("sha256", content), f"far/{name}")
        for name, content in zip("abc", contents, strict=False)
    )
    monkeypatch.setattr(download, "SLN_LABELS", dataclasses.replace(download.SLN_LABELS, files=offered))


@pytest.fixture
def path(monkeypatch):
    """The place of the one file that "sln-labels" is in these tests: CONTENT."""
    offer(monkeypatch, CONTENT)
    return files.data_folder() / "labels" / "a"


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def part_of(path):
    return path.with_name(f"{path.name}.part")


def left_behind(path):
    """Names of the files beside `path`, without locks."""
    return sorted(p.name for p in path.parent.iterdir() if p.is_file() and not p.name.startswith("."))


# --- breaks and resumption ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "answers", "asked"),
    [
        (0, [], [0]),
        (0, [Answer(breaks=200_000)], [0, 200_000]),
        (
            0,
            [Answer(breaks=200_000), Answer(breaks=70_000), Answer(breaks=0)],
            [0, 200_000, 270_000, 270_000],
        ),
        (123_456, [], [123_456]),
        (123_456, [Answer(breaks=300_000, ranges=False), Answer(ranges=False)], [123_456, 300_000]),
        (len(CONTENT), [], [len(CONTENT)]),  # killed between the last byte and the file's name
        (0, [Answer(status=503), Answer(status=429)], [0, 0, 0]),
    ],
)
def test_after_breaks_the_bytes_are_the_servers_and_only_the_rest_is_asked_for(part, answers, asked, path):
    if part:
        put(part_of(path), CONTENT[:part])
    with serving(*answers) as server:
        assert download.get("sln-labels", mirror=address(server)) == [path]
    # a broken connection may lose the last bytes that it brought, at most one chunk
    assert len(server.asked) == len(asked)
    for got, first in zip(server.asked, asked, strict=True):
        assert first - download.CHUNK <= got <= first
    assert path.read_bytes() == CONTENT
    assert left_behind(path) == ["a"]


@pytest.mark.parametrize("part", [OTHER[:99_000], OTHER, OTHER + OTHER])
def test_a_file_that_changed_at_the_server_is_downloaded_again_from_its_start(part, path):
    put(part_of(path), part)
    with serving() as server:
        download.get("sln-labels", mirror=address(server))
        assert server.asked == [len(part), 0]
    assert path.read_bytes() == CONTENT


def wait_until(condition):
    deadline, pause = time.monotonic() + 60, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.01)


def test_an_interrupted_download_goes_on_when_it_is_started_again(path, monkeypatch):
    """Ctrl-C. The bytes are in the file already while the server is silent, so a kill keeps them too."""
    part, whole_chunks = part_of(path), 4 * download.CHUNK

    def interrupt():
        wait_until(lambda: part.exists() and part.stat().st_size == whole_chunks)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by tests in the background
    try:
        with serving(Answer(stalls=whole_chunks + 100)) as server:
            presses = threading.Thread(target=interrupt)
            presses.start()
            with pytest.raises(KeyboardInterrupt):
                download.get("sln-labels", mirror=address(server))
            presses.join()
            assert left_behind(path) == ["a.part"]
            download.get("sln-labels", mirror=address(server))
            assert server.asked == [0, whole_chunks]
    finally:
        signal.signal(signal.SIGINT, before)
    assert path.read_bytes() == CONTENT


def test_of_two_at_the_same_time_one_downloads_and_the_other_waits(path):
    with serving(Answer(stalls=1000)) as server:
        got = []
        threads = [
            threading.Thread(target=lambda: got.append(download.get("sln-labels", address(server))))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: server.asked == [0])
        server.go_on.set()
        for thread in threads:
            thread.join()
        assert server.asked == [0]
    assert sorted(got) == [[], [path]]


def test_a_large_download_shows_its_progress_and_a_small_one_does_not(path, monkeypatch, capsys):
    large = CONTENT * 21
    offer(monkeypatch, large, SMALL)
    with serving(Answer(large, breaks=3_400_000), Answer(large), default=Answer(SMALL)) as server:
        download.get("sln-labels", mirror=address(server))
    lines = [line for line in capsys.readouterr().err.splitlines() if " MB (" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"{download.SLN_LABELS.what}: 10/10 MB (")


# --- refusals -----------------------------------------------------------------------------------------------


def test_a_wrong_checksum_is_refused_and_its_bytes_are_gone(path, refused):
    with serving(default=Answer(OTHER)) as server:
        with refused("released noisy labels", "does not match", checksum("sha256", CONTENT), "--mirror"):
            download.get("sln-labels", mirror=address(server))
        assert server.asked == [0] * (1 + download.RETRIES)
    assert left_behind(path) == []


@pytest.mark.parametrize(("status", "word"), [(404, "404"), (403, "403"), (500, "500")])
def test_a_servers_refusal_is_passed_on_in_one_line(status, word, path, refused):
    with serving(default=Answer(status=status)) as server, refused("released noisy labels", word, "--mirror"):
        download.get("sln-labels", mirror=address(server))


def test_a_silent_server_is_given_up_and_the_part_is_kept(path, refused, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    with serving(Answer(stalls=100_000), default=Answer(stalls=0)) as server, refused("timed out"):
        download.get("sln-labels", mirror=address(server))
    assert part_of(path).read_bytes() == CONTENT[: download.CHUNK]


def test_without_network_one_line_names_the_way_out(path, refused):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        by_hand = f"put {download.SLN_LABELS.address}/far/a at {path}"
        with refused("check the network", "refused", "--mirror", by_hand):
            download.get("sln-labels", mirror=f"http://127.0.0.1:{taken.getsockname()[1]}")


def test_a_folder_that_cannot_be_written_to_is_named(path, refused):
    files.data_folder().write_text("a file, no folder")
    with refused("cannot get", str(files.data_folder()), "can be written to"):
        download.get("sln-labels")


def test_a_folder_of_files_is_a_mirror_and_other_kinds_of_address_are_refused(path, tmp_path, refused):
    put(tmp_path / "disk" / "far" / "a", CONTENT)
    download.get("sln-labels", mirror=(tmp_path / "disk").as_uri())
    assert path.read_bytes() == CONTENT
    with refused("'ftp://127.0.0.1/x'", "http, https or file"):
        download.get("sln-labels", mirror="ftp://127.0.0.1/x")
    with refused("'cifar-10'", "did you mean 'cifar10'"):
        download.get("cifar-10")


# --- files and messages -------------------------------------------------------------------------------------


def test_only_missing_and_wrong_files_are_downloaded_and_wrong_ones_are_renamed(monkeypatch, capsys):
    offer(monkeypatch, CONTENT, SMALL)
    folder = files.data_folder()
    put(folder / "elsewhere/a", CONTENT)
    put(folder / "labels/b", b"damaged")
    assert not download.present("sln-labels")
    with serving(default=Answer(SMALL)) as server:
        assert download.get("sln-labels", mirror=address(server)) == [folder / "labels/b"]
        assert download.get("sln-labels", mirror=address(server)) == []
        assert server.paths == ["/m/far/b"]
    assert download.present("sln-labels")
    assert (folder / "labels/b").read_bytes() == SMALL
    assert (folder / "labels/b.wrong-checksum").read_bytes() == b"damaged"
    assert "b.wrong-checksum" in capsys.readouterr().err


def test_the_error_for_a_missing_file_names_its_places_and_the_way_out(path):
    message = str(download.missing("sln-labels"))
    remote = f"{download.SLN_LABELS.address}/far/a"
    for words in ("labels/a", "elsewhere/a is missing", remote, "`python -m sln data get sln-labels`"):
        assert words in message
    put(path, b"damaged")
    assert f"{path} is not the published file ({checksum('sha256', CONTENT)})" in str(
        download.missing("sln-labels")
    )


def test_the_listing_shows_every_source_and_what_is_there(path):
    put(path, CONTENT)
    table = download.listing().set_index("name")
    assert list(table.index) == list(download.NAMES)
    assert table["present"].to_dict() == {name: name == "sln-labels" for name in download.NAMES}
    assert table["where"]["sln-labels"] == str(path.parent)
    assert "CC BY-NC 4.0" in table["licence"]["cifar-n"]


@pytest.mark.parametrize("name", download.NAMES)
def test_every_source_has_places_of_its_own_below_the_data_folder_and_whole_checksums(name):
    of = download.source(name)
    assert len({file.places[0] for file in of.files}) == len(of.files)
    for file in (*of.files, *([of.archive] if of.archive else [])):
        assert not any(place.startswith("/") or ".." in place for place in file.places)
        kind, digits = file.checksum.split(":")
        assert len(bytes.fromhex(digits)) == hashlib.new(kind).digest_size
    assert of.address.startswith("https://")


def test_the_weights_name_has_the_start_of_their_checksum():
    (weights,) = download.source("resnet50").files
    assert weights.remote == f"resnet50-{weights.checksum.removeprefix('sha256:')[:8]}.pth"


# --- CIFAR --------------------------------------------------------------------------------------------------


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
def mini(request, monkeypatch):
    """CIFAR in miniature, its MD5s in the place of the published ones."""
    return cifar_miniature.make(request.param, monkeypatch)


def archived(mini, monkeypatch, **changes):
    """The archive of all files, some changed or more; its MD5 is now the expected one."""
    members = {f"{mini.folder}/{name}": content for name, content in mini.contents.items()}
    content = tar((members | changes).items())
    monkeypatch.setattr(mini.kind, "tgz_md5", hashlib.md5(content).hexdigest())
    return content


@pytest.mark.parametrize("layout", ["", "of the released script"])
def test_cifar_is_read_as_it_was_written(mini, layout):
    mini.lay(files.data_folder() / (download.DATAPATHS[mini.name] if layout else ""))
    assert download.present(mini.name)
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


def test_no_file_of_cifar_is_read_before_every_one_has_its_md5(mini, tmp_path, refused):
    for name in mini.contents:
        mini.lay(files.data_folder())
        path = files.data_folder() / mini.folder / name
        path.write_bytes(pickle.dumps(Evil(tmp_path / "ran"), protocol=2))
        expected = checksum("md5", mini.contents[name])
        for train in (True, False):
            with refused(f"{path} is not", expected, f"`python -m sln data get {mini.name}`"):
                read_cifar(mini.name, train)
    assert not (tmp_path / "ran").exists()
    assert not download.present(mini.name)
    pickle.loads(path.read_bytes())  # noqa: S301  the file does run code when it is read
    assert (tmp_path / "ran").exists()


def test_a_complete_copy_is_used_if_the_other_is_damaged(mini):
    mini.lay(files.data_folder())
    mini.lay(files.data_folder() / download.DATAPATHS[mini.name])
    (files.data_folder() / mini.folder / mini.kind.meta["filename"]).write_bytes(b"")
    assert read_cifar(mini.name, True)[1].tolist() == mini.labels[True]


def test_missing_cifar_is_refused_with_the_command_and_the_way_without_network(mini, refused):
    folder, first = files.data_folder(), mini.kind.train_list[0][0]
    both = (str(folder / mini.folder / first), str(folder / download.DATAPATHS[mini.name] / mini.folder))
    with refused(*both, f"python -m sln data get {mini.name}", f"put {mini.kind.url} into {folder}"):
        read_cifar(mini.name, True)
    mini.lay(folder)
    test = folder / mini.folder / mini.kind.test_list[0][0]
    test.unlink()
    with refused(f"{test} or", "is missing", f"python -m sln data get {mini.name}"):
        read_cifar(mini.name, True)
    with refused("'cifar'", "cifar10, cifar100"):
        read_cifar("cifar", True)


def test_cifar_is_downloaded_unpacked_and_its_archive_removed(mini, monkeypatch):
    archive = Answer(archived(mini, monkeypatch))
    with serving(Answer(status=503), default=archive) as server:
        got = download.get(mini.name, mirror=f"{address(server)}/{mini.kind.filename}")  # the file itself
        assert set(server.paths) == {f"/m/{mini.kind.filename}"}
        assert {path.name: path.read_bytes() for path in got} == mini.contents
        assert left_behind(files.data_folder() / "any") == []
        assert read_cifar(mini.name, False)[1].tolist() == mini.labels[False]
        (files.data_folder() / f".{mini.name}.lock").unlink()
        (files.data_folder() / f".{mini.name}.lock").mkdir()  # as in a folder that cannot be written to
        assert download.get(mini.name, mirror=address(server)) == []
        assert len(server.asked) == 2


def test_an_archive_with_a_wrong_checksum_is_not_unpacked(mini, monkeypatch, refused):
    archived(mini, monkeypatch)
    words = (mini.kind.filename, "does not match", f"md5:{mini.kind.tgz_md5}")
    with serving(default=Answer(tar([(f"{mini.folder}/x", b"other")]))) as server, refused(*words):
        download.get(mini.name, mirror=address(server))
    assert not (files.data_folder() / mini.folder).exists()


def test_of_an_archive_put_there_by_hand_only_the_damaged_file_is_unpacked(mini, monkeypatch):
    mini.lay(files.data_folder())
    damaged = files.data_folder() / mini.folder / mini.kind.train_list[-1][0]
    damaged.write_bytes(b"scratched")
    before = {path: path.stat().st_ino for path in damaged.parent.iterdir() if path != damaged}
    put(files.data_folder() / mini.kind.filename, archived(mini, monkeypatch))
    with serving(default=Answer(status=404)) as server:
        assert download.get(mini.name, mirror=address(server)) == [damaged]
        assert server.asked == []
    assert (files.data_folder() / mini.kind.filename).exists()
    assert download.present(mini.name)
    assert damaged.with_name(f"{damaged.name}.wrong-checksum").read_bytes() == b"scratched"
    assert {path: path.stat().st_ino for path in before} == before


def test_nothing_but_the_listed_files_leaves_an_archive(mini, monkeypatch, tmp_path, refused):
    outside, name = tmp_path / "outside", f"{mini.folder}/{mini.kind.test_list[0][0]}"
    more = {"../outside": b"x", str(outside): b"x", f"{mini.folder}/../../outside": b"x",
            f"{mini.folder}/extra": b"x", f"{mini.folder}/link": str(outside)}  # fmt: skip
    put(files.data_folder() / mini.kind.filename, archived(mini, monkeypatch, **more))
    download.get(mini.name)
    assert not outside.exists()
    assert {p.name for p in (files.data_folder() / mini.folder).iterdir()} == set(mini.contents)
    (files.data_folder() / name).unlink()
    put(files.data_folder() / mini.kind.filename, archived(mini, monkeypatch, **{name: "/etc/hostname"}))
    with refused(mini.kind.filename, f"no file {name}"):
        download.get(mini.name)
    assert not os.path.lexists(files.data_folder() / name)


def test_data_that_exist_are_read_without_pooch(mini, monkeypatch):
    """A GPU machine may lack it."""
    monkeypatch.setitem(sys.modules, "pooch", None)  # importing it fails
    runpy.run_path(download.__file__)
    mini.lay(files.data_folder())
    assert download.get(mini.name) == []
    assert read_cifar(mini.name, False)[1].tolist() == mini.labels[False]
    with pytest.raises(ModuleNotFoundError, match="pooch"):
        download.get("sln-labels")


# --- the real files -----------------------------------------------------------------------------------------


def test_the_real_cifar10_has_its_published_shape_and_balance(monkeypatch):
    monkeypatch.delenv("SLN_DATA")
    if not download.present("cifar10"):
        pytest.skip(f"CIFAR-10 is not in {files.data_folder()}; `python -m sln data get cifar10` gets it")
    for train, each in ((True, 5000), (False, 1000)):
        images, labels, classes = read_cifar("cifar10", train)
        assert images.shape == (10 * each, 3, 32, 32)
        assert np.bincount(labels).tolist() == [each] * 10
    assert classes[3] == "cat"
    assert classes[9] == "truck"
