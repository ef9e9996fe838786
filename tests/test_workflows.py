"""The files for CI: they parse, call what exists, and give nobody more rights than needed."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tests.trae_bench.runs import gate, honest
from trae_bench.cli import cli
from trae_bench.report.escape import for_markdown, markdown_text
from trae_bench.report.text import unmeasured
from trae_bench.report.text.markdown import MARKER, comment

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


@pytest.mark.parametrize(("base", "code"), [("--help", 2), ("-x", 2), ("main", 0), ("", 0)])
def test_no_base_is_an_option(base: str, code: int, tmp_path: Path) -> None:
    (script,) = (step["run"] for step in steps(FILES[0]) if "--compare" in step.get("run", ""))
    environment = {"PATH": os.defpath, "BASE": base, "SCENARIOS": "", "OPTIONS": "", "FOLDER": "f"}
    stub = "trae-bench() { :; }\n"
    done = subprocess.run(
        ["bash", "-e", "-c", stub + script], env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == code


def test_documents_call_what_exists() -> None:
    found = list(commands((ROOT / "docs" / "ci.md").read_text(encoding="utf-8")))
    assert found
    for words in found:
        check_command(words)


def test_gitlabs_token_meets_no_code_of_the_merge_request() -> None:
    text = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    blocks = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    jobs = {name: job for one in blocks if isinstance(one, dict) for name, job in one.items()}
    with_token = {name: job for name, job in jobs.items() if "NOTES_TOKEN" in str(job)}
    (job,) = with_token.values()
    assert job["variables"] == {"GIT_STRATEGY": "none"}
    assert job["environment"]["name"] == "notes"
    assert "environment" not in jobs["performance"]
    assert MARKER in job["script"][0]
    assert not list(commands("\n".join(job["script"])))


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


def _pattern(script: str, name: str) -> str:
    """One of the script's regular expressions, as Python has it."""
    (found,) = re.findall(rf"const {name} = .*?/(.*)/[gi]*[;,]", script)
    return found.replace("\\/", "/").replace("[<@[\\]", r"[<@\[\]")


def lets_through(body: str) -> bool:
    """As performance-comment.yml decides it; by node, where there is one."""
    script = list(steps(WORKFLOWS / "performance-comment.yml"))[-1]["with"]["script"]
    (marker,) = re.findall(r"MARKER = '(.*?)\\n'", script)
    assert marker == MARKER
    tags, code, entity = (_pattern(script, name) for name in ("bare", "outside", "read"))
    text = body[len(MARKER) + 1 :]
    bare, outside = re.sub(tags, "", text), re.sub(code, "", text)
    read = re.sub(entity, lambda found: chr(int(found[1])), outside)
    flags = re.IGNORECASE
    mine = not (
        re.search(_pattern(script, "marks"), bare, flags)
        or re.search(_pattern(script, "mentions"), read, flags)
    )
    if node := shutil.which("node"):
        lines = script[script.index("const text") : script.index("if (!good)")]
        ask = f"const MARKER = {json.dumps(MARKER + chr(10))}, said = {json.dumps(body)};{lines}"
        done = subprocess.run(
            [node, "-e", f"{ask};console.log(good)"], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(mine).lower()
    return mine


def test_every_report_fits_what_the_workflow_lets_through() -> None:
    runs = [gate(), gate(1.1), gate(1.1, again=1.0), honest(), honest(noise=0.3)]
    runs += [gate(lost={("head", n): kind for n in range(9)}) for kind in ("crash", "differ")]
    for run in runs:
        assert lets_through(comment(run))
    why = "in <b> of `@you`, #1 and GH-1:\nsee [x](http://www.example.org) \\ R&D"
    assert lets_through(unmeasured.comment(why))
    assert lets_through(f"{MARKER}\n{for_markdown(why)} {markdown_text(why)}\n")


@pytest.mark.parametrize(
    "text",
    [
        *("<img src=x>", "@you", "[here](x)", "http://example.org", "WWW.example.org", "<!--"),
        # As GitHub reads them.
        *("&#64;you", "&#x40;you", "&commat;you", "&#35;1", "&num;1", "#1", "gh-12", "GH&#45;1"),
        # Code that is none, or that ends early.
        *("`<code>`&#64;you`</code>`", "<code>a|&#64;you</code>", "<code>a\n\n&#64;you</code>"),
        *("\\<code>&#64;you</code>", "<code>[here](x)</code>", "<code></code>&#64;you"),
    ],
)
def test_nothing_that_github_acts_on_is_let_through(text: str) -> None:
    assert not lets_through(comment(gate()) + text)
