"""The command `trae-bench plot`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trae_bench.cli.common import FILE, NEW_FILE, current_metrics, file_name, write
from trae_bench.cli.completion import complete_metric, complete_scenario, complete_toggle
from trae_bench.errors import UsageError

if TYPE_CHECKING:
    from trae_bench.run.runner import Result

FORMATS = ("svg", "png")


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="RUN...", type=FILE)
@click.option(
    "-o", "--out", type=NEW_FILE, required=True, help="Output file. The name ends in .svg or .png."
)
@click.option(
    "--kind",
    type=click.Choice(("effects", "pairs", "noise")),
    default="effects",
    show_default=True,
    help="effects: all ratios. pairs: the pairs and looks of one row. noise: the A/A pairs.",
)
@click.option(
    "--scenario", metavar="NAME", shell_complete=complete_scenario, help="Only this scenario."
)
@click.option("--toggle", metavar="NAME", shell_complete=complete_toggle, help="Only this toggle.")
@click.option(
    "--metric",
    metavar="NAME",
    shell_complete=complete_metric,
    callback=current_metrics,
    help="Only this metric.",
)
def plot(files: tuple[Path, ...], out: Path, kind: Any, **names: str | None) -> None:
    """Plot one or several runs.

    Draws the ratios with their confidence intervals on a logarithmic axis, a marker
    for each verdict, and the thresholds. The output is reproducible byte for byte.
    Needs matplotlib: pip install "trae-bench[report]".

    \b
    Examples:
      trae-bench plot RUN.json --out effects.svg
      trae-bench plot RUN.json --kind noise --out noise.png
      trae-bench plot RUN.json --kind pairs --scenario bugfix \\
        --toggle parallel_tools --metric wall_net --out pairs.svg
    """
    from trae_bench.report.plot import RowFilter, picture
    from trae_bench.run.runner import read_result

    format = out.suffix.removeprefix(".").lower()
    if format not in FORMATS:
        raise UsageError(f"{out}: the name of a picture ends in .svg or .png")
    results = [read_result(file) for file in files]
    _check_names(results, names)
    image = picture(
        {_label(files, index): result.run for index, result in enumerate(results)},
        kind,
        "svg" if format == "svg" else "png",
        RowFilter(**names),
        claimed=all(result.claimed for result in results),
    )
    write(out, [image])
    click.echo(f"Picture: {file_name(out)}")


def _label(files: tuple[Path, ...], index: int) -> str:
    """The name of a file, with its position if another file has the same name."""
    names = [file.stem for file in files]
    return names[index] if names.count(names[index]) == 1 else f"{names[index]}, {index + 1}"


def _check_names(results: "list[Result]", names: dict[str, str | None]) -> None:
    """Raises `UsageError` with similar names if a name occurs in none of the runs."""
    from trae_bench.run.planner import unknown

    rows = [row for result in results for row in result.run.comparisons]
    fields = {"scenario": "scenario", "toggle": "contrast", "metric": "metric"}
    for kind, field in fields.items():
        name, known = names[kind], {getattr(row, field) for row in rows}
        if name is not None and name not in known:
            raise unknown(kind, name, known)
