"""Tests of the gate: outcomes, reports, and end-to-end runs."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trae_bench.cli.test_cli import failing
from tests.trae_bench.fakes import TINY, Memory, ScriptedExecutor
from tests.trae_bench.mutations import HEADS, commit, git, repository
from tests.trae_bench.runs import (
    AGAIN,
    COMPARED,
    NOW,
    Machine,
    gate,
    gate_plan,
    honest,
    scenario_used,
)
from trae_bench.cli import main
from trae_bench.design.cells import confirming
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.execution.host_lock import LOCK_VARIABLE
from trae_bench.metrics import METRICS, plain_metric
from trae_bench.model.experiment import Limits, Trial
from trae_bench.model.result import Confirmation, Judgement
from trae_bench.model.run import RevisionId, RunFile
from trae_bench.report.export import export
from trae_bench.report.text import gate as gate_text
from trae_bench.report.text.ci import annotations
from trae_bench.report.text.junit import junit
from trae_bench.report.text.markdown import MARKER, comment
from trae_bench.run import runner
from trae_bench.run.gate_base import find_base
from trae_bench.run.planner import Plan, RunRequest, plan
from trae_bench.run.scheduler import Scheduler
from trae_bench.stats.analysis import comparisons
from trae_bench.storage import run_file as store
from trae_bench.storage.seal import sealed
from trae_bench.storage.verify import verify
from trae_bench.verdicts.gate import EXIT_CODES, Kind, answers_of_head, outcome

pytestmark = pytest.mark.slow
replace = msgspec.structs.replace
CRASH = {("head", number): "crash" for number in range(9)}
DIFFER = {("head", number): "differ" for number in range(9)}


@cache
def slower() -> RunFile:
    return gate(1.1)


@cache
def not_confirmed() -> RunFile:
    return gate(1.1, again=1.0)


def with_new(run: RunFile, new: dict[str, str]) -> RunFile:
    return replace(run, header=replace(run.header, revisions=replace(COMPARED, new=new)))


def only_new() -> RunFile:
    return gate(cells=(), revisions=replace(COMPARED, new={"later": "no such toggle"}))


# -- the outcome


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (gate, "pass"),
        (slower, "regression"),
        (lambda: gate(0.9), "pass"),
        (not_confirmed, "inconclusive"),
        (lambda: gate(noise=0.06), "inconclusive"),
        (lambda: gate(noise=0.5), "pass"),
        (lambda: gate(pairs=2, noise=0.05), "inconclusive"),
        (lambda: gate(lost=CRASH), "not measured"),
        (lambda: gate(lost={("head", n): "crash" for n in (2, 3, 5)}), "not measured"),
        (lambda: gate(lost={("head", 2): "crash"}), "pass"),
        (lambda: gate(lost=DIFFER), "answers differ"),
        (lambda: gate(lost={("head", n): "differ" for n in (2, 5, 7)}), "answers differ"),
        (lambda: gate(lost={("head", 5): "differ"}), "pass"),
        (lambda: gate(lost={("head", n): "differ" for n in (2, 20)}, pairs=60), "answers differ"),
        (lambda: gate(lost={("head", n): "crash" for n in (2, 12)}, pairs=60), "not measured"),
        (lambda: gate(lost={**CRASH, ("head", 1): "differ"}), "answers differ"),
        (lambda: gate(lost={(NOISE_FLOOR, n): "crash" for n in range(9)}), "pass"),
        (lambda: gate(effects={NOISE_FLOOR: 1.2, "head": 1.0}), "not measured"),
        (lambda: replace(gate(1.1), stopped="interrupted"), "interrupted"),
        (lambda: replace(gate(), comparisons=()), "not measured"),
        (only_new, "pass"),
        (honest, "pass"),
    ],
)
def test_outcome(made: Any, kind: Kind) -> None:
    assert outcome(made()).kind == kind


@pytest.mark.parametrize("how", ["differ", "crash"])
def test_a_tolerated_pair_is_followed_up_and_named(how: str) -> None:
    run = gate(lost={("head", 5): how}, pairs=60)
    assert outcome(run).kind == "pass"
    assert {row.pairs.measured for row in run.comparisons if row.contrast == "head"} == {20, 24}
    assert verify(run) == []
    assert "; tolerated: work, 1 of 25 pairs: " in gate_text.sentence(run)


def test_precedence_of_outcomes() -> None:
    cells = (*gate_plan("work"), *gate_plan("other"))
    scenarios = {name: scenario_used(name) for name in ("work", "other")}
    run = gate(1.1, cells=cells, scenarios=scenarios)

    def lost(run: RunFile, **changes: int) -> RunFile:
        rows = [
            replace(row, pairs=replace(row.pairs, **changes)) if row.scenario == "other" else row
            for row in run.comparisons
        ]
        return replace(run, comparisons=tuple(rows))

    assert outcome(lost(run, measured=0, not_measured=3)).kind == "regression"
    assert outcome(lost(run, measured=0, answers_differ=3)).kind == "answers differ"


def test_exit_codes() -> None:
    assert {kind: outcome(run).code() for kind, run in runs_by_kind().items()} == EXIT_CODES
    strict = {kind: outcome(run).code(strict=True) for kind, run in runs_by_kind().items()}
    assert strict == EXIT_CODES | {"inconclusive": 3}


@cache
def runs_by_kind() -> dict[Kind, RunFile]:
    return {
        "pass": gate(),
        "regression": slower(),
        "inconclusive": not_confirmed(),
        "not measured": gate(lost=CRASH),
        "answers differ": gate(lost=DIFFER),
        "interrupted": replace(gate(1.1), stopped="interrupted"),
    }


def test_lost_fresh_pairs_count() -> None:
    again = {(AGAIN, number): "differ" for number in range(9)}
    assert outcome(gate(1.1, lost=again)).kind == "answers differ"
    crashes = {(AGAIN, number): "crash" for number in range(9)}
    assert outcome(gate(1.1, lost=crashes)).kind == "not measured"


def test_gated_row_without_a_value_is_inconclusive() -> None:
    run = gate()
    first = next(row for row in run.comparisons if row.gated)
    blank = replace(first, judgement=replace(first.judgement, verdict="not measured"))
    rows = tuple(blank if row is first else row for row in run.comparisons)
    assert outcome(replace(run, comparisons=rows)).code(strict=True) == 3


def test_row_with_a_missing_value_gets_fresh_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The eighth value comes with pair 9, the last pair, which is not a look."""
    usual = Machine._values

    def figures(self: Machine, trial: Trial) -> dict[str, float]:
        found = usual(self, trial)
        if trial.contrast == "head" and trial.pair == 3:
            del found["cpu"]
        return found

    monkeypatch.setattr(Machine, "_values", figures)
    run = gate(1.1, pairs=9)
    cpu = next(row for row in run.comparisons if (row.contrast, row.metric) == ("head", "cpu"))
    assert cpu.confirmation is not None
    assert cpu.judgement.verdict == "regression"
    assert not verify(run, now=NOW)


