"""What a scenario's session costs with each of some agents."""

from collections.abc import Callable, Mapping

from msgspec import Struct

from trae_bench.errors import CannotMeasure
from trae_bench.model.sample import TokenUse
from trae_bench.prompt import Accounting
from trae_bench.prompt.bill import total
from trae_bench.provider.loopback import Loopback
from trae_bench.run.agent_check import Listener, play
from trae_bench.run.agents import built
from trae_bench.run.price_file import PriceFile
from trae_bench.run.scratch import scratch_folder
from trae_bench.scenario import Scenario
from trae_bench.subject.agents.catalog import FoundAgent
from trae_bench.subject.agents.contact import introduced
from trae_bench.subject.agents.refusing_proxy import refusing_proxy


class AgentBill(Struct, frozen=True):
    """The bill of one session of an agent."""

    agent: str
    protocol: str
    counted: str
    """How its tokens are counted."""
    total: TokenUse
    requests: tuple[TokenUse, ...]


class Bill(Struct, frozen=True):
    """The bills of some agents for the same session."""

    scenario: str
    prices: str
    """File of the prices."""
    checked: str
    """Date of the prices."""
    agents: tuple[AgentBill, ...]


def bill(
    scenario: Scenario,
    agents: Mapping[str, FoundAgent],
    prices: PriceFile,
    model: str,
    say: Callable[[str], None],
) -> Bill:
    """Let each agent play the scenario once and count its tokens.

    `model` is the model whose rules and prices count; empty for the one that each agent names.
    Raises `CannotMeasure` if an agent cannot play it or fails.
    """
    accounting = Accounting(prices.table, exact=True, model=model)
    with scratch_folder() as scratch, Loopback(accounting=accounting) as provider:
        ready = [
            introduced(built(one, name, say), scratch, provider, say)
            for name, one in agents.items()
        ]
        bills = []
        for agent in ready:
            listener = Listener(provider)
            with refusing_proxy() as proxy:
                sample = play(agent, scratch, listener, proxy.url, scenario)
            if not sample.correct:
                raise CannotMeasure(f"agent {agent.name}: {sample.problem or sample.status}")
            if not (requests := listener.log.tokens):
                raise CannotMeasure(f"agent {agent.name}: its prompts are too large to be counted")
            protocol = agent.interface.protocol
            counted = accounting.counter(protocol).method
            bills.append(AgentBill(agent.name, protocol, counted, total(requests), requests))
    date = prices.table.checked.isoformat()
    return Bill(scenario.name, prices.source, date, tuple(bills))
