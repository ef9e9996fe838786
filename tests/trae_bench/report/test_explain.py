"""Explanations agree with the rule and cover every way in which a row can end."""

import json
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.trae_bench.report.test_terminal import FORBIDDEN, NASTY
from tests.trae_bench.runs import COMPARED, EFFECTS, gate, honest, plan
from trae_bench.cli import main
from trae_bench.design.cells import CONFIRMING, confirming
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Cell
from trae_bench.model.run import RunFile
from trae_bench.report.text.explanation import Explanation, explain, headline, rows, story, text
from trae_bench.stats.analysis import rows_of
from trae_bench.stats.decision import estimate
from trae_bench.stats.pairs import RowKey
from trae_bench.storage.run_file import write_run
from trae_bench.storage.seal import sealed


def explanation_text(run: RunFile, contrast: str, metric: str) -> str:
    """The whole explanation in one line."""
    return " ".join(text(found(run, contrast, metric)).split())


def found(run: RunFile, contrast: str, metric: str) -> Explanation:
    return explain(run, RowKey("work", contrast, metric), run.header.limits)


RUNS = {
    "quiet": honest(),
    "noisy": honest(noise=0.1, pairs=None),
    "lossy": honest(lost={("faster", 2): "crash", ("idle", 3): "differ", ("slower", 0): "crash"}),
    "smoke": honest(profile="smoke", pairs=2, noise_pairs=2),
    "fixed": honest(design="factorial", pairs=8),
    "narrow": honest(noise=0.05, precision=0.05, pairs=None),
}


# -- explanations agree with the rule


@pytest.mark.parametrize("name", RUNS)
def test_explanation_matches_the_judgement(name: str) -> None:
    run = RUNS[name]
    concluded = {RowKey(r.scenario, r.contrast, r.metric): r for r in run.comparisons}
    assert rows(run) == list(concluded)
    for key, row in concluded.items():
        explained = explain(run, key, run.header.limits)
        assert explained.row == row
        assert explained.in_the_file == row.judgement.verdict
        assert explained.pairs.counted == row.pairs.measured
        lost = [each.outcome for each in explained.pairs.lost]
        assert lost.count("answers differ") == row.pairs.answers_differ
        assert lost.count("not measured") == row.pairs.not_measured
        if row.judgement.look and row.confirmation is None:
            assert explained.looks[-1].look.judgement == row.judgement
        else:
            assert not explained.looks


def test_the_figures_are_those_of_the_row() -> None:
    run = RUNS["quiet"]
    key = RowKey("work", "faster", "wall")
    shown = explanation_text(run, "faster", "wall")
    row = rows_of(run.samples, run.header.cells, run.header.metrics)[key]
    of_row = estimate(row)
    assert of_row is not None
    assert of_row.log_ratio is not None
    assert f"The mean log ratio of all {of_row.n} pairs is {of_row.log_ratio:+.4f}" in shown
    gated = sum(each.gated for each in run.comparisons)
    level = 0.008 / 4 / gated
    assert f"0.008 / (4 looks x {gated} gated rows) = {level:.2g}" in shown
    assert "serial-v1 looks after 8, 12, 20, 40 pairs" in shown
    assert "a mean of at least 5 %" in shown
    assert shown.startswith("work / faster / wall: improvement What was compared - wall: ")
    assert "reaches 5 %: improvement. Conclusion - A settled row takes no more" in shown


def test_a_level_shared_by_fewer_rows_is_explained() -> None:
    explained = [found(RUNS["quiet"], name, "cpu") for name in ("faster", "slower", "idle")]
    assert {each.family for each in explained} == {15}
    shared = [
        int(number)
        for each in explained
        for number in re.findall(r"because (\d+) were settled before", flat(each))
    ]
    assert shared
    assert all(0 < number < 15 for number in shared)


def flat(explained: Explanation) -> str:
    return " ".join(text(explained).split())


# -- sides


def test_both_sides_are_described() -> None:
    shown = explanation_text(RUNS["quiet"], "faster", "cpu")
    assert "Side A, off: faster off. Side B, on: faster on." in shown
    assert "8 pairs counted; off started first in 4 of them." in shown
    assert "Both sides are the same" in explanation_text(RUNS["quiet"], NOISE_FLOOR, "cpu")


