"""Tests of the comparison of two stored runs."""

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
from trae_bench.report.text import run_diff as diff_text
from trae_bench.storage.run_file import read_run, write_run
from trae_bench.storage.seal import sealed
from trae_bench.verdicts import run_diff
from trae_bench.verdicts.change import OTHER_KIND, TIME_DRIFT, Change, drift_of_ratio
from trae_bench.verdicts.run_diff import RunDiff, compare_runs, exit_code

pytestmark = pytest.mark.slow
OTHER_MACHINE = {"cpu": "a faster one", "cores": 8, "cores_usable": 8, "memory": 2**33}
Selector = Callable[[Sample], bool]


def all_samples(sample: Sample) -> bool:
    return True


def on_side(contrast: str) -> Selector:
    return lambda sample: sample.contrast == contrast and sample.side == "B"


def in_arm(name: str) -> Selector:
    return lambda sample: sample.arm == name


def changed(run: RunFile, metric: str, factor: float, which: Selector = all_samples) -> RunFile:
    """The run with a metric of some samples multiplied."""
    samples = (
        replace(sample, metrics=sample.metrics | {metric: sample.metrics[metric] * factor})
        if which(sample)
        else sample
        for sample in run.samples
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
def test_run_compared_with_itself(day: int, noise: float) -> None:
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
def test_swapped_runs_mirror_the_verdicts(
    days: tuple[int, int], metric: str, factor: float, contrast: str, noise: float
) -> None:
    base = honest(day=str(days[0]), noise=noise, toggles=("faster", "slower", "idle"))
    head = honest(day=str(days[1]), noise=noise, toggles=("slower", "faster"))
    head = changed(head, metric, factor, on_side(contrast))
    there, back = compare_runs(base, head), compare_runs(head, base)
    assert len(there.changes) == len(back.changes)
    other = {_row_id(change): change for change in back.changes}
    for change in there.changes:
        mirror = other[_row_id(change)]
        assert mirror.verdict == MIRRORED.get(change.verdict, change.verdict)
        assert (mirror.gated, mirror.threshold) == (change.gated, change.threshold)
        assert (mirror.base, mirror.head) == (change.head, change.base)
        if change.log_ratio is not None:
            assert mirror.log_ratio == pytest.approx(-change.log_ratio, abs=1e-12)


def _row_id(change: Change) -> tuple[str, ...]:
    kind = min(change.kind, MIRRORED.get(change.kind, change.kind))
    return (kind, change.scenario, change.subject, change.metric)


@pytest.mark.parametrize("toggle", ["faster", "slower", "idle"])
@pytest.mark.parametrize(("factor", "verdict"), [(1.5, "regression"), (0.66, "improvement")])
def test_changed_toggle_ratio_is_found(toggle: str, factor: float, verdict: str) -> None:
    base, head = honest(day="1"), changed(honest(day="2"), "cpu", factor, on_side(toggle))
    found = compare_runs(base, head)
    assert row(found, "toggle ratio", subject=toggle, metric="cpu").verdict == verdict
    assert [change for change in found.gated if change.verdict == verdict] == [
        row(found, "toggle ratio", subject=toggle, metric="cpu")
    ]
    assert exit_code(found) == (verdict == "regression")


def count_false_alarms(number: int) -> int:
    """Number of comparisons with a false regression, plus those with a false improvement.

    The compared runs differ by noise only; they have twelve rows and no thresholds.
    """
    cells = tuple(
        cell(name, "duet", ("cpu",)) for name in (NOISE_FLOOR, *(f"idle {n}" for n in range(12)))
    )
    found = 0
    for day in range(number):
        runs = [
            _without_thresholds(honest(day=f"{day}{which}", noise=0.03, cells=cells))
            for which in "ab"
        ]
        verdicts = {change.verdict for change in compare_runs(*runs).gated}
        found += len(verdicts & {"regression", "improvement"})
    return found


def _without_thresholds(run: RunFile) -> RunFile:
    metrics = {name: replace(metric, threshold=1e-9) for name, metric in run.header.metrics.items()}
    return with_header(run, metrics=metrics)


def test_family_wise_error_rate() -> None:
    """At 1 % for each direction, 60 comparisons have 1.2 false alarms on average, and
    more than 4 in one of 125 such tests."""
    assert count_false_alarms(60) <= 4


def test_error_rate_test_detects_a_wrong_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """The level is divided neither by the number of rows nor by the number of looks."""
    monkeypatch.setattr(run_diff, "holm_limit", lambda p_values, level: level * 6)
    assert count_false_alarms(60) > 4


# -- kinds of changes


def test_change_within_the_drift_is_equivalent() -> None:
    """`faster` halves the work; that half may drift differently from the rest."""
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
def test_drift_of_ratio_bounds_the_drift(
    common: float, extra: float, drifts: tuple[float, float]
) -> None:
    before = math.log(common / (common + extra))
    of_common, of_extra = common * drifts[0], extra * drifts[1]
    after = math.log(of_common / (of_common + of_extra))
    drift = abs(math.log(drifts[0] / drifts[1]))
    # To first order; the remainder is a product of two drifts.
    assert abs(after - before) <= drift_of_ratio(before, drift) + drift**2 / 4 + 1e-12


def test_machine_speed_does_not_change_toggle_ratios() -> None:
    base, head = honest(day="1"), honest(day="2", machine=OTHER_MACHINE)
    for metric, factor in (("cpu", 3.0), ("wall", 3.0), ("steps_per_second", 1 / 3)):
        head = changed(head, metric, factor)
    found = compare_runs(base, head)
    assert not found.same_kind
    assert exit_code(found) == 0
    absolute = row(found, "absolute", subject="none", metric="cpu")
    assert (absolute.gated, absolute.interval, absolute.note) == (False, None, OTHER_KIND)
    assert ("cpu", "an ordinary one", "a faster one") in [
        (difference.name, difference.base, difference.head) for difference in found.differences
    ]


def test_common_drift_raises_thresholds_of_times() -> None:
    """A machine that computes faster does not wait faster, so ratios of wall times drift."""
    base, head = honest(day="1", noise=0.002), honest(day="2", noise=0.002)

    def threshold(head: RunFile, metric: str) -> float:
        found = compare_runs(base, head)
        return row(found, "toggle ratio", subject="faster", metric=metric).threshold

    usual = threshold(head, "wall")
    share = (usual - 0.05) / TIME_DRIFT
    assert threshold(changed(head, "cpu", 1 / 3), "wall") == pytest.approx(
        0.05 + share * math.log(3), rel=0.05
    )
    # Memory does not drift along, and a change of a single arm is not drift.
    assert threshold(changed(head, "cpu", 1 / 3), "peak_rss") == threshold(head, "peak_rss")
    assert threshold(changed(head, "cpu", 1 / 3, in_arm("faster")), "wall") == usual


def test_times_are_never_gated() -> None:
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
def test_memory_margin(same_kind: bool, factor: float, verdict: str) -> None:
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
def test_constant_counter_is_compared_exactly(name: str, same_kind: bool) -> None:
    base, head = (_renamed(honest(day=day), "requests", name) for day in "12")
    head = changed(head, name, 18 / 17, in_arm("faster"))
    if not same_kind:
        head = with_header(head, machine=OTHER_MACHINE)
    found = compare_runs(base, head)
    change = row(found, "counter", subject="faster")
    assert (change.base, change.head, change.verdict) == (17, 18, "regression")
    # Provider counts are portable; the number of imported modules depends on the interpreter.
    assert change.gated == (same_kind or name == "requests")
    assert exit_code(found) == change.gated
    others = [other.verdict for other in rows(found, "counter") if other != change]
    assert set(others) == {"equivalent"}


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.1, "inconclusive"), (1.01, "equivalent"), (1.4, "regression")]
)
@pytest.mark.parametrize(("name", "kind"), [("requests", "counter"), ("peak_rss", "memory")])
def test_requested_threshold_does_not_widen_equivalence(
    name: str, kind: str, factor: float, verdict: str
) -> None:
    base, head = (
        with_header(
            run,
            metrics={
                key: replace(metric, threshold=0.3) for key, metric in run.header.metrics.items()
            },
        )
        for run in (honest(day="1", noise=0.002), honest(day="2", noise=0.002))
    )
    base, head = changed(base, name, 100), changed(head, name, 100 * factor)
    found = compare_runs(base, head)
    assert {change.verdict for change in rows(found, kind, metric=name)} == {verdict}


