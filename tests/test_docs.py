"""Documents match the committed runs and the output of the commands.

Text between these Markdown comments is rendered:

    <!-- run: results/NAME.json -->   the table of a run             <!-- end of run -->
    <!-- output: trae-bench ... -->   the output of a command        <!-- end of output -->
    <!-- study: NAME PATTERN -->      a study's report of raw data   <!-- end of study -->
    <!-- commands -->                 the help of every command      <!-- end of commands -->

Pictures are drawn from the committed runs. `python -m tests.test_docs` renders everything.
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
from trae_bench.report.plot import RowFilter, picture
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
GUIDES = ("docs/performance.md", "docs/claims.md", "docs/agents.md")
"""Documents with tables rendered by `trae-bench report --guide`."""


def rendered(document: Path) -> str:
    """Return the text of the document with all blocks rendered."""
    renderers = {
        "run: ": render_run,
        "output: trae-bench ": render_output,
        "study: ": render_study,
        "commands": render_help,
    }

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}{renderers[match[2]](match[3])}{match[4]}"

    return BLOCK.sub(block, document.read_text(encoding="utf-8"))


def render_run(name: str) -> str:
    run = read_run(ROOT / name)
    text = "\n".join(_run_lines(run))
    return f"```text\n{text}\n```\n{_source(run)}\n"


def render_output(arguments: str) -> str:
    """Return the output of a command that does not measure, run in the root of the repository."""
    stdout = io.StringIO()
    with chdir(ROOT), redirect_stdout(stdout), mock.patch.dict(os.environ, COLUMNS=str(WIDTH)):
        code = main(shlex.split(arguments))
    assert code == 0, f"trae-bench {arguments} ended in {code}"
    lines = (line.rstrip() for line in stdout.getvalue().rstrip().split("\n"))
    return "\n".join(["```text", f"$ trae-bench {arguments}", *lines, "```", ""])


def render_study(arguments: str) -> str:
    """Return the output of a study with `--report` and its raw data."""
    name, pattern = arguments.split()
    files = sorted(map(str, ROOT.glob(pattern)))
    study = import_module(f"tests.studies.{name}")
    stdout = io.StringIO()
    with chdir(ROOT), redirect_stdout(stdout):
        study.main(["--report", *files])
    return f"{stdout.getvalue().rstrip()}\n"


def render_help(_: str = "") -> str:
    context = click.Context(
        cli, info_name="trae-bench", terminal_width=WIDTH, **cli.context_settings
    )
    return "\n".join(_help_sections(context, cli))


def _help_sections(context: click.Context, command: click.Command) -> Iterator[str]:
    """Yield the help of a command, then of its subcommands in alphabetical order."""
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            assert subcommand is not None
            inner = click.Context(subcommand, parent=context, info_name=name, terminal_width=WIDTH)
            yield from _help_sections(inner, subcommand)


def _run_lines(run: RunFile) -> list[str]:
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
def test_blocks_are_up_to_date(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert text == rendered(document), "run `python -m tests.test_docs` to render the blocks"
    starts = len(re.findall(r"^<!-- (?:run: |output: |study: |commands -->)", text, re.MULTILINE))
    assert starts == len(BLOCK.findall(text)), "a block has no end marker"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_linked_files_exist(document: Path) -> None:
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


def help_by_command() -> dict[str, str]:
    sections = render_help().removeprefix("## ").split("\n## ")
    return {name: text for name, _, text in (section.partition("\n") for section in sections)}


@pytest.mark.parametrize("name", help_by_command())
def test_every_help_has_valid_examples(name: str) -> None:
    _, _, examples = help_by_command()[name].replace("\\\n", "").partition("Examples:\n")
    command_lines = re.findall(r"^ +trae-bench (.+?)(?:  .*)?$", examples, re.MULTILINE)
    assert command_lines
    for line in command_lines:
        check_command(shlex.split(line))


def test_help_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = render_help()
    monkeypatch.setenv("COLUMNS", "200")
    assert render_help() == expected


def commands_of(document: Path) -> list[list[str]]:
    """Return the arguments of all `trae-bench` commands in the shell blocks of a document."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", document.read_text("utf-8"), re.DOTALL | re.M)
    blocks = [block.replace("\\\n", " ") for block in blocks]
    lines = [part.strip() for block in blocks for line in block.splitlines()
             for part in line.split("&&")]  # fmt: skip
    commands = (shlex.split(line.split(">")[0], comments=True) for line in lines)
    return [words[1:] for words in commands if words and words[0].endswith("trae-bench")]


