"""Tests of `verify`: consistent runs have no findings, and edits are found."""

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
from tests.trae_bench.runs import NOW, honest, plan, plan_of, recomputed
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


def wrong_findings(run: RunFile) -> list[Inconsistency]:
    return [finding for finding in verify(run, now=NOW) if finding.severity == "wrong"]


def findings_text(run: RunFile) -> str:
    return "\n".join(map(str, verify(run, now=NOW)))


# -- consistent files


@pytest.mark.parametrize(
    "make",
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
def test_consistent_run_has_no_findings(make: Callable[[], RunFile], tmp_path: Path) -> None:
    found = make()
    assert verify(found, now=NOW) == []
    store.write_run(tmp_path / "run.json", found)
    assert verify(store.read_run(tmp_path / "run.json"), now=NOW) == []


def test_run_resumed_after_a_restart_has_no_findings() -> None:
    """The monotonic clock starts again in the middle of the run."""
    samples = run().samples
    middle = next(n for n, sample in enumerate(samples) if n > 60 and sample.slot == 0)
    later = [replace(sample, started=sample.started - 1000) for sample in samples[middle:]]
    restarted = replace(run(), samples=(*samples[:middle], *later))
    assert "started" in findings_text(sealed(restarted))
    resumed = (Resumed("2026-01-01T10:00:00+00:00", "trae-bench run --resume"),)
    assert verify(sealed(replace(restarted, resumed=resumed)), now=NOW) == []


@pytest.mark.slow
def test_real_run_has_no_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run uses real processes, clocks and host facts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(LOCK_VARIABLE, str(tmp_path / "lock"))
    (tmp_path / "tiny.toml").write_text(TINY)
    assert main(["run", "tiny.toml", "--pairs", "1", "--out", "run.json"]) == 0
    found = store.read_run(Path("run.json"))
    assert len(found.samples) == 16
    assert verify(found) == []


def test_origin_has_commit_machine_and_versions() -> None:
    text = "\n".join(origin(run()))
    for fact in (
        "2026-01-01T00",
        "0123456789, without uncommitted changes",
        "an ordinary one",
        "2 cores",
    ):
        assert fact in text
    dirty = replace(run(), header=replace(run().header, code={"commit": "a", "dirty": True}))
    assert "with uncommitted changes" in "\n".join(origin(dirty))
    nothing = replace(run(), header=replace(run().header, code={}, machine={}, versions={}))
    assert "\n".join(origin(nothing)).count("unknown") == 5


# -- edits


def leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Yield the paths of all numbers, strings and booleans of a document."""
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


def change_slightly(value: Any) -> Any:
    """Return a slightly different value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.000001 if abs(value) > 1e-6 else value + 0.001
    return value + "."


def reread(changed: Any, folder: Path) -> RunFile | None:
    """Write and read a document as a run file. Return None if it is invalid."""
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
def test_any_edit_is_found(folder: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(places()))
    found = reread(edited(path, change_slightly), folder)
    assert found is None or wrong_findings(found), path


@pytest.mark.slow
@given(data=st.data())
def test_edited_result_with_a_new_seal_is_found(folder: Path, data: st.DataObject) -> None:
    paths = [
        path
        for path in places()
        if path[0] in ("comparisons", "noise") and not isinstance(path[-1], int)
    ]
    path = data.draw(st.sampled_from(paths))
    found = reread(edited(path, change_slightly), folder)
    assert found is None or wrong_findings(sealed(found)), path


@given(number=st.integers(0, 10_000), name=st.sampled_from(["cpu", "peak_rss", "requests"]))
def test_edited_sample_with_a_new_seal_is_found(number: int, name: str) -> None:
    """Only counted duet pairs, because serial rows use a trimmed mean."""
    counted = [n for n, sample in enumerate(run().samples) if sample.mode == "duet" and sample.pair]
    chosen = counted[number % len(counted)]
    sample = run().samples[chosen]
    metrics = sample.metrics | {name: sample.metrics[name] * 2}
    samples = list(run().samples)
    samples[chosen] = replace(sample, metrics=metrics)
    assert any(
        f.place.startswith("comparisons") for f in wrong_findings(resealed(samples=tuple(samples)))
    )


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
    kept = tuple(sample for n, sample in enumerate(run().samples) if n not in numbers)
    return resealed(samples=kept)


def with_flipped_direction(name: str) -> RunFile:
    metrics = dict(run().header.metrics)
    metrics[name] = replace(metrics[name], better="higher")
    return with_header(metrics=metrics)


def with_other_rule() -> RunFile:
    rules = dict(run().header.rules)
    rules["duet"] = replace(rules["duet"], alpha=0.2)
    return with_header(rules=rules)


def with_other_interval() -> RunFile:
    rows = list(run().comparisons)
    estimate = rows[5].estimate
    assert estimate is not None
    rows[5] = replace(rows[5], estimate=replace(estimate, interval=Interval(-0.1, 0.1)))
    return resealed(comparisons=tuple(rows))


def with_other_limits(**changes: Any) -> RunFile:
    """Return a noisy run with limits in the header that were changed afterwards."""
    open_run = honest(noise=0.2)
    limits = replace(open_run.header.limits, **changes)
    return sealed(replace(open_run, header=replace(open_run.header, limits=limits)))


def stopped_before_precision() -> RunFile:
    """Return a run that stopped before its intervals reached the precision."""
    short = honest(noise=0.05, precision=0.001)
    limits = replace(short.header.limits, pairs=16)
    return sealed(replace(short, header=replace(short.header, limits=limits)))


def with_swapped_sides() -> RunFile:
    """Return the run with the sides of one pair swapped."""
    first, second = run().samples[60:62]
    assert (first.contrast, first.mode, first.pair) == (second.contrast, second.mode, second.pair)
    pair = (
        replace(first, side=second.side, arm=second.arm),
        replace(second, side=first.side, arm=first.arm),
    )
    return resealed(samples=(*run().samples[:60], *pair, *run().samples[62:]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(run(), seal=""), "seal: missing"),
        (lambda: replace(run(), elapsed=run().elapsed + 1e-9), "seal: does not match"),
        (lambda: with_header(created="yesterday"), "not a time with a time zone"),
        (lambda: with_header(created="2026-01-01T00:00:00"), "not a time with a time zone"),
        (lambda: with_header(created="2031-01-01T00:00:00+00:00"), "in the future"),
        (lambda: with_header(created="1999-01-01T00:00:00+00:00"), "is before"),
        (lambda: resealed(resumed=(Resumed("2025-06-01T00:00:00Z", ""),)), "resumed[0].created"),
        (lambda: with_header(seed=8), "the plan and the seed say"),
        (with_other_rule, "duet-v1 is not the rule of this release"),
        (lambda: with_flipped_direction("cpu"), "better is 'higher'"),
        (lambda: with_header(cells=(*run().header.cells, run().header.cells[0])), "9 cells, the"),
        (lambda: with_header(cells=run().header.cells[1:]), "is not in the plan"),
        (lambda: with_other_limits(pairs=11), "12 counted, at most 11 planned"),
        (stopped_before_precision, "is done, but after 12 of 16"),
        (lambda: with_header(machine={"cores": 0, "memory": 1000}), "peak_rss is"),
        (with_swapped_sides, "the plan and the seed say"),
        (with_other_interval, "comparisons[5].estimate.interval.low"),
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
def test_contradiction_is_reported(make: Callable[[], RunFile], message: str) -> None:
    found = wrong_findings(make())
    assert any(message in str(finding) for finding in found), "\n".join(map(str, found))


def without_noise_pairs() -> RunFile:
    """Return a noisy run without its A/A pairs and their cells."""
    noisy = honest(noise=0.2)
    kept = [sample for sample in noisy.samples if sample.contrast != NOISE_FLOOR]
    cells = tuple(cell for cell in noisy.header.cells if cell.contrast.name != NOISE_FLOOR)
    return recomputed(noisy, kept, cells=cells)


def with_few_noise_pairs(**changes: Any) -> RunFile:
    """Return a noisy run with only the first A/A pairs."""
    noisy = honest(noise=0.2, **changes)
    kept = [
        sample for sample in noisy.samples if sample.contrast != NOISE_FLOOR or sample.pair <= 2
    ]
    return recomputed(noisy, kept)


def with_renumbered_pairs() -> RunFile:
    """Return the run with the pairs of one cell renumbered, which changes the looks."""
    whole = run()
    changed = {1: 3, 2: 4, 3: 1, 4: 2}
    samples = [
        replace(sample, pair=changed.get(sample.pair, sample.pair))
        if (sample.contrast, sample.mode) == ("slower", "duet")
        else sample
        for sample in whole.samples
    ]
    return recomputed(whole, samples)


def with_other_contrasts(change: Callable[[Contrast], Contrast]) -> RunFile:
    """Return the run with the toggles of its contrasts changed."""
    cells = tuple(
        cell if cell.contrast.name == NOISE_FLOOR else replace(cell, contrast=change(cell.contrast))
        for cell in run().header.cells
    )
    return with_header(cells=cells)


def swap_faster_and_slower(contrast: Contrast) -> Contrast:
    """Swap the toggles of `faster` and `slower`."""
    other = {"faster": "slower", "slower": "faster"}.get(contrast.name, contrast.name)
    return replace(contrast, b=replace(contrast.b, toggles=turned_on(other).toggles))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_noise_pairs, "the header generates"),
        (with_few_noise_pairs, "were counted, but there was time for more"),
        (lambda: with_few_noise_pairs(budget=600.0), "were counted, but there was time for more"),
        (lambda: replace(run(), stopped="budget"), "its budget ended it, but it had none"),
        (with_renumbered_pairs, "was taken after pair"),
        (lambda: with_other_contrasts(swap_faster_and_slower), "the header generates work/faster"),
        (
            lambda: with_other_contrasts(lambda c: replace(c, a=c.b, b=c.a)),
            "the header generates work/faster",
        ),
        (lambda: with_header(design="best-of"), "no design 'best-of'"),
        (lambda: with_header(design="remove-one"), "the header generates work/faster@last"),
        (lambda: with_header(rules={}), "there is none for duet metrics"),
    ],
)
def test_omitted_or_renamed_data_is_found(make: Callable[[], RunFile], message: str) -> None:
    assert message in "\n".join(map(str, wrong_findings(sealed(make()))))