def test_revisions_are_named() -> None:
    cells = tuple(
        replace(
            one,
            contrast=replace(
                one.contrast,
                a=replace(one.contrast.a, revision="v1"),
                b=replace(one.contrast.b, revision="v1" if one.contrast.name == "A/A" else "v2"),
            ),
        )
        for one in plan(("faster",))
    )
    run = honest(cells=cells)
    shown = explanation_text(run, "faster", "cpu")
    assert "Side A, base, is revision v1; side B, head, v2." in shown
    assert "Medians: base " in shown
    shown = explanation_text(
        gate(revisions=replace(COMPARED, head=replace(COMPARED.head, modified=True))), "head", "cpu"
    )
    assert "Base is aaaaaaa (main), head is bbbbbbb with changes." in shown


# -- pairs that were lost


def test_each_lost_pair_has_its_reason() -> None:
    assert (
        "Pair 2 was lost, not measured: on: exit status 1; its last lines: oh no."
        in explanation_text(RUNS["lossy"], "faster", "cpu")
    )
    assert "Pair 3 was lost, answers differ: the transcripts differ." in explanation_text(
        RUNS["lossy"], "idle", "cpu"
    )
    assert "Pair 0 was lost" not in explanation_text(RUNS["lossy"], "slower", "cpu")


def test_a_cell_that_was_given_up() -> None:
    run = honest(lost={("faster", pair): "crash" for pair in range(60)})
    shown = explanation_text(run, "faster", "cpu")
    assert "stopped this row because 3 more pairs were lost than counted" in shown
    assert "nothing to judge: not measured" in shown
    assert "None: the first look is after 8 pairs, and 0 counted." in shown


def test_many_lost_pairs_are_listed_and_counted() -> None:
    run = honest(
        noise=0.055, pairs=None, lost={("idle", 2 * pair): "crash" for pair in range(1, 18)}
    )
    shown = explanation_text(run, "idle", "cpu")
    assert shown.count("was lost, not measured") == 10
    assert re.search(r"\d more pairs were lost", shown)


# -- why it ended


def test_pairs_for_other_metrics_change_no_verdict() -> None:
    run = honest(noise=0.03, pairs=None)
    later = [row for row in run.comparisons if row.gated and row.judgement.settled]
    later = [row for row in later if 0 < row.judgement.look < row.pairs.measured]
    assert later
    for row in later:
        more = row.pairs.measured - row.judgement.look
        assert f"Other metrics of the same pairs needed {more} more pairs" in explanation_text(
            run, row.contrast, row.metric
        )


@pytest.mark.parametrize(
    ("stopped", "message"),
    [
        ("budget", "The time budget of the run was used up."),
        ("interrupted", "The run was interrupted."),
        ("error", "An error stopped the run."),
    ],
)
def test_a_run_that_ended_early(stopped: str, message: str) -> None:
    run = honest(noise=0.2, pairs=None)
    few = tuple(sample for sample in run.samples if sample.pair < 10)
    cut = replace(run, samples=few, stopped=stopped)
    assert message in explanation_text(cut, "idle", "cpu")


def test_other_reasons_to_stop() -> None:
    hopeless = explanation_text(honest(noise=0.2, pairs=None), "idle", "cpu")
    assert "the chance of a verdict at its last look was" in hopeless
    noisy = explanation_text(honest(noise=0.065, pairs=None, toggles=("idle",)), "idle", "cpu")
    assert "That was the last look of the rule." in noisy
    assert re.search(r"open\. With this spread, a mean of \d+ % or more would be", noisy)
    assert re.search(r"detects effects of \d+ % or more in 95 % of rows", noisy)
    assert "The run allowed 12 pairs." in explanation_text(
        honest(noise=0.05, precision=0.001), "idle", "cpu"
    )
    one = explanation_text(honest(pairs=1, noise_pairs=0), "idle", "cpu")
    assert "The run allowed 1 pair." in one
    assert "The mean log ratio of the one pair is" in one
    assert "fixed before the run" in explanation_text(RUNS["fixed"], "idle", "cpu")
    assert "reached the requested precision, ±5 %" in explanation_text(
        RUNS["narrow"], "idle", "cpu"
    )
    assert "A/A pairs come first, at most 8" in explanation_text(RUNS["quiet"], NOISE_FLOOR, "cpu")


