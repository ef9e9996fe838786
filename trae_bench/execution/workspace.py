"""Creates the folders of a trial, with the same files each time, and removes them."""

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
"""Lines in the body of each generated function."""


@contextmanager
def room_for_trials(place: str) -> Iterator[None]:
    """Turn an `OSError` of the block into `CannotMeasure`, with the remedy."""
    try:
        yield
    except OSError as error:
        raise CannotMeasure(
            f"cannot run trials in {place}: {error.strerror or error}; free some space there, "
            "or set the environment variable TMPDIR to another folder"
        ) from error


def create_home(folder: Path) -> Path:
    """Create the home folder of a trial, with its folder for temporary files."""
    home = folder / "home"
    (home / "tmp").mkdir(parents=True)
    return home


def lay_out(fixture: WorkspaceFixture, folder: Path) -> None:
    """Write the generated files, then the listed ones, into an existing folder.

    The loader has already read the fixture's `folder` into its files.
    """
    if fixture.generate is not None:
        for relative, text in generated(fixture.generate):
            _write(folder / relative, text)
    for relative, text in fixture.files.items():
        _write(folder / relative, text)


def generated(request: GeneratedFiles) -> Iterator[tuple[str, str]]:
    """Yield path and text of each file: meaningless Python code of a random size."""
    for number in range(1, request.files + 1):
        # One random generator per file, so that adding files does not change the others.
        random = Random(f"{request.seed}/{number}")
        size = _size(random, request.bytes_low, request.bytes_high)
        yield request.pattern.replace("{n}", str(number)), _program(random, size)


def _size(random: Random, low: int, high: int) -> int:
    drawn = math.exp(random.uniform(math.log(max(low, 1)), math.log(max(high, 1))))
    return min(max(round(drawn), low), high)


def _program(random: Random, size: int) -> str:
    blocks, length = [], 0
    while length < size:
        blocks.append(_function(random))
        length += len(blocks[-1])
    text = "".join(blocks)[:size]
    # Like a file from an editor, it ends with a newline.
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
    """Remove a trial's folder, even if its permissions or its depth make that difficult."""
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except (PermissionError, RecursionError):
        _flatten(folder)
        shutil.rmtree(folder)


def _flatten(folder: Path) -> None:
    """Restore permissions on all subfolders, and move each directly into `folder`."""
    todo = [folder]
    while todo:
        current = todo.pop()
        current.chmod(0o700)
        for entry in list(current.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                # A folder without permissions cannot be moved.
                entry.chmod(0o700)
                todo.append(entry.rename(folder / token_hex(16)))
