"""The entries that ship. Starting them needs the network, so these tests only read them."""

import re
from pathlib import Path

import pytest

from trae_bench.subject.agents.catalog import find_agent, needs_checkout
from trae_bench.subject.agents.entry import SHIPPED, AgentEntry, read_entry

ROOT = Path(__file__).resolve().parents[3]
ENTRIES = sorted(SHIPPED.glob("*.toml"))
SCRIPTS = sorted(path for path in SHIPPED.iterdir() if path.suffix in (".py", ".mjs"))
MAX_SCRIPT_LINES = 25
_PINNED = re.compile(r"[\w.-]+(\[[\w,-]+\])?==\d[\w.]*")
_PINNED_NPM = re.compile(r"(@[\w.-]+/)?[\w.-]+@\d+\.\d+\.\d+")
_SHIPPED_FILE = re.compile(r"\{folder\}/([\w.-]+\.\w+)")


def entry_of(script: Path) -> Path:
    return script.with_name(f"{script.stem.removesuffix('-sessions')}.toml")


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_the_agents_of_the_documents_ship() -> None:
    assert {path.stem for path in ENTRIES} == {
        "agent-core", "agno", "ai-sdk", "autogen", "claude-code", "codex", "gemini-cli",
        "httpx-loop", "inspect", "langgraph", "mini-swe-agent", "openai-agents", "openai-sdk",
        "opencode", "pydantic-ai", "smolagents", "socket-loop", "strands", "trae-agent",
    }  # fmt: skip


@pytest.mark.parametrize("path", ENTRIES, ids=names(ENTRIES))
class TestEachEntry:
    def test_it_reads_and_says_what_it_is(self, path: Path) -> None:
        """Reading refuses unknown fields and placeholders, and entries without task or URL."""
        about = read_entry(path).about
        assert re.search(r": (https://|docs/)\S+$", about), "no address at its end"
        assert re.search(r"\d{4}-\d\d-\d\d|constraints\.txt", about), "no date of its versions"

    def test_its_requirements_are_pinned(self, path: Path) -> None:
        entry = read_entry(path)
        assert [one for one in entry.requirements if not _PINNED.fullmatch(one)] == []
        assert [one for one in entry.npm if not _PINNED_NPM.fullmatch(one)] == []
        assert entry.builds or path.stem == "socket-loop"

    def test_its_files_lie_beside_it(self, path: Path) -> None:
        entry = read_entry(path)
        scripts = [*_SHIPPED_FILE.findall(" ".join((*entry.argv, *entry.sessions_argv)))]
        if path.stem != "trae-agent":  # its lock files lie in the user's checkout
            scripts += entry.lock_files
        assert [name for name in scripts if not (SHIPPED / name).is_file()] == []

    def test_only_trae_agent_needs_a_checkout(self, path: Path) -> None:
        found = find_agent(path.stem, {}, Path())
        assert needs_checkout(found) == (path.stem == "trae-agent")

    def test_its_script_does_not_hide_a_package(self, path: Path) -> None:
        """`langgraph.py` would import itself: Python looks beside the script first."""
        argv = read_entry(path).argv
        if argv[0] == "{python}":
            assert argv[1] == "-P"

    def test_it_takes_nothing_from_the_user(self, path: Path) -> None:
        entry = read_entry(path)
        assert entry.pass_env == ()
        assert "{api_key}" in str(entry.env) or path.stem == "socket-loop"


@pytest.mark.parametrize("path", SCRIPTS, ids=names(SCRIPTS))
class TestEachScript:
    def test_it_is_short(self, path: Path) -> None:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_SCRIPT_LINES

    def test_an_entry_uses_it(self, path: Path) -> None:
        entry = read_entry(entry_of(path))
        assert path.name in " ".join((*entry.argv, *entry.sessions_argv, *entry.setup))

    def test_the_entry_sets_the_variables_that_it_reads(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"os\.environ\[['\"](\w+)['\"]\]|process\.env\.(\w+)", text)
        read = {python or node for python, node in found}
        assert read - read_entry(entry_of(path)).env.keys() == set()


def test_agent_core_has_the_versions_of_the_constraints() -> None:
    entry: AgentEntry = read_entry(SHIPPED / "agent-core.toml")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert {one.replace("[http2]", "") for one in entry.requirements} <= set(lines)
