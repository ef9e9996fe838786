"""Tokens and cost of a session, request by request."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from trae_bench.model.sample import CacheUse, TokenUse
from trae_bench.prompt.cache_rules import PromptCache
from trae_bench.prompt.parts import Prompt
from trae_bench.prompt.prices import LOCAL, PriceTable, Rates
from trae_bench.prompt.tokens import ESTIMATE, TokenCounter, exact_counter

_OPENAI = ("openai_chat", "openai_responses")
_FREE = Rates(input=0.0, output=0.0)


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
        rates = self._rates(protocol, model, used.input)
        return TokenUse(
            **asdict(used),
            output=output,
            cost=None if rates is None else rates.cost(used, output),
            uncached_cost=None if rates is None else rates.cost(CacheUse(used.input), output),
            model=model,
        )

    def _rates(self, protocol: str, model: str, size: int) -> Rates | None:
        prices = self._accounting.prices
        if prices is None:
            return None
        if protocol == LOCAL:
            return _FREE
        price = prices.find(model)
        return None if price is None else price.rates(size)


def total(uses: Iterable[TokenUse]) -> TokenUse:
    """Return the sums over requests. A cost is None if that of one request is."""
    uses = tuple(uses)
    columns = {name: [getattr(use, name) for use in uses] for name in TokenUse.__struct_fields__}
    models = dict.fromkeys(columns.pop("model"))
    sums: dict[str, Any] = {
        name: None if None in column else sum(column) for name, column in columns.items()
    }
    return TokenUse(**sums, model=", ".join(models))
