"""The files for CI: they parse, call what exists, and give nobody more rights than needed."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tests.trae_bench.runs import gate, honest
from trae_bench.cli import cli
from trae_bench.report.markdown import MARKER, comment

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"
FILES = [ROOT / "action.yml", *sorted(WORKFLOWS.glob("*.yml"))]
PINNED = {
    "actions/checkout@v4",
    "actions/setup-python@v5",
    "actions/upload-artifact@v4",
    "actions/download-artifact@v4",
    "actions/github-script@v7",
    "./",
}


@cache
def document(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def steps(file: Path) -> Iterator[dict[str, Any]]:
    found = document(file)
    if "runs" in found:
        yield from found["runs"]["steps"]
    for job in found.get("jobs", {}).values():
        yield from job["steps"]


def commands(text: str) -> Iterator[list[str]]:
    """Words of each call of trae-bench in a script or a document."""
    for line in text.replace("\\\n", " ").splitlines():
        bare = line.strip().removeprefix("- ")
        if bare.startswith("trae-bench "):
            yield shlex.split(bare, comments=True)


def check_command(words: list[str]) -> None:
    command = cli.commands[words[1]]
    options = {
        name
        for option in command.params
        if isinstance(option, click.Option)
        for name in option.opts
    }
    asked = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
    assert asked <= options, words


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_steps_use_what_is_known_and_run_what_exists(file: Path) -> None:
    found = list(steps(file))
    assert found
    for step in found:
        assert ("uses" in step) != ("run" in step)
        assert step.get("uses", "./") in PINNED
        for words in commands(step.get("run", "")):
            check_command(words)
        # An expression in a script is put in as it is: whoever names a branch could run it.
        assert "${{" not in step.get("run", "")
        assert "${{" not in step.get("with", {}).get("script", "")


def test_the_action_runs_the_gate() -> None:
    (words,) = (words for step in steps(FILES[0]) for words in commands(step.get("run", "")))
    assert words[:2] == ["trae-bench", "run"]
    assert "--compare=$BASE" in words


def test_documents_call_what_exists() -> None:
    found = list(commands((ROOT / "docs" / "ci.md").read_text(encoding="utf-8")))
    assert found
    for words in found:
        check_command(words)


def test_only_the_comment_may_be_written() -> None:
    measuring, writing = (
        document(WORKFLOWS / name) for name in ("performance.yml", "performance-comment.yml")
    )
    assert measuring["permissions"] == {"contents": "read"}
    # YAML 1.1 takes `on` for true.
    assert measuring[True].keys() == {"pull_request"}
    assert "secrets." not in (WORKFLOWS / "performance.yml").read_text()
    assert writing[True]["workflow_run"]["workflows"] == [measuring["name"]]
    assert writing["permissions"] == {}
    (job,) = writing["jobs"].values()
    assert job["permissions"] == {"actions": "read", "pull-requests": "write"}
    # Nothing of the pull request is checked out where there is a right to write.
    assert not [step for step in job["steps"] if "checkout" in step.get("uses", "")]


def test_every_report_fits_what_the_workflow_lets_through() -> None:
    script = list(steps(WORKFLOWS / "performance-comment.yml"))[-1]["with"]["script"]
    (tags,) = re.findall(r"replace\(/(.*?)/g, ''\)", script)
    (refused,) = re.findall(r"65536 \|\| /(.*?)/i\.test", script)
    (marker,) = re.findall(r"MARKER = '(.*?)\\n'", script)
    assert marker == MARKER

    def lets_through(body: str) -> bool:
        text = re.sub(tags.replace("\\/", "/"), "", body[len(marker) + 1 :])
        return not re.search(refused.replace("[<@[\\]]", r"[<@\[\]]"), text, re.IGNORECASE)

    nasty = ("<img src=x>", "@you", "[here](x)", "http://example.org", "WWW.example.org", "<!--")
    runs = [gate(), gate(1.1), gate(1.1, again=1.0), honest(), honest(noise=0.3)]
    runs += [gate(lost={("head", n): kind for n in range(9)}) for kind in ("crash", "differ")]
    for run in runs:
        assert lets_through(comment(run))
    for text in nasty:
        assert not lets_through(comment(gate()) + text)