def test_changed_design_is_found() -> None:
    """A fraction has a fixed number of pairs, unlike add-one."""
    assert "the header generates" in findings_text(with_header(design="fraction"))


def test_copied_samples_are_found() -> None:
    """The metrics of one sample replace those of every sample of side B."""
    metrics = next(sample for sample in run().samples if sample.side == "B").metrics
    samples = tuple(replace(s, metrics=metrics) if s.side == "B" else s for s in run().samples)
    assert "has the same wall time as" in findings_text(resealed(samples=samples))


def test_memory_must_be_a_multiple_of_a_page() -> None:
    assert "not a multiple of a page" in findings_text(with_metrics(40, peak_rss=31_000_001.0))


def test_derived_metrics_must_agree() -> None:
    wall = run().samples[40].metrics["wall"]
    assert "steps_per_second and wall" in findings_text(with_metrics(40, wall=wall * 0.9))


def test_figures_of_prompts_must_agree() -> None:
    reuse = with_metrics(40, prompt_bytes=100, new_prompt_bytes=30, prefix_reuse=0.6)
    assert "30 of 100 bytes of the prompts are new" in findings_text(reuse)
    assert "prefix_breaks is 99 of" in findings_text(
        with_metrics(40, prompt_bytes=1, new_prompt_bytes=1, prefix_reuse=0.0, prefix_breaks=99)
    )
    assert "counts none" in findings_text(with_metrics(40, prefix_breaks=1))


