"""Entries of agents: what is wrong in them is named, wherever it is."""

import os
from pathlib import Path

import pytest

from tests.trae_bench.subject.test_agent_core_subject import SMALL
from tests.trae_bench.subject.test_command_subject import trial
from trae_bench.errors import BenchError, CannotMeasure, UsageError
from trae_bench.model.experiment import SessionEndpoint
from trae_bench.run.settings import parse
from trae_bench.subject.agents.catalog import find_agent
from trae_bench.subject.agents.entry import AgentEntry, read_entry
from trae_bench.subject.command import AgentKey, CommandSubject, PreparedAgent

COMMAND = 'command = ["agent", "{base_url}", "{task}"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('command = ["", "{base_url}", "{task}"]', "the command is empty"),
        ('command = ["a\\u0000", "{base_url}", "{task}"]', "a NUL character"),
        (COMMAND + '[env]\nA = "\\u0000"', "env.A: a NUL character"),
        (COMMAND + '[env]\n"A=B" = ""', "'A=B' cannot name an environment variable"),
        (COMMAND + '[env]\n"" = ""', "'' cannot name an environment variable"),
        (COMMAND + '[files]\n"a\\u0000" = ""', "a NUL character"),
        (
            COMMAND + "sessions = 'a \"b'",
            "sessions: No closing quotation; quote it as in a shell",
        ),
        (COMMAND + "sessions = 'agent --all'", "sessions: no {sessions_file}"),
        (COMMAND + "sessions = 'agent {sessions_file} {all}'", "no placeholder {all}"),
        (COMMAND + '[tools.fly]\ntool = "x"', "'fly' is not allowed here. Known: finish, replace"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(BenchError) as caught:
        read_entry(path)
    assert said in str(caught.value)


def test_the_wrong_agent_of_several_is_named() -> None:
    right = '[tool.trae-bench.agents.a]\ncommand = "a {base_url} {task}"\n'
    wrong = '[tool.trae-bench.agents.b]\ncommand = "b {base_url} {task}"\nnpm = "b"\n'
    with pytest.raises(BenchError, match=r"pyproject.toml:5: .*agents\.b\.npm: expected an array"):
        parse(right + wrong)


def test_a_file_name_can_contain_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "my agents"
    folder.mkdir()
    (folder / "mine.toml").write_text(COMMAND)
    found = find_agent(str(folder / "mine.toml"), {}, tmp_path)
    assert (found.name, found.source, found.folder) == ("mine", "file", folder)


def test_a_shipped_agent_runs_from_a_checkout(tmp_path: Path) -> None:
    found = find_agent(f"trae-agent={tmp_path}", {}, tmp_path)
    assert (found.name, found.source, found.folder) == ("trae-agent", "checkout", tmp_path)


def test_a_long_command_may_end_like_a_file(tmp_path: Path) -> None:
    line = f"agent {{base_url}} {{task}} {'x' * 5000} a.toml"
    assert find_agent(line, {}, tmp_path).source == "command line"


def test_a_name_that_a_run_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        find_agent("\udcff {base_url} {task}", {}, tmp_path)


def start(home: Path, entry: AgentEntry) -> None:
    agent = PreparedAgent("other", entry, home)
    endpoint = SessionEndpoint("http://127.0.0.1:1/s/0001/v1", "/w")
    CommandSubject({AgentKey("other"): agent}).command(trial(), SMALL, [endpoint], home, 3)


@pytest.mark.parametrize("files", [{"a": "", "a/b": ""}, {"tmp": ""}, {"x" * 300: ""}])
def test_files_that_cannot_be_written_are_an_error(tmp_path: Path, files: dict[str, str]) -> None:
    (tmp_path / "tmp").mkdir()
    with pytest.raises(CannotMeasure, match=r"cannot write .*; see \[files\]"):
        start(tmp_path, AgentEntry(command="agent", files=files))


def test_a_variable_that_is_not_utf8_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "ODD", "\udcff")
    with pytest.raises(CannotMeasure, match="the value of ODD is not UTF-8"):
        start(tmp_path, AgentEntry(command="agent", pass_env=("ODD",)))
