"""Lays out what a session finds in its folder, the same way each time, and takes it away."""

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from secrets import token_hex

from trae_bench.errors import CannotMeasure
from trae_bench.scenario import GeneratedFiles, WorkspaceFixture

_WORDS = ("account", "batch", "digest", "entry", "field", "gauge", "header", "index", "journal")
_BODY_LINES = 6
"""Lines of each function but its head."""


@contextmanager
def room_for_trials(place: str) -> Iterator[None]:
    """Whatever the file system refuses in here ends in `CannotMeasure`, with the remedy."""
    try:
        yield
    except OSError as error:
        raise CannotMeasure(
            f"no trial can be run in {place}: {error.strerror or error}; free some space there, "
            "or name another folder in the environment variable TMPDIR"
        ) from error


def create_home(folder: Path) -> Path:
    """Create the home folder of a trial, with its folder for temporary files."""
    home = folder / "home"
    (home / "tmp").mkdir(parents=True)
    return home


def lay_out(fixture: WorkspaceFixture, folder: Path) -> None:
    """Write generated files, then single ones, into an existing folder.

    The fixture's own `folder` was read into its files when its scenario was loaded.
    """
    if fixture.generate is not None:
        for relative, text in generated(fixture.generate):
            _write(folder / relative, text)
    for relative, text in fixture.files.items():
        _write(folder / relative, text)


def generated(wish: GeneratedFiles) -> Iterator[tuple[str, str]]:
    """Path and text of each file: Python that means nothing, of exactly the size drawn."""
    for number in range(1, wish.files + 1):
        # Each file has a generator of its own: more files leave the first ones as they were.
        random = Random(f"{wish.seed}/{number}")
        size = _size(random, wish.bytes_low, wish.bytes_high)
        yield wish.pattern.replace("{n}", str(number)), _program(random, size)


def _size(random: Random, low: int, high: int) -> int:
    drawn = math.exp(random.uniform(math.log(max(low, 1)), math.log(max(high, 1))))
    return min(max(round(drawn), low), high)


def _program(random: Random, size: int) -> str:
    blocks, length = [], 0
    while length < size:
        blocks.append(_function(random))
        length += len(blocks[-1])
    text = "".join(blocks)[:size]
    # A file that ends within a line is unlike what editors leave.
    return text[:-1] + "\n" if text else ""


def _function(random: Random) -> str:
    def word() -> str:
        return random.choice(_WORDS)

    name, first, second = f"{word()}_{word()}_{random.randrange(10_000)}", word(), word()
    lines = [f"def {name}({first}: int, {second}_size: int = {random.randrange(100)}) -> int:"]
    lines += [
        f"    {word()} = {first} * {random.randrange(1000)} + {second}_size  # the {word()}'s"
        for _ in range(_BODY_LINES)
    ]
    return "\n".join([*lines, f"    return {first}", "", "", ""])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")


def remove(folder: Path) -> None:
    """Remove a trial's folder, also where the trial took away the right to, or nested folders
    deeper than the stack has room for."""
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except (PermissionError, RecursionError):
        _flatten(folder)
        shutil.rmtree(folder)


def _flatten(folder: Path) -> None:
    """Give back the right to all folders below, each as a child of this one."""
    todo = [folder]
    while todo:
        here = todo.pop()
        here.chmod(0o700)
        for entry in list(here.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                # Nobody may enter it, not even to move it, before it is unlocked.
                entry.chmod(0o700)
                todo.append(entry.rename(folder / token_hex(16)))
