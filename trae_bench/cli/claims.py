"""The command `trae-bench claims`, and the document checks of `report --guide`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trae_bench.cli.common import FILE, file_name, print_error, print_json, terminal_width, write
from trae_bench.errors import UsageError

if TYPE_CHECKING:
    from trae_bench.verdicts.claims import Source
    from trae_bench.verdicts.claims_file import ClaimsFile

UNSUPPORTED = 1
"""Exit code: a document contradicts the runs."""


@click.command()
@click.argument("run_files", nargs=-1, metavar="[RUN]...", type=FILE)
@click.option(
    "--file",
    "claims_file",
    type=FILE,
    help="Claims file. The default is the guide's file, which ships with trae-bench.",
)
@click.option("--own", is_flag=True, help="Check the sentences of this project's own documents.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def claims(run_files: tuple[Path, ...], claims_file: Path | None, own: bool, as_json: bool) -> int:
    """Compare the claims of a document with measured results.

    Prints the range that each claim promises beside the confidence interval of the
    newest RUN that has the row. A claim holds, holds partly, is refuted, is
    undecided, was not measured, or cannot be measured. With --own, the exit code
    is 1 if the runs contradict a claim or do not decide it.

    \b
    Examples:
      trae-bench claims results/*.json
      trae-bench claims results/*.json --own
    """
    from trae_bench.verdicts.claims_file import claims_file as shipped

    path = claims_file or shipped()
    file, sources = known_claims(path), sources_of(run_files)
    if own:
        return _show_own(file, path, sources, as_json)
    from trae_bench.report.text import claims as claims_text
    from trae_bench.verdicts.claims import judge, newest_measurements

    judged = judge(file.claims, newest_measurements(sources))
    if as_json:
        print_json([claims_text.document(claim) for claim in judged])
    else:
        click.echo(claims_text.text(judged, width=terminal_width()))
    return 0


def _show_own(file: "ClaimsFile", path: Path, sources: "Sequence[Source]", as_json: bool) -> int:
    from trae_bench.report.text import claims as claims_text
    from trae_bench.verdicts.claims import judge, newest_measurements, quote_locations

    lines = quote_locations(file, path)
    judged = judge(file.own, newest_measurements(sources))
    if as_json:
        documents = [claims_text.document(claim) for claim in judged]
        print_json([{"at": at} | claim for at, claim in zip(lines, documents, strict=True)])
    else:
        click.echo(claims_text.own_text(judged, lines, width=terminal_width()))
    unsupported = claims_text.unsupported_lines(judged, lines)
    for line in unsupported:
        print_error(line)
    return UNSUPPORTED if unsupported else 0


def known_claims(path: Path) -> "ClaimsFile":
    """Load a claims file and check its names. Raises `ScenarioError`."""
    from trae_bench.metrics import METRICS
    from trae_bench.verdicts.claims_file import check, load

    file = load(path)
    check(file, scenarios=varied(), metrics=METRICS, source=path)
    return file


def varied() -> dict[str, tuple[str, ...]]:
    """The toggles that each scenario, and each of its variants, can vary."""
    from trae_bench.scenario import every_scenario

    return {scenario.name: scenario.toggles.vary for scenario in every_scenario()}


def sources_of(run_files: Sequence[Path]) -> "list[Source]":
    """Read runs as evidence for claims.

    Raises `BadRunFile` if a file is invalid or was changed after its run.
    """
    from trae_bench.model.presets import is_claimed
    from trae_bench.storage.run_file import read_sealed
    from trae_bench.verdicts.claims import Source

    runs = [(path.name, read_sealed(path)) for path in run_files]
    return [Source(name, run, is_claimed(run.header)) for name, run in runs]


def render_guide(guide: Path, run_files: Sequence[Path], *, check: bool) -> int:
    """Rewrite the figures of a document; with `check`, only compare them with the runs.

    Raises `UsageError` if the document has no figures or broken markers.
    """
    from trae_bench._util.bounded_io import whole
    from trae_bench.report.guide import first_difference, rendered
    from trae_bench.report.guide_tables import load_tables
    from trae_bench.verdicts.claims_file import claims_file

    try:
        text = whole(guide).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{guide}: {error}") from error
    path = claims_file()
    tables = load_tables(guide)
    expected = rendered(text, sources_of(run_files), known_claims(path), tables, str(guide))
    if not check:
        if expected != text:
            write(guide, [expected])
        click.echo(f"{file_name(guide)}: {'unchanged' if expected == text else 'updated'}")
        return 0
    if difference := first_difference(text, expected):
        number, line = difference
        print_error(f"{guide}:{number}: differs from the runs; expected: {line}")
        print_error(f"Update it: trae-bench report --guide {guide} {' '.join(map(str, run_files))}")
        return UNSUPPORTED
    click.echo(f"{file_name(guide)}: up to date")
    return 0