def test_noise_pairs_taken_last_are_odd() -> None:
    last = run().samples[-1]
    moved = [replace(sample, started=sample.started + 10_000) for sample in run().samples[:2]]
    late = sealed(replace(run(), samples=(*run().samples[2:], *moved)))
    assert last.contrast != NOISE_FLOOR
    assert "taken after other pairs" in findings_text(late)


def test_rounding_difference_is_accepted() -> None:
    rows = []
    for row in run().comparisons:
        assert row.estimate is not None
        assert row.estimate.log_ratio is not None
        rounded = replace(row.estimate, log_ratio=row.estimate.log_ratio * (1 + 1e-14))
        rows.append(replace(row, estimate=rounded))
    assert verify(resealed(comparisons=tuple(rows)), now=NOW) == []


def test_findings_per_check_are_limited() -> None:
    samples = tuple(replace(sample, exit_status=3) for sample in run().samples)
    found = verify(resealed(samples=samples), now=NOW)
    assert len(found) == MAX_PER_CHECK + 1
    assert f"{len(samples) - MAX_PER_CHECK} from the same check" in str(found[-1])


def test_clock_difference_of_a_day_is_accepted() -> None:
    assert verify(run(), now=NOW - timedelta(days=1, hours=23)) == []


def test_plan_with_too_much_work_is_refused(tmp_path: Path) -> None:
    """A small file can request much work: rows, or pairs times metrics."""
    (first, *_) = plan()
    path = tmp_path / "run.json"
    many = replace(first, metrics=("cpu",) * (bounds.MAX_ROWS + 1))
    path.write_bytes(msgspec.json.encode(with_header(cells=(many,))))
    with pytest.raises(BadRunFile, match="rows"):
        store.read_run(path)
    of_first = sum(
        sample.contrast == NOISE_FLOOR and sample.mode == "duet" for sample in run().samples
    )
    much = replace(first, metrics=("cpu",) * bounds.MAX_ROWS)
    samples = tuple(sample for sample in run().samples if sample.mode == "duet") * 10
    assert of_first * 10 * bounds.MAX_ROWS > bounds.MAX_COMPARED
    path.write_bytes(msgspec.json.encode(replace(with_header(cells=(much,)), samples=samples)))
    with pytest.raises(BadRunFile, match="values to compare"):
        store.read_run(path)