def test_noise_pairs_use_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(
        cell.contrast.a.name == "base"
        for cell in planned_in(tmp_path, monkeypatch).cells
        if cell.contrast.name == NOISE_FLOOR
    )


def planned_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The plan of a gate in a repository of two commits."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.chdir(repository(folder / "repository"))
    base = find_base("HEAD", Path.cwd())
    return plan(RunRequest(command="", scenarios=("bugfix",), compare=base))


def test_different_answers_are_reported() -> None:
    run = gate(lost={("head", number): "differ" for number in (2, 5, 7)})
    assert any(line.startswith("::error") for line in annotations(run))
    assert "<error" in junit(run)


def test_run_with_new_scenarios_only() -> None:
    assert gate_text.sentence(only_new()).startswith("Nothing to compare")


def test_verify_detects_swapped_sides() -> None:
    run = slower()
    cells = tuple(
        replace(cell, contrast=replace(cell.contrast, a=cell.contrast.b, b=cell.contrast.a))
        for cell in run.header.cells
    )
    findings = verify(replace(run, header=replace(run.header, cells=cells)), now=NOW)
    assert any("the header generates work/head" in finding.problem for finding in findings)


def test_short_run_gives_no_verdict() -> None:
    assert outcome(slower(), claimed=False).kind == "inconclusive"
    assert outcome(gate(lost=DIFFER), claimed=False).kind == "answers differ"


def test_a_base_that_differs_from_itself_gets_a_remedy() -> None:
    itself = gate(lost={(NOISE_FLOOR, number): "differ" for number in range(9)})
    assert "The base differs from itself: name what varies" in " ".join(gate_text.details(itself))
    # The requests of agent_core are always compared.
    assert "--equal" not in " ".join(gate_text.details(gate(lost=DIFFER)))


def test_slow_toggle_is_no_failure() -> None:
    run = honest()
    assert "regression" in {row.judgement.verdict for row in run.comparisons}
    assert outcome(run).code() == outcome(run).code(strict=True) == 0
    assert outcome(honest(toggles=("idle",), noise=0.1)).code(strict=True) == 3


def test_ungated_metric_does_not_fail_the_gate() -> None:
    rows = [replace(row, gated=row.metric != "cpu") for row in gate(1.03).comparisons]
    assert outcome(gate(1.03)).kind == "regression"
    assert outcome(replace(gate(1.03), comparisons=tuple(rows))).kind != "regression"


# -- fresh pairs


def count_pairs(run: RunFile) -> Counter[tuple[str, str]]:
    """Pairs by contrast and mode, warm-up pairs included."""
    return Counter((s.contrast, s.mode) for s in run.samples if s.side == "A")


