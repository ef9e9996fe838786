"""Two stored runs: what travels is compared, what does not is for information."""

import json
import math
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.properties import examples
from tests.trae_bench.fakes import cell
from tests.trae_bench.report.test_untrusted import PLANT, document, harmless, planted
from tests.trae_bench.runs import TOGGLES, honest, scenario_used
from trae_bench.cli import main
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.metrics import METRICS
from trae_bench.model.run import RunFile
from trae_bench.model.sample import Sample
from trae_bench.report.text import markdown
from trae_bench.report.text import run_diff as across_text
from trae_bench.storage.run_file import read_run, write_run
from trae_bench.storage.seal import sealed
from trae_bench.verdicts import run_diff
from trae_bench.verdicts.run_diff import (
    OTHER_KIND,
    TIME_DRIFT,
    Change,
    RunDiff,
    compare_runs,
    drift_of_ratio,
    exit_code,
)

pytestmark = pytest.mark.slow
OTHER_MACHINE = {"cpu": "a faster one", "cores": 8, "cores_usable": 8, "memory": 2**33}
Which = Callable[[Sample], bool]


def everything(sample: Sample) -> bool:
    return True


def on_side(contrast: str) -> Which:
    return lambda sample: sample.contrast == contrast and sample.side == "B"


def in_arm(name: str) -> Which:
    return lambda sample: sample.arm == name


def changed(run: RunFile, metric: str, factor: float, which: Which = everything) -> RunFile:
    """The run with a metric of some samples multiplied."""
    samples = (
        replace(one, metrics=one.metrics | {metric: one.metrics[metric] * factor})
        if which(one)
        else one
        for one in run.samples
    )
    return replace(run, samples=tuple(samples))


def with_header(run: RunFile, **changes: Any) -> RunFile:
    return replace(run, header=replace(run.header, **changes))


def rows(found: RunDiff, kind: str, **fields: str) -> list[Change]:
    return [
        change
        for change in found.changes
        if change.kind == kind
        and all(getattr(change, name) == value for name, value in fields.items())
    ]


def row(found: RunDiff, kind: str, **fields: str) -> Change:
    (only,) = rows(found, kind, **fields)
    return only


# -- properties


@given(day=st.integers(0, 10**6), noise=st.sampled_from([0.0, 0.002, 0.03, 0.2]))
@examples(20)
def test_the_same_run_twice_has_no_change(day: int, noise: float) -> None:
    run = honest(day=str(day), noise=noise)
    found = compare_runs(run, run)
    assert not {"regression", "improvement"} & {change.verdict for change in found.changes}
    counters = rows(found, "counter")
    assert [change.subject for change in counters] == ["none", *TOGGLES]
    assert all(change.exact and change.verdict == "equivalent" for change in counters)
    assert exit_code(found) == 0
    assert not found.differences


MIRRORED = {"regression": "improvement", "improvement": "regression", "new": "gone", "gone": "new"}


@given(
    days=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    metric=st.sampled_from(["cpu", "peak_rss", "wall", "requests", "steps_per_second"]),
    factor=st.sampled_from([0.2, 0.7, 0.9, 0.97, 1.0, 1.06, 1.2, 3.0]),
    contrast=st.sampled_from(["faster", "slower", "idle"]),
    noise=st.sampled_from([0.002, 0.03, 0.2]),
)
@examples(40)
def test_base_and_head_changed_about_mirror_the_verdicts(
    days: tuple[int, int], metric: str, factor: float, contrast: str, noise: float
) -> None:
    base = honest(day=str(days[0]), noise=noise, toggles=("faster", "slower", "idle"))
    head = honest(day=str(days[1]), noise=noise, toggles=("slower", "faster"))
    head = changed(head, metric, factor, on_side(contrast))
    there, back = compare_runs(base, head), compare_runs(head, base)
    assert len(there.changes) == len(back.changes)
    other = {_place(change): change for change in back.changes}
    for change in there.changes:
        mirror = other[_place(change)]
        assert mirror.verdict == MIRRORED.get(change.verdict, change.verdict)
        assert (mirror.gated, mirror.threshold) == (change.gated, change.threshold)
        assert (mirror.base, mirror.head) == (change.head, change.base)
        if change.log_ratio is not None:
            assert mirror.log_ratio == pytest.approx(-change.log_ratio, abs=1e-12)


