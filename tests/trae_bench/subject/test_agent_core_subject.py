"""agent_core as a subject, with the real loopback provider."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

import agent_core
from agent_core.config_sources import PlainConfig
from agent_core.toggles import Toggles
from trae_bench.errors import CannotMeasure
from trae_bench.execution.ports import Subject
from trae_bench.execution.subprocess_executor import SubprocessExecutor
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Arm, Mode, SessionEndpoint, Side, Trial
from trae_bench.model.sample import Sample
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import Script, expand
from trae_bench.scenario import (
    Fault,
    Load,
    Oracle,
    ProviderConditions,
    Scenario,
    ScriptedCall,
    SubjectSetup,
    ToggleUse,
    Turn,
    WorkspaceFixture,
)
from trae_bench.subject.agent_core import AgentCoreSubject, toggles, toggles_at

FROM_OUTSIDE = {
    *("cpu", "cpu_user", "cpu_system", "peak_rss", "wall", "blocked", "minor_faults"),
    *("time_to_first_request", "time_to_first_answer", "session_overhead", "step_overhead"),
    *("requests", "connections", "request_bytes", "bytes_written", "steps_per_second"),
}


def bash(command: str) -> ScriptedCall:
    return ScriptedCall("bash", {"command": command})


SMALL = Scenario(
    name="small",
    about="",
    task="write two files in {workspace}",
    turns=(
        Turn(text="first", calls=(bash("echo one >{workspace}/one; echo in {workspace}"),)),
        Turn(text="then", calls=(bash("echo two >{workspace}/two"),)),
        Turn(text="all done", calls=(ScriptedCall("task_done"),)),
    ),
    toggles=ToggleUse(vary=()),
    metrics=("cpu",),
    oracle=Oracle(command="cat one two", files={"one": "one\n"}),
)


@pytest.fixture(scope="module")
def provider() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


def trial(side: Side = "A", mode: Mode = "serial", **switches: bool) -> Trial:
    # The vendors' SDKs are extras and may be missing.
    arm = Arm("some", Toggles.none().with_(**{"native_client": True, **switches}).as_dict())
    return Trial("small", "a/b", mode, 1, side, "AB".index(side), arm, 0)


def run(
    provider: Loopback, tmp_path: Path, subject: Subject, *trials: Trial, small: Scenario = SMALL
) -> list[Sample]:
    executor: SubprocessExecutor[Script] = SubprocessExecutor(
        subject, provider, {"small": small}, script=expand, scratch=tmp_path
    )
    with executor:
        return list(executor.run(trials))


# -- agent_core


def test_agent_core_is_measured_from_outside_and_inside(provider: Loopback, tmp_path: Path) -> None:
    both = (trial("A", "duet"), trial("B", "duet", **dict.fromkeys(toggles(), True)))
    one, other = run(provider, tmp_path, AgentCoreSubject(), *both)
    for sample in (one, other):
        assert (sample.status, sample.correct) == ("ok", True), sample.problem
        assert sample.metrics.keys() >= FROM_OUTSIDE | {"agent_rss", "modules_imported"}
        assert sample.metrics["requests"] == 3
        assert sample.metrics.keys() <= METRICS.keys()
        # From the agent's report, and from the kernel for the largest process.
        assert sample.metrics["agent_rss"] == pytest.approx(sample.metrics["peak_rss"], rel=0.05)
    assert (one.transcript, one.workspace) == (other.transcript, other.workspace)
    # The toggles take effect: without a pool, each request opens a connection.
    assert (one.metrics["connections"], other.metrics["connections"]) == (3, 1)


def test_heartbeat_runs_only_in_serial_trials_with_the_metric(
    provider: Loopback, tmp_path: Path
) -> None:
    with_lag_metric = replace(SMALL, metrics=("cpu", "event_loop_lag_max"))
    (serial,) = run(provider, tmp_path, AgentCoreSubject(), trial(), small=with_lag_metric)
    assert serial.metrics["event_loop_lag_max"] > 0
    (duet,) = run(provider, tmp_path, AgentCoreSubject(), trial(mode="duet"), small=with_lag_metric)
    assert "event_loop_lag_max" not in duet.metrics
    (without_metric,) = run(provider, tmp_path, AgentCoreSubject(), trial())
    assert "event_loop_lag_max" not in without_metric.metrics


def test_the_config_names_the_scenarios_provider(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    endpoint = SessionEndpoint("http://127.0.0.1:9/v1", str(tmp_path))
    AgentCoreSubject().command(trial(), SMALL, [endpoint], home, 3)
    config = json.loads((home / "config.json").read_text())
    entry = config["model_providers"][config["default_provider"]]
    assert entry["base_url"] == "http://127.0.0.1:9/v1"
    assert entry["max_retries"] == 0
    assert config["max_steps"] > len(SMALL.turns)


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_a_large_config_is_valid(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    setup = SubjectSetup(models=500, format=kind)  # type: ignore[arg-type]
    large = replace(SMALL, subject=setup, provider=ProviderConditions(stream=True))
    AgentCoreSubject().command(
        trial(), large, [SessionEndpoint("http://127.0.0.1:9/v1", "/w")], tmp_path, 3
    )
    settings = PlainConfig().load(tmp_path / f"config.{kind}")
    assert len(settings.model_providers) == 500
    assert settings.model_parameters.base_url == "http://127.0.0.1:9/v1"
    assert settings.model_parameters.stream


def test_both_config_formats_are_equivalent(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    found = []
    for kind in ("json", "yaml"):
        setup = SubjectSetup(models=3, format=kind)  # type: ignore[arg-type]
        scenario, endpoints = replace(SMALL, subject=setup), [SessionEndpoint("http://p", "/w")]
        AgentCoreSubject().command(trial(), scenario, endpoints, tmp_path, 3)
        found.append(PlainConfig().load(tmp_path / f"config.{kind}"))
    assert found[0] == found[1]


def test_only_scenarios_with_faults_retry(provider: Loopback, tmp_path: Path) -> None:
    faulty = ProviderConditions(faults=(Fault(2, "status", 503, 0.0),))
    (sample,) = run(
        provider, tmp_path, AgentCoreSubject(), trial(), small=replace(SMALL, provider=faulty)
    )
    assert sample.correct, sample.problem
    assert sample.metrics["requests"] == 4


def test_several_sessions_share_one_process(provider: Loopback, tmp_path: Path) -> None:
    load = Load(sessions=5, concurrency=3)
    crowd = replace(SMALL, load=load, oracle=Oracle(files={"one": "one\n"}, final_text="all done"))
    pooled = trial(connection_pool=True)
    (sample,) = run(provider, tmp_path, AgentCoreSubject(), pooled, small=crowd)
    assert sample.correct, sample.problem
    assert sample.metrics["requests"] == 15
    assert 1 <= sample.metrics["connections"] <= 5
    assert sample.metrics["sessions_per_second"] > 0


def test_a_second_start_finds_the_cache_of_the_first(provider: Loopback, tmp_path: Path) -> None:
    """A process with a cached config does not import YAML."""
    pytest.importorskip("yaml")
    modules = {}
    for runs in (1, 2):
        small = replace(SMALL, subject=SubjectSetup(format="yaml", runs=runs))
        cached = trial(config_cache=True)
        (sample,) = run(provider, tmp_path, AgentCoreSubject(), cached, small=small)
        assert sample.correct, sample.problem
        modules[runs] = sample.metrics["modules_imported"]
    assert modules[2] < modules[1]


def test_the_command_line_is_run_with_the_arms_toggles(provider: Loopback, tmp_path: Path) -> None:
    shown = replace(
        SMALL,
        turns=(),
        subject=SubjectSetup(command=("show-config", "{toggles}")),
        oracle=Oracle(final_text='"lazy_tools": true'),
    )
    on, off = trial(lazy_tools=True), trial(lazy_tools=False)
    (sample,) = run(provider, tmp_path, AgentCoreSubject(), on, small=shown)
    assert sample.correct, sample.problem
    (sample,) = run(provider, tmp_path, AgentCoreSubject(), off, small=shown)
    assert (sample.status, sample.correct) == ("ok", False)


def test_a_module_in_the_workspace_does_not_shadow_an_import(
    provider: Loopback, tmp_path: Path
) -> None:
    trap = {"json.py": "raise SystemExit(9)", "agent_core/__init__.py": "raise SystemExit(9)"}
    trapped = replace(SMALL, workspace=WorkspaceFixture(trap))
    (sample,) = run(provider, tmp_path, AgentCoreSubject(), trial(), small=trapped)
    assert (sample.status, sample.correct) == ("ok", True), sample.problem


# -- a revision


def test_the_toggles_of_a_revision_are_parsed_not_imported(tmp_path: Path) -> None:
    assert toggles_at(Path(agent_core.__file__).parents[1]) == frozenset(Toggles.names())
    file = tmp_path / "agent_core" / "toggles.py"
    file.parent.mkdir()
    ran = tmp_path / "ran"
    (file.parent / "__init__.py").write_text(f"open({str(ran)!r}, 'w')\n")
    file.write_text(
        f"open({str(ran)!r}, 'w')\nclass Toggles(Struct):\n"
        "    '''Said.'''\n    one: bool = True\n    other: bool = False\n    count: int = 1\n"
    )
    assert toggles_at(tmp_path) == {"one", "other"}
    assert not ran.exists()


@pytest.mark.parametrize(
    "code", [b"", b"class Toggles: pass", b"class Toggles(", b"\xff", b"\0", b"(" * 9999]
)
def test_a_revision_without_readable_toggles(tmp_path: Path, code: bytes) -> None:
    assert toggles_at(tmp_path) is None
    (tmp_path / "agent_core").mkdir()
    (tmp_path / "agent_core" / "toggles.py").write_bytes(code)
    assert toggles_at(tmp_path) is None


def test_an_unknown_revision_is_an_error(tmp_path: Path) -> None:
    """An untrusted journal may contain one."""
    endpoints = (SessionEndpoint("http://127.0.0.1:1", str(tmp_path)),)
    with pytest.raises(CannotMeasure, match="no revision 'x' is checked out"):
        AgentCoreSubject().command(
            replace(trial(), arm=Arm("x", {}, "x")), SMALL, endpoints, tmp_path, 3
        )