def test_fresh_pairs_follow_regressions_only() -> None:
    assert not [contrast for contrast, _ in count_pairs(gate()) if contrast == AGAIN]
    assert not [contrast for contrast, _ in count_pairs(gate(0.8)) if contrast == AGAIN]
    # 3 % is above the threshold of CPU time, but below that of wall time.
    assert set(count_pairs(gate(1.03))) - set(count_pairs(gate())) == {(AGAIN, "duet")}


def test_number_of_fresh_pairs() -> None:
    for effect, noise in ((1.1, 0.01), (1.04, 0.02), (1.04, 0.03)):
        run = gate(effect, noise=noise, pairs=None)
        (row,) = (row for row in run.comparisons if (row.contrast, row.metric) == ("head", "cpu"))
        assert row.confirmation is not None
        assert row.confirmation.wanted == row.judgement.look
        assert count_pairs(run)[AGAIN, "duet"] == row.judgement.look + 1


def test_fresh_pairs_have_a_different_order() -> None:
    run = gate(1.1, noise_pairs=24)
    slots = {
        name: [s.slot for s in run.samples if s.contrast == name and s.side == "A"]
        for name in ("head", AGAIN)
    }
    assert len(slots["head"]) == len(slots[AGAIN])
    assert slots["head"] != slots[AGAIN]


def test_unconfirmed_regression_is_inconclusive() -> None:
    found = {row.metric: row for row in not_confirmed().comparisons if row.contrast == "head"}
    assert found["cpu"].judgement.verdict == "inconclusive"
    assert found["cpu"].judgement.settled
    assert found["cpu"].confirmation is not None and not found["cpu"].confirmation.stands
    # An effect below half of the threshold confirms nothing.
    for again in (1.005, 1.0, 0.9):
        assert outcome(gate(1.1, again=again)).kind == "inconclusive"
    assert outcome(gate(1.1, again=1.05)).kind == "regression"


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8, 0.95])
def test_a_regression_that_is_found_has_time_for_its_confirmation(share: float) -> None:
    """Whatever the budget, no regression ends as one without time for fresh pairs."""
    whole = gate(1.1)
    run = gate(1.1, budget=share * whole.elapsed)
    found = [row for row in run.comparisons if row.confirmation is not None]
    assert all(row.confirmation.stands for row in found if row.confirmation is not None)
    assert outcome(run).kind == ("regression" if found else "inconclusive")
    assert found or share < 0.6
    assert verify(run, now=NOW) == []


def test_fresh_pairs_come_first() -> None:
    """Confirmation pairs run before the first look of the next cell."""
    samples = gate(1.1).samples
    first = next(n for n, sample in enumerate(samples) if sample.contrast == AGAIN)
    before = samples[first - 1]
    assert (before.contrast, before.mode, before.pair) == ("head", "duet", 8)
    assert not any((one.contrast, one.mode) == ("head", "serial") for one in samples[:first])


def test_counts_are_confirmed_by_direction() -> None:
    """Without a p-value and without a threshold: one more request is a regression."""
    cells = gate_plan()
    samples = slower().samples

    def counted(base: float, head: float, again: tuple[float, float]) -> Confirmation | None:
        values = {"head": (base, head), AGAIN: again, NOISE_FLOOR: (base, base)}
        changed = [
            replace(
                sample,
                metrics=sample.metrics | {"requests": values[sample.contrast][sample.side == "B"]},
            )
            for sample in samples
        ]
        rows = comparisons(changed, cells, METRICS)
        (row,) = (row for row in rows if (row.contrast, row.metric) == ("head", "requests"))
        assert (row.judgement.verdict == "regression") == (
            row.confirmation is not None and row.confirmation.stands
        )
        return row.confirmation

    confirmed = counted(200.0, 201.0, (200.0, 201.0))
    assert confirmed is not None and (confirmed.stands, confirmed.p) == (True, 0.0)
    for again in ((200.0, 200.0), (201.0, 200.0)):
        refuted = counted(200.0, 201.0, again)
        assert refuted is not None and not refuted.stands
    from_nothing = counted(0.0, 3.0, (0.0, 3.0))
    assert from_nothing is not None and from_nothing.stands
    assert counted(200.0, 200.0, (200.0, 300.0)) is None
    assert counted(200.0, 199.0, (200.0, 300.0)) is None


def session(machine: Machine, limits: Limits) -> Scheduler:
    cells = gate_plan()
    return Scheduler(
        cells,
        METRICS,
        executor=machine,
        sink=Memory(),
        clock=machine.clock,
        seed=7,
        limits=limits,
    )


@given(kept=st.integers(0, 54), effect=st.sampled_from((1.0, 1.05, 1.1)))
def test_resumed_gate_takes_the_same_pairs(kept: int, effect: float) -> None:
    """Also if it was interrupted during the fresh pairs."""
    limits = Limits(pairs=12)
    effects = {"head": effect, AGAIN: effect}
    whole = session(Machine(effects=effects), limits).run()
    resumed = session(Machine(effects=effects), limits).run(whole.samples[: 2 * kept])

    def keys(samples: Any) -> list[tuple[object, ...]]:
        return sorted(
            (sample.contrast, sample.mode, sample.pair, sample.side) for sample in samples
        )

    assert keys(resumed.samples) == keys(whole.samples)
    assert whole.stopped == resumed.stopped == "done"


