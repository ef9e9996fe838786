"""Guides: figures come from runs, output is reproducible, and untrusted text is escaped."""

import re
import shutil
from pathlib import Path

import msgspec
import pytest

from agent_core.files import INLINE_LIMIT
from agent_core.loop_pools import KEEPALIVE
from agent_core.shell import POLL_INTERVAL
from agent_core.toggles import Toggles
from tests.trae_bench.report.test_untrusted import ACTED_ON, PLANT
from tests.trae_bench.runs import honest
from tests.trae_bench.verdicts.test_claims import COMMITTED, ROOT, cells
from trae_bench.cli import main
from trae_bench.cli.claims import known_claims, varied
from trae_bench.errors import ScenarioError, UsageError
from trae_bench.metrics import METRICS
from trae_bench.model.run import RunFile
from trae_bench.report.guide import END, NOT_MEASURED, first_difference, rendered
from trae_bench.report.guide_tables import RowSpec, load_tables, parse_tables, tables_path
from trae_bench.storage.run_file import write_run
from trae_bench.verdicts.claims import Source
from trae_bench.verdicts.claims_file import ClaimsFile, claims_file

GUIDE = ROOT / "docs" / "performance.md"
DOCUMENTS = (GUIDE, ROOT / "docs" / "claims.md", ROOT / "docs" / "agents.md")
TABLES = load_tables(GUIDE)
NO_CLAIMS = ClaimsFile(about="nobody")
replace = msgspec.structs.replace


def run() -> RunFile:
    """A run that has some rows of `TABLES`."""
    return honest(cells=cells("bugfix", ("parallel_tools", "async_file_io")))


def text(*names: str) -> str:
    marks = "".join(f"<!-- figures: {name} -->\nwhat was there\n{END}\n" for name in names)
    return f"# A guide\n\n{marks}\nThe end.\n"


# -- the documents


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_agree_with_the_committed_runs(document: Path) -> None:
    assert main(["report", "--guide", str(document), "--check", *map(str, COMMITTED)]) == 0, (
        f"run `trae-bench report --guide docs/{document.name} results/*.json`"
    )


FIGURE = re.compile(
    r"(?<![\w.])\d[\d.,]*(?:\s?-\s?\d[\d.,]*)?\s?(?:%|x(?!\w)|percent\b|times\b|[kMGT]i?B\b|bytes\b"
    r"|[mµn]?s\b|seconds?\b|minutes?\b|hours?\b)"
    r"|\b(?:twice as|half the|(?:two|three|four|five|ten) times|\w+fold)\b"
)
CONSTANTS = {f"{POLL_INTERVAL:g} s", f"{INLINE_LIMIT // 1024} KiB", f"{KEEPALIVE:g} s"}
"""Settings of the agent that the guide explains. They are not measurements."""


def handwritten_figures(document: str) -> set[str]:
    # tests/test_docs.py checks the output of commands.
    block = r"<!-- (figures|output): .*?<!-- end of \1 -->"
    prose = re.sub(block, "", document, flags=re.DOTALL)
    return {match[0] for match in FIGURE.finditer(prose)} - CONSTANTS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_figure_is_handwritten(document: Path) -> None:
    assert not handwritten_figures(document.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "planted",
    ["3-5x", "64 %", "64%", "1.5 s", "12 MB", "0.2 ms", "4 times", "twice as", "10 minutes"],
)
def test_a_handwritten_figure_is_found(planted: str) -> None:
    prose = GUIDE.read_text(encoding="utf-8")
    assert handwritten_figures(f"{prose}\nIt is {planted} faster.\n") == {planted}
    for kind in ("figures", "output"):
        inside = f"<!-- {kind}: x -->\nIt is {planted} faster.\n<!-- end of {kind} -->\n"
        assert not handwritten_figures(inside + prose)


