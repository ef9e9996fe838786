"""A bill as a table for a terminal."""

from collections.abc import Iterator

from trae_bench.model.sample import TokenUse
from trae_bench.report.escape import for_terminal
from trae_bench.report.text.listing import fill
from trae_bench.report.text.terminal import lay_out
from trae_bench.run.bill import AgentBill, Bill

_HEAD = ("input", "from cache", "at best", "output", "cost", "uncached")
_MAX_NAME = 24


def bill_lines(bill: Bill, width: int, *, each_request: bool = False) -> Iterator[str]:
    """Yield the table of a bill and its notes; with `each_request`, a table per agent before it."""
    if each_request:
        for one in bill.agents:
            yield f"{for_terminal(one.agent, _MAX_NAME)}, request by request:"
            numbered = enumerate(one.requests, 1)
            rows = [(str(number), *_cells(use)) for number, use in numbered]
            yield from lay_out([("request", *_HEAD), *rows], width)
            yield ""
    name = for_terminal(bill.scenario, 80)
    yield f"Tokens and cost of {name}, one session (US dollars):"
    rows = [
        (str(len(one.requests)), *_cells(one.total), for_terminal(one.agent, _MAX_NAME))
        for one in bill.agents
    ]
    yield from lay_out([("requests", *_HEAD, "agent"), *rows], width)
    yield ""
    for note in _notes(bill):
        yield fill(note, width, "", "  ")


def _cells(use: TokenUse) -> tuple[str, ...]:
    return (
        str(use.input),
        _share(use.cached, use.input),
        _share(use.cacheable, use.input),
        str(use.output),
        dollars(use.cost),
        dollars(use.uncached_cost),
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def dollars(value: float | None) -> str:
    """An amount with four decimals, or more for a small one; `?` if it is unknown."""
    if value is None:
        return "?"
    return f"{value:.4f}" if value >= 0.01 or value == 0 else f"{value:.2g}"


def _notes(bill: Bill) -> Iterator[str]:
    for one in bill.agents:
        yield _how(one)
    yield (
        f"Prices of {bill.checked}, from {for_terminal(bill.prices, 200)}. from cache: input that "
        "the provider reads from its prompt cache. at best: input that an earlier request began "
        "with. uncached: the cost without a cache."
    )


def _how(bill: AgentBill) -> str:
    name = for_terminal(bill.agent, _MAX_NAME)
    models = for_terminal(bill.total.model, 100) or "no model"
    text = f"{name} speaks {bill.protocol}; counted as {models}; {bill.counted}."
    if bill.total.cost is None:
        text += " It has no price: copy the file of prices, add it, and give --prices."
    return text