# -- verify


def test_valid_gates_verify() -> None:
    for run in (*runs_by_kind().values(), gate(1.04, noise=0.03, pairs=None), only_new()):
        if run.stopped != "interrupted":
            assert verify(run, now=NOW) == []


def wrong(run: RunFile) -> str:
    found = verify(sealed(run), now=NOW)
    return "\n".join(str(finding) for finding in found if finding.severity == "wrong")


def edited(run: RunFile, **changes: Any) -> RunFile:
    """The run with a changed `cpu` row."""
    rows = [
        replace(row, **changes) if (row.contrast, row.metric) == ("head", "cpu") else row
        for row in run.comparisons
    ]
    return replace(run, comparisons=tuple(rows))


def test_verify_detects_edited_judgements() -> None:
    run = slower()
    (row,) = (row for row in run.comparisons if (row.contrast, row.metric) == ("head", "cpu"))
    assert row.confirmation is not None
    milder = replace(row.judgement, verdict="inconclusive")
    refuted = replace(row.confirmation, stands=False)
    assert "judgement.verdict" in wrong(edited(run, judgement=milder))
    assert "confirmation.stands" in wrong(edited(run, confirmation=refuted))
    assert "confirmation" in wrong(edited(run, confirmation=None))
    forged = Judgement("regression", 8, True, 0.0)
    assert "judgement" in wrong(edited(gate(), judgement=forged))


def test_verify_detects_dropped_and_added_fresh_pairs() -> None:
    run = slower()
    kept = tuple(one for one in run.samples if one.contrast != AGAIN)
    assert "it is not settled" in wrong(replace(run, samples=kept))
    fresh = tuple(one for one in run.samples if one.contrast == AGAIN)
    calm = gate()
    later = tuple(replace(one, started=one.started + 1000) for one in fresh)
    added = replace(calm, samples=calm.samples + later, elapsed=calm.elapsed + 1000)
    assert "at most 0 planned" in wrong(added)


def test_verify_detects_a_plan_without_confirmation() -> None:
    run = gate()
    unasked = tuple(cell for cell in run.header.cells if not cell.confirms)
    head = replace(run.header, cells=unasked)
    assert "the header generates 6" in wrong(replace(run, header=head))
    other = tuple(replace(cell, confirms="") for cell in run.header.cells)
    assert wrong(replace(run, header=replace(run.header, cells=other)))
    assert "the header generates" in wrong(replace(run, header=replace(run.header, revisions=None)))
    other_base = replace(COMPARED, base=RevisionId("c" * 12, "c" * 40, False))
    assert "the header generates" in wrong(
        replace(run, header=replace(run.header, revisions=other_base))
    )
    cell = next(cell for cell in gate_plan() if cell.confirms)
    without_first = tuple(planned for planned in gate_plan() if confirming(planned) != cell)
    assert "the header generates 6" in wrong(
        replace(run, header=replace(run.header, cells=without_first))
    )


# -- reports


def test_sentence_starts_with_the_verdict() -> None:
    sentences = {kind: gate_text.sentence(run) for kind, run in runs_by_kind().items()}
    assert sentences["pass"] == "No regression against aaaaaaa"
    assert sentences["regression"].startswith("Regression: work cpu +10.")
    assert sentences["regression"].endswith("] against aaaaaaa")
    assert sentences["inconclusive"].startswith("Inconclusive against aaaaaaa: work cpu +10.")
    assert "(not confirmed)" in sentences["inconclusive"]
    assert sentences["not measured"].startswith("Could not be measured: work, 2 of 2 pairs: head: ")
    assert sentences["answers differ"].startswith("Base and head give different answers: work")
    assert sentences["interrupted"].startswith("Interrupted")
    assert "improvement: work cpu -9." in gate_text.sentence(gate(0.9))


def test_comment_headline_has_the_verdict() -> None:
    for run in runs_by_kind().values():
        first, second, *_ = comment(run).splitlines()
        assert first == MARKER
        assert second.startswith("### trae-bench: ")
        assert gate_text.sentence(run).split()[0].rstrip(":;") in second
    text = comment(slower())
    assert "Confirmed by 8 fresh pairs" in text
    assert "| base | head |" in text
    # An unconfirmed regression is not highlighted.
    assert "**regression**" not in comment(not_confirmed())


def test_junit_fails_for_confirmed_regressions_only() -> None:
    def kinds(run: RunFile) -> Counter[str]:
        root = ElementTree.fromstring(junit(run))
        return Counter(child.tag for case in root.iter("testcase") for child in case)

    assert kinds(slower())["failure"] == 3
    assert kinds(not_confirmed())["failure"] == 0
    assert "not confirmed by 8 fresh pairs" in junit(not_confirmed())
    assert "base 3" in junit(slower())


