"""Conditions of provider, workspace and load: valid ones, and errors for the others."""

from pathlib import Path

import pytest

from trae_bench.errors import ScenarioError
from trae_bench.metrics import METRICS
from trae_bench.scenario import Scenario, check, load, parse
from trae_bench.scenario.measurable import IN_PROCESS_METRICS
from trae_bench.subject.agent_core import toggles

BODY = """\
name = "s"
about = "shows nothing"
task = "do it"
metrics = ["cpu"]
turns = [{ text = "go", repeat = 3 }, { calls = [{ tool = "task_done" }] }]

[toggles]
vary = ["parallel_tools"]
"""


def parsed(text: str) -> Scenario:
    return parse(BODY + text, "s.toml")


def errors_of(text: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        parsed(text)
    return str(caught.value).splitlines()


def test_all_conditions_in_one_file() -> None:
    scenario = parsed("""
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
  { request = 6, kind = "close" },
]
[workspace.generate]
files = 200
[load]
sessions = 20
concurrency = 5
arrival = "steady"
sessions_per_second = 10
[subject]
models = 500
format = "yaml"
runs = 2
""")
    assert scenario.provider.faults[0].retry_after == 1.5
    assert scenario.workspace.generate is not None
    assert scenario.workspace.generate.bytes_high == 40_000
    assert (scenario.load.sessions, scenario.subject.runs) == (20, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[provider]\nthink_spread = 0.1", "think_spread: fixed think times do not spread"),
        (
            '[provider]\nthink_distribution = "uniform"\nthink_spread = 0.1',
            "think_distribution: there is nothing to spread",
        ),
        (
            '[provider]\nthink_seconds = 1\nthink_distribution = "uniform"\nthink_spread = 1.5',
            "think_spread: think times would be negative",
        ),
        ("[provider]\nchunk_seconds = 1", "chunk_seconds: replies that are not streamed"),
        ("[provider]\nbandwidth_bytes_per_second = 10", "bandwidth_bytes_per_second: "),
        ('[provider]\nhttp = "3"', "http: '3' is not allowed here. Known: 1.1, 2"),
        (
            '[provider]\nfaults = [{ request = 1, kind = "rest" }]',
            "faults[0].kind: 'rest' is not allowed here; did you mean reset",
        ),
        (
            '[provider]\nfaults = [{ request = 1, kind = "cut", statu = 500 }]',
            "faults[0].statu: unknown field; did you mean status?",
        ),
        (
            '[provider]\nfaults = [{ request = 1, kind = "cut", status = 500 }]',
            'faults[0].status: only kind = "status" has a status',
        ),
        (
            '[provider]\nfaults = [{ request = 6, kind = "cut" }]',
            "faults[0].request: the session has 5 requests",
        ),
        (
            '[provider]\nfaults = [{ request = 5, kind = "close" }]',
            "faults[0].request: the session has 4 requests",
        ),
        (
            '[provider]\nfaults = [{ request = 1, kind = "cut" }, { request = 1, kind = "reset" }]',
            "faults[1].request: request 1 already has a fault",
        ),
        ("[workspace.generate]\nfiles = 2\nbytes_low = 50_000", "generate.bytes_low: "),
        ('[workspace.generate]\nfiles = 2\npattern = "a.py"', "generate.pattern: all files"),
        ('[workspace.generate]\nfiles = 2\npattern = "../{n}"', "generate.pattern: '../{n}' is"),
        ("[workspace.generate]\nfiles = 100_000", "generate: 100000 files of up to 40000 bytes"),
        ("[workspace.generate]\nfile = 3\nfiles = 3", "generate.file: unknown field; did you mean"),
        ('[workspace]\nfolder = "/etc"', "workspace.folder: '/etc' is not a path inside"),
        ('[workspace]\nfolder = "a/../../b"', "workspace.folder: 'a/../../b' is not a path"),
        ('[workspace.files]\n"." = "x"', "workspace.files..: '.' is not a path inside"),
        ("[load]\nconcurrency = 2", "load.concurrency: 2 concurrent sessions of 1"),
        ('[load]\narrival = "steady"', "load.arrival: steady arrival needs a rate"),
        ("[load]\nsessions_per_second = 2", "load.sessions_per_second: closed arrival has no rate"),
        ("[subject]\nruns = 0", "subject.runs: expected `int` >= 1"),
    ],
)
def test_contradictions_are_reported_with_their_line(text: str, expected: str) -> None:
    (message,) = errors_of(text)
    assert expected in message
    assert message.startswith("s.toml:"), "with the line"


