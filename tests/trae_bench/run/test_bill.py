"""Bills and the metric `cost`, from the command line."""

import json
from pathlib import Path

import pytest

from tests.trae_bench.foreign import edit, foreign_repository
from tests.trae_bench.mutations import git
from trae_bench.cli import main
from trae_bench.model.sample import TokenUse
from trae_bench.report.text.bill import bill_lines, dollars
from trae_bench.run.bill import AgentBill, Bill
from trae_bench.run.price_file import load
from trae_bench.storage.run_file import read_run
from trae_bench.storage.verify import verify

OWN = """
checked = 2026-01-02
[standard]
openai_chat = "any"
[[prices]]
models = ["any"]
input = {0}
output = {1}
source = "made up"
"""
RUN = ("run", "two-files.toml", "--metric", "cost", "--pairs", "2", "--out", "../run.json")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a foreign repository whose prompts are long enough for a cache."""
    monkeypatch.setenv("TRAE_BENCH_LOCK", str(tmp_path / "lock"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = foreign_repository(tmp_path / "project")
    edit(folder, '"You are a small agent."', '"You are a small agent. " * 300')
    git(folder, "commit", "--quiet", "--all", "--message", "a long prompt")
    monkeypatch.chdir(folder)
    return folder


def test_a_bill_has_a_row_for_each_agent(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "clock.py").write_text((project / "agent.py").read_text())
    edit(project, "import urllib", "import time\nimport urllib", "clock.py")
    edit(
        project,
        "    body = ",
        '    clock = {"role": "system", "content": f"{time.time_ns()}{SYSTEM}"}\n'
        "    messages = [clock, *messages[1:]]\n    body = ",
        "clock.py",
    )
    edit(
        project,
        "[tool.trae-bench.agents.tiny]",
        '[tool.trae-bench.agents.clock]\ncommand = "{python} {folder}/clock.py {base_url} {task}"\n'
        'final-text = "stdout"\n[tool.trae-bench.agents.tiny]',
        "pyproject.toml",
    )
    args = ["bill", "two-files.toml", "--agent", "tiny", "--agent", "clock"]
    assert main([*args, "--json"]) == 0
    bill = json.loads(capsys.readouterr().out)
    tiny, clock = (one["total"] for one in bill["agents"])
    assert [len(one["requests"]) for one in bill["agents"]] == [3, 3]
    assert tiny["model"] == "gpt-6.1-sol"
    assert tiny["cached"] > 0.6 * tiny["input"]
    assert clock["cached"] == 0
    assert tiny["cost"] < tiny["uncached_cost"] < clock["cost"]
    assert main([*args, "--requests"]) == 0
    said = capsys.readouterr().out
    assert "tiny, request by request:" in said
    assert said.count(f"{100 * tiny['cached'] / tiny['input']:.1f} %") >= 2


@pytest.mark.usefixtures("project")
def test_a_bill_by_the_prices_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.toml").write_text(OWN.format(1.0, 0.0))
    args = ["bill", "two-files.toml", "--agent", "tiny"]
    assert main([*args, "--prices", "own.toml", "--json"]) == 0
    by_option = json.loads(capsys.readouterr().out)
    use = by_option["agents"][0]["total"]
    assert use["cost"] == pytest.approx(use["input"] / 1e6)
    with Path("pyproject.toml").open("a") as file:
        file.write('\n[tool.trae-bench]\nprices = "own.toml"\n')
    assert main([*args, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == by_option


@pytest.mark.usefixtures("project")
def test_a_model_without_a_price_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bill", "two-files.toml", "--agent", "tiny", "--model", "gpt-6.1-sum"]) == 2
    said = capsys.readouterr().err
    assert "no price for the model 'gpt-6.1-sum'; add one to a copy of the file" in said
    assert "did you mean gpt-6.1-sol" in said


def test_an_agent_that_fails_has_no_bill(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(project, "    print(main(", "    main(*sys.argv[1:]); sys.exit(int(")
    assert main(["bill", "two-files.toml", "--agent", "tiny"]) == 4
    assert "agent tiny: " in capsys.readouterr().err


def test_head_cannot_lower_its_bill_by_its_prices(project: Path) -> None:
    (project / "own.toml").write_text(OWN.format(1.0, 1.0))
    with (project / "pyproject.toml").open("a") as file:
        file.write('\n[tool.trae-bench]\nprices = "own.toml"\n')
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "prices")
    # A longer prompt, for nothing.
    (project / "own.toml").write_text(OWN.format(0.0, 0.0))
    edit(project, "* 300", "* 600")
    assert main([*RUN, "--compare", "main", "--equal", "work", "--force"]) == 1
    stored = read_run(Path("../run.json"))
    assert [one for one in verify(stored) if one.severity == "wrong"] == []
    (row,) = (row for row in stored.comparisons if row.contrast == "head")
    assert row.estimate is not None
    assert 0 < row.estimate.a < row.estimate.b


def test_a_resumed_run_keeps_its_prices(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "own.toml"
    path.write_text(OWN.format(1.0, 1.0))
    assert main([*RUN, "--prices", "own.toml"]) == 0
    before = read_run(Path("../run.json"))
    assert before.header.versions["price file"] == "own.toml"
    journal = Path("../run.journal.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    Path("../run.json").unlink()
    journal.write_text("".join(lines[:-2]))
    assert main(["run", "--resume", str(journal)]) == 0
    costs = {sample.metrics["cost"] for sample in read_run(Path("../run.json")).samples}
    assert costs == {sample.metrics["cost"] for sample in before.samples}
    Path("../run.json").unlink()
    journal.write_text("".join(lines[:-2]))
    path.write_text(OWN.format(2.0, 1.0))
    assert main(["run", "--resume", str(journal)]) == 2
    assert "prices was '2026-01-02" in capsys.readouterr().err


@pytest.mark.usefixtures("project")
def test_a_run_without_costs_reads_no_prices() -> None:
    Path("own.toml").write_text("wrong")
    args = ["run", "two-files.toml", "--metric", "cached_tokens", "--pairs", "1"]
    assert main([*args, "--prices", "own.toml", "--out", "../run.json"]) == 0
    assert "prices" not in read_run(Path("../run.json")).header.versions


def test_an_unknown_cost_is_shown_with_a_remedy() -> None:
    use = TokenUse(1000, output=5, model="foo\x1b[31m")
    one = AgentBill("mine", "gemini", "estimate", use, (use,))
    date = load().table.checked.isoformat()
    said = "\n".join(bill_lines(Bill("s", "prices.toml", date, (one,)), 400))
    assert "? mine" in said.replace("  ", " ")
    assert "It has no price: copy the file of prices, add it, and give --prices." in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "?"), (0.0, "0.0000"), (5.01191, "5.0119"), (0.01, "0.0100"), (0.00032, "0.00032")],
)
def test_amounts(value: float | None, text: str) -> None:
    assert dollars(value) == text


def test_a_scenario_of_several_sessions_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bill", "throughput"]) == 2
    assert "runs several sessions, and a bill is of one" in capsys.readouterr().err
