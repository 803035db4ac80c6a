"""Progress: a bar if a person watches, otherwise a line every ten seconds."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

from tqdm.auto import tqdm

SECONDS_BETWEEN_LINES = 10.0


def watched() -> bool:
    """Whether a person sees the output: in a terminal, or in a notebook that is not executed headlessly."""
    if os.environ.get("SLN_HEADLESS"):
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class Progress:
    """A context manager that counts `total` steps of `what`."""

    def __init__(self, total: int, what: str, unit: str, *, done: int = 0, quiet: bool = False) -> None:
        self.total, self.what, self.unit, self.done, self.quiet = total, what, unit, done, quiet
        self._first, self._start = done, time.monotonic()
        self._last_line = self._start
        self._bar = tqdm(total=total, initial=done, desc=what, unit=unit) if watched() and not quiet else None

    def __enter__(self) -> Progress:
        return self

    def advance(self, **facts: float | str) -> None:
        """Count one step and show the facts, for example `loss=0.3`, beside the time left."""
        self.done += 1
        shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in facts.items()}
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update()
        elif not self.quiet and (
            time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES or self.done == self.total
        ):
            self._last_line = time.monotonic()
            self._line(shown)

    def _line(self, facts: dict[str, object]) -> None:
        elapsed = time.monotonic() - self._start
        left = elapsed / max(1, self.done - self._first) * (self.total - self.done)
        parts = [f"{name} {value}" for name, value in facts.items()]
        shown = ", ".join([*parts, f"{elapsed:.0f} s", f"{left:.0f} s left"])
        print(f"{self.what}: {self.done}/{self.total} {self.unit} ({shown})", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
