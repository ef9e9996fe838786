"""`trae-bench claims`, and what `report --guide` has in common with it: runs against documents."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trae_bench.cli.common import FILE, file_name, print_json, tell, terminal_width, write
from trae_bench.errors import UsageError

if TYPE_CHECKING:
    from trae_bench.verdicts.claims import Source
    from trae_bench.verdicts.claims_file import ClaimsFile

NOT_BORNE_OUT = 1
"""Exit code: a document says what the runs do not."""


@click.command()
@click.argument("run_files", nargs=-1, metavar="[RUN]...", type=FILE)
@click.option(
    "--file",
    "claims_file",
    type=FILE,
    help="Claims file; by default the guide's, as it ships.",
)
@click.option("--own", is_flag=True, help="The sentences of this project's own documents instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def claims(run_files: tuple[Path, ...], claims_file: Path | None, own: bool, as_json: bool) -> int:
    """Hold documents to what was measured.

    Each claim with the range that it promises beside the interval of the newest RUN
    that has the row: holds, holds partly, refuted, undecided, not measured (and what
    would measure it), not measurable (and why). With --own, ends in 1 where a
    sentence is not borne out by the runs that speak of it.

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
        print_json([claims_text.document(one) for one in judged])
    else:
        click.echo(claims_text.text(judged, width=terminal_width()))
    return 0


def _show_own(file: "ClaimsFile", path: Path, sources: "Sequence[Source]", as_json: bool) -> int:
    from trae_bench.report.text import claims as claims_text
    from trae_bench.verdicts.claims import judge, newest_measurements, quote_locations

    lines = quote_locations(file, path)
    judged = judge(file.own, newest_measurements(sources))
    if as_json:
        documents = [claims_text.document(one) for one in judged]
        print_json([{"at": at} | each for at, each in zip(lines, documents, strict=True)])
    else:
        click.echo(claims_text.own_text(judged, lines, width=terminal_width()))
    wrong = claims_text.unsupported_lines(judged, lines)
    for line in wrong:
        tell(line)
    return NOT_BORNE_OUT if wrong else 0


def known_claims(path: Path) -> "ClaimsFile":
    """A claims file, its names held to those that there are. Raises `ScenarioError`."""
    from trae_bench.metrics import METRICS
    from trae_bench.verdicts.claims_file import check, load

    file = load(path)
    check(file, scenarios=varied(), metrics=METRICS, source=path)
    return file


def varied() -> dict[str, tuple[str, ...]]:
    """The toggles that each scenario, and each variant, can vary."""
    from trae_bench.scenario import every_scenario

    return {scenario.name: scenario.toggles.vary for scenario in every_scenario()}


def sources_of(run_files: Sequence[Path]) -> "list[Source]":
    """The runs of some files, each under its name. Raises `BadRunFile`, also for one that was
    changed after its run: it bears nothing out."""
    from trae_bench.model.presets import is_claimed
    from trae_bench.storage.run_file import read_sealed
    from trae_bench.verdicts.claims import Source

    runs = [(path.name, read_sealed(path)) for path in run_files]
    return [Source(name, run, is_claimed(run.header)) for name, run in runs]


def render_guide(guide: Path, run_files: Sequence[Path], *, check: bool) -> int:
    """Write the figures of a document anew; with `check`, only say whether they are those.

    Raises `UsageError` for a document without figures, or with broken marks.
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
    should = rendered(text, sources_of(run_files), known_claims(path), tables, str(guide))
    if not check:
        if should != text:
            write(guide, [should])
        click.echo(f"{file_name(guide)}: {'as it was' if should == text else 'written'}")
        return 0
    if difference := first_difference(text, should):
        number, line = difference
        tell(f"{guide}:{number}: not what the runs say; they say: {line}")
        tell(f"Write it anew: trae-bench report --guide {guide} {' '.join(map(str, run_files))}")
        return NOT_BORNE_OUT
    click.echo(f"{file_name(guide)}: what the runs say")
    return 0
