"""What a CI service shows of a run: annotations, and the job's summary.

GitHub Actions reads annotations from the job's output, and takes the summary from a file that
it names in the environment. Both are absent elsewhere, and then nothing is written.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trae_bench.errors import CannotMeasure
from trae_bench.model.result import Comparison
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_terminal, for_workflow, for_workflow_property
from trae_bench.report.text.markdown import NOTHING_MEASURED, compared, headline, heeded
from trae_bench.report.text.terminal import cells_of, change_in, noise_line
from trae_bench.verdicts.gate import answers_differ, outcome

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
MAX_OF_A_KIND = 10
"""Annotations; GitHub shows no more errors and no more warnings of one step."""
MAX_SUMMARY = 1024 * 1024
"""Bytes; GitHub drops a summary that is larger."""


def annotations(run: RunFile, *, claimed: bool = True) -> list[str]:
    """Lines for the job's output: errors for regressions and for answers that differ, a
    warning for what could not be told. What a toggle makes slower is a warning."""
    differ = [row for row in compared(run) if answers_differ(row) is not None]
    rows = heeded(run)
    worse = [row for row in rows if row.judgement.verdict == "regression"] if claimed else []
    errors = [_line("error", "answers differ", _reason(row)) for row in _once(differ)]
    changes = [_change(run, row) for row in worse]
    warnings = []
    if run.header.revisions is None:
        warnings += [_line("warning", "regression", change) for change in changes]
    else:
        errors += [_line("error", "regression", change) for change in changes]
    verdict = headline(run, claimed=claimed)
    if verdict == NOTHING_MEASURED or outcome(run, claimed=claimed).kind == "not measured":
        # A gate that could not be measured fails its job.
        level, lines = ("warning", warnings) if run.header.revisions is None else ("error", errors)
        lines.append(_line(level, "not measured", verdict))
    open_rows = [row for row in rows if row.judgement.verdict == "inconclusive"]
    if claimed and open_rows:
        said = f"{len(open_rows)} of {len(rows)} comparisons are inconclusive. "
        warnings.append(_line("warning", "inconclusive", said + noise_line(run)))
    return [*_capped("error", errors), *_capped("warning", warnings)]


def add_to_summary(text: str, environ: Mapping[str, str]) -> Path | None:
    """Append to the job's summary; None where there is no such file.

    Raises `CannotMeasure` where it cannot be written, or has no room left.
    """
    name = environ.get(SUMMARY_VARIABLE)
    if not name:
        return None
    path = Path(name)
    try:
        size = path.stat().st_size if path.exists() else 0
        if size + len(text.encode()) > MAX_SUMMARY:
            raise CannotMeasure(f"no room is left in the job's summary {path}")
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise CannotMeasure(
            f"cannot write the job's summary {path}: {error.strerror or error}; "
            f"check {SUMMARY_VARIABLE}"
        ) from error
    return path


def _line(kind: str, title: str, message: str) -> str:
    return f"::{kind} title={for_workflow_property(title)}::{for_workflow(message, 1000)}"


def _change(run: RunFile, row: Comparison) -> str:
    cells = cells_of(row, run.header.metrics[row.metric], True)
    return f"{_place(row)} / {cells[0]}: {change_in(cells)}"


def _reason(row: Comparison) -> str:
    reasons = (answers_differ(row) or row.pairs).reasons
    return f"{_place(row)}: {for_terminal(reasons[0]) if reasons else 'no reason known'}"


def _place(row: Comparison) -> str:
    return f"{for_terminal(row.scenario)} / {for_terminal(row.contrast)}"


def _once(rows: Sequence[Comparison]) -> list[Comparison]:
    """One row for each comparison of two sides, whatever metrics it has."""
    return list({(row.scenario, row.contrast): row for row in reversed(rows)}.values())[::-1]


def _capped(kind: str, lines: Sequence[str]) -> list[str]:
    if len(lines) <= MAX_OF_A_KIND:
        return list(lines)
    kept = lines[: MAX_OF_A_KIND - 1]
    return [*kept, _line(kind, "and more", f"{len(lines) - len(kept)} more; see the report")]