def test_conditions_that_respx_does_not_support() -> None:
    messages = errors_of("""
[provider]
transport = "respx"
rtt_seconds = 0.1
bandwidth_bytes_per_second = 5000
tls = true
http = "2"
faults = [{ request = 1, kind = "reset" }, { request = 2, kind = "close" }]
[load]
sessions = 2
[subject]
models = 3
""")
    named = [line.split(": ")[1] for line in messages]
    assert named == [
        "provider.rtt_seconds",
        "provider.bandwidth_bytes_per_second",
        "provider.tls",
        "provider.http",
        "provider.faults[1]",
        "load",
        "subject",
    ]
    assert all('transport = "loopback"' in line for line in messages)


def respx_scenario(metric: str, toggle: str = "parallel_tools") -> Scenario:
    body = BODY.replace('"cpu"', f'"{metric}"').replace("parallel_tools", toggle)
    return parse(body + '[provider]\ntransport = "respx"\n')


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_respx_measures_cpu_time_and_counts_only(metric: str) -> None:
    if metric in IN_PROCESS_METRICS:
        check(respx_scenario(metric), metrics=METRICS)
        return
    with pytest.raises(ScenarioError, match=rf"respx cannot measure {metric}: \w+") as caught:
        check(respx_scenario(metric), metrics=METRICS)
    assert str(caught.value).startswith("s: metrics[0]: ")


@pytest.mark.parametrize("toggle", sorted(toggles()))
def test_respx_rejects_toggles_of_connections_and_startup(toggle: str) -> None:
    if toggle in ("connection_pool", "config_cache", "lazy_tools", "optional_deps"):
        with pytest.raises(ScenarioError, match=f"cannot show what {toggle} changes"):
            check(respx_scenario("cpu", toggle), toggles=toggles())
    else:
        check(respx_scenario("cpu", toggle), toggles=toggles())


def test_in_process_metrics_exist() -> None:
    assert set(METRICS) >= IN_PROCESS_METRICS


# -- a folder as workspace ----------------------------------------------------------------


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "files" / "deep").mkdir(parents=True)
    (tmp_path / "files" / "a.txt").write_bytes(b"a\r\n")
    (tmp_path / "files" / "deep" / "b.txt").write_text("é", encoding="utf-8")
    return tmp_path


def loaded(base: Path, folder: str = "files") -> Scenario:
    path = base / "s.toml"
    text = f'[workspace]\nfolder = "{folder}"\n[workspace.files]\n"c" = "3"\n"a.txt" = "new"\n'
    path.write_text(BODY + text)
    return load(path)


def test_a_folder_is_read_with_the_scenario(base: Path) -> None:
    found = loaded(base).workspace.files
    assert found == {"a.txt": "new", "deep/b.txt": "é", "c": "3"}


def test_byte_code_files_are_ignored(base: Path) -> None:
    before = loaded(base)
    cache = base / "files" / "deep" / "__pycache__"
    cache.mkdir()
    (cache / "b.cpython-311.pyc").write_bytes(b"\xff\x00")
    (base / "files" / "old.pyc").write_bytes(b"\xff")
    assert loaded(base) == before


def test_newlines_are_unchanged(base: Path) -> None:
    (base / "files" / "z").write_bytes(b"1\r\n2\n")
    assert loaded(base).workspace.files["z"] == "1\r\n2\n"


def test_unusable_folders(base: Path) -> None:
    with pytest.raises(ScenarioError, match=r":10: workspace\.folder: no folder 'none'"):
        loaded(base, "none")
    (base / "out").symlink_to("/")
    with pytest.raises(ScenarioError, match="no folder 'out'"):
        loaded(base, "out")
    (base / "files" / "link").symlink_to("/etc/passwd")
    with pytest.raises(ScenarioError, match="link is a link"):
        loaded(base)
    (base / "files" / "link").unlink()
    (base / "files" / "image").write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match="image is not UTF-8"):
        loaded(base)
