"""`trae-bench doctor`."""

import sys
from typing import TYPE_CHECKING

import click

from trae_bench.cli.common import print_json, terminal_width
from trae_bench.errors import UsageError

if TYPE_CHECKING:
    from trae_bench.run.doctor import Checkup


@click.command()
@click.option(
    "--pairs",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="A/A pairs of each mode to find the noise with; 0 is none, as with --quick.",
)
@click.option("--quick", is_flag=True, help="Leave out the noise, which takes some 20 seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(context: click.Context, /, pairs: int, quick: bool, as_json: bool) -> None:
    """Say how noisy this machine is.

    And what would make it quieter; nothing is changed, and no special right is needed.

    \b
    Examples:
      trae-bench doctor --quick
      trae-bench doctor --pairs 20 --json
    """
    import time

    from trae_bench.report.text.progress import ProgressLine
    from trae_bench.run.doctor import checkup
    from trae_bench.run.runner import Bench

    if quick and context.get_parameter_source("pairs") is not click.core.ParameterSource.DEFAULT:
        raise UsageError("--quick takes no pairs at all; leave it or --pairs out")
    with ProgressLine(sys.stderr, time.monotonic) as listener:
        found = checkup(Bench(listener.say, listener), 0 if quick else pairs)
    if as_json:
        print_json(found)
    else:
        _show_checkup(found)


def _show_checkup(found: "Checkup") -> None:
    from trae_bench.metrics import taken
    from trae_bench.report.text.listing import bullets, names
    from trae_bench.report.text.terminal import noise_table, quantity

    facts = {
        name: quantity(value, "B") if name.startswith("memory") else str(value)
        for name, value in found.machine.items()
    }
    cost = found.provider
    advice = [*map(str, found.findings), *found.advice] or ["nothing to change was found"]
    click.echo("Machine:")
    click.echo(names(facts, terminal_width()))
    click.echo("\nFindings:")
    click.echo(bullets(advice, terminal_width()))
    click.echo(
        f"\nProvider: {cost.cpu_seconds * 1e6:.0f} µs of its own CPU a request "
        f"({cost.requests} requests of {cost.body_bytes} bytes)"
    )
    if found.noise:
        metrics = taken(pinned="cores_usable" in found.machine)
        click.echo(
            f"\nNoise of A/A pairs:\n{noise_table(found.noise, metrics, width=terminal_width())}"
        )