def _place(change: Change) -> tuple[str, ...]:
    kind = min(change.kind, MIRRORED.get(change.kind, change.kind))
    return (kind, change.scenario, change.subject, change.metric)


@pytest.mark.parametrize("toggle", ["faster", "slower", "idle"])
@pytest.mark.parametrize(("factor", "verdict"), [(1.5, "regression"), (0.66, "improvement")])
def test_a_shifted_toggle_ratio_is_found(toggle: str, factor: float, verdict: str) -> None:
    base, head = honest(day="1"), changed(honest(day="2"), "cpu", factor, on_side(toggle))
    found = compare_runs(base, head)
    assert row(found, "toggle ratio", subject=toggle, metric="cpu").verdict == verdict
    assert [change for change in found.gated if change.verdict == verdict] == [
        row(found, "toggle ratio", subject=toggle, metric="cpu")
    ]
    assert exit_code(found) == (verdict == "regression")


def alarms(number: int) -> int:
    """Of so many comparisons of runs that differ by noise alone, those with a false regression
    and those with a false improvement; twelve rows each, with thresholds of nothing."""
    cells = tuple(
        cell(name, "duet", ("cpu",)) for name in (NOISE_FLOOR, *(f"idle {n}" for n in range(12)))
    )
    found = 0
    for day in range(number):
        runs = [_touchy(honest(day=f"{day}{which}", noise=0.03, cells=cells)) for which in "ab"]
        verdicts = {change.verdict for change in compare_runs(*runs).gated}
        found += len(verdicts & {"regression", "improvement"})
    return found


def _touchy(run: RunFile) -> RunFile:
    metrics = {name: replace(one, threshold=1e-9) for name, one in run.header.metrics.items()}
    return with_header(run, metrics=metrics)


def test_the_level_holds_without_the_help_of_thresholds() -> None:
    """1 % for each direction: of 60 comparisons 1.2 are alarms on average, were it just kept, and
    more than 4 once in 125 such tests."""
    assert alarms(60) <= 4


