"""An honest file holds together; whatever is edited in it is found."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trae_bench.fakes import TINY, turned_on
from tests.trae_bench.runs import NOW, honest, plan, plan_of, worked_out
from trae_bench.cli import main
from trae_bench.design.contrasts import DESIGNS, NOISE_FLOOR
from trae_bench.errors import BadRunFile
from trae_bench.execution.host_lock import LOCK_VARIABLE
from trae_bench.model.experiment import Contrast
from trae_bench.model.result import Interval
from trae_bench.model.run import Resumed, RunFile
from trae_bench.storage import bounds
from trae_bench.storage import run_file as store
from trae_bench.storage.seal import sealed
from trae_bench.storage.verify import MAX_PER_CHECK, Inconsistency, origin, verify

replace = msgspec.structs.replace
Path_ = tuple[str | int, ...]


@cache
def run() -> RunFile:
    return honest()


@cache
def document() -> str:
    return msgspec.json.encode(run()).decode()


def wrong(run: RunFile) -> list[Inconsistency]:
    return [finding for finding in verify(run, now=NOW) if finding.severity == "wrong"]


def told(run: RunFile) -> str:
    return "\n".join(map(str, verify(run, now=NOW)))


# -- honest files


@pytest.mark.parametrize(
    "made",
    [
        honest,
        lambda: honest(noise=0.2),
        lambda: honest(toggles=("idle",), seed=0),
        lambda: honest(pairs=None, noise=0.05),
        lambda: honest(budget=60.0),
        *(
            lambda design=design: honest(cells=plan_of(design), design=design, pairs=8)
            for design in DESIGNS
        ),
        lambda: honest(cells=plan_of("remove-one", ["idle"]), design="remove-one"),
        lambda: honest(noise_pairs=0),
        lambda: honest(budget=9.0),
        lambda: honest(precision=0.02, pairs=40),
        lambda: honest(lost={("slower", 3): "crash", ("idle", 0): "crash", ("idle", 5): "differ"}),
        lambda: honest(lost={("slower", n): "crash" for n in range(9)}),
        lambda: honest(lost={("slower", n): "differ" for n in range(9)}),
    ],
)
def test_an_honest_run_holds_together(made: Callable[[], RunFile], tmp_path: Path) -> None:
    found = made()
    assert verify(found, now=NOW) == []
    store.write_run(tmp_path / "run.json", found)
    assert verify(store.read_run(tmp_path / "run.json"), now=NOW) == []


def test_a_run_gone_on_with_after_a_restart_holds_together() -> None:
    """The clock of the machine began anew in the middle."""
    samples = run().samples
    middle = next(n for n, one in enumerate(samples) if n > 60 and one.slot == 0)
    later = [replace(one, started=one.started - 1000) for one in samples[middle:]]
    restarted = replace(run(), samples=(*samples[:middle], *later))
    assert "started" in told(sealed(restarted))
    resumed = (Resumed("2026-01-01T10:00:00+00:00", "trae-bench run --resume"),)
    assert verify(sealed(replace(restarted, resumed=resumed)), now=NOW) == []


@pytest.mark.slow
def test_a_real_run_holds_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes, real clocks, a real machine's facts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(LOCK_VARIABLE, str(tmp_path / "lock"))
    (tmp_path / "tiny.toml").write_text(TINY)
    assert main(["run", "tiny.toml", "--pairs", "1", "--out", "run.json"]) == 0
    found = store.read_run(Path("run.json"))
    assert len(found.samples) == 16
    assert verify(found) == []


def test_the_origin_names_commit_state_machine_and_versions() -> None:
    said = "\n".join(origin(run()))
    for fact in (
        "2026-01-01T00",
        "0123456789, without uncommitted changes",
        "an ordinary one",
        "2 cores",
    ):
        assert fact in said
    dirty = replace(run(), header=replace(run().header, code={"commit": "a", "dirty": True}))
    assert "with uncommitted changes" in "\n".join(origin(dirty))
    nothing = replace(run(), header=replace(run().header, code={}, machine={}, versions={}))
    assert "\n".join(origin(nothing)).count("unknown") == 5


# -- edits


def leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Places of all numbers, texts and switches of a document."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    elif value is not None:
        yield path
    for key, item in items:
        yield from leaves(item, (*path, key))


@cache
def places() -> tuple[Path_, ...]:
    return tuple(leaves(json.loads(document())))


def edited(path: Path_, change: Callable[[Any], Any]) -> Any:
    changed = json.loads(document())
    part = changed
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = change(part[path[-1]])
    return changed


def slightly(value: Any) -> Any:
    """Another value of the same kind, hard to see."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.000001 if abs(value) > 1e-6 else value + 0.001
    return value + "."


