"""Files are either whole or not there."""

import errno
import os
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sln.utils import files
from sln.utils.errors import InputError


def contents(folder):
    """Every file below `folder`, byte for byte."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@settings(deadline=None, max_examples=30)
@given(old=st.none() | st.binary(), new=st.binary())
def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(old, new):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deeper" / "file.bin"
        if old is not None:
            files.write_atomically(path, lambda temporary: temporary.write_bytes(old))
        files.write_atomically(path, lambda temporary: temporary.write_bytes(new))
        assert contents(Path(folder)) == {Path("deeper/file.bin"): new}


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), ValueError("x"), KeyboardInterrupt(), SystemExit(1)]
)
@pytest.mark.parametrize("old", [None, b"old"])
def test_whatever_the_writer_raises_the_old_file_stays_and_nothing_is_left(error, old, tmp_path):
    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)

    def half(temporary):
        temporary.write_bytes(b"half of the n")
        raise error

    with pytest.raises(InputError if isinstance(error, OSError) else type(error)):
        files.write_atomically(path, half)
    assert contents(tmp_path) == ({} if old is None else {Path("file.bin"): old})


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("old", [{}, {"a": "old a", "b": "old b", "c": "old c"}])
@pytest.mark.parametrize("failing", ["a", "b", "c", None])
def test_files_are_written_together_or_not_at_all(count, old, failing, tmp_path, monkeypatch, refused):
    new = {tmp_path / name: f"new {name}" for name in "abc"[:count]}
    for name, text in old.items():
        (tmp_path / name).write_text(text)
    before, write = contents(tmp_path), Path.write_text

    def full(path, text, **options):
        if text == f"new {failing}":
            write(path, text[:3], **options)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", full)
    if tmp_path / str(failing) in new:
        with refused(f"cannot write {tmp_path / failing}: No space left", "free some space"):
            files.write_together(new)
        assert contents(tmp_path) == before
    else:
        files.write_together(new)
        written = {path.relative_to(tmp_path): text.encode() for path, text in new.items()}
        assert contents(tmp_path) == before | written


@pytest.mark.parametrize("folder", ["a", "b"])
def test_no_file_is_written_where_another_s_name_is_a_folder(folder, tmp_path, refused):
    (tmp_path / folder).mkdir()
    with refused(f"cannot write {tmp_path / folder}: Is a directory"):
        files.write_together({tmp_path / "a": "new", tmp_path / "b": "new"})
    assert contents(tmp_path) == {}


def test_a_reader_finds_the_old_content_or_the_new_and_never_half(tmp_path):
    path, whole, stop = tmp_path / "file.bin", {bytes([i]) * 200_000 for i in range(2)}, threading.Event()
    path.write_bytes(min(whole))
    seen = []

    def read():
        while not stop.is_set():
            seen.append(path.read_bytes())

    weights = threading.Thread(target=read)
    weights.start()
    for _ in range(50):
        for content in sorted(whole, reverse=True):
            files.write_atomically(path, lambda temporary, content=content: temporary.write_bytes(content))
    stop.set()
    weights.join()
    assert set(seen) == whole


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_can_be_read_by_those_who_can_read_an_ordinary_file(mask, tmp_path):
    before = os.umask(mask)
    try:
        files.write_text(tmp_path / "file.txt", "σ\n")
    finally:
        os.umask(before)
    assert (tmp_path / "file.txt").read_bytes() == "σ\n".encode()
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize(
    ("content", "words"), [(None, "is missing"), ("{", "not a readable JSON file"), ("[1]", "holds a list")]
)
def test_a_json_file_that_holds_no_object_is_named(content, words, tmp_path, refused):
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with refused(str(tmp_path / "a.json"), words):
        files.read_json(tmp_path / "a.json")


def test_a_lock_is_free_again_after_an_error():
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), files.lock("a run"):
            raise ZeroDivisionError
