"""The command `trae-bench doctor`."""

import sys
from typing import TYPE_CHECKING

import click

from trae_bench.cli.common import is_given, print_json, terminal_width
from trae_bench.errors import UsageError

if TYPE_CHECKING:
    from trae_bench.run.doctor import Checkup


@click.command()
@click.option(
    "--pairs",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    metavar="N",
    help="A/A pairs per mode for the noise measurement. 0 skips it, like --quick.",
)
@click.option(
    "--quick", is_flag=True, help="Skip the noise measurement, which takes about 20 seconds."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print no progress.")
@click.pass_context
def doctor(context: click.Context, /, pairs: int, quick: bool, as_json: bool, quiet: bool) -> None:
    """Measure the noise of this machine.

    Also prints how to reduce the noise. Changes nothing and needs no special
    rights.

    \b
    Examples:
      trae-bench doctor --quick
      trae-bench doctor --pairs 20 --json
    """
    from trae_bench.cli.progress import progress
    from trae_bench.run.doctor import checkup
    from trae_bench.run.runner import Bench

    if quick and is_given(context, "pairs"):
        raise UsageError("--quick measures no pairs; leave out --quick or --pairs")
    with progress(sys.stderr, quiet=quiet) as (say, listener):
        result = checkup(Bench(say, listener), 0 if quick else pairs)
    if as_json:
        print_json(result)
    else:
        _show_checkup(result)


def _show_checkup(result: "Checkup") -> None:
    from trae_bench.metrics import metrics_for_host
    from trae_bench.report.text.listing import bullets, names
    from trae_bench.report.text.terminal import noise_table, quantity

    facts = {
        name: quantity(value, "B") if name.startswith("memory") else str(value)
        for name, value in result.machine.items()
    }
    cost = result.provider
    advice = [*map(str, result.findings), *result.advice] or ["no problem found"]
    click.echo("Machine:")
    click.echo(names(facts, terminal_width()))
    click.echo("\nFindings:")
    click.echo(bullets(advice, terminal_width()))
    click.echo(
        f"\nProvider: {cost.cpu_seconds * 1e6:.0f} µs of CPU time per request "
        f"({cost.requests} requests of {cost.body_bytes} bytes)"
    )
    if result.noise:
        metrics = metrics_for_host(pinned="cores_usable" in result.machine)
        table = noise_table(result.noise, metrics, width=terminal_width())
        click.echo(f"\nNoise of A/A pairs:\n{table}")