def reread(changed: Any, folder: Path) -> RunFile | None:
    """As a stranger's file is read; None where it is not even one any more."""
    path = folder / "run.json"
    path.write_text(json.dumps(changed))
    try:
        return store.read_run(path)
    except BadRunFile:
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("edited")


@given(data=st.data())
def test_whatever_is_edited_by_hand_is_found(folder: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(places()))
    found = reread(edited(path, slightly), folder)
    assert found is None or wrong(found), path


@pytest.mark.slow
@given(data=st.data())
def test_an_edited_conclusion_is_found_even_under_a_new_seal(
    folder: Path, data: st.DataObject
) -> None:
    figures = [
        path
        for path in places()
        if path[0] in ("comparisons", "noise") and not isinstance(path[-1], int)
    ]
    path = data.draw(st.sampled_from(figures))
    found = reread(edited(path, slightly), folder)
    assert found is None or wrong(sealed(found)), path


@given(number=st.integers(0, 10_000), name=st.sampled_from(["cpu", "peak_rss", "requests"]))
def test_an_edited_sample_is_found_even_under_a_new_seal(number: int, name: str) -> None:
    """Figures of counted duet pairs; serial rows leave their extremes out of the mean."""
    counted = [n for n, one in enumerate(run().samples) if one.mode == "duet" and one.pair]
    chosen = counted[number % len(counted)]
    sample = run().samples[chosen]
    metrics = sample.metrics | {name: sample.metrics[name] * 2}
    samples = list(run().samples)
    samples[chosen] = replace(sample, metrics=metrics)
    assert any(f.place.startswith("comparisons") for f in wrong(resealed(samples=tuple(samples))))


def resealed(**changes: Any) -> RunFile:
    return sealed(replace(run(), **changes))


def with_header(**changes: Any) -> RunFile:
    return resealed(header=replace(run().header, **changes))


def with_sample(number: int, **changes: Any) -> RunFile:
    samples = list(run().samples)
    samples[number] = replace(samples[number], **changes)
    return resealed(samples=tuple(samples))


def with_metrics(number: int, **metrics: float) -> RunFile:
    return with_sample(number, metrics=run().samples[number].metrics | metrics)


def without(*numbers: int) -> RunFile:
    kept = tuple(one for n, one in enumerate(run().samples) if n not in numbers)
    return resealed(samples=kept)


def flipped(name: str) -> RunFile:
    metrics = dict(run().header.metrics)
    metrics[name] = replace(metrics[name], better="higher")
    return with_header(metrics=metrics)


def softer() -> RunFile:
    rules = dict(run().header.rules)
    rules["duet"] = replace(rules["duet"], alpha=0.2)
    return with_header(rules=rules)


def better_interval() -> RunFile:
    rows = list(run().comparisons)
    estimate = rows[5].estimate
    assert estimate is not None
    rows[5] = replace(rows[5], estimate=replace(estimate, interval=Interval(-0.1, 0.1)))
    return resealed(comparisons=tuple(rows))


def undecided(**changes: Any) -> RunFile:
    """Noise hides all; the header says afterwards that something else was planned."""
    open_run = honest(noise=0.2)
    limits = replace(open_run.header.limits, **changes)
    return sealed(replace(open_run, header=replace(open_run.header, limits=limits)))


def imprecise() -> RunFile:
    """More pairs would have made the intervals as narrow as they were asked to be."""
    short = honest(noise=0.05, precision=0.001)
    limits = replace(short.header.limits, pairs=16)
    return sealed(replace(short, header=replace(short.header, limits=limits)))


