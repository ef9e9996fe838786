"""Tests of the findings that `trae-bench doctor` derives from host facts."""

import pytest

from trae_bench._util.host_facts import Fact
from trae_bench.run import host_checks
from trae_bench.run.host_checks import HostFinding, findings

QUIET: dict[str, Fact] = {
    "cores_usable": 8,
    "load": 0.01,
    "memory": 16_000,
    "memory_available": 9_000,
    "virtual": False,
    "governor": "performance",
    "turbo": False,
    "smt": False,
    "aslr": 0,
}


@pytest.fixture(autouse=True)
def no_steal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_checks, "_stolen_share", lambda: 0.0)


def test_quiet_host_has_no_findings() -> None:
    assert findings(QUIET) == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"load": 1.5}, "load"),
        ({"virtual": True}, "virtual machine"),
        ({"governor": "powersave"}, "governor"),
        ({"turbo": True}, "turbo"),
        ({"smt": True}, "hyperthreads"),
        ({"aslr": 2}, "address layout"),
        ({"cores_usable": 1}, "cores"),
        ({"cpu_quota": 1.5}, "cpu quota"),
        ({"memory_available": 1_000}, "memory"),
    ],
)
def test_problem_gives_a_finding_with_advice(change: dict[str, Fact], name: str) -> None:
    (finding,) = findings(QUIET | change)
    assert finding.name == name
    assert finding.advice
    assert str(finding).startswith(f"{name}: {finding.value}; ")


def test_steal_time_gives_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_checks, "_stolen_share", lambda: 0.05)
    (finding,) = findings(QUIET)
    assert (finding.name, finding.value) == ("steal", "5.0% of CPU time since boot")


def test_missing_pinning_gives_a_finding() -> None:
    facts = {name: fact for name, fact in QUIET.items() if name != "cores_usable"}
    assert [finding.name for finding in findings(facts)] == ["pinning"]


def test_findings_of_the_current_host() -> None:
    assert all(isinstance(finding, HostFinding) for finding in findings())