def test_a_wrong_level_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither shared among the rows nor among the looks."""
    monkeypatch.setattr(run_diff, "holm_limit", lambda p_values, level: level * 6)
    assert alarms(60) > 4


# -- each kind


def test_a_change_within_the_drift_of_its_toggle_is_none() -> None:
    """`faster` halves the work: that half may drift against the rest from day to day."""
    base = honest(day="1", noise=0.002)
    head = changed(honest(day="2", noise=0.002), "cpu", 1.05, on_side("faster"))
    change = row(compare_runs(base, head), "toggle ratio", subject="faster", metric="cpu")
    assert change.threshold == pytest.approx(0.02 + 0.5 * TIME_DRIFT, abs=0.01)
    assert change.verdict == "equivalent"
    head = changed(honest(day="2", noise=0.002), "cpu", 1.05, on_side("idle"))
    change = row(compare_runs(base, head), "toggle ratio", subject="idle", metric="cpu")
    assert change.verdict == "regression"


@given(
    common=st.floats(0.1, 1), extra=st.floats(0, 1), drifts=st.tuples(*[st.floats(0.95, 1.05)] * 2)
)
def test_the_drift_of_a_ratio_is_that_of_its_parts(
    common: float, extra: float, drifts: tuple[float, float]
) -> None:
    before = math.log(common / (common + extra))
    of_common, of_extra = common * drifts[0], extra * drifts[1]
    after = math.log(of_common / (of_common + of_extra))
    drift = abs(math.log(drifts[0] / drifts[1]))
    # To the first order; what is left is a product of two drifts.
    assert abs(after - before) <= drift_of_ratio(before, drift) + drift**2 / 4 + 1e-12


def test_a_machine_of_another_speed_changes_no_toggle_ratio() -> None:
    base, head = honest(day="1"), honest(day="2", machine=OTHER_MACHINE)
    for metric, factor in (("cpu", 3.0), ("wall", 3.0), ("steps_per_second", 1 / 3)):
        head = changed(head, metric, factor)
    found = compare_runs(base, head)
    assert not found.same_kind
    assert exit_code(found) == 0
    absolute = row(found, "absolute", subject="none", metric="cpu")
    assert (absolute.gated, absolute.interval, absolute.note) == (False, None, OTHER_KIND)
    assert ("cpu", "an ordinary one", "a faster one") in [
        (one.name, one.base, one.head) for one in found.differences
    ]


def test_any_time_that_drifts_in_all_arms_widens_the_thresholds_of_all_times() -> None:
    """A machine that computes faster does not wait faster, so a ratio of wall times moves."""
    base, head = honest(day="1", noise=0.002), honest(day="2", noise=0.002)

    def threshold(head: RunFile, metric: str) -> float:
        found = compare_runs(base, head)
        return row(found, "toggle ratio", subject="faster", metric=metric).threshold

    usual = threshold(head, "wall")
    share = (usual - 0.05) / TIME_DRIFT
    assert threshold(changed(head, "cpu", 1 / 3), "wall") == pytest.approx(
        0.05 + share * math.log(3), rel=0.05
    )
    # Memory does not drift with it, and what moves one arm only is no drift.
    assert threshold(changed(head, "cpu", 1 / 3), "peak_rss") == threshold(head, "peak_rss")
    assert threshold(changed(head, "cpu", 1 / 3, in_arm("faster")), "wall") == usual


def test_times_on_a_machine_of_one_kind_are_for_information() -> None:
    base, head = honest(day="1"), changed(honest(day="2"), "cpu", 20.0)
    found = compare_runs(base, head)
    absolute = row(found, "absolute", subject="none", metric="cpu")
    assert absolute.verdict == "regression"
    assert not absolute.gated
    assert exit_code(found) == 0
    half = changed(honest(day="2"), "cpu", 1.3)
    assert row(compare_runs(base, half), "absolute", subject="none", metric="cpu").verdict == (
        "inconclusive"
    )


@pytest.mark.parametrize("same_kind", [True, False])
@pytest.mark.parametrize(("factor", "verdict"), [(1.2, "regression"), (1.03, "equivalent")])
def test_memory_has_a_margin_of_its_own(same_kind: bool, factor: float, verdict: str) -> None:
    base, head = honest(day="1"), changed(honest(day="2"), "peak_rss", factor)
    if not same_kind:
        head = with_header(head, machine=OTHER_MACHINE)
    found = compare_runs(base, head)
    arms = rows(found, "memory", metric="peak_rss")
    assert len(arms) == 4
    assert {change.verdict for change in arms} == {verdict}
    assert {change.gated for change in arms} == {same_kind}
    assert exit_code(found) == (same_kind and verdict == "regression")


@pytest.mark.parametrize("same_kind", [True, False])
@pytest.mark.parametrize("name", ["requests", "modules_imported"])
def test_a_counter_is_compared_exactly(name: str, same_kind: bool) -> None:
    base, head = (_renamed(honest(day=day), "requests", name) for day in "12")
    head = changed(head, name, 18 / 17, in_arm("faster"))
    if not same_kind:
        head = with_header(head, machine=OTHER_MACHINE)
    found = compare_runs(base, head)
    change = row(found, "counter", subject="faster")
    assert (change.base, change.head, change.verdict) == (17, 18, "regression")
    # What the provider counts is the same everywhere; the interpreter decides what it loads.
    assert change.gated == (same_kind or name == "requests")
    assert exit_code(found) == change.gated
    others = [other.verdict for other in rows(found, "counter") if other != change]
    assert set(others) == {"equivalent"}


def _renamed(run: RunFile, old: str, new: str) -> RunFile:
    text = msgspec.json.encode(run).decode().replace(f'"{old}"', f'"{new}"')
    return with_header(
        msgspec.json.decode(text, type=RunFile),
        metrics={name: METRICS[name] for name in (set(run.header.metrics) - {old}) | {new}},
    )


def test_a_counter_that_varies_is_judged_by_its_noise() -> None:
    base, head = honest(day="1"), honest(day="2")
    flipping = changed(head, "requests", 18 / 17, lambda sample: sample.pair == 3)
    found = compare_runs(base, flipping)
    assert {change.verdict for change in rows(found, "counter")} == {"equivalent"}
    assert not any(change.exact for change in rows(found, "counter"))
    doubled = changed(flipping, "requests", 2.0)
    found = compare_runs(base, doubled)
    assert {change.verdict for change in rows(found, "counter")} == {"regression"}


def test_one_value_is_too_few_for_a_counter() -> None:
    base = honest(toggles=("idle",), pairs=1, noise_pairs=0)
    found = compare_runs(base, base)
    single = row(found, "counter", subject="idle")
    assert (single.values, single.verdict) == ((1, 1), "inconclusive")


def test_few_pairs_claim_nothing() -> None:
    short = honest(pairs=2, noise_pairs=2)
    found = compare_runs(honest(), changed(short, "cpu", 5.0, on_side("idle")))
    change = row(found, "toggle ratio", subject="idle", metric="cpu")
    assert (change.verdict, change.interval) == ("inconclusive", None)
    assert "takes 8" in change.note


# -- what cannot be compared


def test_another_scenario_of_the_same_name_is_not_compared() -> None:
    run = honest()
    other = with_header(run, scenarios={"work": replace(scenario_used("work"), digest="1" * 64)})
    found = compare_runs(run, other)
    (change,) = found.changes
    assert (change.kind, change.note) == ("incompatible", "the scenario has changed")
    assert exit_code(found) == 4


@pytest.mark.parametrize("field", ["unit", "mode", "better"])
def test_another_definition_of_a_metric_is_not_compared(field: str) -> None:
    run = honest()
    values: Mapping[str, Any] = {"unit": "B", "mode": "serial", "better": "higher"}
    cpu = replace(run.header.metrics["cpu"], **{field: values[field]})
    head = with_header(run, metrics=run.header.metrics | {"cpu": cpu})
    found = compare_runs(run, head)
    assert field in row(found, "incompatible", metric="cpu").note
    assert not rows(found, "toggle ratio", metric="cpu")
    assert rows(found, "toggle ratio", metric="wall")


def test_other_words_and_thresholds_define_no_other_metric() -> None:
    run = honest()
    cpu = replace(run.header.metrics["cpu"], about="said otherwise", threshold=0.3)
    head = with_header(run, metrics=run.header.metrics | {"cpu": cpu})
    found = compare_runs(run, head)
    assert not rows(found, "incompatible")
    assert row(found, "toggle ratio", subject="idle", metric="cpu").threshold >= 0.3


def test_pairs_of_another_rule_are_not_compared() -> None:
    run = honest()
    rules = run.header.rules | {"duet": replace(run.header.rules["duet"], threshold=0.01)}
    found = compare_runs(run, with_header(run, rules=rules))
    assert {change.metric for change in rows(found, "incompatible")} == {"cpu", "peak_rss"}


def test_other_sides_under_one_name_are_not_compared() -> None:
    run = honest(toggles=("idle",))
    text = msgspec.json.encode(run.header).decode()
    header = msgspec.json.decode(text.replace("true", "false"), type=type(run.header))
    found = compare_runs(run, replace(run, header=header))
    assert row(found, "incompatible", subject="idle").note == "its sides have other toggles"
    assert not rows(found, "toggle ratio")


def test_what_is_new_and_what_is_gone_is_named() -> None:
    found = compare_runs(honest(toggles=("faster", "idle")), honest(toggles=("idle", "slower")))
    assert row(found, "gone").subject == "faster"
    assert row(found, "new").subject == "slower"
    assert rows(found, "toggle ratio", subject="idle")


def test_equal_sides_that_differ_forbid_a_verdict() -> None:
    uneven = changed(
        honest(day="2", noise=0.002),
        "cpu",
        1.5,
        lambda one: one.contrast == NOISE_FLOOR and one.side == "B",
    )
    found = compare_runs(honest(day="1", noise=0.002), uneven)
    change = row(found, "toggle ratio", subject="slower", metric="cpu")
    assert change.verdict == "not measured"
    assert "equal sides" in change.note
    assert exit_code(found, strict=True) == 3


def test_a_metric_too_noisy_in_one_run_is_not_gated() -> None:
    found = compare_runs(honest(), honest(noise=0.6))
    noisy = rows(found, "toggle ratio", metric="wall")
    assert noisy
    assert not any(change.gated for change in noisy)


@pytest.mark.parametrize(
    ("verdicts", "code", "strict"),
    [
        ([("equivalent", True)], 0, 0),
        ([("regression", True), ("inconclusive", True)], 1, 1),
        ([("regression", False), ("equivalent", True)], 0, 0),
        ([("inconclusive", True), ("improvement", True)], 0, 3),
        ([("not measured", True), ("improvement", True)], 0, 3),
        ([("inconclusive", False), ("improvement", True)], 0, 0),
        ([("not measured", True)], 4, 4),
        ([("equivalent", False)], 4, 4),
        ([], 4, 4),
    ],
)
def test_exit_codes(verdicts: list[tuple[Any, bool]], code: int, strict: int) -> None:
    run = honest(toggles=("idle",), pairs=1, noise_pairs=0)
    changes = tuple(
        Change(kind="memory", scenario="s", verdict=verdict, gated=gated)
        for verdict, gated in verdicts
    )
    found = replace(compare_runs(run, run), changes=changes)
    assert exit_code(found) == code
    assert exit_code(found, strict=True) == strict


# -- reports


def stored(path: Path, run: RunFile) -> str:
    write_run(path, sealed(run))
    return str(path)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_report_names_each_kind_and_keeps_to_the_width(width: int) -> None:
    head = changed(honest(day="2"), "requests", 18 / 17)
    runs = honest(day="1"), head
    text = across_text.text(compare_runs(*runs), runs, width=width)
    for kind in ("toggle ratios", "memory", "counters", "absolute"):
        assert any(line.startswith(kind) for line in text.splitlines()), kind
    assert "4 regressions" in text
    assert max(map(len, text.splitlines())) <= width


def test_facts_that_differ_are_told_in_words() -> None:
    machine: dict[str, Any] = {"cpu": "an ordinary one", "cores": 2, "memory": 8 * 10**9}
    base = honest(machine=machine, versions={"trae-bench": "0.1.0", "openai": "3.54.0"})
    nearly = honest(machine=machine | {"memory": 8 * 10**9 + 8192})
    assert "- memory:" not in across_text.text(compare_runs(base, nearly), (base, nearly))
    other = honest(machine=machine | {"memory": 16 * 10**9})
    told = across_text.text(compare_runs(base, other), (base, other))
    assert "- memory: 8 GB in the base, 16 GB in the head" in told
    assert "- openai: 3.54.0 in the base, not installed in the head" in told


def test_one_row_is_one_row() -> None:
    run = honest(toggles=("idle",), pairs=1, noise_pairs=0)
    row = Change(kind="memory", scenario="s", verdict="improvement", gated=True)
    found = replace(compare_runs(run, run), changes=(row,))
    assert across_text.closing(found).startswith("1 improvement of 1 gated row; ")
    assert "<summary>1 row</summary>" in across_text.comment(found, (run, run))


def test_a_table_needs_its_columns_and_sentences_do_not() -> None:
    runs = honest(day="1"), honest(day="2")
    text = across_text.text(compare_runs(*runs), runs, width=60)
    wide = [line for line in text.splitlines() if len(line) > 60]
    assert wide
    assert all(line.startswith(" ") for line in wide)


def test_the_comment_says_what_its_columns_mean() -> None:
    runs = honest(day="1"), honest(day="2")
    told = across_text.comment(compare_runs(*runs), runs)
    assert across_text.READING in told


def test_the_command_prints_writes_and_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = stored(tmp_path / "base.json", honest(day="1"))
    worse = changed(honest(day="2"), "cpu", 1.5, on_side("idle"))
    head = stored(tmp_path / "head.json", worse)
    comment = tmp_path / "comment.md"
    assert main(["compare", base, head, "--markdown", str(comment)]) == 1
    out, err = capsys.readouterr()
    assert "1 regression" in out
    assert not err
    assert "**regression** <code>work</code> / <code>idle</code>" in comment.read_text()
    assert main(["compare", base, head, "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert [floor["metric"] for floor in printed["noise"]["head"]] == [
        floor.metric for floor in worse.noise
    ]
    (told,) = [
        change
        for change in printed["found"]["changes"]
        if change["gated"] and change["verdict"] == "regression"
    ]
    assert (told["kind"], told["subject"], told["metric"]) == ("toggle ratio", "idle", "cpu")
    assert main(["compare", base, base]) == 0


def test_the_comment_tells_a_count_by_its_values() -> None:
    head = changed(honest(day="2"), "requests", 18 / 17)
    runs = honest(day="1"), head
    told = across_text.comment(compare_runs(*runs), runs)
    assert "<code>requests</code> (counter): 17 → 18\n" in told


def test_the_noise_of_both_runs_is_told_before_the_table() -> None:
    noisy = honest(day="2", noise=0.2)
    runs = honest(day="1"), noisy
    found = compare_runs(*runs)
    head, *_ = " ".join(across_text.text(found, runs).split()).partition("metric base head")
    told, *_ = across_text.comment(found, runs).partition("<details>")
    for shown in (head, told):
        assert shown.count("A/A noise") == 2
        assert shown.count("For information only, too noisy here to be gated") == 1


def test_strict_ends_in_three_where_a_row_stays_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = stored(tmp_path / "short.json", honest(pairs=2, noise_pairs=2))
    assert main(["compare", short, short]) == 0
    assert main(["compare", short, short, "--strict"]) == 3
    assert "inconclusive" in capsys.readouterr().out


def test_the_report_is_written_before_the_refusal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = stored(tmp_path / "base.json", honest())
    other = with_header(
        honest(), scenarios={"work": replace(scenario_used("work"), digest="1" * 64)}
    )
    head = stored(tmp_path / "head.json", other)
    comment = tmp_path / "comment.md"
    assert main(["compare", base, head, "--markdown", str(comment)]) == 4
    out, err = capsys.readouterr()
    assert "the scenario has changed" in out
    assert "the scenario has changed" in comment.read_text()
    assert "no gated row could be compared" in err
    assert main(["compare", base, base, "--markdown", f"{comment}/no.md"]) == 4
    out, err = capsys.readouterr()
    assert "equivalent" in out
    assert "cannot write" in err


def test_a_file_that_was_changed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = stored(tmp_path / "base.json", honest())
    edited = tmp_path / "edited.json"
    text = Path(base).read_text().replace('"requests":17.0', '"requests":16.0', 1)
    edited.write_text(text)
    for pair in product((base, str(edited)), repeat=2):
        code = main(["compare", *pair])
        _, err = capsys.readouterr()
        assert code == (4 if str(edited) in pair else 0)
        assert ("seal" in err) == (str(edited) in pair)


def test_planted_texts_act_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = planted(document(), lambda text: text and text[:40] + PLANT)
    base = stored(tmp_path / "base.json", msgspec.convert(made, RunFile))
    more = planted(document(), lambda text: text and text[:30] + PLANT)
    head = stored(tmp_path / "head.json", msgspec.convert(more, RunFile))
    for pair in product((base, head), repeat=2):
        for options in ((), ("--json",), ("--markdown", "-")):
            assert main(["compare", *pair, *options]) in (0, 4)
            out, err = capsys.readouterr()
            assert "work" in out
            harmless("html" if "--markdown" in options else "terminal", out + err)
            if "--markdown" in options:
                lines = [line for line in out.splitlines() if line.startswith("| ")]
                assert {line.count("|") for line in lines} <= {12}
                assert "`" not in out


def test_however_many_rows_the_comment_is_short_enough() -> None:
    run = honest(toggles=("idle",))
    found = compare_runs(run, run)
    long = replace(row(found, "memory", subject="idle"), scenario="<" * 200, verdict="regression")
    many = [replace(long, subject=f"{'|' * 190}{n}", note="because " * 9) for n in range(3000)]
    told = across_text.comment(replace(found, changes=(*found.changes, *many)), (run, run))
    assert len(told) < markdown.MOST
    assert "3000 regressions" in told
    assert "more rows" in told


def test_a_real_run_compared_with_itself() -> None:
    root = Path(__file__).resolve().parents[3]
    run = read_run(root / "results" / "quick.json")
    found = compare_runs(run, run)
    assert exit_code(found) == 0
    assert "improvement" not in {change.verdict for change in found.changes}