def swapped() -> RunFile:
    """The sides of one pair have changed names: what was slow is fast."""
    first, second = run().samples[60:62]
    assert (first.contrast, first.mode, first.pair) == (second.contrast, second.mode, second.pair)
    pair = (
        replace(first, side=second.side, arm=second.arm),
        replace(second, side=first.side, arm=first.arm),
    )
    return resealed(samples=(*run().samples[:60], *pair, *run().samples[62:]))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: replace(run(), seal=""), "seal: missing"),
        (lambda: replace(run(), elapsed=run().elapsed + 1e-9), "seal: does not match"),
        (lambda: with_header(created="yesterday"), "not a time with a time zone"),
        (lambda: with_header(created="2026-01-01T00:00:00"), "not a time with a time zone"),
        (lambda: with_header(created="2031-01-01T00:00:00+00:00"), "in the future"),
        (lambda: with_header(created="1999-01-01T00:00:00+00:00"), "is before"),
        (lambda: resealed(resumed=(Resumed("2025-06-01T00:00:00Z", ""),)), "resumed[0].created"),
        (lambda: with_header(seed=8), "the plan and the seed say"),
        (softer, "duet-v1 is not the rule of this release"),
        (lambda: flipped("cpu"), "better is 'higher'"),
        (lambda: with_header(cells=(*run().header.cells, run().header.cells[0])), "9 cells, the"),
        (lambda: with_header(cells=run().header.cells[1:]), "is not in the plan"),
        (lambda: undecided(pairs=11), "12 counted, at most 11 planned"),
        (imprecise, "is done, but after 12 of 16"),
        (lambda: with_header(machine={"cores": 0, "memory": 1000}), "peak_rss is"),
        (swapped, "the plan and the seed say"),
        (better_interval, "comparisons[5].estimate.interval.low"),
        (lambda: without(0, 1), "start with 1"),
        (lambda: without(50, 51), "0 is followed by 2"),
        (lambda: without(44), "has only one side"),
        (lambda: resealed(samples=(*run().samples, run().samples[-1])), "twice"),
        (lambda: resealed(samples=run().samples[::-1]), "slot 1 started before slot 0"),
        (lambda: resealed(elapsed=1.0), "elapsed: 1 s, but the samples took"),
        (lambda: resealed(noise=run().noise[1:]), "noise: 3 of them, the samples give 4"),
        (lambda: with_sample(40, arm="none" + "x"), "its side is"),
        (lambda: with_sample(40, exit_status=3), "ok with exit status 3"),
        (lambda: with_sample(40, exit_status=None), "ok with exit status None"),
        (lambda: with_sample(40, transcript=""), "ok without a digest"),
        (lambda: with_sample(40, problem="?"), "is correct and has a problem"),
        (lambda: with_sample(40, status="timeout"), "timeout, but has a digest"),
        (
            lambda: with_sample(40, status="failed", transcript="", workspace="", correct=False),
            "failed, but has no problem",
        ),
        (lambda: with_sample(41, pid=run().samples[40].pid), "both sides ran in process"),
        (lambda: with_metrics(40, cpu=-1.0), "cpu is negative"),
        (lambda: with_metrics(40, requests=17.5), "not a whole number"),
        (lambda: with_metrics(40, peak_rss=999_999.0), "peak_rss is 999999 bytes"),
        (lambda: with_metrics(40, cpu_user=0.1), "its parts sum to"),
        (lambda: with_metrics(40, wall=0.01), "of CPU time in 0.01 s on 2 cores"),
        (lambda: with_metrics(40, time_to_first_request=50.0), "time_to_first_request is 50 s"),
        (lambda: with_metrics(40, wall=60.0), "before the previous sample ended"),
    ],
)
def test_each_contradiction_is_named_even_under_a_new_seal(
    made: Callable[[], RunFile], said: str
) -> None:
    found = wrong(made())
    assert any(said in str(finding) for finding in found), "\n".join(map(str, found))


def quiet() -> RunFile:
    """The A/A pairs that told of a noisy machine are gone, and nobody planned them."""
    noisy = honest(noise=0.2)
    kept = [one for one in noisy.samples if one.contrast != NOISE_FLOOR]
    cells = tuple(one for one in noisy.header.cells if one.contrast.name != NOISE_FLOOR)
    return worked_out(noisy, kept, cells=cells)


def quieter(**changes: Any) -> RunFile:
    """Only the first A/A pairs are left."""
    noisy = honest(noise=0.2, **changes)
    kept = [one for one in noisy.samples if one.contrast != NOISE_FLOOR or one.pair <= 2]
    return worked_out(noisy, kept)


def reordered() -> RunFile:
    """The pairs of a cell under other numbers, so that the looks fall elsewhere."""
    whole = run()
    changed = {1: 3, 2: 4, 3: 1, 4: 2}
    samples = [
        replace(one, pair=changed.get(one.pair, one.pair))
        if (one.contrast, one.mode) == ("slower", "duet")
        else one
        for one in whole.samples
    ]
    return worked_out(whole, samples)


def renamed(change: Callable[[Contrast], Contrast]) -> RunFile:
    """The contrasts carry other toggles than they did."""
    cells = tuple(
        one if one.contrast.name == NOISE_FLOOR else replace(one, contrast=change(one.contrast))
        for one in run().header.cells
    )
    return with_header(cells=cells)