def check_command(arguments: list[str]) -> None:
    """Raise `click.UsageError` for an unknown option, and fail on a surplus argument."""
    command: click.Command = cli
    while isinstance(command, click.Group) and arguments:
        command = command.commands[arguments.pop(0)]
    _, unexpected, _ = command.make_parser(click.Context(command)).parse_args(arguments)
    assert not unexpected


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_are_valid(document: Path) -> None:
    for arguments in commands_of(document):
        check_command(arguments)


def test_an_invalid_option_is_detected(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\ncd x && trae-bench run bugfix --no-such-option  # why\n```\n")
    assert commands_of(page) == [["run", "bugfix", "--no-such-option"]]
    with pytest.raises(click.NoSuchOption):
        test_commands_are_valid(page)


# -- pictures


def draw_noise() -> bytes:
    """Draw the CPU times of the A/A pairs, in duets and in serial pairs."""
    run = read_run(ROOT / "results" / "full.json")
    return picture({mode: _cpu_only(run, mode) for mode in ("duet", "serial")}, "noise", "svg")


def _cpu_only(run: RunFile, mode: Mode) -> RunFile:
    """Return the run reduced to the metric `cpu`, measured in this mode."""
    header = run.header
    metrics = {"cpu": replace(header.metrics["cpu"], mode=mode)}
    cells = tuple(
        replace(cell, metrics=("cpu",))
        for cell in header.cells
        if cell.contrast.name == NOISE_FLOOR
        and cell.mode == mode
        and cell.scenario in ("bugfix", "fan-out")
    )
    family = sum(row.contrast != NOISE_FLOOR for row in run.comparisons)
    noise = noise_floor(comparisons(run.samples, cells, metrics), metrics, family=family)
    return replace(run, header=replace(header, cells=cells, metrics=metrics), noise=tuple(noise))


def draw_quick(kind: str, **row: str) -> Callable[[], bytes]:
    def draw() -> bytes:
        run = read_run(ROOT / "results" / "quick.json")
        return picture({"quick": run}, kind, "svg", RowFilter(**row))  # type: ignore[arg-type]

    return draw


PICTURES = {
    "effects.svg": draw_quick("effects"),
    "noise.svg": draw_noise,
    "looks.svg": draw_quick("pairs", scenario="bugfix", toggle="parallel_tools", metric="wall_net"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_match_the_committed_runs(name: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    drawn, committed = PICTURES[name](), (ROOT / "docs" / name).read_bytes()
    if f"\nmatplotlib=={matplotlib.__version__}\n" in _read("constraints.txt"):
        assert drawn == committed, "run `python -m tests.test_docs` to draw the pictures"
    # Another version of matplotlib may move a line, but draws the same elements.
    assert _group_ids(drawn) == _group_ids(committed)


def render_page() -> str:
    run = read_run(ROOT / "results" / "full.json")
    return page([Source("full.json", run, claimed=True)])


def test_the_page_matches_the_committed_run() -> None:
    pytest.importorskip("jinja2")
    assert render_page() == _read("docs/report.html"), "run `python -m tests.test_docs`"


def _group_ids(svg: bytes) -> list[str]:
    return [group.get("id", "") for group in ElementTree.fromstring(svg).iter("{*}g")]


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


if __name__ == "__main__":
    for path in DOCUMENTS:
        path.write_text(rendered(path), encoding="utf-8")
    for name, draw in PICTURES.items():
        (ROOT / "docs" / name).write_bytes(draw())
    (ROOT / "docs/report.html").write_text(render_page(), encoding="utf-8")
    with chdir(ROOT):
        runs = sorted(map(str, Path("results").glob("*.json")))
        sys.exit(max(main(["report", *runs, "--guide", guide]) for guide in GUIDES))
