"""Which comparisons a run makes: `--filter`, `all`, `--metric`, and machines that cannot pin."""

import html
import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trae_bench.cli.test_cli import ScriptedBench, fine, wish
from tests.trae_bench.fakes import TINY, cell
from tests.trae_bench.runs import honest, plan
from trae_bench._util import cpu_affinity
from trae_bench.cli import main
from trae_bench.design.cells import confirming, select_cells
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import UsageError
from trae_bench.execution import run_delay
from trae_bench.metrics import METRICS, metrics_for_host
from trae_bench.model.experiment import Cell
from trae_bench.run import planner, runner
from trae_bench.run.doctor import noise
from trae_bench.run.planner import digest
from trae_bench.scenario import Scenario, find, load, parse, split
from trae_bench.stats.decision import RULES
from trae_bench.storage.run_file import read_run
from trae_bench.storage.verify import verify


def planned(capsys: pytest.CaptureFixture[str], *args: str) -> list[dict[str, Any]]:
    assert main(["run", *args, "--dry-run", "--json"]) == 0
    cells: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["cells"]
    return cells


def rows(cells: Sequence[Cell]) -> set[tuple[str, str, str]]:
    return {(one.scenario, one.contrast.name, name) for one in cells for name in one.metrics}


# -- metrics


@pytest.mark.parametrize("usable", [True, False])
def test_net_metrics_need_a_cgroup(monkeypatch: pytest.MonkeyPatch, usable: bool) -> None:
    monkeypatch.setattr(run_delay, "unavailable", lambda: None if usable else "no cgroup")
    metrics = ("cpu", "wall_net")
    if usable:
        assert planner.with_metrics(parse(TINY, "tiny"), metrics).metrics == metrics
    else:
        with pytest.raises(UsageError, match="wall_net: no cgroup; remove the metric"):
            planner.with_metrics(parse(TINY, "tiny"), metrics)


# -- only


PLAN = [*plan(scenario="work"), *plan(scenario="play")]
PARTS = st.tuples(
    *(
        st.sampled_from((*names, "*", "?" * 4))
        for names in (("work", "play"), ("faster", "idle", "f*"), ("cpu", "wall", "*s"))
    )
)


@given(st.lists(PARTS.map("/".join), min_size=1, max_size=3))
def test_only_what_matches_is_compared_and_a_a_of_the_same_metrics(patterns: list[str]) -> None:
    def matches(row: tuple[str, str, str]) -> bool:
        return any(fnmatchcase("/".join(row), pattern) for pattern in patterns)

    wanted = {row for row in rows(PLAN) if row[1] != NOISE_FLOOR and matches(row)}
    try:
        kept = select_cells(PLAN, patterns)
    except UsageError:
        assert any(
            not any(fnmatchcase("/".join(row), pattern) for row in rows(PLAN) if row[1] != "A/A")
            for pattern in patterns
        )
        return
    floors = {(scenario, NOISE_FLOOR, metric) for scenario, _, metric in wanted}
    assert rows(kept) == wanted | floors
    assert all(one.metrics for one in kept)