def slow_for_fast(contrast: Contrast) -> Contrast:
    """`faster` gets what `slower` did."""
    other = {"faster": "slower", "slower": "faster"}.get(contrast.name, contrast.name)
    return replace(contrast, b=replace(contrast.b, toggles=turned_on(other).toggles))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (quiet, "the header generates"),
        (quieter, "were counted, but there was time for more"),
        (lambda: quieter(budget=600.0), "were counted, but there was time for more"),
        (lambda: replace(run(), stopped="budget"), "its budget ended it, but it had none"),
        (reordered, "was taken after pair"),
        (lambda: renamed(slow_for_fast), "the header generates work/faster"),
        (lambda: renamed(lambda c: replace(c, a=c.b, b=c.a)), "the header generates work/faster"),
        (lambda: with_header(design="best-of"), "no design 'best-of'"),
        (lambda: with_header(design="remove-one"), "the header generates work/faster@last"),
        (lambda: with_header(rules={}), "there is none for duet metrics"),
    ],
)
def test_what_is_left_out_or_renamed_is_found_though_all_is_worked_out_anew(
    made: Callable[[], RunFile], said: str
) -> None:
    assert said in "\n".join(map(str, wrong(sealed(made()))))


def test_another_design_is_found() -> None:
    """A fraction has narrower intervals than add-one: no look can stop a cell early."""
    assert "the header generates" in told(with_header(design="fraction"))


def test_copies_of_a_sample_are_found() -> None:
    """One lucky sample in place of every B."""
    lucky = next(one for one in run().samples if one.side == "B").metrics
    samples = tuple(
        replace(one, metrics=lucky) if one.side == "B" else one for one in run().samples
    )
    assert "has the same wall time as" in told(resealed(samples=samples))


def test_memory_is_counted_in_pages() -> None:
    assert "not a multiple of a page" in told(with_metrics(40, peak_rss=31_000_001.0))


def test_derived_figures_agree() -> None:
    wall = run().samples[40].metrics["wall"]
    assert "steps_per_second and wall" in told(with_metrics(40, wall=wall * 0.9))


def test_noise_measured_after_the_fact_is_odd() -> None:
    last = run().samples[-1]
    moved = [replace(one, started=one.started + 10_000) for one in run().samples[:2]]
    late = sealed(replace(run(), samples=(*run().samples[2:], *moved)))
    assert last.contrast != NOISE_FLOOR
    assert "taken after other pairs" in told(late)


def test_another_machines_last_bit_is_no_contradiction() -> None:
    rows = []
    for row in run().comparisons:
        assert row.estimate is not None
        assert row.estimate.log_ratio is not None
        rounded = replace(row.estimate, log_ratio=row.estimate.log_ratio * (1 + 1e-14))
        rows.append(replace(row, estimate=rounded))
    assert verify(resealed(comparisons=tuple(rows)), now=NOW) == []


def test_a_thousand_findings_are_counted_not_told() -> None:
    samples = tuple(replace(one, exit_status=3) for one in run().samples)
    found = verify(resealed(samples=samples), now=NOW)
    assert len(found) == MAX_PER_CHECK + 1
    assert f"{len(samples) - MAX_PER_CHECK} from the same check" in str(found[-1])


def test_clocks_may_differ_by_a_day() -> None:
    assert verify(run(), now=NOW - timedelta(days=1, hours=23)) == []


def test_a_plan_that_would_take_minutes_is_refused(tmp_path: Path) -> None:
    """Few bytes can ask for much work: rows, or pairs times metrics."""
    (first, *_) = plan()
    path = tmp_path / "run.json"
    many = replace(first, metrics=("cpu",) * (bounds.MAX_ROWS + 1))
    path.write_bytes(msgspec.json.encode(with_header(cells=(many,))))
    with pytest.raises(BadRunFile, match="rows"):
        store.read_run(path)
    of_first = sum(one.contrast == NOISE_FLOOR and one.mode == "duet" for one in run().samples)
    much = replace(first, metrics=("cpu",) * bounds.MAX_ROWS)
    samples = tuple(one for one in run().samples if one.mode == "duet") * 10
    assert of_first * 10 * bounds.MAX_ROWS > bounds.MAX_COMPARED
    path.write_bytes(msgspec.json.encode(replace(with_header(cells=(much,)), samples=samples)))
    with pytest.raises(BadRunFile, match="values to compare"):
        store.read_run(path)
