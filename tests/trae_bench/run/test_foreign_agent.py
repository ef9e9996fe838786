"""Agents that know nothing of trae-bench, from the command line: check, run, compare, gate."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.trae_bench.foreign import edit, foreign_repository
from tests.trae_bench.mutations import git
from trae_bench.cli import main
from trae_bench.execution import process_events
from trae_bench.model.run import RunFile, agent_names
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import Conversation, PlayedCall, PlayedTurn, Script
from trae_bench.scenario import load
from trae_bench.stats.figures import figures
from trae_bench.storage.run_file import read_run
from trae_bench.storage.verify import verify

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a foreign repository. Lock and cache belong to the test."""
    monkeypatch.setenv("TRAE_BENCH_LOCK", str(tmp_path / "lock"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = foreign_repository(tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


def run(*args: str, out: str = "run.json") -> tuple[int, RunFile]:
    code = main(["run", "two-files.toml", "--out", f"../{out}", "--force", *args])
    stored = read_run(Path("..", out))
    assert [one for one in verify(stored) if one.severity == "wrong"] == []
    return code, stored


def command(folder: Path, script: str = "agent.py") -> str:
    words = (sys.executable, str(folder / script), "{base_url}", "{task}")
    return shlex.join(words)


def test_check_says_what_an_agent_does(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agents", "check", "tiny"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for text in (
        "speaks openai_chat and asks for complete replies",
        "Tools: execute.",
        "run: by the tool execute",
        "plays the session to its end",
        "trae-bench run bugfix --agent tiny",
    ):
        assert text in said
    assert "secret-key" not in said


def test_check_keeps_the_lines_of_the_output(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "agent.py").write_text("print('first')\nraise SystemExit('second::error')")
    assert main(["agents", "check", "tiny"]) == 4
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["  first", "  second:\\x3aerror"]
    assert "\\x0a" not in "".join(lines)


def test_check_prints_a_command_that_can_be_copied(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = f"env {' '.join(f'A{n}=some-long-value' for n in range(9))} {command(project)}"
    assert main(["agents", "check", long]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"Measure it: trae-bench run bugfix --agent {shlex.quote(long)}"


def test_check_as_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agents", "check", "tiny", "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["offered"] == ["execute"]
    assert checked["metrics"]["requests"] == 3
    assert checked["problem"] == ""


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("print('nothing to do')", "ended with exit status 0 and sent no request"),
        ("raise SystemExit('no key')", "no key"),
        (
            "import os, urllib.request as u\nu.urlopen('http://api.example.com/v1/models')",
            "it asks api.example.com instead of the provider",
        ),
    ],
)
def test_check_says_why_an_agent_cannot_be_measured(
    project: Path, capsys: pytest.CaptureFixture[str], script: str, reason: str
) -> None:
    (project / "agent.py").write_text(script)
    assert main(["agents", "check", "tiny"]) == 4
    said = capsys.readouterr().out
    assert reason in " ".join(said.split())
    assert "\\x0a" not in said


def test_check_tells_where_a_command_runs(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["agents", "check", "python3 agent.py {base_url} {task}"]) == 4
    assert "write {folder}/agent.py" in " ".join(capsys.readouterr().out.split())


def test_list_and_show(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agents", "list"]) == 0
    assert "tiny  An agent of one tool." in capsys.readouterr().out
    assert main(["agents", "show", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert 'final-text = "stdout"' in shown
    assert "[]" not in shown
    assert main(["agents", "show", "tinny"]) == 2
    assert "did you mean tiny" in capsys.readouterr().err


def test_one_agent_has_figures(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, stored = run("--agent", command(project), "--pairs", "2")
    assert code == 0
    assert agent_names(stored.header) == ("python",) or agent_names(stored.header)[0].startswith(
        "python"
    )
    found = {figure.metric: figure for figure in figures(stored)}
    assert (found["requests"].median, found["requests"].trials) == (3, 4)
    assert {sample.contrast for sample in stored.samples} == {"A/A"}
    said = capsys.readouterr().out
    assert "Figures of two-files" in said
    assert re.search(r"^Measured 2 A/A pairs in 0:\d\d$", said, re.M)


def test_the_default_run_file_is_no_change_of_the_repository(project: Path) -> None:
    assert main(["run", "two-files.toml", "--agent", "tiny", "--pairs", "1"]) == 0
    assert len(list((project / "trae-bench-results").glob("*.json"))) == 1
    assert git(project, "status", "--porcelain") == ""


def test_an_agent_that_varies_gets_a_remedy(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(project, "cat one", "cat one; date +%N", "two-files.toml")
    assert run("--agent", "tiny", "--pairs", "2")[0] == 5
    said = " ".join(capsys.readouterr().err.split())
    assert "name what varies from run to run in [[normalise]]" in said


def test_no_key_reaches_a_run_file(project: Path) -> None:
    key = "sk-live-0123456789abcdef"
    code, stored = run("--agent", f"env API_KEY={key} {command(project)}", "--pairs", "1")
    assert code == 0
    assert "API_KEY={api_key}" in stored.header.command
    for path in (Path("../run.json"), Path("../run.journal.jsonl")):
        assert key not in path.read_text()


@pytest.mark.parametrize("requests", ["0", "1"])
def test_no_key_that_an_agent_prints_is_stored(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    requests: str,
) -> None:
    """It fails at its first start, or in the trials."""
    monkeypatch.setenv("MY_API_KEY", "a-secret-of-mine")
    failing = "import os; raise SystemExit('bad key ' + os.environ['MY_API_KEY'])"
    script = (project / "agent.py").read_text()
    end = script.index("        for call in") if requests == "1" else 0
    (project / "agent.py").write_text(f"{script[:end]}{' ' * 8 if end else ''}{failing}\n")
    edit(project, "final-text", 'pass-env = ["MY_API_KEY"]\nfinal-text', "pyproject.toml")
    if end:
        with (project / "agent.py").open("a") as file:
            file.write('if __name__ == "__main__":\n    print(main(*sys.argv[1:]))\n')
    code = main(["run", "two-files.toml", "--pairs", "1", "--out", "../run.json"])
    assert code == 4
    printed = capsys.readouterr()
    assert "bad key {api_key}" in printed.out + printed.err
    texts = [path.read_text() for path in Path("..").glob("run.*")]
    assert all("a-secret-of-mine" not in text for text in (*texts, printed.out, printed.err))


def test_the_project_agent_is_the_default(project: Path) -> None:
    code, stored = run("--pairs", "1")
    assert (code, agent_names(stored.header)) == (0, ("tiny",))


def test_two_agents_are_compared(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(project, "LOOPS = 0", "LOOPS = 2_000_000")
    (project / "slow.py").write_text((project / "agent.py").read_text())
    edit(project, "LOOPS = 2_000_000", "LOOPS = 0")
    edit(project, "You are a small agent.", "You are a slow agent.", "slow.py")
    args = ("--agent", command(project), "--agent", command(project, "slow.py"))
    code, stored = run(*args, "--pairs", "8", "--metric", "cpu")
    # Different agents: a slower one is no regression, and other requests are no error.
    assert code == 0
    (row,) = (row for row in stored.comparisons if row.contrast != "A/A")
    assert row.judgement.verdict == "regression"
    assert "Figures of two-files" in capsys.readouterr().out
    assert main(["explain", "../run.json", "two-files", row.contrast, "cpu"]) == 0
    first, other = agent_names(stored.header)
    said = " ".join(capsys.readouterr().out.split())
    assert f"Side A, first: the agent {first}. Side B, other: the agent {other}." in said


def test_an_agent_is_compared_with_its_code_in_another_folder(project: Path) -> None:
    shutil.copytree(project, project.parent / "other")
    edit(project, "You are a small agent.", "You are a small and slow agent.")
    args = ("--agent", "tiny", "--agent", "tiny=../other")
    code, stored = run(*args, "--pairs", "1", "--metric", "request_bytes")
    assert (code, agent_names(stored.header)) == (0, ("tiny", "tiny-2"))
    mine, other = (figure.median for figure in figures(stored))
    assert mine == other + 3 * len("and slow ")


SESSIONS = """
import json, os, sys
sys.path.insert(0, os.path.dirname(__file__))
import agent

with open(sys.argv[1]) as file:
    work = json.load(file)
assert work["concurrency"] == 2
for one in work["sessions"]:
    os.chdir(one["workspace"])
    print(agent.main(one["base_url"], one["task"]))
"""


def test_several_sessions_run_in_one_process(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(
        project,
        'metrics = ["cpu"]',
        'metrics = ["cpu"]\nload.sessions = 3\nload.concurrency = 2',
        "two-files.toml",
    )
    assert main(["run", "two-files.toml", "--agent", "tiny"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the entry of tiny has no `sessions`, the command line for it" in said
    (project / "several.py").write_text(SESSIONS)
    edit(
        project,
        'final-text = "stdout"',
        'final-text = "stdout"\nsessions = "{python} {folder}/several.py {sessions_file}"',
        "pyproject.toml",
    )
    wanted = ("requests", "sessions_per_second")
    code, stored = run("--pairs", "1", *(word for name in wanted for word in ("--metric", name)))
    found = {figure.metric: figure.median for figure in figures(stored)}
    assert (code, found["requests"]) == (0, 9)
    assert found["sessions_per_second"] > 0
    edit(project, 'for one in work["sessions"]', 'for one in work["sessions"][:2]', "several.py")
    assert main(["run", "two-files.toml", "--pairs", "1", "--out", "../short.json"]) == 4
    assert "1 of 3 sessions are wrong" in " ".join(capsys.readouterr().err.split())


def test_the_gate_passes_an_equal_head(project: Path) -> None:
    edit(project, "An agent of one tool, on the", "An agent of one tool on the")
    code, stored = run("--compare", "main", "--metric", "cpu", "--pairs", "8")
    assert code == 0
    assert stored.header.revisions is not None


def test_the_gate_finds_a_slower_head(project: Path) -> None:
    edit(project, "LOOPS = 0", "LOOPS = 2_000_000")
    code, _ = run("--compare", "main", "--metric", "cpu", "--pairs", "8")
    assert code == 1


def test_the_gate_names_the_byte_of_a_changed_prompt(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(project, "You are a small agent.", "You are a smart agent.")
    code, _ = run("--compare", "main", "--metric", "cpu", "--pairs", "2")
    assert code == 5
    said = " ".join(capsys.readouterr().out.split())
    assert "messages[0].content, offset 13" in said
    code, _ = run("--compare", "main", "--metric", "cpu", "--pairs", "2", "--equal", "work")
    assert code == 0


def test_the_gate_names_the_place_of_a_clock_in_the_prompt(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = 'messages = [{"role": "system", "content": f"It is {time.perf_counter_ns()}."}'
    edit(project, "import urllib", "import time\nimport urllib")
    edit(
        project,
        "        message = ask(base_url, messages)",
        f"""\
        {clock}] + messages[1:]
        message = ask(base_url, messages)""",
    )
    place = "First: messages[0].content, offset"
    code, _ = run("--compare", "main", "--pairs", "2")
    assert code == 5
    assert place in " ".join(capsys.readouterr().out.split())
    code, stored = run("--compare", "main", "--pairs", "2", "--equal", "work")
    assert code == 1
    rows = [row for row in stored.comparisons if row.metric == "prefix_breaks"]
    (row,) = (row for row in rows if row.contrast == "head")
    assert row.judgement.verdict == "regression"
    assert row.estimate is not None
    assert (row.estimate.n, row.estimate.a, row.estimate.b) == (2, 0, 2)
    assert " ".join(capsys.readouterr().out.split()).count(place) == 1
    assert main(["explain", "../run.json", "two-files", row.contrast, "prefix_breaks"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "base 0, head 2. First break of head: messages[0].content, offset" in said


def test_the_gate_rejects_a_wrong_answer(project: Path) -> None:
    edit(project, "shell=True,", "shell=True, cwd='/tmp',")
    code, _ = run("--compare", "main", "--metric", "cpu", "--pairs", "2")
    assert code == 5


def test_head_cannot_change_how_it_is_judged(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(project, "You are a small agent.", "You are a smart agent.")
    edit(
        project, 'final-text = "stdout"', 'final-text = "stdout"\nequal = "work"', "pyproject.toml"
    )
    code, _ = run("--compare", "main", "--metric", "cpu", "--pairs", "2")
    assert code == 5
    assert "[tool.trae-bench.agents.tiny] equal" in capsys.readouterr().err


def test_head_cannot_run_an_installed_program(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(project, "{folder}/agent.py", str(project / "agent.py"), "pyproject.toml")
    assert main(["run", "two-files.toml", "--compare", "main", "--out", "../run.json"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "nothing in the entry of one revision names {folder}" in said


def test_a_gate_is_repeated_after_a_build_in_the_folder(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = "final-text"
    edit(project, entry, f'setup = ["cp agent.py built.py"]\n{entry}', "pyproject.toml")
    edit(project, "{folder}/agent.py", "{folder}/built.py", "pyproject.toml")
    git(project, "commit", "-qam", "build")
    for _ in range(2):
        code, _ = run("--compare", "HEAD", "--metric", "cpu", "--pairs", "1")
        assert code == 0
    assert "environment of its own" not in capsys.readouterr().out


def test_head_cannot_change_where_its_answer_is(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = project / "pyproject.toml"
    with settings.open("a") as file:
        file.write('[tool.trae-bench.agents.tiny.env]\nREPORT = "{report_fd}"\n')
    assert main(["run", "two-files.toml", "--compare", "main", "--out", "../run.json"]) == 2
    assert "only one revision uses {report_fd}" in " ".join(capsys.readouterr().err.split())


def test_a_run_of_agents_is_resumed(project: Path) -> None:
    _, stored = run("--pairs", "2", "--metric", "cpu")
    Path("../run.json").unlink()
    journal = Path("../run.journal.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-2]))
    assert main(["run", "--resume", str(journal)]) == 0
    resumed = read_run(Path("../run.json"))
    assert len(resumed.samples) == len(stored.samples)
    journal.write_text("".join(lines[:-2]))
    Path("../run.json").unlink()
    edit(project, 'about = "An agent', 'about = "Another agent', "pyproject.toml")
    assert main(["run", "--resume", str(journal)]) == 2


def test_a_command_in_a_journal_is_shown_and_needs_trust(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, stored = run("--agent", command(project), "--pairs", "2", "--metric", "cpu")
    assert code == 0
    Path("../run.json").unlink()
    journal = Path("../run.journal.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-2]))
    started = project.parent / "started"
    edit(project, "import json", f"open({str(started)!r}, 'w').close()\nimport json")
    capsys.readouterr()
    assert main(["run", "--resume", str(journal)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "agent.py '{base_url}' '{task}'; read the command, then give --trust" in said
    assert not started.exists()
    main(["run", "--resume", str(journal), "--trust", "--budget", "0.000001"])
    assert "Resume with: trae-bench run --resume ../run.journal.jsonl --trust" in (
        capsys.readouterr().out
    )
    assert started.exists()
    Path("../run.json").unlink()
    assert main(["run", "--resume", str(journal), "--trust"]) == 0
    assert len(read_run(Path("../run.json")).samples) == len(stored.samples)


def test_head_is_stored_beside_the_base(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(project, "{task}", "{task} 0", "pyproject.toml")
    edit(project, "main(*sys.argv[1:])", "main(*sys.argv[1:3])")
    edit(project, '"name": "execute"', '"name": "run_shell"')
    code, stored = run("--compare", "main", "--metric", "cpu", "--pairs", "1", "--equal", "work")
    used = (stored.header.agents or {})["tiny"]
    assert code == 0
    assert used.head
    assert (used.command[-1], used.head.command[-1]) == ("{task}", "0")
    assert '"offered":["execute"]' in used.interface
    assert '"offered":["run_shell"]' in used.head.interface
    said = capsys.readouterr().err
    assert "agent tiny (base): speaks openai_chat" in said
    assert "agent tiny (head): speaks openai_chat" in said


def test_an_entry_outside_the_repository_serves_both_revisions(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on the branch that adds the entry, which the base does not have."""
    (project / "new.toml").write_text(ENTRY)
    compare = ("--compare", "main", "--metric", "cpu", "--pairs", "1")
    assert main(["run", "two-files.toml", "--agent", "new.toml", *compare]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "has no agent new; give its command line with --agent 'COMMAND', or copy its" in said
    (project / "new.toml").rename(project.parent / "new.toml")
    edit(project, "An agent of one tool, on the", "An agent of one tool on the")
    code, stored = run("--agent", "../new.toml", *compare)
    assert code == 0
    assert stored.header.revisions is not None
    assert stored.header.revisions.own_environments


ENTRY = """
command = "{python} {folder}/agent.py {base_url} {task}"
setup = ["test -d {folder} && mkdir -p {env}"]
"""


TINY = "python3 {folder}/agent.py {base_url} {task}"


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--agent", "tiny", "--toggle", "lazy_tools"], "--agent compares agents"),
        (["--agent", "nobody"], "no agent 'nobody'"),
        (["--agent", "a {base_url}"], "no {task} anywhere"),
        (["--agent", "a {task}"], "no {base_url} anywhere"),
        (["--agent", "a 'b {task} {base_url}"], "quote it as in a shell"),
        (["--agent", "a {task} {base_url} {nothing}"], "no placeholder {nothing}"),
        (["--agent", "absent.toml"], "absent.toml"),
        (["--agent", f"env A={'x' * 9000} {TINY}"], "too long"),
        (["--agent", "httpx-loop", "--compare", "HEAD"], "has no revisions here"),
        (["--agent", "trae-agent"], "--agent trae-agent=FOLDER"),
        (["--agent", "tiny=absent"], "no folder absent; name a checkout of the agent"),
        (["--agent", "a {base_url} {task}", "--compare", "HEAD"], "an installed program would run"),
    ],
)
def test_wrong_agents_are_usage_errors(
    project: Path, capsys: pytest.CaptureFixture[str], args: list[str], reason: str
) -> None:
    assert main(["run", "two-files.toml", *args]) == 2
    assert reason in " ".join(capsys.readouterr().err.split())


# -- from a real session to a gate


SESSION = (
    PlayedTurn("I look.", (PlayedCall("c1", "execute", {"command": "cat notes.txt"}),)),
    PlayedTurn("I write.", (PlayedCall("c2", "execute", {"command": "echo done >> notes.txt"}),)),
    PlayedTurn("The notes are complete."),
)


def recorded(project: Path) -> None:
    """Record a session of the project's agent with a real model, and commit it."""
    (project / "example").mkdir()
    (project / "example" / "notes.txt").write_text("begun\n")
    task = ("--task", "Complete the notes.", "--workspace", "example")
    with Loopback() as upstream:
        url = upstream.register("upstream", Script(SESSION, client="foreign"))
        agent = ("--agent", "tiny", "--upstream", url)
        assert main(["record", *agent, *task, "--check", "grep done notes.txt", "-o", MINE]) == 0
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "a session")


MINE = "my-session.toml"


def test_a_recorded_session_becomes_a_gate(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(project)
    assert "Next: trae-bench run my-session.toml --agent tiny" in capsys.readouterr().out
    assert "secret-key" not in (project / MINE).read_text()
    scenario = load(project / MINE)
    assert (scenario.agent, len(scenario.turns)) == ("tiny", 3)
    gate = ["run", MINE, "--compare", "main", "--metric", "cpu", "--pairs", "8", "--force"]
    edit(project, "An agent of one tool, on the", "An agent of one tool on the")
    assert main([*gate, "-o", "../run.json"]) == 0
    edit(project, "LOOPS = 0", "LOOPS = 2_000_000")
    assert main([*gate, "-o", "../run.json"]) == 1
    edit(project, "messages.append(message)", "messages.append(message | {'note': 1})")
    assert main([*gate, "-o", "../run.json"]) == 5
    said = " ".join(capsys.readouterr().out.split())
    assert "messages[2].note" in said
    assert "as after a change of the prompt, give --equal work." in said


def test_check_compares_a_replay_with_the_recording(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(project)
    check = ["agents", "check", "tiny", "--scenario", MINE]

    def said() -> str:
        assert main(check) == 0
        return " ".join(capsys.readouterr().out.split())

    same = said()
    assert "Its requests are those of the recording." in same
    assert "Measure it: trae-bench run my-session.toml --agent tiny" in same
    edit(project, "You are a small agent.", "You are a smart agent.")
    assert "the prompt has changed since the recording, messages[0].content, offset 13" in said()
    edit(project, "You are a smart agent.", "You are a small agent.")
    edit(project, "done.stdout + done.stderr", "done.stdout + 'more'")
    assert "takes another path: its results, [0].content, offset 6" in said()
    Path("my-session.request.json").unlink()
    assert "There is no recorded request to compare with" in said()


SLOW = 'command = "sleep 0.3; echo two > two; ls"'


@pytest.mark.skipif(
    process_events.unavailable() is not None, reason=str(process_events.unavailable())
)
def test_a_run_tells_where_the_time_of_a_session_goes(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model thinks for 0.2 s three times, and a tool sleeps for 0.3 s."""
    scenario = (project / "two-files.toml").read_text()
    scenario = scenario.replace('command = "echo two > two; ls"', SLOW)
    scenario = scenario.replace("[toggles]", "[provider]\nthink_seconds = 0.2\n\n[toggles]")
    (project / "two-files.toml").write_text(scenario)
    names = ("model_time", "tool_time", "agent_time", "wall", "call_overhead")
    counts = ("processes_started", "files_written", "peak_tree")
    chosen = [word for name in (*names, *counts) for word in ("--metric", name)]
    code, stored = run("--agent", command(project), "--pairs", "1", *chosen)
    assert code == 0
    samples = [one.metrics for one in stored.samples if one.mode == "serial"]
    assert samples
    for found in samples:
        assert found["model_time"] >= 0.6
        assert found["tool_time"] >= 0.3
        assert sum(found[name] for name in names[:3]) == pytest.approx(found["wall"])
        assert found["call_overhead"] >= 0.15
        # A shell for each call; the second one starts `sleep` and `ls`, or becomes `ls`.
        assert found["processes_started"] in (4, 5)
        assert found["files_written"] == 2
    assert any("peak_tree" in one.metrics for one in stored.samples if one.probe == "tree")
    assert "Time in two-files" in capsys.readouterr().out


def test_check_proposes_entries_for_what_varies(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(project, "done.stdout + done.stderr", "f'{done.stdout} in {time.time_ns()} ns'")
    edit(project, "import sys", "import sys\nimport time")
    recorded(project)
    check = "agents check tiny --scenario my-session.toml"
    assert f"trae-bench {check}" in capsys.readouterr().out
    assert main(check.split()) == 0
    said = capsys.readouterr().out
    entry = said[said.index("[[normalise]]") : said.index("Measure it")]
    assert 'replace = "DURATION"' in entry
    with Path(MINE).open("a") as file:
        file.write(entry)
    assert main(check.split()) == 0
    assert "Its requests are those of the recording." in capsys.readouterr().out


# -- sub-agents


SUB_AGENTS = """
import json
import subprocess
import sys

from agent import ask

FIRST = 0


def session(base_url, prompt):
    messages = [{"role": "user", "content": prompt}]
    while True:
        message = ask(base_url, messages)
        messages.append(message)
        yield
        calls = message.get("tool_calls") or []
        if not calls:
            return message["content"]
        asked = [json.loads(call["function"]["arguments"]) for call in calls]
        results = yield from together(base_url, asked)
        for call, result in zip(calls, results):
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})


def together(base_url, asked):
    results = [None] * len(asked)
    running = {}
    for number, arguments in enumerate(asked):
        if "prompt" in arguments:
            running[number] = session(base_url, arguments["prompt"])
        else:
            done = subprocess.run(arguments["command"], shell=True, capture_output=True, text=True)
            results[number] = done.stdout
    while running:
        for number in sorted(running, reverse=FIRST):
            try:
                next(running[number])
            except StopIteration as end:
                results[number] = end.value
                del running[number]
        yield
    return results


whole = session(*sys.argv[1:])
while True:
    try:
        next(whole)
    except StopIteration as end:
        print(end.value)
        break
"""
OF_SUB_AGENTS = Script(
    (
        PlayedTurn(
            "I delegate.",
            (
                PlayedCall("call_00001_1", "execute", {"prompt": "Look."}),
                PlayedCall("call_00001_2", "execute", {"prompt": "Write."}),
            ),
        ),
        PlayedTurn("All is done."),
        PlayedTurn("Here.", (PlayedCall("call_00003_1", "execute", {"command": "echo it"}),)),
        PlayedTurn("It is there."),
        PlayedTurn("So.", (PlayedCall("call_00005_1", "execute", {"command": "echo 1 > out"}),)),
        PlayedTurn("It is written."),
    ),
    client="foreign",
    conversations=(Conversation("", 2), Conversation("Look.", 2), Conversation("Write.", 2)),
)


def test_sub_agents_are_recorded_and_replay_in_another_order(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "sub.py").write_text(SUB_AGENTS)
    edit(project, "{folder}/agent.py", "{folder}/sub.py", "pyproject.toml")
    with Loopback() as upstream:
        url = upstream.register("upstream", OF_SUB_AGENTS)
        agent = ("--agent", "tiny", "--upstream", url, "--task", "Do it.")
        assert main(["record", *agent, "-o", MINE]) == 0
    scenario = load(project / MINE)
    assert [turn.text for turn in scenario.turns] == ["I delegate.", "All is done."]
    assert [
        (one.prompt, [turn.text for turn in one.turns]) for one in scenario.sub_agents or ()
    ] == [("Look.", ["Here.", "It is there."]), ("Write.", ["So.", "It is written."])]
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "sub-agents")
    edit(project, "FIRST = 0", "FIRST = 1", "sub.py")
    capsys.readouterr()
    assert main(["agents", "check", "tiny", "--scenario", MINE]) == 0
    assert "Its requests are those of the recording." in capsys.readouterr().out
    gate = ["run", MINE, "--compare", "main", "--metric", "requests", "--pairs", "2"]
    assert main([*gate, "-o", "../run.json"]) == 0
    edit(project, "base_url, prompt):", "base_url, prompt, wish=' Now.'):", "sub.py")
    edit(project, '"content": prompt}', '"content": prompt + wish}', "sub.py")
    assert main([*gate, "-o", "../run.json", "--force"]) == 5
