"""Downloads that go on where they broke off, and that are used only if their checksum is right."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sln.utils.errors import InputError, require
from sln.utils.progress import Progress

TIMEOUT = 30.0  # seconds without a byte after which a connection counts as dead
TRIES = 5  # connections in a row that bring nothing new before giving up
PAUSE = 1.0  # seconds before the second of them; each further pause is twice as long
CHUNK = 1 << 16
MB = 1_000_000
SHOWN_FROM = 10 * MB  # smaller files come without progress


class _Broken(Exception):
    """A connection that brought no more.

    reached : whether there was a server at all
    hopeless : whether asking again cannot help
    restart : whether the bytes that are here are no beginning of the server's file
    """

    def __init__(
        self, reason: object, *, reached: bool = True, hopeless: bool = False, restart: bool = False
    ) -> None:
        told = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        super().__init__(" ".join(told.split()))
        self.reached, self.hopeless, self.restart = reached, hopeless, restart


def download(url: str, path: Path, checksum: str, *, what: str) -> Path:
    """Get `what` from `url` to `path`; returns `path`, whose bytes then have that checksum.

    Bytes go to `<path>.part`, which an interrupted download leaves for the next one, of any process and any
    mirror; `path` appears whole or not at all. A connection that breaks, or is silent for TIMEOUT seconds, is
    made again, and only the rest is asked for (HTTP Range). A server that cannot do that, or whose file is
    another by now, is asked for everything again. One process at a time downloads to a path, others wait.

    Parameters
    ----------
    url : http, https or file. Any mirror will do, since the checksum decides.
    checksum : `sha256:` or `md5:` and hex digits; of SHA-256 the leading 8 or more suffice

    A file at `path` that is right is left as it is; a wrong one is set aside as `<path>.wrong-checksum`, and
    so is a download that came out wrong. Raises InputError then, and where nothing can be got or written.
    """
    path = Path(path)
    require(
        url.split(":")[0].lower() in ("http", "https", "file"),
        f"cannot get {what} from {url!r}: allowed are addresses that start with http, https or file",
    )
    part = path.with_name(f"{path.name}.part")
    with held(path), _writing(path):
        if verified(path, checksum):
            return path
        if path.exists():
            set_aside(path, checksum)
        if not verified(part, checksum):
            joined = _fetch(url, part, path, what)
            if joined and not verified(part, checksum):
                part.unlink()  # pieces of different files; all in one piece it can still be right
                _fetch(url, part, path, what)
        if not verified(part, checksum):
            aside = _aside(path)
            os.replace(part, aside)
            raise InputError(
                f"{what} from {url} has {difference(aside, checksum)}; it is kept as {aside} and not used: "
                "try again, or name another mirror"
            )
        os.replace(part, path)
    return path


def verified(path: Path, checksum: str) -> bool:
    """Whether `path` is a file with that checksum."""
    kind, digits = _parsed(checksum)
    return path.is_file() and _digest(path, kind).startswith(digits)


def difference(path: Path, checksum: str) -> str:
    """`SHA-256 12ab..., expected 34cd...`: the checksum that `path` has, and the one that it should have."""
    kind, digits = _parsed(checksum)
    shown = {"sha256": "SHA-256", "md5": "MD5"}[kind]
    return f"{shown} {_digest(path, kind)[: len(digits)]}, expected {digits}"


def set_aside(path: Path, checksum: str) -> None:
    """Rename a file with a wrong checksum to `<path>.wrong-checksum`, in the place of an earlier one."""
    print(f"{path} has {difference(path, checksum)}; it is now {_aside(path)}", file=sys.stderr)
    os.replace(path, _aside(path))


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Held by one process at a time: a lock beside `path`, which the system frees when its holder dies."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{path.name}: waiting for another process, which is getting it now", file=sys.stderr)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(url: str, part: Path, path: Path, what: str) -> bool:
    """Fill `part` until it is whole. Returns whether its bytes came over more than one connection."""
    most, whole, failures, reached = _size(part), None, 0, False
    while True:
        have = _size(part)
        try:
            with _open(url, have) as response:
                start, total = _extent(response)
                if start not in (0, have) or (start and whole not in (None, total)):
                    raise _Broken("the server's file is another than before", restart=True)
                whole = total
                _copy(response, part, start, whole, what)
                if whole in (None, _size(part)):
                    return start > 0
                raise _Broken(f"the connection closed after {_size(part):,} of {whole:,} bytes")
        except _Broken as broken:
            if broken.restart:
                part.unlink(missing_ok=True)
            failures = 1 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            reached |= broken.reached
            # a host that was never reached is mostly a machine without network, which need not wait
            if broken.hopeless or not reached or failures == TRIES:
                tries = f" ({failures} tries)" if failures > 1 else ""
                raise InputError(
                    f"cannot get {what} from {url}: {broken}{tries}; check the network or name another "
                    f"mirror, or put the file at {path} yourself and run this again"
                ) from None
        time.sleep(PAUSE * 2 ** (failures - 1))


def _open(url: str, start: int) -> Any:
    """The server's answer, asked for everything from byte `start` on."""
    headers = {"User-Agent": "sln"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        beyond = error.code == 416 and start > 0  # asked for bytes after the end of the server's file
        again = beyond or error.code >= 500 or error.code in (408, 429)
        raise _Broken(f"HTTP {error.code} {error.reason}", hopeless=not again, restart=beyond) from None
    except urllib.error.URLError as error:
        raise _Broken(error.reason, reached=False) from None
    except (ValueError, http.client.InvalidURL) as error:  # no address at all
        raise _Broken(error, hopeless=True) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(error) from None


def _extent(response: Any) -> tuple[int, int | None]:
    """Where the answer's bytes start, and how long the whole file is, if the server says so."""
    length = response.headers.get("Content-Length")
    if response.status != 206:
        return 0, None if length is None else int(length)
    sent = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
    if sent is None:
        return -1, None
    return int(sent[1]), int(sent[2]) + 1 if sent[3] == "*" else int(sent[3])


def _copy(response: Any, part: Path, start: int, whole: int | None, what: str) -> None:
    """Append the answer's bytes to `part`, each as soon as it comes; from `start` 0 on `part` is new."""
    done, total = start, (whole or 0) // MB
    with (
        open(part, "ab" if start else "wb", buffering=0) as file,
        Progress(total, what, "MB", done=done // MB, quiet=(whole or 0) < SHOWN_FROM) as progress,
    ):
        while chunk := _read(response):
            done += len(chunk)
            while chunk:
                chunk = chunk[file.write(chunk) :]  # a file without buffer may take a part only
            while progress.done < done // MB:
                progress.advance()


def _read(response: Any) -> bytes:
    """What is there now, at most CHUNK bytes: a larger read would lose its first half when it breaks."""
    try:
        return response.read1(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(error) from None


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """An OSError in here is about the disk, for those of the network are _Broken."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; free some space there or set SLN_DATA to a "
            "folder that can be written to"
        ) from None


def _parsed(checksum: str) -> tuple[str, str]:
    kind, _, digits = checksum.lower().partition(":")
    allowed = {"sha256": "[0-9a-f]{8,64}", "md5": "[0-9a-f]{32}"}
    require(
        kind in allowed and re.fullmatch(allowed[kind], digits) is not None,
        f"checksum is {checksum!r}, allowed are sha256:<8 to 64 hex digits> and md5:<32 hex digits>",
    )
    return kind, digits


def _digest(path: Path, kind: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.wrong-checksum")