def test_new_scenarios_are_reported_and_escaped() -> None:
    nasty = "\x1b[31m<b>@you</b>\n::error::gotcha"
    run = with_new(gate(), {"later": nasty, "\x1b]0;x\x07<i>": "oops"})
    assert verify(sealed(with_new(gate(), {"later": "no"})), now=NOW) == []
    details = "\n".join(gate_text.details(run))
    assert "New, the base cannot run it: later" in details
    for text in (details, comment(run), junit(run)):
        assert "later" in text
        assert "\x1b" not in text
        assert "::error" not in text
        assert text is details or ("<b>" not in text and "<i>" not in text)
    root = ElementTree.fromstring(junit(run))
    assert root.attrib["tests"] == str(sum(1 for _ in root.iter("testcase")))
    assert root.attrib["skipped"] == str(sum(1 for _ in root.iter("skipped")))


def test_revision_names_are_escaped() -> None:
    head = replace(
        COMPARED,
        base=RevisionId("a" * 12, "\x1b[31m<b>", False),
        requested="<i>\x1b]0;x\x07",
        notes=("\x1b[31m<b>", "<i>"),
    )
    run = slower()
    run = replace(run, header=replace(run.header, revisions=head))
    for text in (gate_text.sentence(run), *gate_text.details(run), comment(run), junit(run)):
        assert "\x1b" not in text
    assert "<i>" not in comment(run) and "<b>" not in comment(run)


