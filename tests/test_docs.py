"""The documents say what the committed runs and the commands say.

Between marks that are comments of Markdown stands what is rendered anew:

    <!-- run: results/NAME.json -->   the table of a run          <!-- end of run -->
    <!-- output: trae-bench ... -->   what that command prints    <!-- end of output -->
    <!-- study: NAME PATTERN -->      what that study tells of its raw data
                                                                  <!-- end of study -->
    <!-- commands -->                 the help of every command   <!-- end of commands -->

Pictures are drawn from the committed runs, too. `python -m tests.test_docs` writes all of it anew.
"""

import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stdout
from importlib import import_module
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree

import click
import pytest
from msgspec.structs import replace

from trae_bench.cli import cli, main
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Mode
from trae_bench.model.run import RunFile
from trae_bench.report.html import page
from trae_bench.report.html.source import Source
from trae_bench.report.plot import Shown, picture
from trae_bench.report.text.terminal import closing, noise_lines, table
from trae_bench.stats.analysis import comparisons
from trae_bench.stats.noise import noise_floor
from trae_bench.storage.run_file import read_run

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(
    r"^(<!-- (run: |output: trae-bench |study: |commands)(.*?) ?-->\n)"
    r".*?^(<!-- end of (?:run|output|study|commands) -->)",
    re.DOTALL | re.MULTILINE,
)
WIDTH = 80
GUIDES = ("docs/performance.md", "docs/claims.md")
"""Their tables have marks of their own: `trae-bench report --guide`."""


def rendered(document: Path) -> str:
    """The document's text with every block as it should be."""
    kinds = {
        "run: ": table_of,
        "output: trae-bench ": output_of,
        "study: ": told_by_study,
        "commands": help_of_all,
    }

    def block(found: re.Match[str]) -> str:
        return f"{found[1]}{kinds[found[2]](found[3])}{found[4]}"

    return BLOCK.sub(block, document.read_text(encoding="utf-8"))


def table_of(name: str) -> str:
    run = read_run(ROOT / name)
    shown = "\n".join(_parts(run))
    return f"```text\n{shown}\n```\n{_source(run)}\n"


def output_of(arguments: str) -> str:
    """What a command prints that reads and measures nothing, at the root of the repository."""
    printed = io.StringIO()
    with chdir(ROOT), redirect_stdout(printed), mock.patch.dict(os.environ, COLUMNS=str(WIDTH)):
        code = main(shlex.split(arguments))
    assert code == 0, f"trae-bench {arguments} ended in {code}"
    lines = (line.rstrip() for line in printed.getvalue().rstrip().split("\n"))
    return "\n".join(["```text", f"$ trae-bench {arguments}", *lines, "```", ""])


def told_by_study(arguments: str) -> str:
    """The tables of a study that `--tell`s of raw data."""
    name, pattern = arguments.split()
    files = sorted(map(str, ROOT.glob(pattern)))
    study = import_module(f"tests.studies.{name}")
    told = io.StringIO()
    with chdir(ROOT), redirect_stdout(told):
        study.main(["--tell", *files])
    return f"{told.getvalue().rstrip()}\n"


def help_of_all(_: str = "") -> str:
    context = click.Context(
        cli, info_name="trae-bench", terminal_width=WIDTH, **cli.context_settings
    )
    return "\n".join(_helps(context, cli))


def _helps(context: click.Context, command: click.Command) -> Iterator[str]:
    """Of a command and, in the order of their names, of those below it."""
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            inner = click.Context(below, parent=context, info_name=name, terminal_width=WIDTH)
            yield from _helps(inner, below)