def _renamed(run: RunFile, old: str, new: str) -> RunFile:
    text = msgspec.json.encode(run).decode().replace(f'"{old}"', f'"{new}"')
    return with_header(
        msgspec.json.decode(text, type=RunFile),
        metrics={name: METRICS[name] for name in (set(run.header.metrics) - {old}) | {new}},
    )


def test_varying_counter_is_tested() -> None:
    base, head = honest(day="1"), honest(day="2")
    flipping = changed(head, "requests", 18 / 17, lambda sample: sample.pair == 3)
    found = compare_runs(base, flipping)
    assert {change.verdict for change in rows(found, "counter")} == {"equivalent"}
    assert not any(change.exact for change in rows(found, "counter"))
    doubled = changed(flipping, "requests", 2.0)
    found = compare_runs(base, doubled)
    assert {change.verdict for change in rows(found, "counter")} == {"regression"}


def test_counter_with_one_value_is_inconclusive() -> None:
    base = honest(toggles=("idle",), pairs=1, noise_pairs=0)
    found = compare_runs(base, base)
    single = row(found, "counter", subject="idle")
    assert (single.values, single.verdict) == ((1, 1), "inconclusive")


def test_few_pairs_give_no_verdict() -> None:
    short = honest(pairs=2, noise_pairs=2)
    found = compare_runs(honest(), changed(short, "cpu", 5.0, on_side("idle")))
    change = row(found, "toggle ratio", subject="idle", metric="cpu")
    assert (change.verdict, change.interval) == ("inconclusive", None)
    assert "needs 8" in change.note


