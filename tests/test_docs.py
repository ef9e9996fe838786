"""The documents say what the committed runs say.

A block between `<!-- run: results/NAME.json -->` and `<!-- end of run -->` is rendered from
that file. `python -m tests.test_docs` writes the blocks anew.
"""

import re
import sys
from pathlib import Path

import pytest

from trae_bench.meters import METRICS
from trae_bench.report.terminal import closing, noise_line, table
from trae_bench.store import RunFile, read_run

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"(<!-- run: (\S+) -->\n).*?(<!-- end of run -->)", re.DOTALL)


def rendered(document: Path) -> str:
    """The document's text with every block as it should be."""

    def block(found: re.Match[str]) -> str:
        shown = "\n".join(part for part in _parts(read_run(ROOT / found[2])))
        return f"{found[1]}```text\n{shown}\n```\n{_source(read_run(ROOT / found[2]))}\n{found[3]}"

    return BLOCK.sub(block, document.read_text(encoding="utf-8"))


def _parts(run: RunFile) -> list[str]:
    lines = [table(run.comparisons, METRICS), "", closing(run), noise_line(run.noise)]
    return [line.rstrip() for part in lines for line in part.split("\n")]


def _source(run: RunFile) -> str:
    header = run.header
    commit = str(header.code["commit"])[:12] + (" (dirty)" if header.code["dirty"] else "")
    machine = header.machine
    return (
        f"*`{header.command}` at commit {commit}, {header.created[:10]}, "
        f"{machine['cores']} x {machine['cpu']}, Python {machine['python']}.*"
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tables_are_those_of_the_committed_runs(document: Path) -> None:
    assert document.read_text(encoding="utf-8") == rendered(document), (
        "run `python -m tests.test_docs` to write the tables anew"
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


def test_the_readme_shows_a_run() -> None:
    assert BLOCK.search((ROOT / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    for path in DOCUMENTS:
        path.write_text(rendered(path), encoding="utf-8")
    sys.exit(0)
