"""The findings of `trae-bench doctor` follow from the facts about the host."""

import pytest

from trae_bench._util.host_facts import Fact
from trae_bench.run import host_checks
from trae_bench.run.host_checks import HostFinding, findings

CALM: dict[str, Fact] = {
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


def test_a_calm_machine_has_no_findings() -> None:
    assert findings(CALM) == []


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
def test_each_trouble_is_found_with_its_remedy(change: dict[str, Fact], name: str) -> None:
    (finding,) = findings(CALM | change)
    assert finding.name == name
    assert finding.advice
    assert str(finding).startswith(f"{name}: {finding.value}; ")


def test_stolen_time_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_checks, "_stolen_share", lambda: 0.05)
    (finding,) = findings(CALM)
    assert (finding.name, finding.value) == ("steal", "5.0% of processor time since boot")


def test_a_system_that_cannot_pin_says_so() -> None:
    facts = {name: fact for name, fact in CALM.items() if name != "cores_usable"}
    assert [finding.name for finding in findings(facts)] == ["pinning"]


def test_this_machines_findings_are_findings() -> None:
    assert all(isinstance(finding, HostFinding) for finding in findings())
