"""The progress line of a run: redrawn on a terminal, printed at intervals elsewhere."""

import os
import shutil
from typing import TextIO

from trae_bench.model.experiment import Cell
from trae_bench.report.escape import cut, for_terminal
from trae_bench.report.text.listing import count
from trae_bench.run.scheduler import Clock, Listener, Progress
from trae_bench.stats.head_runs import HeadRuns
from trae_bench.stats.pairs import first_and_last_line

QUIET_SECONDS = 10.0
"""Time between two lines if the output is not a terminal."""

BAR_WIDTH = 10


class ProgressLine(Listener):
    """A context manager that shows the progress of a session and clears its line on exit."""

    def __init__(self, stream: TextIO, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        # A dumb terminal prints the control sequence that clears the line.
        self._live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._last = float("-inf")
        self._reported: set[tuple[str, str]] = set()

    def pair_starts(self, progress: Progress) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[K{line(progress, width)}")
        elif self._clock() - self._last >= QUIET_SECONDS:
            self._last = self._clock()
            self._write(line(progress, 79, bar=False) + "\n")

    def checks_start(self, runs: HeadRuns) -> None:
        if self._live:
            name = for_terminal(runs.scenario, 40)
            text = f"answers of head: {runs.total} of {runs.wanted} runs, {name}"
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[K{cut(text, width)}")

    def pair_lost(self, cell: Cell, pair: int, reason: str) -> None:
        """Prints the whole reason once; a repeated reason only by its first line."""
        lines = reason.splitlines()
        key = (cell.scenario, first_and_last_line(reason))
        if len(lines) > 1 and key in self._reported:
            lines = [f"{lines[0].removesuffix(':')} as before"]
        self._reported.add(key)
        first, *rest = [for_terminal(text) for text in lines] or ["unknown reason"]
        self.say("\n    ".join([f"{name_of(cell)}, pair {pair} lost: {first}", *rest]))

    def cell_given_up(self, cell: Cell, reason: str) -> None:
        self.say(f"{name_of(cell)}: given up, {reason}")

    def say(self, text: str) -> None:
        """Prints a permanent line above the progress line."""
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
    """The share of the expected time, the time left, the pairs done, and the current cell."""
    # The expected time is unknown until the first pair ends.
    known = progress.left > 0 or progress.pairs > 0
    total = progress.elapsed + progress.left
    share = min(1.0, progress.elapsed / total) if known and total else 0.0
    filled = round(share * BAR_WIDTH)
    meter = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}]" if bar else f"{share:4.0%}"
    left = f"{clock(progress.left)} left" if known else "starting"
    done = f"{count(progress.pairs, 'pair')}, {progress.open_cells} open"
    return cut(f"{meter} {left}, {done}: {name_of(progress.cell)}", width)


def clock(seconds: float) -> str:
    """`m:ss`, rounded up, so that a run does not exceed the time shown."""
    whole = int(-(-seconds // 1))
    return f"{whole // 60}:{whole % 60:02d}"


def name_of(cell: Cell) -> str:
    scenario, contrast = for_terminal(cell.scenario, 40), for_terminal(cell.contrast.name, 40)
    return f"{scenario} {contrast} ({cell.mode})"
