"""Tests of `trae-bench validate`, `show`, `record` and `schema`."""

import json
import os
from pathlib import Path

import pytest

from trae_bench.cli import main
from trae_bench.execution.host_lock import LOCK_VARIABLE
from trae_bench.scenario import catalogue, load
from trae_bench.storage.run_file import read_run

TRAJECTORY = {
    "task": "Do it in /w.",
    "llm_interactions": [{"response": {"content": "I do.", "tool_calls": None}}],
}

IN_PROCESS = """
name = "inside"
about = "Ten steps in this process."
task = "Count."
metrics = ["cpu", "requests"]
[toggles]
vary = ["incremental_history"]
hold = { native_client = true, optional_deps = true }
[provider]
transport = "respx"
[[turns]]
text = "step {n}"
repeat = 10
[[turns]]
text = "counted"
calls = [{ tool = "task_done" }]
[oracle]
final_text = "counted"
"""


@pytest.fixture
def trajectory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "t.json"
    path.write_text(json.dumps(TRAJECTORY))
    return path


def test_all_shipped_scenarios_are_valid(capsys: pytest.CaptureFixture[str]) -> None:
    names = sorted(catalogue())
    assert main(["validate", *names]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in printed] == names


def test_validate_reports_every_invalid_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, good, two = (tmp_path / f"{name}.toml" for name in ("one", "inside", "two"))
    one.write_text("a = \n")
    good.write_text(IN_PROCESS)
    two.write_text('name = "two"\n')
    assert main(["validate", str(one), str(good), str(two)]) == 2
    printed = capsys.readouterr()
    assert printed.out == f"{good}: ok\n"
    assert f"Error: {one}:1:5: expected a value" in printed.err
    assert f"Error: {two}:1: " in printed.err


def test_a_metric_that_respx_cannot_measure_is_invalid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        'name = "s"\nabout = ""\ntask = "t"\nmetrics = ["peak_rss"]\n'
        'turns = [{ calls = [{ tool = "task_done" }] }]\n'
        'provider = { transport = "respx" }\ntoggles = { vary = ["connection_pool"] }\n'
    )
    assert main(["validate", str(path)]) == 2
    printed = capsys.readouterr().err
    assert f"{path}:4: metrics[0]: respx cannot measure peak_rss" in printed
    assert f"{path}:7: toggles.vary[0]: respx cannot show" in printed


def test_show_prints_the_session(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "fan-out"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("fan-out\n")
    assert "All five totals are written." in printed
    assert main(["show", "fanout"]) == 2
    assert "did you mean fan-out" in capsys.readouterr().err


def test_record_writes_a_valid_scenario(
    trajectory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = trajectory.parent / "start"
    start.mkdir()
    (start / "a.txt").write_text("a\n")
    args = ["record", "t.json", "-o", "mine.toml", "--workspace", "/w", "--files", "start"]
    assert main(args) == 0
    printed = capsys.readouterr()
    assert printed.out == "mine.toml: 2 turns\n"
    assert "Note: the session did not end with task_done" in printed.err
    scenario = load(Path("mine.toml"))
    assert scenario.task == "Do it in {workspace}."
    assert scenario.workspace.files == {"a.txt": "a\n"}
    assert main(["validate", "mine.toml"]) == 0


def test_record_overwrites_only_with_force(
    trajectory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.toml").write_text("precious")
    assert main(["record", "t.json", "-o", "mine.toml"]) == 2
    assert "give --force" in capsys.readouterr().err
    assert Path("mine.toml").read_text() == "precious"
    assert main(["record", "t.json", "-o", "mine.toml", "--force"]) == 0
    assert load(Path("mine.toml")).name == "mine"


@pytest.mark.parametrize(
    ("out", "problem"), [("mine.json", "NAME.toml"), ("My.toml", "lower-case")]
)
def test_record_refuses_invalid_scenario_names(
    trajectory: Path, capsys: pytest.CaptureFixture[str], out: str, problem: str
) -> None:
    assert main(["record", "t.json", "-o", out]) == 2
    assert problem in capsys.readouterr().err
    assert not Path(out).exists()


def test_record_reports_a_folder_that_is_a_file(
    trajectory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", "t.json", "-o", "t.json/mine.toml"]) == 4
    assert "cannot write t.json/mine.toml" in capsys.readouterr().err
    assert [path.name for path in trajectory.parent.iterdir()] == ["t.json"]


def test_record_creates_missing_folders(trajectory: Path) -> None:
    assert main(["record", "t.json", "-o", "new/one/mine.toml"]) == 0
    assert load(Path("new/one/mine.toml")).name == "mine"


def test_record_reports_a_call_of_an_unknown_tool(
    trajectory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = [{"name": "task_done"}, {"name": "bsh", "arguments": {"command": "ls"}}]
    reply = {"content": "I do.", "tool_calls": calls}
    trajectory.write_text(json.dumps({"task": "t", "llm_interactions": [{"response": reply}]}))
    assert main(["record", "t.json", "-o", "mine.toml"]) == 0
    assert "mine.toml:" in (errors := capsys.readouterr().err)
    assert "no tool 'bsh'; did you mean bash?" in errors
    assert main(["run", "mine.toml", "--dry-run"]) == 2


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ('tool = "bsh"', ":16: turns[1].calls[0].tool: no tool 'bsh'; did you mean bash?"),
        (
            'tool = "bash", arguments = { cmd = "ls" }',
            ":16: turns[1].calls[0].arguments.cmd: no argument of bash 'cmd'",
        ),
    ],
)
def test_unknown_tools_and_arguments_are_neither_valid_nor_run(
    trajectory: Path, capsys: pytest.CaptureFixture[str], wrong: str, expected: str
) -> None:
    turn = f"[[turns]]\ntext = 'a'\ncalls = [{{ {wrong} }}]\n"
    text = IN_PROCESS.replace('[[turns]]\ntext = "counted"', f'{turn}[[turns]]\ntext = "counted"')
    Path("inside.toml").write_text(text)
    for command in (["validate", "inside.toml"], ["run", "inside.toml", "--dry-run"]):
        assert main(command) == 2
        assert f"inside.toml{expected}" in capsys.readouterr().err


def test_a_respx_scenario_runs_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(LOCK_VARIABLE, str(tmp_path / "lock"))
    Path("inside.toml").write_text(IN_PROCESS)
    assert (
        main(["run", "inside.toml", "--pairs", "2", "--profile", "smoke", "--out", "r.json"]) == 0
    )
    samples = read_run(Path("r.json")).samples
    assert {sample.pid for sample in samples} == {os.getpid()}
    assert all(sample.correct for sample in samples)
    assert {sample.metrics["requests"] for sample in samples} == {11}
    assert "incremental_history" in capsys.readouterr().out