def test_what_would_confirm_a_regression_stays_with_it() -> None:
    both = [cell("head", metrics=("cpu", "peak_rss")), cell("other")]
    kept = select_cells([*both, *map(confirming, both)], ["work/head/cpu"])
    assert [(one.contrast.name, one.metrics) for one in kept] == [
        ("head", ("cpu",)),
        ("head again", ("cpu",)),
    ]


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("bugfix/paralel_tools/*", "bugfix/parallel_tools/"),
        ("peak_rss", "bugfix/parallel_tools/peak_rss"),
        ("bugfix", "bugfix/parallel_tools/cpu"),
        ("", "fan-out/parallel_tools/cpu"),
        ("bugfix/A/A/cpu", "fan-out/parallel_tools/cpu"),
        ("[", "fan-out/parallel_tools/cpu"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_near_names(
    pattern: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--dry-run", "--filter", "*/cpu", "--filter", pattern]) == 2
    said = capsys.readouterr().err
    assert repr(pattern) in said
    assert near in said


def test_a_run_of_some_comparisons_is_gone_on_with(tiny: Path) -> None:
    asked = wish(filters=("tiny/*/wall",), pairs=2)
    result = runner.start(asked, Path("r.json"), force=False, bench=ScriptedBench(fine))
    assert rows(result.run.header.cells) == {
        ("tiny", NOISE_FLOOR, "wall"),
        ("tiny", "batched_trajectory", "wall"),
    }
    lines = result.journal.read_bytes().splitlines(keepends=True)
    result.journal.write_bytes(b"".join(lines[:5]))
    again = runner.resume(result.journal, wish(), None, bench=ScriptedBench(fine))
    assert len(again.run.samples) == len(result.run.samples) == 2 * 3 * 2


def test_a_scenario_of_which_nothing_is_left_is_not_run(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = planned(capsys, "tiny.toml", "fan-out", "--filter", "fan-out/*/wall_net")
    assert {one["scenario"] for one in cells} == {"fan-out"}
    assert {name for one in cells for name in one["metrics"]} == {"wall_net"}


# -- all


def test_all_names_every_scenario_and_variant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planner, "missing", lambda scenario, varied: {})
    scenarios = {one["scenario"] for one in planned(capsys, "all")}
    assert main(["list", "scenarios", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out).keys()
    # These compare agents, not toggles.
    without = {name for name in listed if name.partition("@")[0] == "agent-steps"}
    assert listed - without == scenarios


def test_all_and_one_of_them_is_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(capsys, "all", "bugfix") == planned(capsys, "all")


# -- what is left out, and why


def left_out(capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    """As --dry-run says it, which prints the same sentences as text."""
    assert main(["run", *args, "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert main(["run", *args, "--dry-run", "--json"]) == 0
    found: list[str] = json.loads(capsys.readouterr().out)["left_out"]
    assert all(f"Left out: {why}." in shown for why in found)
    return found


def test_each_toggle_that_a_scenario_cannot_feel_is_named(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--toggle", "batched_trajectory", "--toggle", "config_cache")
    assert left_out(capsys, "tiny.toml", *asked) == [
        "tiny does not exercise config_cache, only batched_trajectory"
    ]
    assert left_out(capsys, "tiny.toml") == []


def test_a_scenario_that_varies_nothing_is_named(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_text(TINY.replace('["batched_trajectory"]', "[]"))
    assert left_out(capsys, "tiny.toml", "fan-out") == ["tiny varies no toggle"]
    assert main(["run", "tiny.toml"]) == 2
    assert "nothing to compare: tiny varies no toggle" in capsys.readouterr().err


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no extra is installed."""
    monkeypatch.setattr(planner, "find_spec", lambda module: None)


def shipped(name: str) -> Scenario:
    return load(find(name), split(name)[1])


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("bugfix", []),
        ("install-size", []),
        ("cli-help", []),
        ("bugfix@seven", ["tls", "yaml"]),
        ("api-burst@h2", ["tls"]),
        ("config-load@yaml", ["yaml"]),
        ("startup-cold@sdk", ["openai"]),
    ],
)
def test_what_a_scenario_needs_is_missed(name: str, extras: list[str]) -> None:
    assert list(planner.missing(shipped(name))) == extras


def test_nothing_is_missed_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "find_spec", lambda module: module)
    assert planner.missing(shipped("bugfix@seven")) == {}


def test_a_vendors_sdk_is_the_protocols(tiny: Path, bare: None) -> None:
    gemini = '[provider]\nprotocol = "gemini"\n'
    tiny.write_text(TINY.replace("batched_trajectory", "native_client") + gemini)
    scenario = planner.scenario_of("tiny.toml")
    assert planner.missing(scenario) == {"google": "google.genai"}
    # Both sides of a comparison of revisions have the agent's own client.
    assert planner.missing(scenario, varied=False) == {}


@pytest.mark.usefixtures("bare")
def test_a_scenario_that_lacks_a_package_is_left_out_before_the_run(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "needs packages that are not installed (trustme); pip install 'trae-bench[tls]'"
    assert left_out(capsys, "tiny.toml", "api-burst@tls") == [f"api-burst@tls {told}"]
    assert main(["run", "api-burst@tls"]) == 2
    assert f"nothing to compare: api-burst@tls {told}" in capsys.readouterr().err
    assert main(["validate", "api-burst@tls"]) == 0
    assert f"Note: api-burst@tls {told}" in capsys.readouterr().err


# -- metrics that a transport cannot measure


def test_a_metric_that_respx_cannot_measure_is_refused_with_the_reason(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TINY.replace('metrics = ["cpu", "wall"]', 'metrics = ["cpu"]')
    tiny.write_text(f'{text}[provider]\ntransport = "respx"\n')
    assert [one["metrics"] for one in planned(capsys, "tiny.toml")] == [["cpu"]] * 2
    assert main(["run", "tiny.toml", "--dry-run", "--metric", "connections"]) == 2
    said = capsys.readouterr().err
    assert "tiny" in said
    assert "respx cannot measure connections: respx opens no connection" in said


# -- machines without affinity


@pytest.fixture
def unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, where there is no os.sched_setaffinity."""
    monkeypatch.setattr(cpu_affinity, "cores", lambda: ())


def test_only_duets_are_taken_otherwise_where_nothing_can_be_pinned() -> None:
    pinned, free = metrics_for_host(pinned=True), metrics_for_host(pinned=False)
    assert pinned == METRICS
    assert {metric.mode for metric in free.values()} == {"serial", "exact"}
    changed = {name for name in METRICS if free[name] != METRICS[name]}
    assert changed == {name for name, metric in METRICS.items() if metric.mode == "duet"}


@pytest.mark.usefixtures("unpinned")
def test_without_pinning_cpu_is_taken_serially_and_the_run_says_so(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real processes, through the command line."""
    asked = ["run", "tiny.toml", "--pairs", "1", "--out", "r.json", "--markdown", "r.md"]
    assert main(asked) == 0
    shown = " ".join(capsys.readouterr().out.split())
    told = "cpu: measured one side after the other, because processes cannot be pinned"
    assert told in shown
    assert told in html.unescape(Path("r.md").read_text())
    run = read_run(Path("r.json"))
    assert {one.mode for one in run.header.cells} == {"serial"}
    assert {row.mode for row in run.comparisons} == {"serial"}
    assert all(sample.correct for sample in run.samples)
    assert not [str(finding) for finding in verify(run)]


@pytest.mark.usefixtures("unpinned")
def test_without_pinning_the_noise_is_that_of_serial_pairs() -> None:
    bench = ScriptedBench(fine)
    noise(bench, 2)
    assert {len(batch) for batch in bench.scripted.batches} == {1}


@pytest.mark.usefixtures("unpinned")
def test_without_pinning_the_serial_rule_judges(tiny: Path) -> None:
    result = runner.start(wish(), Path("r.json"), force=False, bench=ScriptedBench(fine))
    (row,) = [r for r in result.run.comparisons if (r.contrast, r.metric) == BATCHED_CPU]
    assert row.judgement.verdict == "improvement"
    assert row.threshold == RULES["serial"].threshold


BATCHED_CPU = ("batched_trajectory", "cpu")


def test_serial_cpu_times_of_a_machine_that_pins_do_not_hold_together() -> None:
    serial = metrics_for_host(pinned=False)
    free = honest(cells=(cell(NOISE_FLOOR, "serial"), cell("fast", "serial")), metrics=serial)
    wrong = [finding for finding in verify(free) if finding.severity == "wrong"]
    assert "mode is 'serial', in this release 'duet'" in wrong[0].problem


def test_a_scenarios_digest_is_of_its_content() -> None:
    text = (
        'name = "x"\nabout = "a"\ntask = "t"\nmetrics = ["cpu"]\n'
        '[toggles]\nvary = ["fast"]\n[[turns]]\n[[turns.calls]]\ntool = "task_done"\n'
    )
    first = parse(text)
    assert digest(first) == digest(parse(f"# a comment\n\n{text}"))
    assert digest(first) != digest(parse(text.replace('"t"', '"u"')))
