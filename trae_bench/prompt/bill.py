"""Tokens and cost of a session, request by request."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from trae_bench.model.sample import TokenUse
from trae_bench.prompt.cache_rules import PromptCache
from trae_bench.prompt.parts import Prompt
from trae_bench.prompt.prices import LOCAL, PriceTable
from trae_bench.prompt.tokens import ESTIMATE, TokenCounter, exact_counter

_OPENAI = ("openai_chat", "openai_responses")


class Accounting(Struct, frozen=True):
    """How tokens are counted and priced."""

    prices: PriceTable | None = None
    """Without prices, nothing has a cost."""
    exact: bool = False
    """Count the tokens of OpenAI's models exactly, where that is possible."""
    model: str = ""
    """The model whose rules and prices count; by default the one that the request names."""

    def counter(self, protocol: str) -> TokenCounter:
        """Return how the tokens of a protocol are counted."""
        exact = exact_counter() if self.exact and protocol in _OPENAI else None
        return exact or ESTIMATE

    def model_for(self, protocol: str, named: str) -> str:
        """Return the model whose rules and prices count for a request."""
        if self.model or self.prices is None:
            return self.model or named
        return self.prices.model_for(protocol, named)


class SessionMeter:
    """Counts the tokens of one session's requests, in order of arrival."""

    def __init__(self, accounting: Accounting) -> None:
        self._accounting = accounting
        self._caches: dict[tuple[str, str], PromptCache] = {}
        """A cache belongs to one model."""

    def add(self, arrived: float, prompt: Prompt, output: int) -> TokenUse:
        """Return the tokens of a request. Its reply has `output` tokens."""
        protocol, named = prompt.protocol, prompt.model
        model = self._accounting.model_for(protocol, named)
        if (protocol, named) not in self._caches:
            counter = self._accounting.counter(protocol)
            self._caches[protocol, named] = PromptCache(protocol, model, counter)
        used = self._caches[protocol, named].add(arrived, prompt.parts)
        prices = self._accounting.prices
        price = None if prices is None or protocol == LOCAL else prices.find(model)
        if price is not None:
            return price.use(used, output)
        free = prices is not None and protocol == LOCAL
        return TokenUse(**asdict(used), output=output, cost=0.0 if free else None)


def total(uses: Iterable[TokenUse]) -> TokenUse:
    """Return the sums over requests. The cost is None if that of one request is."""
    uses = tuple(uses)
    names = [name for name in TokenUse.__struct_fields__ if name != "cost"]
    sums: dict[str, Any] = {name: sum(getattr(use, name) for use in uses) for name in names}
    costs = [use.cost for use in uses if use.cost is not None]
    return TokenUse(**sums, cost=sum(costs) if len(costs) == len(uses) else None)