def test_a_regression_must_be_confirmed_by_fresh_pairs() -> None:
    cells = tuple(both for one in plan() for both in _with_fresh(one))
    again = f"slower {CONFIRMING}"
    run = honest(cells=cells, effects=EFFECTS | {again: 1.5})
    for contrast in ("slower", "faster"):
        assert ("as many fresh pairs" in explanation_text(run, contrast, "cpu")) == (
            contrast == "slower"
        )
    stands = r"8 of 8 were measured, with a ratio of 1\.\d+ and p = \S+: confirmed"
    assert re.search(stands, explanation_text(run, "slower", "cpu"))
    chance = explanation_text(honest(cells=cells, effects=EFFECTS | {again: 1.0}), "slower", "cpu")
    assert re.search(r"8 of 8 were measured, .* and p = \S+: not confirmed", chance)
    without = replace(
        run, samples=tuple(s for s in run.samples if not s.contrast.endswith(CONFIRMING))
    )
    shown = explanation_text(without, "slower", "cpu")
    assert "0 of 8 were measured: too few to confirm it, so the row is inconclusive." in shown
    assert "the last look of the rule" not in shown
    assert {key.contrast for key in rows(run)} == {NOISE_FLOOR, "faster", "slower", "idle"}


def _with_fresh(one: Cell) -> list[Cell]:
    return [one] if one.contrast.name == NOISE_FLOOR else [one, confirming(one)]


# -- gated, and not


def test_a_row_is_gated_or_the_reason_is_given() -> None:
    quiet, noisy = RUNS["quiet"], honest(noise=0.5, pairs=None)
    assert "This row is gated" in explanation_text(quiet, "idle", "wall")
    assert "not gated, because its sides are equal" in explanation_text(quiet, NOISE_FLOOR, "wall")
    assert "cannot detect effects under 10 %" in explanation_text(noisy, "idle", "wall")


def test_differing_a_a_sides_prevent_verdicts() -> None:
    shown = explanation_text(honest(effects=EFFECTS | {NOISE_FLOOR: 1.3}), "faster", "cpu")
    assert "the A/A sides differ" in shown
    assert re.search(r"B differs from an equal A by \+\d\d\.\d %", shown)
    assert shown.startswith("work / faster / cpu: not measured")


def test_few_pairs_get_no_verdict() -> None:
    run = RUNS["smoke"]
    explained = explain(run, RowKey("work", "faster", "cpu"), run.header.limits, claimed=False)
    assert headline(explained).endswith(": too few pairs for a verdict")
    assert "too few pairs" in story(explained)["Conclusion"][-1]


def test_counts_and_minimum() -> None:
    shown = explanation_text(RUNS["quiet"], "idle", "requests")
    assert "After 2 pairs: neither side varies" in shown
    assert "Counts have no noise floor." in shown
    memory = explanation_text(RUNS["quiet"], "idle", "peak_rss")
    assert "A difference of up to 65.5 kB counts as none" in memory
    assert "the rule's is 2 %" in memory


def test_values_without_a_ratio() -> None:
    run = RUNS["quiet"]
    zero = tuple(
        replace(sample, metrics=sample.metrics | {"cpu": 0.0 if sample.side == "A" else 1.0})
        for sample in run.samples
    )
    shown = explanation_text(replace(run, samples=zero), "idle", "cpu")
    assert "There is no ratio, because some values are zero" in shown
    assert "there is no ratio, and some pairs differ by more than 0 µs: not measured." in shown


def test_pairs_without_a_value_are_counted() -> None:
    run = RUNS["quiet"]
    without = tuple(
        replace(s, metrics={k: v for k, v in s.metrics.items() if k != "cpu" or s.pair != 1})
        for s in run.samples
    )
    assert "1 of these pairs had no value" in explanation_text(
        replace(run, samples=without), "idle", "cpu"
    )


def test_a_verdict_that_the_samples_contradict_is_reported() -> None:
    run = RUNS["quiet"]
    rows_changed = tuple(
        replace(row, judgement=replace(row.judgement, verdict="regression"))
        for row in run.comparisons
    )
    shown = explanation_text(replace(run, comparisons=rows_changed), "faster", "cpu")
    assert "The file says regression, but its samples give improvement" in shown
    assert "The file says nothing" in explanation_text(
        replace(run, comparisons=()), "faster", "cpu"
    )
    assert "The file says" not in explanation_text(run, "faster", "cpu")