def test_report_shows_a_stored_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.write_run(tmp_path / "run.json", slower())
    assert main(["report", str(tmp_path / "run.json")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Regression: work cpu +10." in shown
    assert "Base is aaaaaaa (main), head is bbbbbbb." in shown
    assert main(["verify", str(tmp_path / "run.json")]) == 0


# -- the command line


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a base and a checked-out branch; its own cache and lock."""
    folder = repository(tmp_path / "checkout")
    git(folder, "checkout", "--quiet", "-b", "work")
    (folder / "tiny.toml").write_text(TINY)
    monkeypatch.chdir(folder)
    monkeypatch.setenv(LOCK_VARIABLE, str(tmp_path / "lock"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return folder


@pytest.mark.parametrize(
    ("args", "messages"),
    [
        (["--compare", "bugfix"], ["'bugfix' is a scenario", "bugfix --compare", "--compare=REF"]),
        (["--compare", "tiny.toml"], ["'tiny.toml' is a scenario"]),
        (["--compare", "nowhere"], ["no commit 'nowhere'"]),
        (["tiny.toml", "--compare", "main", "--toggle", "lazy_tools"], ["--toggle", "--compare"]),
        (["tiny.toml", "--compare", "main", "--design", "both"], ["--design"]),
        (
            ["tiny.toml", "--compare"],
            ["nothing to compare: the working tree equals the merge base with main", "HEAD~1"],
        ),
        (["streaming", "--compare", "main", "--metric", "x"], ["no metric 'x'"]),
    ],
)
def test_invalid_comparisons_exit_with_2(
    args: list[str], messages: list[str], checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *args]) == 2
    error = " ".join(capsys.readouterr().err.split())
    for message in messages:
        assert message in error


def test_compare_outside_a_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = checkout.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout.parent))
    assert main(["run", "--compare"]) == 2
    assert "is not in a readable git repository" in capsys.readouterr().err
    git(checkout.parent, "init", "--quiet", "elsewhere")
    assert main(["run", "--compare"]) == 2
    assert "no package agent_core" in capsys.readouterr().err


def test_plan_of_a_gate(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["run", "tiny.toml", "--compare", "HEAD", "--dry-run"]
    assert main(args) == 0
    shown = capsys.readouterr().out
    assert "head" in shown and AGAIN not in shown
    assert "fresh pairs" in shown
    assert "at least 30 runs of head are checked in each scenario" in shown
    assert main([*args, "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    names = Counter((cell["contrast"]["name"], cell.get("confirms", "")) for cell in cells)
    assert names == {(NOISE_FLOOR, ""): 2, ("head", ""): 2, (AGAIN, "head"): 2}
    a, b = cells[2]["contrast"]["a"], cells[2]["contrast"]["b"]
    assert (a["name"], b["name"]) == ("base", "head")
    assert len(a["revision"]) == len(b["revision"]) == 12


def test_filter_keeps_confirmation(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The remaining rows still have their confirming cells."""
    only = ("--filter", "tiny/head/cpu")
    assert main(["run", "tiny.toml", "--compare", "HEAD", *only, "--dry-run", "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [cell["contrast"]["name"] for cell in cells] == [NOISE_FLOOR, "head", AGAIN]
    assert {tuple(cell["metrics"]) for cell in cells} == {("cpu",)}


def test_settings_are_used(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(checkout, "checkout", "--quiet", "main")
    set_up(checkout, OWN_SETTINGS)
    git(checkout, "checkout", "--quiet", "-B", "work")
    HEADS["an import"](checkout)
    assert main(["run", "--compare", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {cell["scenario"] for cell in found["cells"]} == {"tiny"}
    assert found["limits"]["pairs"] == 2


OWN_SETTINGS = """
[tool.trae-bench]
scenarios = ["tiny.toml"]
profile = "smoke"
default-branch = "main"
[tool.trae-bench.thresholds]
cpu = 0.25
"""


def set_up(checkout: Path, settings: str) -> None:
    """Commit other settings."""
    project = checkout / "pyproject.toml"
    text = project.read_text(encoding="utf-8").partition("\n[tool.trae-bench]")[0]
    project.write_text(text + settings, encoding="utf-8")
    commit(checkout, "settings")


def shown_plan(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["run", "--dry-run", *args]) == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("compare", [["--compare"], ["--compare", "main"]])
def test_a_change_cannot_set_its_own_settings(
    compare: list[str], checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Thresholds, scenarios, profile and default branch come from the base."""
    git(checkout, "checkout", "--quiet", "main")
    set_up(checkout, OWN_SETTINGS)
    git(checkout, "checkout", "--quiet", "-B", "work")
    set_up(
        checkout,
        "\n[tool.trae-bench]\ndefault-branch = 'work'\n[tool.trae-bench.thresholds]"
        "\ncpu = 0.9\npeak_rss = 0.9\n",
    )
    base = find_base(compare[1] if compare[1:] else "", Path.cwd())
    assert base.commit == git(checkout, "rev-parse", "main")
    assert base.settings.thresholds == {"cpu": 0.25}
    shown = shown_plan(capsys, *compare)
    for note in (
        "head changes [tool.trae-bench.thresholds] peak_rss from unset to 0.9; the base's value",
        "[tool.trae-bench.thresholds] cpu from 0.25 to 0.9",
        "[tool.trae-bench] profile from smoke to unset",
        "[tool.trae-bench] scenarios from tiny.toml to unset",
        "[tool.trae-bench] default-branch from main to work",
    ):
        assert note in shown


def test_a_change_cannot_edit_its_own_scenario(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor the files of its workspace, nor by removing it."""
    own = checkout / "own"
    (own / "files").mkdir(parents=True)
    scenario, file = own / "small.toml", own / "files" / "a.txt"
    original = TINY.replace('"tiny"', '"small"') + '[workspace]\nfolder = "files"\n'
    scenario.write_text(original)
    file.write_text("base")
    git(checkout, "checkout", "--quiet", "main")
    git(checkout, "add", "--force", "own")
    commit(checkout, "own scenario")
    git(checkout, "checkout", "--quiet", "-B", "work")
    HEADS["an import"](checkout)
    base = find_base("main", Path.cwd())

    def planned() -> Plan:
        return plan(RunRequest(command="", scenarios=("own/small.toml",), compare=base))

    unchanged = planned()
    assert unchanged.checkouts is not None and unchanged.checkouts.notes == ()
    for change in (
        lambda: scenario.write_text(original.replace('"cpu", "wall"', '"wall"')),
        lambda: (scenario.write_text(original), file.write_text("head")),
        lambda: scenario.write_text("no scenario"),
        scenario.unlink,
    ):
        change()
        made = planned()
        assert made.used == unchanged.used
        assert made.scenarios["small"].workspace.files == {"a.txt": "base"}
        assert made.checkouts is not None
        assert made.checkouts.notes == (
            "head changes the scenario file own/small.toml; the base's file is used",
        )
    (checkout / "own").rename(checkout / "elsewhere")
    assert planned().used == unchanged.used


def test_invalid_settings_of_the_base_are_located(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(checkout, "\n[tool.trae-bench]\nprofil = 'full'\n")
    broken = git(checkout, "rev-parse", "HEAD")
    set_up(checkout, "")
    assert main(["run", "tiny.toml", "--compare", "HEAD~1", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert f"{broken[:12]}:pyproject.toml:" in error and "did you mean profile" in error


def test_equal_sides_need_an_explicit_request(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(checkout, "checkout", "--quiet", "main")
    for base in ("main", git(checkout, "rev-parse", "main")):
        assert main(["run", "tiny.toml", "--compare", base, "--dry-run"]) == 2
        error = capsys.readouterr().err
        assert f"the working tree equals {base}" in error and "--compare HEAD " in error
    equal = "base and head have the same agent_core: this run compares equal sides"
    assert equal in shown_plan(capsys, "tiny.toml", "--compare", "HEAD")
    commit(checkout, "documents only")
    assert equal in shown_plan(capsys, "tiny.toml", "--compare", "HEAD~1")
    HEADS["an import"](checkout)
    assert equal not in shown_plan(capsys, "tiny.toml", "--compare", "HEAD")


@pytest.mark.parametrize("side", ["base", "head"])
def test_another_python_is_refused(
    side: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = checkout / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    assert 'requires-python = ">=3.11"' in text
    for revision in ("base", "head"):
        wanted = "<3.11" if revision == side else ">=3.11,<4"
        project.write_text(text.replace('">=3.11"', f'"{wanted}"'), encoding="utf-8")
        commit(checkout, revision)
    assert main(["run", "tiny.toml", "--compare", "HEAD~1", "--dry-run"]) == 4
    error = " ".join(capsys.readouterr().err.split())
    assert f"{side} requires Python <3.11" in error


# -- end to end


def gated(checkout: Path, head: str, *more: str) -> tuple[int, RunFile]:
    """Commit a change of the agent and run the gate on it."""
    HEADS[head](checkout)
    commit(checkout, head)
    out = checkout.parent / "run.json"
    reports = (
        "--markdown",
        str(checkout.parent / "c.md"),
        "--junit",
        str(checkout.parent / "j.xml"),
    )
    metric = ("--metric", "modules_imported", "--pairs", "2")
    code = main(["run", "tiny.toml", *more, *metric, "--out", str(out), *reports])
    run = store.read_run(out)
    assert [finding for finding in verify(run) if finding.severity == "wrong"] == []
    assert MARKER in (checkout.parent / "c.md").read_text()
    ElementTree.parse(checkout.parent / "j.xml")
    return code, run


def test_head_with_more_imports_exits_with_1(checkout: Path) -> None:
    code, run = gated(checkout, "an import", "--compare")
    assert code == 1
    (row,) = (row for row in run.comparisons if row.contrast == "head")
    assert row.estimate is not None and row.estimate.difference == 1
    assert row.confirmation is not None and row.confirmation.stands
    assert run.header.revisions is not None
    assert run.header.revisions.requested == "the merge base with main"
    assert run.header.revisions.base.commit == git(checkout, "rev-parse", "main")
    assert "Regression" in (checkout.parent / "c.md").read_text()


def test_unchanged_head_exits_with_0(checkout: Path) -> None:
    code, run = gated(checkout, "nothing", "--compare", "main")
    assert code == 0
    assert outcome(run).kind == "pass"
    assert "this run compares equal sides" in (checkout.parent / "c.md").read_text()


def test_the_answers_of_head_are_checked_and_the_checks_can_be_resumed(checkout: Path) -> None:
    code, run = gated(checkout, "nothing", "--compare", "main")
    assert (code, run.stopped) == (0, "done")
    (runs,) = answers_of_head(run)
    assert runs.right == runs.total == 30
    journal = runner.journal_of(checkout.parent / "run.json")
    lines = journal.read_bytes().splitlines(keepends=True)
    assert b'{"check":' in lines[-4]
    journal.write_bytes(b"".join(lines[:-3]) + lines[-3][:20])
    assert main(["run", "--resume", str(journal)]) == 0
    again = store.read_run(checkout.parent / "run.json")
    assert verify(again) == []
    assert (again.checks or ())[:-3] == (run.checks or ())[:-3]
    assert [check.pair for check in again.checks or ()] == [c.pair for c in run.checks or ()]


def test_a_gate_judges_the_sum_of_the_steps(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_of = ["run", "fan-out", "--compare", "HEAD", "--dry-run", "--json"]

    def metrics(*options: str) -> set[str]:
        assert main([*plan_of, *options]) == 0
        cells = json.loads(capsys.readouterr().out)["cells"]
        return {plain_metric(name) for cell in cells for name in cell["metrics"]}

    assert metrics() == {"wall", "session_overhead", "cpu"}
    assert metrics("--metric", "step_overhead_net") == {"step_overhead"}


def test_a_raised_threshold_does_not_hide_a_regression(checkout: Path) -> None:
    set_up(checkout, "\n[tool.trae-bench.thresholds]\nmodules_imported = 0.9\n")
    code, run = gated(checkout, "an import", "--compare", "main")
    assert code == 1
    assert verify(run) == []
    note = "Head changes [tool.trae-bench.thresholds] modules_imported from unset to 0.9"
    assert note in " ".join(gate_text.details(run))


def test_head_with_other_answers_exits_with_5(checkout: Path) -> None:
    code, run = gated(checkout, "a wrong answer", "--compare", "main")
    assert code == 5
    assert run.stopped == "done"
    assert "different answers" in (checkout.parent / "c.md").read_text()
    (row,) = (row for row in run.comparisons if row.contrast == "head")
    assert row.pairs.reasons[0].startswith(
        "the transcripts differ: in the final answer, text, offset 0: base has '', head has '?'"
    )


def test_scenario_that_only_the_head_can_run_is_new(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A base that does not start makes its scenarios new."""
    HEADS["no start"](checkout)
    commit(checkout, "broken")
    git(checkout, "checkout", "--quiet", "main", "--", "agent_core")
    code, run = gated(checkout, "a toggle", "--compare", "HEAD~1")
    assert code == 0
    assert run.header.revisions is not None
    assert "it does not start" in run.header.revisions.new["tiny"]
    assert run.samples == ()
    assert "New, the base cannot run it: tiny" in " ".join(capsys.readouterr().out.split())


def test_broken_head_exits_with_4_and_can_be_resumed(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, run = gated(checkout, "no start", "--compare", "main")
    assert code == 4
    assert run.header.revisions is not None and run.header.revisions.new == {}
    assert "it does not start" in capsys.readouterr().out
    journal = runner.journal_of(checkout.parent / "run.json")
    assert main(["run", "--resume", str(journal), "--strict"]) == 4
    HEADS["an import"](checkout)
    assert main(["run", "--resume", str(journal)]) == 2
    error = capsys.readouterr().err
    assert re.search(r"head was \w{12} when .* is \w{12} with uncommitted changes", error)


def test_a_resumed_gate_uses_the_scenario_of_the_base(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(checkout, "checkout", "--quiet", "main")
    git(checkout, "add", "--force", "tiny.toml")
    commit(checkout, "scenario")
    git(checkout, "checkout", "--quiet", "-B", "work")
    with (checkout / "tiny.toml").open("a", encoding="utf-8") as file:
        file.write('[oracle]\nfinal_text = "nothing"\n')
    code, run = gated(checkout, "no start", "--compare", "main")
    assert code == 4
    assert run.header.revisions is not None and run.header.revisions.notes == (
        "head changes the scenario file tiny.toml; the base's file is used",
    )
    capsys.readouterr()
    journal = runner.journal_of(checkout.parent / "run.json")
    assert main(["run", "--resume", str(journal)]) == 4
    assert "it does not start" in capsys.readouterr().out
    changed = journal.read_text().replace(run.header.revisions.base.commit, "--output=x")
    journal.write_text(changed)
    assert main(["run", "--resume", str(journal)]) == 2
    assert "no commit '--output=x'" in capsys.readouterr().err


# -- exports


def test_exports_name_base_and_head() -> None:
    names = json.loads(export(gate(1.1), "bmf")).keys()
    assert {"work/head/base", "work/head/head"} <= names
    assert not [name for name in names if AGAIN in name]


# -- a stored run as the base


def test_stored_run_as_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = {"now": 10.0}

    @contextmanager
    def executor(*_: object) -> Iterator[ScriptedExecutor]:
        yield ScriptedExecutor(lambda trial: {"requests": requests["now"]})

    monkeypatch.setattr(runner.Bench, "executor", executor)
    monkeypatch.setenv(LOCK_VARIABLE, str(tmp_path / "lock"))
    monkeypatch.chdir(tmp_path)
    run = ["run", "--metric", "requests", "--toggle", "event_shell", "--pairs", "2", "--force"]
    assert main([*run, "bugfix@shell", "--out", "base.json"]) == 0
    against = [*run, "--compare", "base.json", "--out", "head.json", "--markdown", "c.md"]
    assert main(against) == 0
    # The new run uses the scenario of the stored run.
    assert store.read_run(Path("head.json")).header.scenarios.keys() == {"bugfix@shell"}
    requests["now"] = 11.0
    assert main(against) == 1
    assert "regression" in Path("c.md").read_text()
    capsys.readouterr()
    assert main([*against, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["exit_code"] == 1


def test_failed_run_is_reported_instead_of_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    works = [True]

    @contextmanager
    def executor(*_: object) -> Iterator[ScriptedExecutor]:
        yield ScriptedExecutor(lambda trial: {"requests": 10.0} if works[0] else failing(trial))

    monkeypatch.setattr(runner.Bench, "executor", executor)
    monkeypatch.setenv(LOCK_VARIABLE, str(tmp_path / "lock"))
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(TINY)
    run = ["run", "tiny.toml", "--metric", "requests", "--pairs", "2"]
    assert main([*run, "--out", "base.json"]) == 0
    capsys.readouterr()
    works[0] = False
    against = [*run, "--compare", "base.json", "--out", "head.json", "--markdown", "c.md"]
    assert main([*against, "--json"]) == 4
    out, err = capsys.readouterr()
    assert json.loads(out)["outcome"]["gates"] is False
    assert "no pair could be measured" in err
    assert "exit status 1" in Path("c.md").read_text()


def test_invalid_base_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store.write_run(Path("gate.json"), gate())
    store.write_run(Path("edited.json"), replace(honest(), elapsed=1.0))
    assert main(["run", "--compare", "nowhere.json"]) == 2
    assert "no such run file" in capsys.readouterr().err
    for name, message in (
        ("gate.json", "give a run of toggles, or a commit\n"),
        ("edited.json", "seal"),
    ):
        assert main(["run", "--compare", name]) == 4
        assert message in capsys.readouterr().err


def test_compare_refuses_a_run_of_revisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store.write_run(Path("quick.json"), honest())
    store.write_run(Path("gate.json"), gate())
    assert main(["compare", "quick.json", "gate.json"]) == 4
    message = "gate.json: it compares two commits, so it has no toggle ratios to compare"
    assert capsys.readouterr().err == f"Error: {message}; give a run of toggles\n"