def _parts(run: RunFile) -> list[str]:
    lines = [*noise_lines(run), "", table(run.comparisons, METRICS), "", closing(run)]
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
def test_blocks_are_what_they_should_be(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert text == rendered(document), "run `python -m tests.test_docs` to write the blocks anew"
    begun = len(re.findall(r"^<!-- (?:run: |output: |study: |commands -->)", text, re.MULTILINE))
    assert begun == len(BLOCK.findall(text)), "a block without its end"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


def test_the_readme_shows_a_run() -> None:
    assert "run: " in {kind for _, kind, *_ in BLOCK.findall(_read("README.md"))}


def test_every_command_has_its_help_in_the_reference() -> None:
    reference = _read("docs/commands.md")
    missing = [name for name in cli.commands if f"\n## trae-bench {name}\n" not in reference]
    assert not missing


def helps() -> dict[str, str]:
    """What each command says, by its name."""
    named = (block.partition("\n") for block in help_of_all().removeprefix("## ").split("\n## "))
    return {name: text for name, _, text in named}


@pytest.mark.parametrize("name", helps())
def test_every_help_has_examples_that_can_be_typed(name: str) -> None:
    _, _, examples = helps()[name].replace("\\\n", "").partition("Examples:\n")
    typed = re.findall(r"^ +trae-bench (.+?)(?:  .*)?$", examples, re.MULTILINE)
    assert typed
    for line in typed:
        check_command(shlex.split(line))


def test_help_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = help_of_all()
    monkeypatch.setenv("COLUMNS", "200")
    assert help_of_all() == usual


def commands_of(document: Path) -> list[list[str]]:
    """Command lines of `trae-bench` in the blocks that a reader is to type."""
    typed = re.findall(r"^ *```sh\n(.*?)^ *```$", document.read_text("utf-8"), re.DOTALL | re.M)
    lines = [part.strip() for block in typed for line in block.splitlines()
             for part in line.split("&&")]  # fmt: skip
    found = (shlex.split(line.split(">")[0], comments=True) for line in lines)
    return [line[1:] for line in found if line and line[0].endswith("trae-bench")]


def check_command(arguments: list[str]) -> None:
    command: click.Command = cli
    while isinstance(command, click.Group) and arguments:
        command = command.commands[arguments.pop(0)]
    _, unexpected, _ = command.make_parser(click.Context(command)).parse_args(arguments)
    assert not unexpected


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_can_be_typed_as_they_stand(document: Path) -> None:
    """No option that is not there, no argument too many."""
    for arguments in commands_of(document):
        check_command(arguments)


def test_a_command_that_is_not_there_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\ncd x && trae-bench run bugfix --no-such-option  # why\n```\n")
    assert commands_of(page) == [["run", "bugfix", "--no-such-option"]]
    with pytest.raises(click.NoSuchOption):
        test_commands_can_be_typed_as_they_stand(page)


# -- pictures


def noise_of_one_metric() -> bytes:
    """Processor time of the A/A pairs that ran at once, and of those that took turns."""
    run = read_run(ROOT / "results" / "quick.json")
    return picture({mode: _cpu_alone(run, mode) for mode in ("duet", "serial")}, "noise", "svg")


def _cpu_alone(run: RunFile, mode: Mode) -> RunFile:
    """The run as if processor time had been all that was asked for, and taken so."""
    header = run.header
    metrics = {"cpu": replace(header.metrics["cpu"], mode=mode)}
    cells = tuple(
        replace(cell, metrics=("cpu",))
        for cell in header.cells
        if cell.contrast.name == NOISE_FLOOR and cell.mode == mode
    )
    family = sum(row.contrast != NOISE_FLOOR for row in run.comparisons)
    noise = noise_floor(comparisons(run.samples, cells, metrics), metrics, family=family)
    return replace(run, header=replace(header, cells=cells, metrics=metrics), noise=tuple(noise))


def of_quick(kind: str, **shown: str) -> Callable[[], bytes]:
    def draw() -> bytes:
        run = read_run(ROOT / "results" / "quick.json")
        return picture({"quick": run}, kind, "svg", Shown(**shown))  # type: ignore[arg-type]

    return draw


PICTURES = {
    "effects.svg": of_quick("effects"),
    "noise.svg": noise_of_one_metric,
    "looks.svg": of_quick("pairs", scenario="bugfix", toggle="parallel_tools", metric="wall"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_those_of_the_committed_runs(name: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    drawn, committed = PICTURES[name](), (ROOT / "docs" / name).read_bytes()
    if f"\nmatplotlib=={matplotlib.__version__}\n" in _read("constraints.txt"):
        assert drawn == committed, "run `python -m tests.test_docs` to draw the pictures anew"
    # Another version may place a line elsewhere, but the picture has the same parts.
    assert _parts_of(drawn) == _parts_of(committed)


def page_of_the_full_run() -> str:
    run = read_run(ROOT / "results" / "full.json")
    return page([Source("full.json", run, claimed=True)])


def test_the_page_is_that_of_the_committed_run() -> None:
    pytest.importorskip("jinja2")
    assert page_of_the_full_run() == _read("docs/report.html"), "run `python -m tests.test_docs`"


def _parts_of(svg: bytes) -> list[str]:
    return [each.get("id", "") for each in ElementTree.fromstring(svg).iter("{*}g")]


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


if __name__ == "__main__":
    for path in DOCUMENTS:
        path.write_text(rendered(path), encoding="utf-8")
    for name, draw in PICTURES.items():
        (ROOT / "docs" / name).write_bytes(draw())
    (ROOT / "docs/report.html").write_text(page_of_the_full_run(), encoding="utf-8")
    with chdir(ROOT):
        runs = sorted(map(str, Path("results").glob("*.json")))
        sys.exit(max(main(["report", *runs, "--guide", guide]) for guide in GUIDES))
