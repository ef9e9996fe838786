"""The machine's facts are plain data; what they lead to is decided by data alone."""

import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from trae_bench._util import host_facts
from trae_bench._util.host_facts import Fact, HostFinding, findings

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
    monkeypatch.setattr(host_facts, "_stolen_share", lambda: 0.0)


def test_the_fingerprint_is_plain_data_and_stays_the_same() -> None:
    first, second = host_facts.fingerprint(), host_facts.fingerprint()
    assert msgspec.json.decode(msgspec.json.encode(first)) == first
    for facts in (first, second):
        for name in host_facts.CHANGING:
            facts.pop(name, None)
    assert first == second
    assert {"system", "kernel", "cores", "python"} <= first.keys()


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
    monkeypatch.setattr(host_facts, "_stolen_share", lambda: 0.05)
    (finding,) = findings(CALM)
    assert (finding.name, finding.value) == ("steal", "5.0% of processor time since boot")


def test_a_system_that_cannot_pin_says_so() -> None:
    facts = {name: fact for name, fact in CALM.items() if name != "cores_usable"}
    assert [finding.name for finding in findings(facts)] == ["pinning"]


def test_the_load_has_the_digits_that_the_kernel_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (7.63916015625, 1.0, 1.0))
    assert host_facts.fingerprint()["load"] == 7.64


def test_this_machines_findings_are_findings() -> None:
    assert all(isinstance(finding, HostFinding) for finding in findings())


# -- processors


@pytest.mark.parametrize(
    ("usable", "siblings", "duet", "provider"),
    [
        ((), "", None, None),
        ((3,), "3", 3, 3),
        ((0, 1), "0-1", 1, 0),
        ((0, 1, 2, 3), "2-3", 3, 0),
        ((2, 3, 6, 7), "3,7", 7, 2),
        ((3, 6, 7), "3,7", 7, 6),
    ],
)
def test_the_provider_keeps_out_of_the_duets_way(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    usable: tuple[int, ...],
    siblings: str,
    duet: int | None,
    provider: int | None,
) -> None:
    monkeypatch.setattr(host_facts, "cores", lambda: usable)
    monkeypatch.setattr(host_facts, "_CPU", tmp_path)
    if duet is not None:
        (tmp_path / f"cpu{duet}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{duet}/topology/thread_siblings_list").write_text(siblings + "\n")
    assert (host_facts.duet_core(), host_facts.provider_core()) == (duet, provider)


# -- the code


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_the_state_of_the_checkout(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text("x = 1\n")
    assert host_facts.code_state(package) == {}
    git(tmp_path, "init", "-q")
    # Not tracked: it may be an installed package within somebody else's checkout.
    assert host_facts.code_state(package) == {}
    git(tmp_path, "add", ".")
    assert host_facts.code_state(package) == {}
    git(tmp_path, "commit", "-q", "-m", "first")
    clean = host_facts.code_state(package)
    assert clean["dirty"] is False
    assert len(str(clean["commit"])) == 40
    (tmp_path / "beside").write_text("")
    assert host_facts.code_state(package) == clean | {"dirty": True}


def test_no_git_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host_facts.code_state() == {}


def test_versions_name_this_package_and_what_is_installed() -> None:
    found = host_facts.versions()
    assert found["trae-bench"]
    assert found["msgspec"] == msgspec.__version__
