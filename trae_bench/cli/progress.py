"""The progress line of `run` and `doctor`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from trae_bench.report.text.progress import ProgressLine
from trae_bench.run.scheduler import Listener, Progress


class _LostPairsOnly(ProgressLine):
    """Prints lost pairs, which are errors, but no progress."""

    def pair_starts(self, progress: Progress) -> None:
        pass


@contextmanager
def progress(stream: TextIO, *, quiet: bool) -> Iterator[tuple[Callable[[str], None], Listener]]:
    """A function that prints messages and a listener that prints progress.

    With `quiet`, no messages and no progress are printed, only lost pairs.
    """
    kind = _LostPairsOnly if quiet else ProgressLine
    with kind(stream, time.monotonic) as line:
        yield (lambda _: None) if quiet else line.say, line
