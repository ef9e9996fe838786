"""A session with a provider is recorded through the proxy, and the scenario has its turns."""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import examples
from trae_bench.cli import main
from trae_bench.cli.record import _line
from trae_bench.errors import CannotMeasure, UsageError
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import PlayedCall, PlayedTurn, Script, expand
from trae_bench.scenario import Protocol, ProviderConditions, load
from trae_bench.scenario.importers import snapshot
from trae_bench.scenario.importers.session import RecordedSession
from trae_bench.subject.recording import RecordedCommand, base_urls, record_command

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
AGENT = Path(__file__).with_name("recorded_agent.py")
KEY = "sk-test-0123456789"
TURNS = (
    PlayedTurn("I look.", (PlayedCall("c1", "shell", {"command": "ls", "n": [1, None]}),)),
    PlayedTurn(
        "",
        (PlayedCall("c2", "shell", {"command": "cat 'é'"}), PlayedCall("c3", "shell", {})),
    ),
    PlayedTurn("All is done."),
)


@pytest.fixture(scope="module")
def loopback() -> Iterator[Loopback]:
    with Loopback() as provider:
        yield provider


def upstream(
    loopback: Loopback,
    name: str,
    protocol: Protocol = "openai_chat",
    stream: bool = False,
    turns: tuple[PlayedTurn, ...] = TURNS,
) -> str:
    conditions = ProviderConditions(protocol=protocol, stream=stream, chunk_characters=5)
    # A last turn for the request that asks for a title.
    return loopback.register(name, Script((*turns, PlayedTurn("A title")), conditions))


def command(
    protocol: Protocol = "openai_chat", stream: bool = False, requests: int = 3
) -> list[str]:
    way = "stream" if stream else "complete"
    return [sys.executable, str(AGENT), protocol, "{base_url}", way, str(requests)]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_API_KEY", KEY)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_recorded_session_has_the_turns_of_the_provider(
    loopback: Loopback,
    protocol: Protocol,
    stream: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("project").mkdir()
    Path("project/a.txt").write_text("a\n")
    url = upstream(loopback, f"e2e-{protocol}-{stream}", protocol, stream)
    args = ["record", "--upstream", url, "--task", "Do it in {workspace}.", "--out", "mine.toml"]
    assert main([*args, "--workspace", "project", "--", *command(protocol, stream)]) == 0
    printed = capfd.readouterr()
    scenario = load(Path("mine.toml"))
    played = expand(scenario, tmp_path).turns
    assert [(turn.text, [(c.name, c.arguments) for c in turn.calls]) for turn in played] == [
        (turn.text, [(c.name, c.arguments) for c in turn.calls]) for turn in TURNS
    ]
    assert (scenario.provider.protocol, scenario.provider.stream) == (protocol, stream)
    assert scenario.workspace.files == {"a.txt": "a\n"}
    assert scenario.oracle.files == {"done.txt": "done\n"}
    assert scenario.oracle.final_text == "All is done."
    assert scenario.agent == "recorded-agent"
    assert "leaves out files with keys: log.txt" in printed.err
    assert f"mine.toml: 3 turns of 4 requests, {protocol}" in printed.out
    assert "Tools: shell" in printed.out
    assert "Next: trae-bench run mine.toml --agent" in printed.out
    assert "1 request offered no tools" in printed.err
    assert not Path("project/done.txt").exists()
    assert main(["validate", "mine.toml"]) == 0


def entry(folder: Path, text: str = "") -> None:
    words = [*command()[:3], "{base_url}", "complete", "3"]
    (folder / "small.toml").write_text(
        f'command = {words}\nstdin = "{{task}}"\n{text}\n[env]\nAGENT_API_KEY = "{{api_key}}"\n'
        'OPENAI_MODEL = "{model}"\n[files]\n".agent/model" = "{model} {other}"\n'
    )


