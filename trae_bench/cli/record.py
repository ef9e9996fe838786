"""The command `record`: a session of any agent becomes a scenario."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trae_bench.cli.common import FILE, NEW_FILE, file_name, print_error, write
from trae_bench.errors import ScenarioError, UsageError

if TYPE_CHECKING:
    from trae_bench.scenario.importers.conversion import Recording


@click.command()
@click.argument("session", type=FILE, required=False)
@click.option("--from", "source", type=FILE, metavar="FILE", help="The same as SESSION.")
@click.option(
    "-o",
    "--out",
    type=NEW_FILE,
    required=True,
    help="Scenario file to write. Its name without .toml becomes the name of the scenario.",
)
@click.option(
    "--workspace", default="", metavar="PATH", help="Workspace folder of the recorded session."
)
@click.option(
    "--files",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Copy the text files in this folder into the scenario, as the initial workspace.",
)
@click.option("--force", is_flag=True, help="Overwrite the scenario file.")
def record(
    session: Path | None,
    source: Path | None,
    out: Path,
    workspace: str,
    files: Path | None,
    force: bool,
) -> None:
    """Convert a recorded session to a scenario.

    SESSION is a file that an agent wrote: a trajectory of agent-core, Trae Agent,
    mini-swe-agent or Harbor (ATIF), a session of Claude Code (.jsonl), a rollout of
    Codex (.jsonl), or a list of OpenAI messages.

    \b
    Examples:
      trae-bench record trajectory.json --files start/ --out my-session.toml
      trae-bench run my-session.toml --dry-run
    """
    from trae_bench.scenario.importers.conversion import recorded, text_files
    from trae_bench.scenario.importers.reading import read_session
    from trae_bench.subject.agent_core import toggles, tools

    path = session or source
    if path is None or (session and source):
        raise UsageError("name one file with a recorded session")
    _check_out(out, force)
    recording = recorded(
        read_session(path),
        out.stem,
        toggles=tuple(toggles()),
        tools=tools(),
        workspace=workspace,
        files=text_files(files) if files else None,
    )
    _write(out, recording)
    click.echo(f"{file_name(out)}: {len(recording.scenario.turns)} turns")


def _check_out(out: Path, force: bool) -> None:
    if out.suffix != ".toml":
        raise UsageError(f"{out}: the name of a scenario file is NAME.toml")
    if out.exists() and not force:
        raise UsageError(f"{out} exists; name another file with --out, or give --force")


def _write(out: Path, recording: "Recording") -> None:
    """Write the scenario, and print the notes and what is wrong in it."""
    from trae_bench.run.planner import check_names

    write(out, [recording.text])
    for note in recording.notes:
        print_error(f"Note: {note}")
    try:
        check_names(recording.scenario, out)
    except ScenarioError as error:
        # The recorded agent may have had other tools, or its model made a mistake.
        print_error(f"Note: correct these errors before you run the scenario:\n{error}")
