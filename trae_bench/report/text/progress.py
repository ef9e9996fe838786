"""The line that tells where a run stands: redrawn on a terminal, now and then elsewhere."""

import os
import shutil
from typing import TextIO

from trae_bench.model.experiment import Cell
from trae_bench.report.escape import cut, for_terminal
from trae_bench.report.text.listing import count
from trae_bench.run.scheduler import Clock, Listener, Progress
from trae_bench.stats.pairs import first_and_last_line

QUIET_SECONDS = 10.0
"""Between two plain lines where the output is no terminal."""

BAR_WIDTH = 10


class ProgressLine(Listener):
    """Follows a session on a stream. A context manager; on leaving, the line is wiped."""

    def __init__(self, stream: TextIO, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        # A dumb one shows what would wipe the line.
        self._live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._last = float("-inf")
        self._told: set[tuple[str, str]] = set()

    def pair_starts(self, progress: Progress) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[K{line(progress, width)}")
        elif self._clock() - self._last >= QUIET_SECONDS:
            self._last = self._clock()
            self._write(line(progress, 79, bar=False) + "\n")

    def pair_lost(self, cell: Cell, pair: int, reason: str) -> None:
        """The whole story once, then only that it happened again."""
        told = reason.splitlines()
        story = (cell.scenario, first_and_last_line(reason))
        if len(told) > 1 and story in self._told:
            told = [f"{told[0].removesuffix(':')} as before"]
        self._told.add(story)
        first, *rest = [for_terminal(text) for text in told] or ["no reason known"]
        self.say("\n    ".join([f"{name_of(cell)}, pair {pair} lost: {first}", *rest]))

    def cell_given_up(self, cell: Cell, reason: str) -> None:
        self.say(f"{name_of(cell)}: given up, {reason}")

    def say(self, text: str) -> None:
        """A line that stays, above the one that is redrawn."""
        self._write(f"\r\x1b[K{text}\n" if self._live else f"{text}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._write("\r\x1b[K")


def line(progress: Progress, width: int, *, bar: bool = True) -> str:
    """Share of the expected time, pairs done, time left, and what is being run."""
    # Nothing is known of the time before the first pair has ended.
    known = progress.left > 0 or progress.pairs > 0
    total = progress.elapsed + progress.left
    share = min(1.0, progress.elapsed / total) if known and total else 0.0
    filled = round(share * BAR_WIDTH)
    drawn = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}]" if bar else f"{share:4.0%}"
    left = f"{clock(progress.left)} left" if known else "starting"
    done = f"{count(progress.pairs, 'pair')}, {progress.open_cells} open"
    return cut(f"{drawn} {left}, {done}: {name_of(progress.cell)}", width)


def clock(seconds: float) -> str:
    """`m:ss`, rounded up: a promise is not to be broken by a second."""
    whole = int(-(-seconds // 1))
    return f"{whole // 60}:{whole % 60:02d}"


def name_of(cell: Cell) -> str:
    scenario, contrast = for_terminal(cell.scenario, 40), for_terminal(cell.contrast.name, 40)
    return f"{scenario} {contrast} ({cell.mode})"
