"""Scenarios as text."""

import pytest

from trae_bench.report.text.scenario import session_text
from trae_bench.scenario import catalogue, find, load, parse

FULL = """\
name = "full"
about = "Shows all there is."
task = "Do it in {workspace}."
metrics = ["cpu", "wall"]
[toggles]
vary = ["fast"]
hold = { other = false }
[provider]
think_seconds = 0.5
think_distribution = "lognormal"
think_spread = 0.4
rtt_seconds = 0.04
bandwidth_bytes_per_second = 1_000_000
tls = true
http = "2"
stream = true
chunk_seconds = 0.01
faults = [
  { request = 2, kind = "status", status = 529, retry_after = 1.5 },
  { request = 3, kind = "reset" },
]
[load]
sessions = 20
concurrency = 5
[subject]
models = 500
runs = 2
[workspace.generate]
files = 200
[workspace.files]
"a.txt" = "x"
[[turns]]
text = "Look \\u001b[31mred."
repeat = 3
calls = [
  { tool = "bash", arguments = { command = "ls" } },
  { tool = "write", arguments = { path = "{workspace}/a", text = "TEN LINES" } },
]
[[turns]]
text = "All is well."
calls = [{ tool = "view", arguments_json = '{"range": null}' }, { tool = "task_done" }]
[oracle]
command = "test -f a"
files = { b = "two\\n" }
final_text = "well"
""".replace("TEN LINES", "\\n".join(map(str, range(1, 11))))

SHOWN = """\
full
  Shows all there is.

Metrics    cpu, wall
Toggles    fast, other always off
Provider   openai_chat, over loopback, HTTP/2 with TLS, thinks 500 ms
           (lognormal, spread 0.4), round trip 40 ms, 1,000,000 bytes/s,
           streamed, 20 characters per event, one every 10 ms
Faults     request 2: status 529, retry after 1.5 s; request 3: connection reset
Workspace  200 generated files of 2,000 to 40,000 bytes (src/file_{n}.py); a.txt
Load       20 sessions, 5 at a time
Subject    500 models in a json config file; run 2 times in one home directory,
           the last run is measured

Task
  Do it in {workspace}.

Session
   1-3  Look \\x1b[31mred.
        > bash command=ls
        > write
          path: {workspace}/a
          text:
            1
            2
            3
            4
            5
            6
            7
            8
            … 2 more lines
     4  All is well.
        > view range=null
        > task_done

Expected
  exits 0: test -f a
  b is "two\\n"
  final answer: well"""


def test_everything_is_shown() -> None:
    assert session_text(parse(FULL)) == SHOWN


@pytest.mark.parametrize("name", sorted(catalogue()))
@pytest.mark.parametrize("width", [80, 120])
def test_shipped_scenarios_fit_the_width(name: str, width: int) -> None:
    lines = session_text(load(find(name)), width).splitlines()
    assert max(map(len, lines)) <= width
    assert not any(line != line.rstrip() for line in lines)


def test_sub_agents_are_shown() -> None:
    scenario = parse(SUB_AGENT)
    shown = session_text(scenario)
    assert "Sub-agent\n  asked: Look.\n     1  It is there." in shown


SUB_AGENT = """
name = "two"
about = "A session with a sub-agent."
task = "Do it."
metrics = ["cpu"]
agent = "mine"
turns = [{ text = "Done." }]
toggles = { vary = [] }
[[sub_agents]]
prompt = "Look."
turns = [{ text = "It is there." }]
"""


def test_a_long_tool_name_is_shown() -> None:
    long = FULL.replace('tool = "bash"', f'tool = "{"t" * 200}"')
    assert "t" * 50 in session_text(parse(long))
