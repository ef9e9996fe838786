"""Reports for CI services: annotations, the job summary and JUnit, written before the exit."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from tests.trae_bench.cli.test_cli import imported_modules, slow_modules
from tests.trae_bench.fakes import TINY
from tests.trae_bench.runs import AGAIN, Machine, gate, honest
from trae_bench.cli import main
from trae_bench.cli.common import print_path
from trae_bench.errors import AnswersDiffer, CannotMeasure
from trae_bench.execution.host_lock import LOCK_VARIABLE
from trae_bench.execution.ports import Executor
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_workflow, for_workflow_property
from trae_bench.report.text import markdown, unmeasured
from trae_bench.report.text.ci import (
    MAX_ANNOTATIONS,
    MAX_SUMMARY,
    SUMMARY_VARIABLE,
    add_to_summary,
    annotations,
)
from trae_bench.report.text.junit import junit
from trae_bench.run import runner
from trae_bench.scenario import Scenario
from trae_bench.storage import run_file as store
from trae_bench.storage.run_file import write_run
from trae_bench.verdicts.gate import outcome

replace = msgspec.structs.replace


@cache
def run() -> RunFile:
    return honest()


@cache
def undecided() -> RunFile:
    return honest(toggles=("idle",), noise=0.2)


@cache
def differing() -> RunFile:
    return honest(lost={("idle", n): "differ" for n in range(9)})


# -- annotations


def test_regressions_of_a_gate_are_errors_those_of_a_toggle_warnings() -> None:
    lines = annotations(run())
    assert len(lines) == 3
    assert all(line.startswith("::warning title=regression::work / slower / ") for line in lines)
    assert "ratio 1.49" in lines[0]
    lines = annotations(gate(1.2))
    assert len(lines) == 3
    assert all(line.startswith("::error title=regression::work / head / ") for line in lines)


def test_an_unconfirmed_regression_is_not_an_error() -> None:
    (line,) = annotations(gate(1.2, again=1.0))
    assert line.startswith("::warning title=inconclusive::3 of 5 comparisons")


def test_inconclusive_rows_are_one_warning() -> None:
    (line,) = annotations(undecided())
    assert line.startswith("::warning title=inconclusive::3 of 5 comparisons")
    assert "A/A noise" in line
    assert "%25" in line


def test_different_answers_are_one_error_per_toggle() -> None:
    lines = annotations(differing())
    (line,) = (line for line in lines if "answers differ" in line)
    assert line.startswith("::error title=answers differ::work / idle: the transcripts differ")
    assert len([line for line in lines if "regression" in line]) == 3


def test_few_pairs_get_no_verdict() -> None:
    assert annotations(run(), claimed=False) == []
    assert len(annotations(differing(), claimed=False)) == 1


def test_nothing_measured_is_a_warning() -> None:
    (line,) = annotations(replace(run(), comparisons=()))
    assert line == "::warning title=not measured::nothing could be measured"


def test_a_gate_that_could_not_be_measured_is_an_error() -> None:
    (line,) = annotations(gate(lost={("head", n): "crash" for n in range(9)}))
    assert line.startswith("::error title=not measured::Could not be measured: work, 2 of 2")


def test_different_answers_are_errors_without_a_gated_metric() -> None:
    found = gate(lost={("head", n): "differ" for n in range(9)})
    noisy = tuple(replace(row, gated=False) for row in found.comparisons)
    (line,) = annotations(replace(found, comparisons=noisy))
    assert line == "::error title=answers differ::work / head: the transcripts differ (2x)"


def test_different_answers_of_fresh_pairs_are_reported_with_a_reason() -> None:
    lines = annotations(gate(1.1, lost={(AGAIN, n): "differ" for n in range(9)}))
    (line,) = (line for line in lines if "title=answers differ" in line)
    assert "work / head: the transcripts differ" in line


def test_a_thousand_regressions_are_ten_errors() -> None:
    found = gate(1.2)
    lines = annotations(replace(found, comparisons=found.comparisons * 300))
    assert len(lines) == MAX_ANNOTATIONS
    assert lines[-1] == "::error title=and more::891 more; see the report"


def test_workflow_commands_keep_their_text() -> None:
    assert for_workflow("100 % done\nnext") == "100 %25 done\\x0anext"
    assert for_workflow_property("a:b, c") == "a%3Ab%2C c"
    assert "\n" not in for_workflow("\r\n\u2028\x85")


# -- summary


def test_the_summary_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    assert add_to_summary("after\n", {SUMMARY_VARIABLE: str(path)}) == path
    assert path.read_text() == "before\nafter\n"


@pytest.mark.parametrize("environ", [{}, {SUMMARY_VARIABLE: ""}])
def test_outside_ci_no_summary_is_written(environ: dict[str, str]) -> None:
    assert add_to_summary("text", environ) is None


def test_an_unwritable_summary_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CannotMeasure, match=SUMMARY_VARIABLE):
        add_to_summary("text", {SUMMARY_VARIABLE: str(tmp_path)})
    full = tmp_path / "full.md"
    full.write_bytes(b"x" * MAX_SUMMARY)
    with pytest.raises(CannotMeasure, match="room"):
        add_to_summary("text", {SUMMARY_VARIABLE: str(full)})
    assert full.stat().st_size == MAX_SUMMARY


# -- JUnit


def cases(run: RunFile, *, claimed: bool = True) -> dict[tuple[str, str], list[str]]:
    """The outcome elements of each toggle and metric."""
    root = ElementTree.fromstring(junit(run, claimed=claimed))
    found = {}
    for case in root.iter("testcase"):
        outcome = [child.tag for child in case if child.tag != "system-out"]
        found[case.attrib["classname"], case.attrib["name"]] = outcome
    return found


def test_a_regression_fails_and_other_rows_pass() -> None:
    found = cases(run())
    assert len(found) == 15
    assert {key for key, outcome in found.items() if outcome} == {
        ("work.slower", metric) for metric in ("cpu", "wall", "steps_per_second")
    }
    assert found["work.slower", "cpu"] == ["failure"]


def test_rows_without_a_conclusion_are_skipped() -> None:
    found = cases(undecided())
    assert found["work.idle", "cpu"] == ["skipped"]
    assert found["work.idle", "requests"] == []
    assert set(map(tuple, cases(run(), claimed=False).values())) == {("skipped",)}


def test_a_row_with_too_many_lost_pairs_does_not_pass() -> None:
    found = gate(lost={("head", n): "crash" for n in (2, 3, 5)})
    assert outcome(found).kind == "not measured"
    assert "equivalent" in {row.judgement.verdict for row in found.comparisons}
    assert set(map(tuple, cases(found).values())) == {("error",)}
    toggles = replace(found, header=replace(found.header, revisions=None))
    assert set(map(tuple, cases(toggles).values())) == {("skipped",)}
    one = gate(lost={("head", 2): "crash"})
    assert set(map(tuple, cases(one).values())) == {()}


def test_a_head_that_does_not_start_gets_errors() -> None:
    found = gate(lost={("head", n): "crash" for n in range(9)})
    assert outcome(found).code() == CannotMeasure.exit_code
    assert set(map(tuple, cases(found).values())) == {("error",)}
    assert 'errors="5"' in junit(found)


def test_a_failure_has_its_figures() -> None:
    root = ElementTree.fromstring(junit(run()))
    messages = [failure.attrib["message"] for failure in root.iter("failure")]
    assert re.fullmatch(r"regression: \d+ ms → \d+ ms, ratio 1\.\d+ \[.*\]", messages[0])


def test_each_suite_has_the_noise_of_its_scenario() -> None:
    floors = [replace(floor, reliability="too noisy") for floor in run().noise]
    others = [replace(floor, scenario="other") for floor in floors]
    root = ElementTree.fromstring(junit(replace(run(), noise=(*floors, *others))))
    noise, noisy = root[0][0]
    assert root[0][0].tag == "properties"
    assert noise.attrib["name"] == "A/A noise"
    assert noise.attrib["value"].startswith("cpu ")
    assert noisy.attrib["name"].startswith("For information only")
    assert "work cpu" in noisy.attrib["value"]
    assert "other" not in noisy.attrib["value"]


def test_different_answers_are_errors() -> None:
    found = cases(differing())
    assert found["work.idle", "cpu"] == ["error"]
    assert found["work.faster", "cpu"] == []


def test_a_row_without_figures_has_none() -> None:
    (row, *_) = (row for row in run().comparisons if row.judgement.verdict == "regression")
    no_ratio = row.estimate and replace(row.estimate, log_ratio=None, interval=None)
    rows = [replace(row, estimate=no_ratio), replace(row, estimate=None)]
    root = ElementTree.fromstring(junit(replace(run(), comparisons=tuple(rows))))
    first, second = (out.text for out in root.iter("system-out"))
    assert re.fullmatch(r"regression: off \d+ ms, on \d+ ms, saved -\d+ ms", first or "")
    assert second == "regression"


@pytest.mark.parametrize("made", [run, undecided, differing])
def test_junit_counts_match_the_cases(made: object) -> None:
    assert callable(made)
    root = ElementTree.fromstring(junit(made()))
    outcomes = [outcome for found in cases(made()).values() for outcome in found]
    for element in (root, root[0]):
        assert int(element.attrib["tests"]) == len(list(root.iter("testcase")))
        assert int(element.attrib["failures"]) == outcomes.count("failure")
        assert int(element.attrib["errors"]) == outcomes.count("error")
        assert int(element.attrib["skipped"]) == outcomes.count("skipped")


def test_scenarios_are_suites() -> None:
    rows = [replace(row, scenario=name) for row in run().comparisons for name in ("b", "a")]
    root = ElementTree.fromstring(junit(replace(run(), comparisons=tuple(rows))))
    assert [suite.attrib["name"] for suite in root] == ["a", "b"]
    assert root.attrib["tests"] == "30"


# -- from the command line


class PlayedBench(runner.Bench):
    """A runner without processes. If set, all pairs of the toggle give different answers."""

    differ = False

    @contextmanager
    def executor(
        self, scenarios: Mapping[str, Scenario], keep: Path | None = None
    ) -> Iterator[Executor]:
        yield Machine(lost={("batched_trajectory", n): "differ" for n in range(9 * self.differ)})


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[PlayedBench]:
    """A scenario in the current folder, a separate lock and runner, and no CI variables."""
    (tmp_path / "tiny.toml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(LOCK_VARIABLE, str(tmp_path / "lock"))
    for name in (SUMMARY_VARIABLE, "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)

    class Bench(PlayedBench):
        pass

    monkeypatch.setattr(runner, "Bench", Bench)
    return Bench


RUN = ("run", "tiny.toml", "--pairs", "8", "--out", "run.json")
REPORTS = ("--markdown", "comment.md", "--junit", "junit.xml")


def test_a_run_writes_its_reports(
    played: type[PlayedBench],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(SUMMARY_VARIABLE, "summary.md")
    assert main([*RUN, *REPORTS]) == 0
    assert "::" not in capsys.readouterr().out
    text = Path("comment.md").read_text()
    assert text.startswith(markdown.MARKER)
    assert text == markdown.comment(store.read_run(Path("run.json")))
    assert Path("summary.md").read_text() == text
    assert len(list(ElementTree.parse("junit.xml").iter("testcase"))) == 2
    assert not list(Path().glob(".*.part"))


def test_reports_are_written_for_every_exit_code(
    played: type[PlayedBench],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    played.differ = True
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert main([*RUN, *REPORTS]) == AnswersDiffer.exit_code
    assert "different answers" in Path("comment.md").read_text()
    assert 'errors="2"' in Path("junit.xml").read_text()
    out = capsys.readouterr().out
    assert "\n::error title=answers differ::tiny / batched_trajectory" in out


@pytest.mark.parametrize(
    ("argv", "code", "why"),
    [
        (["--toggle", "no_such"], 2, "no toggle"),
        (["--compare", "none.json"], 2, "no such run file"),
        (["--out", "run.txt"], 2, "must end in .json"),
    ],
)
def test_a_failed_run_replaces_older_reports(
    argv: list[str],
    code: int,
    why: str,
    played: type[PlayedBench],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(SUMMARY_VARIABLE, "summary.md")
    for name in ("comment.md", "junit.xml"):
        Path(name).write_text("no regression")
    assert main([*RUN, *argv, *REPORTS]) == code
    text = Path("comment.md").read_text()
    assert text.startswith(f"{markdown.MARKER}\n### trae-bench: could not be measured\n")
    assert text == Path("summary.md").read_text()
    (case,) = ElementTree.parse("junit.xml").iter("testcase")
    (error,) = case
    assert why in error.attrib["message"]


def test_an_early_interrupt_replaces_older_reports(
    played: type[PlayedBench], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "start", interrupt)
    Path("comment.md").write_text("no regression")
    assert main([*RUN, *REPORTS]) == 130
    assert "interrupted" in Path("comment.md").read_text()
    assert 'errors="1"' in Path("junit.xml").read_text()


def test_a_report_without_a_result_is_short() -> None:
    why = "@" * 50_000 + "\n" * 50_000
    assert len(unmeasured.comment(why)) < 65_536
    ElementTree.fromstring(unmeasured.junit("\x1b<\n&"))


def test_a_plan_writes_no_report(played: type[PlayedBench]) -> None:
    assert main([*RUN, "--toggle", "no_such", "--dry-run", *REPORTS]) == 2
    assert not Path("comment.md").exists()


def test_an_unwritable_report_does_not_stop_the_others(
    played: type[PlayedBench],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(SUMMARY_VARIABLE, str(Path.cwd()))
    long = f"{'x' * 300}.md"
    assert main([*RUN, "--markdown", long, "--junit", "junit.xml"]) == 4
    assert f"cannot write {long}: File name too long" in capsys.readouterr().err
    assert Path("junit.xml").exists()
    assert store.read_run(Path("run.json")).samples


def test_the_folder_of_a_report_is_created(played: type[PlayedBench]) -> None:
    assert main([*RUN, "--markdown", "new/one/comment.md", "--junit", "new/junit.xml"]) == 0
    assert Path("new/one/comment.md").exists()
    assert Path("new/junit.xml").exists()


@pytest.mark.parametrize("report", ["tiny.toml/report", "tiny.toml/a/b/report"])
@pytest.mark.parametrize("option", ["--markdown", "--junit"])
def test_an_impossible_report_folder_is_rejected_before_measuring(
    played: type[PlayedBench], capsys: pytest.CaptureFixture[str], option: str, report: str
) -> None:
    assert main([*RUN, option, report]) == 4
    assert f"cannot write {report}: tiny.toml is not a folder" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["tiny.toml"]


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc here")
def test_an_unwritable_report_folder_is_rejected_before_measuring(
    played: type[PlayedBench], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, "--markdown", "/proc/comment.md"]) == 4
    assert "cannot write /proc/comment.md: " in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["tiny.toml"]


def test_every_unwritable_report_is_named(
    played: type[PlayedBench], capsys: pytest.CaptureFixture[str]
) -> None:
    long = [f"{letter * 300}.md" for letter in "xy"]
    reports = ("--markdown", long[0], "--junit", long[1])
    assert main([*RUN, *reports]) == 4
    err = capsys.readouterr().err
    assert all(f"cannot write {path}: File name too long" in err for path in long)
    for code, wrong in ((5, []), (2, ["--toggle", "no_such"])):
        played.differ = True
        assert main([*RUN, "--force", *wrong, *reports]) == code
        err = capsys.readouterr().err
        assert all(f"cannot write {path}: File name too long" in err for path in long)
        assert err.count("Error: ") == 2


@pytest.mark.parametrize("reports", [[], ["--markdown", "-"]])
def test_an_older_run_file_is_not_reported_as_this_run(
    played: type[PlayedBench],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reports: list[str],
) -> None:
    def full(*_: object, **__: object) -> None:
        raise CannotMeasure("cannot write run.json: No space left on device")

    write_run(Path("run.json"), run())
    monkeypatch.setattr(runner, "write_run", full)
    assert main([*RUN, "--force", *reports]) == 4
    out, err = capsys.readouterr()
    assert "No space left on device" in err
    assert "Run file: " not in out + err
    if not reports:
        assert "No run file was written; run.journal.jsonl has all samples.\nResume with: " in out


def test_kept_folders_are_named(
    played: type[PlayedBench], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, "--keep-scratch"]) == 0
    assert "Folders of the trials: run.scratch\n" in capsys.readouterr().err


def test_the_path_of_a_report_is_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_path("Page", Path("a\n::error::\x1b]0;title\x07.html"))
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "\x1b" not in err


def test_a_stored_run_is_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.json"
    write_run(path, run())
    assert main(["report", str(path)]) == 0
    out = capsys.readouterr().out
    assert "work / slower" in out
    assert "3 regressions" in out
    assert main(["report", str(path), "--markdown", "-"]) == 0
    assert capsys.readouterr().out == markdown.comment(run())
    assert main(["report", str(path), "--junit", str(tmp_path / "junit.xml")]) == 0
    assert (tmp_path / "junit.xml").read_text() == junit(run())
    assert capsys.readouterr().err == f"JUnit: {tmp_path / 'junit.xml'}\n"
    assert main(["report", str(path), "--json", "--markdown", str(tmp_path / "comment.md")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["comparisons"]) == len(run().comparisons)
    assert (tmp_path / "comment.md").read_text() == markdown.comment(run())


@pytest.mark.parametrize("two", [["--markdown", "-", "--junit", "-"], ["--html", "-", "--json"]])
def test_two_reports_do_not_share_a_stream(
    two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run.json", run())
    assert main(["report", str(tmp_path / "run.json"), *two]) == 2
    shown = capsys.readouterr()
    assert "the standard output takes one report" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    "command",
    [
        "run --markdown - --junit -",
        "run --markdown - --json",
        "compare {0} {0} --markdown - --json",
    ],
)
def test_two_reports_of_other_commands_do_not_share_a_stream(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run.json", run())
    assert main(command.format(tmp_path / "run.json").split()) == 2
    shown = capsys.readouterr()
    assert "the standard output takes one report" in shown.err
    assert shown.out == ""


def test_verify_exits_with_4_if_one_file_is_inconsistent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad, none = (tmp_path / f"{name}.json" for name in ("good", "bad", "none"))
    write_run(good, run())
    write_run(bad, replace(run(), elapsed=1e6))
    none.write_text("{}")
    assert main(["verify", str(good)]) == 0
    out = capsys.readouterr().out
    assert "good.json: consistent" in out
    assert "commit: 0123456789" in out
    assert "verify cannot detect: samples that were invented" in out
    assert main(["verify", str(good), str(bad), str(none)]) == 4
    out = capsys.readouterr().out
    assert "good.json: consistent" in out
    assert "bad.json: NOT consistent" in out
    assert "wrong: seal: does not match" in out
    assert "none.json: not a valid run file" in " ".join(out.split())
    assert "verify cannot detect" in out
    assert main(["verify", str(none)]) == 4
    assert "verify cannot detect" not in capsys.readouterr().out, "none was read"
    assert main(["verify", str(tmp_path / "missing.json")]) == 2


def test_an_export_is_written_completely_or_not_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "run.json", tmp_path / "out.json"
    write_run(path, run())
    assert main(["export", str(path), "--format", "bmf", "--out", str(out)]) == 0
    whole = out.read_text()
    assert main(["export", str(path), "--format", "bmf"]) == 0
    assert capsys.readouterr().out == whole
    write_run(path, replace(run(), samples=()), force=True)
    assert main(["export", str(path), "--format", "bmf", "--out", str(out)]) == 4
    assert out.read_text() == whole
    assert [each.name for each in tmp_path.iterdir() if each not in (path, out)] == []
    assert main(["export", str(path), "--format", "asv"]) == 2


@pytest.mark.parametrize("name", ["verify", "export", "report"])
def test_help_imports_little(name: str) -> None:
    assert not slow_modules(imported_modules(name, "--help"))
