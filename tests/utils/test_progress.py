"""Progress as lines, as a bar, and not at all."""

import pytest

from sln.utils import progress
from sln.utils.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """The time that `progress` sees: a list of one number."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_comes_every_ten_seconds_and_at_the_end(clock, capsys):
    with Progress(5, "a run", "epochs", done=1) as shown:
        for seconds in (6, 6, 1, 1):
            clock[0] += seconds
            shown.advance(loss=0.12345, where="here")
    first, last = capsys.readouterr().err.splitlines()
    assert first == "a run: 3/5 epochs (loss 0.123, where here, 12 s, 12 s left)"
    assert last == "a run: 5/5 epochs (loss 0.123, where here, 14 s, 0 s left)"


def test_quiet_shows_nothing(capsys):
    with Progress(1, "a run", "epochs", quiet=True) as shown:
        shown.advance()
    assert shown.done == 1
    assert capsys.readouterr() == ("", "")


def test_in_a_terminal_there_is_a_bar(monkeypatch, capsys):
    monkeypatch.delenv("SLN_HEADLESS")
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    with Progress(2, "a run", "epochs") as shown:
        shown.advance(loss=0.5)
        shown.advance(loss=0.25)
    assert "2/2" in capsys.readouterr().err