# -- incompatible rows


def test_changed_scenario_is_incompatible() -> None:
    run = honest()
    other = with_header(run, scenarios={"work": replace(scenario_used("work"), digest="1" * 64)})
    found = compare_runs(run, other)
    (change,) = found.changes
    assert (change.kind, change.note) == ("incompatible", "the scenario has changed")
    assert exit_code(found) == 4


@pytest.mark.parametrize("field", ["unit", "mode", "better"])
def test_changed_metric_is_incompatible(field: str) -> None:
    run = honest()
    values: Mapping[str, Any] = {"unit": "B", "mode": "serial", "better": "higher"}
    cpu = replace(run.header.metrics["cpu"], **{field: values[field]})
    head = with_header(run, metrics=run.header.metrics | {"cpu": cpu})
    found = compare_runs(run, head)
    assert field in row(found, "incompatible", metric="cpu").note
    assert not rows(found, "toggle ratio", metric="cpu")
    assert rows(found, "toggle ratio", metric="wall")


def test_description_and_threshold_of_a_metric_may_differ() -> None:
    run = honest()
    cpu = replace(run.header.metrics["cpu"], about="said otherwise", threshold=0.3)
    head = with_header(run, metrics=run.header.metrics | {"cpu": cpu})
    found = compare_runs(run, head)
    assert not rows(found, "incompatible")
    assert row(found, "toggle ratio", subject="idle", metric="cpu").threshold >= 0.3


def test_changed_rule_is_incompatible() -> None:
    run = honest()
    rules = run.header.rules | {"duet": replace(run.header.rules["duet"], threshold=0.01)}
    found = compare_runs(run, with_header(run, rules=rules))
    assert {change.metric for change in rows(found, "incompatible")} == {"cpu", "peak_rss"}


def test_changed_toggles_are_incompatible() -> None:
    run = honest(toggles=("idle",))
    text = msgspec.json.encode(run.header).decode()
    header = msgspec.json.decode(text.replace("true", "false"), type=type(run.header))
    found = compare_runs(run, replace(run, header=header))
    assert row(found, "incompatible", subject="idle").note == "the toggles of its sides differ"
    assert not rows(found, "toggle ratio")


def test_new_and_removed_contrasts() -> None:
    found = compare_runs(honest(toggles=("faster", "idle")), honest(toggles=("idle", "slower")))
    assert row(found, "gone").subject == "faster"
    assert row(found, "new").subject == "slower"
    assert rows(found, "toggle ratio", subject="idle")


def test_biased_metric_gets_no_verdict() -> None:
    biased = changed(
        honest(day="2", noise=0.002),
        "cpu",
        1.5,
        lambda sample: sample.contrast == NOISE_FLOOR and sample.side == "B",
    )
    found = compare_runs(honest(day="1", noise=0.002), biased)
    change = row(found, "toggle ratio", subject="slower", metric="cpu")
    assert change.verdict == "not measured"
    assert "A/A sides differ" in change.note
    assert exit_code(found, strict=True) == 3