def test_an_agent_by_its_entry(
    loopback: Loopback,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    entry(tmp_path)
    args = ["record", "--upstream", upstream(loopback, "entry"), "--out", "mine.toml"]
    args += ["--agent", "small.toml"]
    assert main(args) == 2
    assert main([*args, "--task", "t"]) == 2
    assert "give --model" in capfd.readouterr().err
    assert main([*args, "--task", "t", "--model", "m", "--key-env", "NONE"]) == 2
    assert "set NONE, or name the variable that holds it with --key-env" in capfd.readouterr().err
    assert main([*args, "--task", "t", "--model", "m"]) == 0
    assert "Next: trae-bench run mine.toml --agent small.toml" in capfd.readouterr().out
    scenario = load(Path("mine.toml"))
    assert (scenario.agent, len(scenario.turns)) == ("small", 3)
    assert main([*args, "--force", "--task", "t", "--", "true"]) == 2
    assert main(["record", "t.json", "--out", "new.toml", "--agent", "small.toml"]) == 2
    assert "--agent needs --upstream" in capfd.readouterr().err


def test_a_program_in_the_folder_of_an_agent_is_found(
    loopback: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a run, although the session works in another folder."""
    monkeypatch.chdir(tmp_path)
    entry(tmp_path)
    text = Path("small.toml").read_text()
    Path("small.toml").write_text(text.replace(repr(sys.executable), '"./start"'))
    Path("start").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    Path("start").chmod(0o755)
    args = ["record", "--upstream", upstream(loopback, "folder"), "--out", "mine.toml"]
    assert main([*args, "--agent", "small.toml", "--task", "t", "--model", "m"]) == 0


def test_the_next_command_has_placeholders() -> None:
    assert _line(["a", "-p", "do it"], "do it", "openai_chat") == (
        "env OPENAI_BASE_URL={base_url} OPENAI_API_KEY={api_key} a -p {task}"
    )
    assert _line(["a", "{base_url}", "b c"], "t", "gemini") == "a {base_url} 'b c'"


def run(loopback: Loopback, name: str, tmp_path: Path, **changes: object) -> RecordedCommand:
    options = {"task": "t", "upstream": upstream(loopback, name)} | changes
    return record_command(command(), **options)  # type: ignore[arg-type]


def test_a_check_decides_whether_the_session_succeeded(loopback: Loopback, tmp_path: Path) -> None:
    right = run(loopback, "right", tmp_path, check="grep -q done done.txt")
    assert right.session.success
    assert right.proposal.oracle.command == "grep -q done done.txt"
    wrong = run(loopback, "wrong", tmp_path, check="grep -q gone done.txt")
    assert wrong.session.success is False
    assert "the check failed, so the session counts as failed" in wrong.session.notes


def test_a_session_that_leaves_too_many_files_is_kept(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has cost money."""
    monkeypatch.setattr(snapshot, "MAX_FILES", 1)
    made = record_command(command(), upstream=upstream(loopback, "files"), task="t")
    assert len(made.session.replies) == 3
    (note,) = made.proposal.notes
    assert re.fullmatch(r"no \[oracle\] is proposed: .*more than 1 files.*", note)


def test_a_failed_agent_and_a_failed_provider_are_noted(
    loopback: Loopback, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = record_command(command(requests=9), upstream=upstream(loopback, "few"), task="t")
    assert made.exit_code == 1
    assert not made.session.success
    notes = "\n".join(made.session.notes)
    assert re.search(r"1 request got no reply \(status \d+\)", notes)
    assert "the agent exited with 1" in notes
    closed = record_command(command(), upstream="http://127.0.0.1:9/v1", task="t")
    assert closed.session.replies == ()
    assert any("ConnectError" in note for note in closed.session.notes)


def test_what_cannot_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["record", "--upstream", "http://127.0.0.1:9/v1", "--out", "mine.toml"]
    assert main([*args, "--", "true"]) == 4
    assert "sent no model request through the proxy" in capfd.readouterr().err
    assert main(args) == 2
    assert main([*args, "--", "x", "{task}"]) == 2
    assert "give --task" in capfd.readouterr().err
    assert main([*args, "--from", "t.json", "--", "x"]) == 2
    assert main([*args, "--workspace", "none", "--", "x"]) == 2
    assert main(["record", "--upstream", "ftp://x", "--out", "m.toml", "--", "x"]) == 2
    assert main(["record", "--upstream", "http://u:p@x/v1", "--out", "m.toml", "--", "x"]) == 2
    assert not Path("mine.toml").exists()
    with pytest.raises(CannotMeasure, match="cannot start 'no-such-agent'"):
        record_command(["no-such-agent"], upstream="http://127.0.0.1:9", task="t")
    with pytest.raises(UsageError, match="cannot be copied"):
        record_command(["true"], upstream="http://127.0.0.1:9", task="t", workspace=Path("none"))


@examples(6, one_fixture=True)
@given(
    key=st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=12, max_size=40),
    stream=st.booleans(),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_no_key_is_written(
    loopback: Loopback, tmp_path: Path, key: str, stream: bool, protocol: Protocol
) -> None:
    """Not even if the model prints it, or the agent writes it to a file."""
    folder = Path(os.path.realpath(tmp_path), str(len(list(tmp_path.iterdir()))))
    (folder / "project").mkdir(parents=True)
    (folder / "project" / ".env").write_text(f"OPENAI_API_KEY={key}\n")
    turns = (PlayedTurn(f"echo {key}", (PlayedCall("c", "shell", {key: [key]}),)), *TURNS[1:])
    name = f"key-{folder.name}-{protocol}-{stream}"
    url = upstream(loopback, name, protocol, stream, turns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENT_API_KEY", key)
        patch.chdir(folder)
        args = ["record", "--upstream", url, "--out", "mine.toml", "--workspace", "project"]
        assert main([*args, "--", *command(protocol, stream)]) == 0
    written = [path for path in folder.rglob("*") if path.is_file() and path.name != ".env"]
    assert sorted(path.name for path in written) == ["mine.request.json", "mine.toml"]
    for path in written:
        assert key not in path.read_text()
    assert "[key]" in (folder / "mine.toml").read_text()
    loopback.collect(name)


def test_no_key_is_printed(
    loopback: Loopback,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A key in the command is a placeholder in the command to run next."""
    monkeypatch.chdir(tmp_path)
    args = ["record", "--upstream", upstream(loopback, "printed"), "--out", "mine.toml"]
    assert main([*args, "--", *command(), f"--key={KEY}"]) == 0
    printed = capfd.readouterr()
    assert KEY not in printed.out + printed.err
    assert "--key={api_key}" in printed.out


def test_an_escaped_key_is_removed_from_the_request(loopback: Loopback) -> None:
    """Clients of other languages escape more characters."""
    code = """
import json, os, urllib.request as u
key = "".join(f"\\\\u{ord(c):04x}" for c in os.environ["AGENT_API_KEY"])
body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "KEY"}]})
u.urlopen(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body.replace("KEY", key).encode())
"""
    url = upstream(loopback, "escaped")
    made = record_command([sys.executable, "-c", code], upstream=url, task="t")
    content = json.loads(made.session.last_request)["messages"][0]["content"]
    assert content == "[key]"


def test_the_key_of_an_agent_is_removed_whatever_its_variable(loopback: Loopback) -> None:
    turns = (PlayedTurn(f"echo {KEY}", (PlayedCall("c", "shell", {}),)), *TURNS[1:])
    env = {"AGENT_API_KEY": "another-key-0123", "MY_CREDENTIAL": KEY}
    url = upstream(loopback, "variable", turns=turns)
    made = record_command(command(), upstream=url, task="t", env=env, values={"api_key": KEY})
    assert made.session.replies[0].text == "echo [key]"


def test_addresses_of_the_vendors_clients() -> None:
    with_version = base_urls("http://127.0.0.1:1/v1", "http://127.0.0.1:1")
    assert with_version["OPENAI_BASE_URL"] == "http://127.0.0.1:1/v1"
    assert with_version["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:1"
    bare = base_urls("http://127.0.0.1:1", "http://127.0.0.1:1")
    assert bare["OPENAI_BASE_URL"] == "http://127.0.0.1:1/v1"
    other = base_urls("http://127.0.0.1:1/api/paas/v4", "http://127.0.0.1:1/api/paas/v4")
    assert other["OPENAI_BASE_URL"] == "http://127.0.0.1:1/api/paas/v4"


def test_the_task_and_the_folder_reach_the_agent(loopback: Loopback) -> None:
    env = {**os.environ, "TASK_FILE": "{task_file}", "OPENAI_BASE_URL": "{base_url}/x"}
    code = (
        "import os, pathlib; pathlib.Path('seen').write_text("
        "open(os.environ['TASK_FILE']).read() + os.environ['OPENAI_BASE_URL'][-5:]);"
        "pathlib.Path('url').write_text(open('../home/.agent/url').read()[-11:])"
    )
    made = record_command(
        [sys.executable, "-c", code],
        upstream="http://127.0.0.1:9/v1",
        task="t{x}",
        env=env,
        files={".agent/url": "{base_url} {other}"},
    )
    assert made.proposal.oracle.files == {"seen": "t{x}/v1/x", "url": "/v1 {other}"}
    assert made.session == RecordedSession(
        "the recording", (), success=True, workspace=made.session.workspace
    )
