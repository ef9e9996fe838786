"""Annotations and the job summary for GitHub Actions.

GitHub Actions reads annotations from the job's output and the summary from a file that
`GITHUB_STEP_SUMMARY` names. Without that variable no summary is written.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trae_bench.errors import CannotMeasure
from trae_bench.model.result import Comparison
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_terminal, for_workflow, for_workflow_property
from trae_bench.report.text.markdown import NOTHING_MEASURED, compared, headline, reported_rows
from trae_bench.report.text.terminal import cells_of, change_in, noise_line
from trae_bench.verdicts.gate import answers_differ, answers_of_head, outcome, wrong_answers

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
MAX_ANNOTATIONS = 10
"""Annotations of one kind; GitHub shows no more of one step."""
MAX_SUMMARY = 1024 * 1024
"""Maximum bytes of a summary; GitHub drops a larger one."""


def annotations(run: RunFile, *, claimed: bool = True) -> list[str]:
    """Annotation lines for the job's output.

    Different answers and the regressions of a gate are errors. A regression from a toggle and
    inconclusive rows are warnings. If nothing was measured, a gate gets an error, another run a
    warning.
    """
    differ = [row for row in compared(run) if answers_differ(row) is not None]
    rows = reported_rows(run)
    worse = [row for row in rows if row.judgement.verdict == "regression"] if claimed else []
    errors = [_line("error", "answers differ", _reason(row)) for row in _unique(differ)]
    wrong = [wrong_answers(runs) for runs in answers_of_head(run) if runs.is_wrong]
    errors += [_line("error", "answers differ", for_terminal(text)) for text in wrong]
    changes = [_change(run, row) for row in worse]
    warnings = []
    if run.header.revisions is None:
        warnings += [_line("warning", "regression", change) for change in changes]
    else:
        errors += [_line("error", "regression", change) for change in changes]
    verdict = headline(run, claimed=claimed)
    if verdict == NOTHING_MEASURED or outcome(run, claimed=claimed).kind == "not measured":
        # A gate that could not be measured fails the job, so its annotation is an error.
        level, lines = ("warning", warnings) if run.header.revisions is None else ("error", errors)
        lines.append(_line(level, "not measured", verdict))
    open_rows = [row for row in rows if row.judgement.verdict == "inconclusive"]
    if claimed and open_rows:
        text = f"{len(open_rows)} of {len(rows)} comparisons are inconclusive. {noise_line(run)}"
        warnings.append(_line("warning", "inconclusive", text))
    return [*_capped("error", errors), *_capped("warning", warnings)]


def add_to_summary(text: str, environ: Mapping[str, str]) -> Path | None:
    """Appends to the job summary and returns its path; None if the job has no summary.

    Raises `CannotMeasure` if the summary cannot be written or would be too large.
    """
    name = environ.get(SUMMARY_VARIABLE)
    if not name:
        return None
    path = Path(name)
    try:
        size = path.stat().st_size if path.exists() else 0
        if size + len(text.encode()) > MAX_SUMMARY:
            raise CannotMeasure(f"{path}: no room is left in the job summary")
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise CannotMeasure(
            f"cannot write the job summary {path}: {error.strerror or error}; "
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
    return f"{_place(row)}: {for_terminal(reasons[0]) if reasons else 'unknown reason'}"


def _place(row: Comparison) -> str:
    return f"{for_terminal(row.scenario)} / {for_terminal(row.contrast)}"


def _unique(rows: Sequence[Comparison]) -> list[Comparison]:
    """The first row of each scenario and contrast."""
    return list({(row.scenario, row.contrast): row for row in reversed(rows)}.values())[::-1]


def _capped(kind: str, lines: Sequence[str]) -> list[str]:
    if len(lines) <= MAX_ANNOTATIONS:
        return list(lines)
    kept = lines[: MAX_ANNOTATIONS - 1]
    return [*kept, _line(kind, "and more", f"{len(lines) - len(kept)} more; see the report")]