def test_metric_too_noisy_in_one_run_is_not_gated() -> None:
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
def test_report_has_each_kind_and_fits_the_width(width: int) -> None:
    head = changed(honest(day="2"), "requests", 18 / 17)
    runs = honest(day="1"), head
    text = diff_text.text(compare_runs(*runs), runs, width=width)
    for kind in ("toggle ratios", "memory", "counters", "absolute"):
        assert any(line.startswith(kind) for line in text.splitlines()), kind
    assert "4 regressions" in text
    assert max(map(len, text.splitlines())) <= width


def test_differing_facts_are_reported() -> None:
    machine: dict[str, Any] = {"cpu": "an ordinary one", "cores": 2, "memory": 8 * 10**9}
    base = honest(machine=machine, versions={"trae-bench": "0.1.0", "openai": "3.54.0"})
    nearly = honest(machine=machine | {"memory": 8 * 10**9 + 8192})
    assert "- memory:" not in diff_text.text(compare_runs(base, nearly), (base, nearly))
    other = honest(machine=machine | {"memory": 16 * 10**9})
    text = diff_text.text(compare_runs(base, other), (base, other))
    assert "- memory: 8 GB in the base, 16 GB in the head" in text
    assert "- openai: 3.54.0 in the base, not installed in the head" in text


def test_singular_of_row() -> None:
    run = honest(toggles=("idle",), pairs=1, noise_pairs=0)
    row = Change(kind="memory", scenario="s", verdict="improvement", gated=True)
    found = replace(compare_runs(run, run), changes=(row,))
    assert diff_text.closing(found).startswith("1 improvement of 1 gated row; ")
    assert "<summary>1 row</summary>" in diff_text.comment(found, (run, run))


def test_the_report_is_as_narrow_as_the_terminal() -> None:
    runs = honest(day="1"), honest(day="2")
    for width in (60, 40):
        text = diff_text.text(compare_runs(*runs), runs, width=width)
        assert max(map(len, text.splitlines())) <= width
        assert "Columns left out to fit" in text


def test_comment_explains_its_columns() -> None:
    runs = honest(day="1"), honest(day="2")
    comment = diff_text.comment(compare_runs(*runs), runs)
    assert diff_text.READING in comment


def test_compare_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    (regression,) = [
        change
        for change in printed["found"]["changes"]
        if change["gated"] and change["verdict"] == "regression"
    ]
    assert (regression["kind"], regression["subject"], regression["metric"]) == (
        "toggle ratio",
        "idle",
        "cpu",
    )
    assert main(["compare", base, base]) == 0


def test_comment_shows_values_of_counts() -> None:
    head = changed(honest(day="2"), "requests", 18 / 17)
    runs = honest(day="1"), head
    comment = diff_text.comment(compare_runs(*runs), runs)
    assert "<code>requests</code> (counter): 17 → 18\n" in comment


def test_noise_of_both_runs_precedes_the_table() -> None:
    noisy = honest(day="2", noise=0.2)
    runs = honest(day="1"), noisy
    found = compare_runs(*runs)
    head, *_ = " ".join(diff_text.text(found, runs).split()).partition("metric base head")
    comment, *_ = diff_text.comment(found, runs).partition("<details>")
    for shown in (head, comment):
        assert shown.count("A/A noise") == 2
        assert shown.count("For information only, because the noise is too large to gate") == 1


def test_strict_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = stored(tmp_path / "short.json", honest(pairs=2, noise_pairs=2))
    assert main(["compare", short, short]) == 0
    assert main(["compare", short, short, "--strict"]) == 3
    assert "inconclusive" in capsys.readouterr().out


def test_report_is_written_before_the_error(
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


def test_file_with_a_broken_seal_is_refused(
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


def test_texts_of_files_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_comment_has_a_maximum_length() -> None:
    run = honest(toggles=("idle",))
    found = compare_runs(run, run)
    long = replace(row(found, "memory", subject="idle"), scenario="<" * 200, verdict="regression")
    many = [replace(long, subject=f"{'|' * 190}{n}", note="because " * 9) for n in range(3000)]
    told = diff_text.comment(replace(found, changes=(*found.changes, *many)), (run, run))
    assert len(told) < markdown.MAX_COMMENT
    assert "3000 regressions" in told
    assert "more rows" in told


def test_committed_run_compared_with_itself() -> None:
    root = Path(__file__).resolve().parents[3]
    run = read_run(root / "results" / "quick.json")
    found = compare_runs(run, run)
    assert exit_code(found) == 0
    assert "improvement" not in {change.verdict for change in found.changes}
