"""The command `trae-bench bill`."""

from pathlib import Path

import click

from trae_bench.cli.common import FILE, print_json, terminal_width
from trae_bench.cli.completion import complete_agent, complete_scenario
from trae_bench.errors import UsageError


@click.command()
@click.argument("scenario", shell_complete=complete_scenario)
@click.option(
    "--agent",
    "agents",
    multiple=True,
    metavar="AGENT",
    shell_complete=complete_agent,
    help="An agent, as for `trae-bench run`. Can be repeated. The default is agent-core.",
)
@click.option(
    "--model",
    default="",
    metavar="NAME",
    help="Count as this model. The default is the one that the agent names.",
)
@click.option("--prices", type=FILE, help="File of prices. The default is the one that ships.")
@click.option("--requests", "each_request", is_flag=True, help="Print each request.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bill(
    scenario: str,
    agents: tuple[str, ...],
    model: str,
    prices: Path | None,
    each_request: bool,
    as_json: bool,
) -> None:
    """Count the tokens of a session and what a provider would charge.

    Each agent plays the scenario once against the scripted provider. Its prompts are
    counted by the rules of its provider's prompt cache, and priced by a table of list
    prices. Tokens are estimated from bytes; with the extra `tokens` and its encoding
    in tiktoken's cache, those of OpenAI's protocols are exact.

    \b
    Examples:
      trae-bench bill bugfix
      trae-bench bill bugfix --agent mini-swe-agent --agent openai-agents
      trae-bench bill trajectory-long --model gpt-6-astra --requests
      trae-bench bill bugfix --prices my-prices.toml --json
    """
    from trae_bench._util.keys import without_keys
    from trae_bench.report.text.bill import bill_lines
    from trae_bench.run import bill as billing
    from trae_bench.run.planner import scenario_of
    from trae_bench.run.price_file import for_run
    from trae_bench.run.settings import find_agents_here, load
    from trae_bench.scenario.diagnostics import suggestion
    from trae_bench.subject.command import unplayable

    played = scenario_of(scenario)
    if played.load.sessions > 1:
        raise UsageError(f"{scenario} runs several sessions, and a bill is of one; name another")
    found = find_agents_here([without_keys(text) for text in agents or ("agent-core",)])
    for name, agent in found.items():
        if reason := unplayable(played, name, agent.entry):
            raise UsageError(f"{reason}; name another scenario")
    table = for_run(str(prices or load(Path.cwd()).prices or ""), None)
    if model and table.table.find(model) is None:
        known = [name for price in table.table.prices for name in price.models]
        raise UsageError(
            f"{table.source}: no price for the model {model!r}; add one to a copy of the file and "
            f"give it with --prices{suggestion(model, known)}"
        )
    made = billing.bill(played, found, table, model, lambda text: click.echo(text, err=True))
    if as_json:
        print_json(made)
        return
    for line in bill_lines(made, terminal_width(), each_request=each_request):
        click.echo(line)
