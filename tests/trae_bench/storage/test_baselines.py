"""Tests of baselines: one run file per set of scenarios and kind of machine."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.trae_bench.report.test_untrusted import PLANT, harmless
from tests.trae_bench.runs import gate, honest, plan
from trae_bench._util import host_facts
from trae_bench._util.host_facts import kind_of, slug
from trae_bench.cli import main
from trae_bench.errors import BadRunFile
from trae_bench.model.run import RunFile
from trae_bench.storage.baselines import keep, kept, place, read_base
from trae_bench.storage.run_file import read_run, write_run
from trae_bench.storage.seal import sealed

FACTS: Mapping[str, Any] = {
    "system": "Linux",
    "cpu": "Some(R) Processor @ 3 GHz",
    "cores": 4,
    "python": "3.12.4",
    "implementation": "CPython",
    "memory": 2**33,
    "cores_usable": 4,
}
KIND = "linux-some-r-processor-@-3-ghz-4-cores-cpython-3.12"


def write(path: Path, run: RunFile) -> Path:
    write_run(path, sealed(run))
    return path


def make_run(machine: Mapping[str, Any] = FACTS, **changes: Any) -> RunFile:
    return honest(toggles=("idle",), machine=dict(machine), **changes)


# -- names


def test_machine_kind_name_is_stable() -> None:
    assert kind_of(FACTS) == KIND
    assert kind_of({**FACTS, "memory": 1, "kernel": "7.0", "load": 3.0}) == KIND
    assert kind_of({**FACTS, "python": "3.12.9"}) == KIND
    for other in (
        {"cpu": "Another"},
        {"cores": 8},
        {"python": "3.13.0"},
        {"system": "Darwin"},
        {"implementation": "PyPy"},
        {"free_threaded": True},
    ):
        assert kind_of({**FACTS, **other}) != KIND
    assert kind_of({}) == "unknown-cores"


@given(st.text(max_size=300))
def test_slug_is_a_valid_file_name(text: str) -> None:
    name = slug(text)
    assert re.fullmatch(r"[a-z0-9+@][a-z0-9.+@-]*", name)
    assert len(name) <= 80
    assert slug(name) == name


def test_long_scenario_sets_have_different_files(tmp_path: Path) -> None:
    names = [f"scenario-with-a-long-name-{n}" for n in range(9)]
    assert place(tmp_path, names, FACTS) == place(tmp_path, reversed(names), FACTS)
    assert place(tmp_path, names, FACTS) != place(tmp_path, names[:-1], FACTS)
    assert place(tmp_path, ["a"], FACTS) == tmp_path / "baselines" / KIND / "a.json"


# -- storing


def test_baseline_is_stored_by_machine_and_scenario(tmp_path: Path) -> None:
    file = write(tmp_path / "run.json", make_run())
    folder = tmp_path / "results"
    path = keep(file, folder)
    assert path == place(folder, ["work"], FACTS)
    assert read_base(path) == read_run(file)
    assert [file.name for file in path.parent.iterdir()] == ["work.json"]
    for scenarios, facts in ((["other"], FACTS), (["work"], {**FACTS, "cores": 2})):
        assert place(folder, scenarios, facts) != path


def test_newer_baseline_replaces_the_old(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    keep(write(tmp_path / "old.json", make_run()), folder)
    newer = make_run(day="2", created="2026-01-02T00:00:00+00:00")
    path = keep(write(tmp_path / "new.json", newer), folder)
    assert read_run(path).header.created == "2026-01-02T00:00:00+00:00"
    assert len(list((folder / "baselines").rglob("*.json"))) == 1


def test_each_scenario_and_machine_has_a_baseline(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    files = [
        write(tmp_path / "1.json", make_run()),
        write(tmp_path / "2.json", make_run({**FACTS, "cores": 2})),
        write(tmp_path / "3.json", make_run(cells=plan(("idle",), "other"))),
    ]
    paths = {keep(file, folder) for file in files}
    assert len(paths) == 3
    baselines = kept(folder, FACTS)
    assert [baseline.fits for baseline in baselines] == [True, True, False]
    assert {baseline.scenarios for baseline in baselines} == {("work",), ("other",)}
    assert {Path(baseline.path) for baseline in baselines} == paths
    assert baselines[0].commit == "0123456789"


def _with_edited_sample(run: RunFile) -> RunFile:
    sample = replace(run.samples[5], metrics={**run.samples[5].metrics, "cpu": 9.0})
    return replace(run, samples=(*run.samples[:5], sample, *run.samples[6:]))


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (_with_edited_sample(make_run()), "inconsistent"),
        (make_run(code={"commit": "0123456789", "dirty": True}), "uncommitted"),
        (make_run(profile="smoke", pairs=2, noise_pairs=2), "too short"),
        (gate(), "compares two commits"),
    ],
)
def test_unsuitable_run_is_refused(run: RunFile, reason: str, tmp_path: Path) -> None:
    file = write(tmp_path / "run.json", run)
    folder = tmp_path / "results"
    with pytest.raises(BadRunFile, match=f"{reason}.*--force") as caught:
        keep(file, folder)
    assert str(caught.value).startswith(str(file))
    assert not folder.exists()
    assert keep(file, folder, force=True).is_file()


def test_invalid_seal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_run(path, replace(make_run(), seal="0" * 64))
    with pytest.raises(BadRunFile, match="seal"):
        read_base(path)


# -- commands


@pytest.fixture
def this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_facts, "fingerprint", lambda: dict(FACTS))


@pytest.mark.usefixtures("this_machine")
def test_set_and_show_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path)
    assert main(["baseline", "show", "--folder", folder]) == 0
    assert "No baselines" in capsys.readouterr().out
    for number, facts in enumerate((FACTS, {**FACTS, "cores": 2})):
        file = write(tmp_path / f"{number}.json", make_run(facts))
        assert main(["baseline", "set", str(file), "--folder", folder]) == 0
    assert f"{KIND}/work.json" in capsys.readouterr().out
    assert main(["baseline", "show", "--folder", folder]) == 0
    out = capsys.readouterr().out
    assert KIND in out.splitlines()[0]
    assert [line for line in out.splitlines() if line.endswith(" work")] == ["* work", "  work"]
    assert "2026-01-01" in out
    assert "0123456789" in out
    assert main(["baseline", "show", "--folder", folder, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["machine"] == KIND
    assert [baseline["fits"] for baseline in printed["baselines"]] == [True, False]


@pytest.mark.usefixtures("this_machine")
def test_missing_folder_is_an_error_unless_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["baseline", "show"]) == 0
    assert "No baselines in results." in capsys.readouterr().out
    assert main(["baseline", "show", "--folder", "nope"]) == 2
    assert "no folder 'nope'" in capsys.readouterr().err


def test_unwritable_folder_error_names_the_folder_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(write(tmp_path / "run.json", make_run()))
    assert main(["baseline", "set", file, "--folder", f"{file}/x"]) == 4
    err = capsys.readouterr().err
    assert err.endswith("; name another folder with --folder\n")
    assert "--out" not in err


def test_set_command_needs_force_for_a_dirty_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dirty = make_run(code={"commit": "0123456789", "dirty": True})
    file = str(write(tmp_path / "run.json", dirty))
    folder = str(tmp_path / "results")
    assert main(["baseline", "set", file, "--folder", folder]) == 4
    assert "--force" in capsys.readouterr().err
    assert main(["baseline", "set", file, "--folder", folder, "--force"]) == 0


@pytest.mark.usefixtures("this_machine")
def test_invalid_files_are_listed_and_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results" / "baselines" / KIND
    folder.mkdir(parents=True)
    (folder / "broken.json").write_text("{")
    run = make_run()
    header = replace(run.header, code={"commit": PLANT}, created=f"long ago{PLANT}")
    write_run(folder / "planted.json", replace(run, header=header))
    for options in ((), ("--json",)):
        assert main(["baseline", "show", "--folder", str(tmp_path / "results"), *options]) == 0
        out, err = capsys.readouterr()
        assert "broken.json" in out
        assert "long ago" in out
        harmless("terminal", out + err)
