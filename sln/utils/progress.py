"""Progress: a bar if a person watches, otherwise a line every ten seconds."""

import contextlib
import os
import sys
import time

from tqdm.auto import tqdm

SECONDS_BETWEEN_LINES = 10.0


def headless() -> bool:
    """Whether `reproduce` executes this notebook, without a person who watches."""
    return bool(os.environ.get("SLN_HEADLESS"))


class Progress(contextlib.AbstractContextManager):
    """A context manager that counts `total` steps of `what`.

    A person watches in a terminal, or in a notebook that is not executed headlessly.
    """

    def __init__(self, total: int, what: str, unit: str, *, done: int = 0, quiet: bool = False) -> None:
        self.total, self.what, self.unit, self.done, self.quiet = total, what, unit, done, quiet
        self._first, self._start = done, time.monotonic()
        self._last_line = self._start
        watched = sys.stderr.isatty() or "ipykernel" in sys.modules
        bar = watched and not quiet and not headless()
        self._bar = tqdm(total=total, initial=done, desc=what, unit=unit) if bar else None

    def advance(self, **facts: float | str) -> None:
        """Count one step and show the facts, for example `loss=0.3`, beside the time left."""
        self.done += 1
        shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in facts.items()}
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update()
        elif not self.quiet and (now - self._last_line > SECONDS_BETWEEN_LINES or self.done == self.total):
            self._last_line, elapsed = now, now - self._start
            left = elapsed / max(1, self.done - self._first) * (self.total - self.done)
            parts = [f"{name} {value}, " for name, value in shown.items()]
            line = f"{''.join(parts)}{elapsed:.0f} s, {left:.0f} s left"
            print(f"{self.what}: {self.done}/{self.total} {self.unit} ({line})", file=sys.stderr, flush=True)

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