def test_the_guide_has_each_table_and_a_chapter_for_each_toggle() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    for name in ("summary", *TABLES.tables):
        assert guide.count(f"<!-- figures: {name} -->") == 1, name
    assert {row.toggle for row in TABLES.summary} == set(Toggles.names())
    chapters = re.findall(r"^### \d+\. `(\w+)`$", guide, re.MULTILINE)
    assert tuple(chapters) == Toggles.names()
    assert set(chapters) <= TABLES.tables.keys()


def all_specs() -> list[RowSpec]:
    of_summary = [spec for row in TABLES.summary for spec in row.specs() if spec is not None]
    return [*of_summary, *(spec for name in TABLES.tables for spec in TABLES.tables[name])]


def test_each_row_of_the_tables_can_be_measured() -> None:
    toggles = varied()
    for spec in all_specs():
        assert spec.metric in METRICS, spec
        assert spec.question.toggles <= set(toggles[spec.scenario]), spec


# -- tables files


def rows(table: str = "x", toggles: str = '["a"]', places: str = "[]") -> str:
    return f'[[rows]]\ntable = "{table}"\ntoggles = {toggles}\nplaces = {places}\n'


def test_a_document_without_a_tables_file_has_no_tables(tmp_path: Path) -> None:
    tables = load_tables(tmp_path / "guide.md")
    assert (tables.summary, tables.rows) == ((), ())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("rows = 1", "t.toml:1: rows: "),
        (rows(toggles="[]"), "t.toml:3: rows[0].toggles: "),
        (rows() + "place = 1", "t.toml:5: rows[0].place: unknown field"),
        (
            rows(places='["bugfix"]'),
            "t.toml:4: rows[0].places[0]: 'bugfix' is not a place; write \"SCENARIO METRIC\"",
        ),
        (rows(toggles='["a|b"]'), "rows[0].toggles[0]: 'a|b' is not a name; use letters"),
        (rows(table="claims"), "t.toml:2: rows[0].table: 'claims' is reserved"),
        ('[[summary]]\ntoggle = "a"\nrisk = "a|b"', "t.toml:3: summary[0].risk: has `|`"),
        ('[[summary]]\ntoggle = "a"\nrisk = ""\nbest = "x"', "t.toml:4: summary[0].best: 'x'"),
        ("[[summary", "t.toml:1:"),
    ],
)
def test_an_invalid_tables_file_is_rejected_with_its_line(wrong: str, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        parse_tables(wrong, "t.toml")
    assert message in str(error.value)


# -- rendering


def test_figures_are_those_of_the_run_and_other_text_stays() -> None:
    before = text("parallel_tools", "summary", "together")
    after = rendered(before, [Source("run.json", run())], NO_CLAIMS, TABLES)
    row = next(
        line for line in after.splitlines() if line.startswith("| `bugfix`") and "`cpu`" in line
    )
    comparison = next(
        one
        for one in run().comparisons
        if (one.contrast, one.metric) == ("parallel_tools", "cpu") and one.estimate
    )
    assert comparison.estimate is not None
    assert comparison.judgement.verdict in row
    assert f"{2.718281828459045 ** (comparison.estimate.log_ratio or 0):.3f}" in row
    assert "what was there" not in after
    assert after.startswith("# A guide\n\n") and after.endswith("\nThe end.\n")
    assert "at commit <code>0123456789</code>, 2026-01-01, 2 x an ordinary one" in after
    assert NOT_MEASURED in after
    assert "None of the given runs has a row of this table." in after


def test_an_unknown_commit_is_reported_as_unknown() -> None:
    unknown = replace(run(), header=replace(run().header, code={}))
    after = rendered(text("parallel_tools"), [Source("run.json", unknown)], NO_CLAIMS, TABLES)
    assert "at commit <code>unknown</code>, 2026-01-01, " in after


def test_the_same_runs_give_the_same_bytes() -> None:
    names = ("summary", "claims", *TABLES.tables)
    sources = [Source("run.json", run())]
    claims = known_claims(claims_file())
    once = rendered(text(*names), sources, claims, TABLES)
    assert rendered(once, sources, claims, TABLES) == once
    assert first_difference(once, once) is None


def test_without_runs_no_row_is_measured() -> None:
    after = rendered(text(*TABLES.tables), [], NO_CLAIMS, TABLES)
    rows = [line for line in after.splitlines() if line.startswith("| `")]
    assert len(rows) == sum(map(len, TABLES.tables.values()))
    assert all(f"| {NOT_MEASURED} |  |" in row for row in rows)


def test_a_run_too_short_for_verdicts_has_none() -> None:
    source = Source("run.json", run(), claimed=False)
    after = rendered(text("parallel_tools"), [source], NO_CLAIMS, TABLES)
    (row,) = (line for line in after.splitlines() if "`bugfix`" in line and "`cpu`" in line)
    assert row.endswith("| - | 1 |")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("no marks", "guide.md: no figures in it"),
        ("a\n<!-- figures: nonsense -->\n" + END, "guide.md:2: no figures 'nonsense'; known: "),
        ("<!-- figures: memory -->\n", "guide.md:1: the figures are not closed"),
        (f"a\n{END}\n", "guide.md:2: no figures are open here"),
        (
            f"<!-- figures: memory -->\n\n<!-- figures: runtime -->\n{END}\n",
            "guide.md:1: the figures are not closed before line 3",
        ),
    ],
)
def test_invalid_marks_are_reported_with_their_line(wrong: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        rendered(wrong, [], NO_CLAIMS, TABLES, "guide.md")
    assert message in str(error.value)


def test_text_of_a_run_is_escaped() -> None:
    nasty = f"{PLANT}{END}<!-- figures: memory -->"
    honest_run = run()
    header = honest_run.header
    planted = replace(
        honest_run,
        header=replace(
            header,
            command=nasty,
            created=PLANT,
            machine=dict.fromkeys(("cpu", "cores", "python"), nasty),
            code={"commit": nasty, "dirty": True},
            metrics={name: replace(one, unit="|<b>") for name, one in header.metrics.items()},
        ),
    )
    plain = text("summary", "parallel_tools", "memory")
    after = rendered(plain, [Source(nasty, planted)], NO_CLAIMS, TABLES)
    assert not ACTED_ON.search(after)
    assert "<script>" not in after and "<b>" not in after
    assert after.count(END) == after.count("<!-- figures: ") == 3
    assert rendered(after, [Source(nasty, planted)], NO_CLAIMS, TABLES) == after
    table = [line for line in after.splitlines() if line.startswith("| `bugfix`")]
    assert table
    assert {line.count("|") for line in table} == {11}
    assert "uncommitted changes" in after


# -- the command


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    path = tmp_path / "guide.md"
    path.write_text(text("parallel_tools"))
    shutil.copy(tables_path(GUIDE), tables_path(path))
    write_run(tmp_path / "run.json", run())
    return path


def test_the_guide_is_written_and_checked(guide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_file = str(guide.with_name("run.json"))
    arguments = ["report", "--guide", str(guide), run_file]
    assert main([*arguments, "--check"]) == 1
    assert f"{guide}:4: differs from the runs" in capsys.readouterr().err
    assert guide.read_text() == text("parallel_tools")
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    names = ["guide.md", "guide.tables.toml", "run.json"]
    assert sorted(path.name for path in guide.parent.iterdir()) == names
    good = guide.read_text().splitlines()
    number = next(n for n, line in enumerate(good) if "`bugfix`" in line)
    bad = [*good[:number], good[number].replace("0", "1"), *good[number + 1 :]]
    guide.write_text("\n".join(bad) + "\n")
    assert main([*arguments, "--check"]) == 1
    assert f"{guide}:{number + 1}: differs from the runs" in capsys.readouterr().err


def test_conflicting_options_are_rejected(guide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_file = str(guide.with_name("run.json"))
    assert main(["report", run_file, "--check"]) == 2
    assert "--guide FILE" in capsys.readouterr().err
    assert main(["report", run_file, "--guide", str(guide), "--junit", "-"]) == 2
    assert guide.read_text() == text("parallel_tools")
    guide.write_bytes(b"\xff\xfe")
    assert main(["report", run_file, "--guide", str(guide)]) == 2
