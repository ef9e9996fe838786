"""Tests of the CI files: valid commands, pinned actions, minimal permissions, safe comments."""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import yaml

from tests.trae_bench.runs import COMPARED, gate, honest
from trae_bench.cli import cli
from trae_bench.report.escape import for_markdown, markdown_text
from trae_bench.report.text import unmeasured
from trae_bench.report.text.markdown import MARKER, comment

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"
FILES = [ROOT / "action.yml", *sorted(WORKFLOWS.glob("*.yml"))]
PINNED = {
    "actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683",
    "actions/setup-python@a26af69be951a213d495a4c3e4e4022e16d87065",
    "actions/upload-artifact@ea165f8d65b6e75b540449e92b4886f43607fa02",
    "actions/download-artifact@d3f86a106a0bac45b974a628896c90dbdf5c8093",
    "actions/github-script@60a0d83039c74a4aee543508d2ffcb1c3799cdea",
    "./",
}


@cache
def document(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def steps(file: Path) -> Iterator[dict[str, Any]]:
    content = document(file)
    if "runs" in content:
        yield from content["runs"]["steps"]
    for job in content.get("jobs", {}).values():
        yield from job["steps"]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each call of trae-bench in a script or a document."""
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
    given = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
    assert given <= options, words


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_steps_use_pinned_actions_and_existing_options(file: Path) -> None:
    all_steps = list(steps(file))
    assert all_steps
    for step in all_steps:
        assert ("uses" in step) != ("run" in step)
        assert step.get("uses", "./") in PINNED
        for words in commands(step.get("run", "")):
            check_command(words)
        # GitHub inserts expressions into scripts unquoted, so a branch name could run commands.
        assert "${{" not in step.get("run", "")
        assert "${{" not in step.get("with", {}).get("script", "")


def test_the_action_runs_the_gate() -> None:
    (words,) = (words for step in steps(FILES[0]) for words in commands(step.get("run", "")))
    assert words[:2] == ["trae-bench", "run"]
    assert "--compare=$BASE" in words


@pytest.mark.parametrize(("base", "code"), [("--help", 2), ("-x", 2), ("main", 0), ("", 0)])
def test_the_action_refuses_a_base_that_looks_like_an_option(
    base: str, code: int, tmp_path: Path
) -> None:
    (script,) = (step["run"] for step in steps(FILES[0]) if "--compare" in step.get("run", ""))
    environment = {"PATH": os.defpath, "BASE": base, "SCENARIOS": "", "OPTIONS": "", "FOLDER": "f"}
    stub = "trae-bench() { :; }\n"
    done = subprocess.run(
        ["bash", "-e", "-c", stub + script], env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == code


def test_documents_use_existing_options() -> None:
    found = list(commands((ROOT / "docs" / "ci.md").read_text(encoding="utf-8")))
    assert found
    for words in found:
        check_command(words)


def test_the_gitlab_token_is_not_available_to_code_of_the_merge_request() -> None:
    text = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    blocks = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    jobs = {name: job for block in blocks if isinstance(block, dict) for name, job in block.items()}
    with_token = {name: job for name, job in jobs.items() if "NOTES_TOKEN" in str(job)}
    (job,) = with_token.values()
    assert job["variables"] == {"GIT_STRATEGY": "none"}
    assert job["environment"]["name"] == "notes"
    assert "environment" not in jobs["performance"]
    assert MARKER in job["script"][0]
    assert not list(commands("\n".join(job["script"])))


def test_workflows_have_minimal_permissions() -> None:
    measuring, writing = (
        document(WORKFLOWS / name) for name in ("performance.yml", "performance-comment.yml")
    )
    assert measuring["permissions"] == {"contents": "read"}
    # YAML 1.1 parses `on` as true.
    assert measuring[True].keys() == {"pull_request"}
    assert "secrets." not in (WORKFLOWS / "performance.yml").read_text()
    assert writing[True]["workflow_run"]["workflows"] == [measuring["name"]]
    assert writing["permissions"] == {}
    (job,) = writing["jobs"].values()
    assert job["permissions"] == {"actions": "read", "pull-requests": "write"}
    # A job with write access does not check out the pull request.
    assert not [step for step in job["steps"] if "checkout" in step.get("uses", "")]


def _pattern(script: str, name: str) -> str:
    """A regular expression of the script, in the syntax of Python."""
    (found,) = re.findall(rf"const {name} = .*?/(.*)/[gi]*[;,]", script)
    return found.replace("\\/", "/").replace("[<@[\\]", r"[<@\[\]")


def accepts(body: str) -> bool:
    """Whether performance-comment.yml accepts a body. Also runs the script if node exists."""
    script = list(steps(WORKFLOWS / "performance-comment.yml"))[-1]["with"]["script"]
    (marker,) = re.findall(r"MARKER = '(.*?)\\n'", script)
    assert marker == MARKER
    tags, code, entity = (_pattern(script, name) for name in ("bare", "outside", "read"))
    text = body[len(MARKER) + 1 :]
    bare, outside = re.sub(tags, "", text), re.sub(code, "", text)
    read = re.sub(entity, lambda found: chr(int(found[1])), outside)
    decoded = re.sub(entity, lambda found: chr(int(found[1])), text)
    flags = re.IGNORECASE
    mine = not (
        re.search(_pattern(script, "marks"), bare, flags)
        or re.search(_pattern(script, "mentions"), read, flags)
        or re.search(_pattern(script, "addresses"), decoded)
    )
    if node := shutil.which("node"):
        lines = script[script.index("const text") : script.index("if (!good)")]
        ask = f"const MARKER = {json.dumps(MARKER + chr(10))}, said = {json.dumps(body)};{lines}"
        done = subprocess.run(
            [node, "-e", f"{ask};console.log(good)"], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(mine).lower()
    return mine


def test_the_workflow_accepts_every_report() -> None:
    runs = [gate(), gate(1.1), gate(1.1, again=1.0), honest(), honest(noise=0.3)]
    runs += [gate(lost={("head", n): kind for n in range(9)}) for kind in ("crash", "differ")]
    notes = (
        "head changes [tool.trae-bench.thresholds] cpu from unset to 0.9; the base's value is used",
        "head changes the scenario file <b>@you; the base's file is used",
    )
    noted = msgspec.structs.replace(COMPARED, notes=notes)
    runs.append(gate(revisions=noted))
    for run in runs:
        assert accepts(comment(run))
    assert "from unset to 0.9" in comment(runs[-1])
    why = "in <b> of `@you`, a@b.co, #1 and GH-1:\nsee [x](http://www.example.org) \\ R&D"
    assert accepts(unmeasured.comment(why))
    assert accepts(f"{MARKER}\n{for_markdown(why)} {markdown_text(why)}\n")


@pytest.mark.parametrize(
    "text",
    [
        *("<img src=x>", "@you", "[here](x)", "http://example.org", "WWW.example.org", "<!--"),
        # Entities, which GitHub decodes.
        *("&#64;you", "&#x40;you", "&commat;you", "&#35;1", "&num;1", "#1", "gh-12", "GH&#45;1"),
        # Invalid code, or code that ends early.
        *("`<code>`&#64;you`</code>`", "<code>a|&#64;you</code>", "<code>a\n\n&#64;you</code>"),
        *("\\<code>&#64;you</code>", "<code>[here](x)</code>", "<code></code>&#64;you"),
        # Addresses, which are links in code, too.
        *("<code>a&#64;b.co</code>", "<code>mailto&#58;a&#64;b&#46;co</code>"),
    ],
)
def test_the_workflow_refuses_links_tags_and_mentions(text: str) -> None:
    assert not accepts(comment(gate()) + text)


RUN = {
    "id": 1,
    "head_branch": "topic",
    "head_sha": "abc",
    "head_repository": {"id": 7, "owner": {"login": "someone"}},
}
PULL = {"number": 5, "head": {"ref": "topic", "sha": "abc", "repo": {"id": 7}}}


def changed(number: int, **head: Any) -> dict[str, Any]:
    return {"number": number, "head": PULL["head"] | head}


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize(
    ("pulls", "run", "pull", "notice"),
    [
        ([PULL], RUN, 5, ""),
        ([PULL, changed(6, sha="def")], RUN, 5, ""),
        ([PULL, changed(6, ref="other")], RUN, 5, ""),
        ([PULL, changed(6, repo={"id": 8}), changed(9, repo=None)], RUN, 5, ""),
        ([PULL, changed(6)], RUN, "", "no comment: 2 open pull requests have"),
        ([PULL, changed(6)], RUN, "", "(#5, #6)"),
        ([changed(6, sha="def")], RUN, "", "no comment: 0 open pull requests have"),
        ([], RUN, "", "may have newer commits"),
        # The fork was deleted, or the branch.
        ([PULL], RUN | {"head_repository": None}, "", "no comment: 0"),
        ([PULL], RUN | {"head_branch": None}, "", "no comment: 0"),
    ],
)
def test_only_the_one_pull_request_of_the_run_gets_a_comment(
    pulls: list[Any], run: Any, pull: Any, notice: str
) -> None:
    (script,) = (
        step["with"]["script"]
        for step in steps(WORKFLOWS / "performance-comment.yml")
        if step.get("id") == "find"
    )
    stubs = f"""
        const outputs = {{}}, notices = [];
        const core = {{ notice: text => notices.push(text), setOutput: (name, value) => {{
            outputs[name] = value; }} }};
        const context = {{ repo: {{}}, payload: {{ workflow_run: {json.dumps(run)} }} }};
        const artifacts = [{{ size_in_bytes: 10 }}];
        const github = {{ paginate: async () => {json.dumps(pulls)}, rest: {{
            actions: {{ listWorkflowRunArtifacts: async () => ({{ data: {{ artifacts }} }}) }},
            pulls: {{ list: null }} }} }};
    """
    code = (
        f"(async () => {{ {stubs} {script}; console.log(JSON.stringify([outputs, notices])) }})()"
    )
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True)
    outputs, notices = json.loads(done.stdout)
    assert outputs == {"pull": pull, "report": "yes" if pull else ""}
    assert notice in " ".join(notices)
    assert bool(notices) == (not pull)


def test_the_matrix_the_tox_file_and_the_classifiers_name_the_same_pythons() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    minors = [text.rpartition(".")[2] for text in project["classifiers"] if "Python :: 3." in text]
    (job,) = document(WORKFLOWS / "tests.yml")["jobs"].values()
    matrix = job["strategy"]["matrix"]["include"]
    assert [entry["python"] for entry in matrix] == [f"3.{minor}" for minor in minors]
    for minor, entry in zip(minors, matrix, strict=True):
        assert f"py3{minor}" in entry["environments"].split(",")
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    environments = tox["tox"]["env_list"].split(", ")
    assert [name for name in environments if name.startswith("py")] == [f"py3{n}" for n in minors]
    full, brief = tox["testenv"]["commands"].strip().splitlines()
    later = [f"py3{minor}" for minor in minors[1:]]
    assert full.partition(":")[0] == "-".join(f"!{name}" for name in later)
    assert brief.partition(":")[0] == ",".join(later)
    assert '--hypothesis-profile=brief -m "not slow"' in brief