# -- strangers and widths


def test_untrusted_text_is_escaped() -> None:
    (one, *_) = plan(("faster",))
    arm = replace(one.contrast.a, toggles={NASTY: True, "x" * 200: False})
    contrast = replace(one.contrast, name=NASTY, b=arm)
    nasty_cell = replace(one, scenario=NASTY, contrast=contrast, metrics=(NASTY,))
    metric = replace(METRICS["cpu"], name=NASTY, unit=NASTY, about=NASTY)
    run = honest()
    first = next(s for s in run.samples if s.pair == 1 and s.mode == "duet")
    bad = replace(first, scenario=NASTY, contrast=NASTY, status="failed", problem=NASTY)
    header = replace(run.header, cells=(nasty_cell,), metrics={NASTY: metric})
    run = replace(run, header=header, samples=(bad,), comparisons=())
    explained = explain(run, RowKey(NASTY, NASTY, NASTY), header.limits)
    shown = text(explained)
    assert "Pair 1 was lost" in " ".join(shown.split())
    assert not FORBIDDEN.search(shown.replace("\n", ""))


@pytest.mark.parametrize("width", [80, 120])
def test_the_explanation_fits_the_width(width: int) -> None:
    for key in rows(RUNS["noisy"]):
        shown = text(explain(RUNS["noisy"], key, RUNS["noisy"].header.limits), width)
        assert max(map(len, shown.splitlines())) <= width


# -- the command


@pytest.fixture
def run_file(tmp_path: Path) -> str:
    path = tmp_path / "run.json"
    write_run(path, sealed(RUNS["quiet"]))
    return str(path)


def test_the_command_explains_one_row(run_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", run_file, "work", "faster", "cpu"]) == 0
    assert capsys.readouterr().out == text(found(RUNS["quiet"], "faster", "cpu")) + "\n"


def test_without_a_metric_it_lists_rows(run_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", run_file]) == 0
    everything = capsys.readouterr().out.splitlines()
    assert len(everything) == 1 + len(RUNS["quiet"].comparisons)
    assert main(["explain", run_file, "work", "faster"]) == 0
    _, *of_toggle = capsys.readouterr().out.splitlines()
    assert of_toggle[0].split() == ["work", "faster", "cpu", "improvement"]
    assert len(of_toggle) == 5
    assert main(["explain", "--json", run_file, "work", "faster"]) == 0
    as_json = json.loads(capsys.readouterr().out)
    assert as_json[0] == {
        "scenario": "work",
        "toggle": "faster",
        "metric": "cpu",
        "verdict": "improvement",
    }
    assert len(as_json) == 5


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["wrk"], "no scenario 'wrk'; did you mean work?"),
        (["work", "fastr"], "no toggle 'fastr'; did you mean faster?"),
        (["work", "faster", "cpuu"], "no metric 'cpuu'; did you mean cpu?"),
        (["work", "faster", "zzz"], "known: cpu, peak_rss, requests, steps_per_second, wall"),
        (["", "faster"], "no scenario ''"),
    ],
)
def test_an_unknown_name_gets_suggestions(
    names: list[str], message: str, run_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", run_file, *names]) == 2
    assert message in capsys.readouterr().err


def test_as_json(run_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--json", run_file, "work", "faster", "cpu"]) == 0
    document = json.loads(capsys.readouterr().out)
    look = document["facts"]["looks"][-1]["look"]
    assert look["judgement"]["verdict"] == document["facts"]["row"]["judgement"]["verdict"]
    assert document["story"] == story(found(RUNS["quiet"], "faster", "cpu"))


def test_a_run_without_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = replace(
        RUNS["quiet"],
        header=replace(RUNS["quiet"].header, cells=()),
        samples=(),
        comparisons=(),
        noise=(),
    )
    write_run(tmp_path / "run.json", empty)
    assert main(["explain", str(tmp_path / "run.json"), "work"]) == 4
    assert "no comparison was planned" in capsys.readouterr().err
