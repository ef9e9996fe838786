"""`trae-bench plot`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trae_bench.cli.common import FILE, file_name, write
from trae_bench.errors import UsageError

if TYPE_CHECKING:
    from trae_bench.run.runner import Result

FORMATS = ("svg", "png")


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="RUN...", type=FILE)
@click.option(
    "--out",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Picture to write; its name ends in .svg or .png.",
)
@click.option(
    "--kind",
    type=click.Choice(("effects", "pairs", "noise")),
    default="effects",
    show_default=True,
    help="All ratios; the pairs and looks of one row; or what the A/A pairs scatter.",
)
@click.option("--scenario", metavar="NAME", help="Only this scenario.")
@click.option("--toggle", metavar="NAME", help="Only this toggle.")
@click.option("--metric", metavar="NAME", help="Only this metric.")
def plot(files: tuple[Path, ...], out: Path, kind: Any, **names: str | None) -> None:
    """Draw a picture of runs.

    Ratios with their intervals on a logarithmic axis, a mark for each verdict, and
    the threshold behind them. The same runs give the same file, byte for byte.
    Needs matplotlib: pip install "trae-bench[report]".

    \b
    Examples:
      trae-bench plot RUN.json --out effects.svg
      trae-bench plot RUN.json --kind noise --out noise.png
      trae-bench plot RUN.json --kind pairs --scenario bugfix \\
        --toggle parallel_tools --metric wall --out pairs.svg
    """
    from trae_bench.report.plot import Shown, picture
    from trae_bench.run.runner import read_result

    format = out.suffix.removeprefix(".").lower()
    if format not in FORMATS:
        raise UsageError(f"{out}: the name of a picture ends in .svg or .png")
    results = [read_result(file) for file in files]
    _known(results, names)
    drawn = picture(
        {_name(files, place): result.run for place, result in enumerate(results)},
        kind,
        "svg" if format == "svg" else "png",
        Shown(**names),
        claimed=all(result.claimed for result in results),
    )
    write(out, [drawn])
    click.echo(f"Picture: {file_name(out)}")


def _name(files: tuple[Path, ...], place: int) -> str:
    """The file's own, with its place where others have the same."""
    names = [file.stem for file in files]
    return names[place] if names.count(names[place]) == 1 else f"{names[place]}, {place + 1}"


def _known(results: "list[Result]", names: dict[str, str | None]) -> None:
    """Raises `UsageError` with near names for a name that none of the runs has."""
    from trae_bench.run.planner import unknown

    rows = [row for result in results for row in result.run.comparisons]
    fields = {"scenario": "scenario", "toggle": "contrast", "metric": "metric"}
    for kind, field in fields.items():
        name, known = names[kind], {getattr(row, field) for row in rows}
        if name is not None and name not in known:
            raise unknown(kind, name, known)
