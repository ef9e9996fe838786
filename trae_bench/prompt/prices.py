"""Prices of tokens by model. `run.price_file` reads them from a TOML file."""

import datetime
from fnmatch import fnmatchcase
from typing import Annotated

from msgspec import Meta, Struct

from trae_bench.model.sample import CacheUse

Dollars = Annotated[float, Meta(ge=0, le=1_000_000)]
"""US dollars for a million tokens."""
Pattern = Annotated[str, Meta(min_length=1, max_length=200)]
LOCAL = "ollama_chat"
"""The protocol whose models run on the user's machine, and cost nothing."""
_MILLION = 1_000_000


class Rates(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a million tokens cost (US dollars)."""

    input: Dollars
    """Tokens of the prompt that the cache neither gives nor gets."""
    cached_input: Dollars | None = None
    """Tokens from the cache. Default: as `input`."""
    cache_write: Dollars | None = None
    """Tokens that are written to the cache. Default: as `input`."""
    cache_write_1h: Dollars | None = None
    """Tokens that are written for one hour. Default: as `cache_write`."""
    output: Dollars
    """Tokens of the reply."""

    def cost(self, use: CacheUse, output: int) -> float:
        """Return the dollars for one request and its reply."""
        write = self.input if self.cache_write is None else self.cache_write
        write_1h = write if self.cache_write_1h is None else self.cache_write_1h
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = use.input - use.cached - use.written - use.written_1h
        dollars = (
            fresh * self.input
            + use.cached * cached
            + use.written * write
            + use.written_1h * write_1h
            + output * self.output
        )
        return dollars / _MILLION


class LongRates(Rates, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rates of a whole request whose prompt is long."""

    above: Annotated[int, Meta(gt=0)]
    """Tokens of a prompt. A longer one has these rates."""


class Price(Rates, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rates of some models."""

    models: Annotated[tuple[Pattern, ...], Meta(min_length=1, max_length=100)]
    """Names in lower case, with `*` and `?`. A folder before the name, as in
    `anthropic/claude-sonnet-5`, is ignored."""
    source: Annotated[str, Meta(min_length=1, max_length=500)]
    """Where the vendor states them."""
    long: LongRates | None = None

    def rates(self, size: int) -> Rates:
        """Return the rates of a request whose prompt has `size` tokens."""
        return self if self.long is None or size <= self.long.above else self.long


class PriceTable(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Content of a price file."""

    checked: datetime.date
    """When the prices were compared with their sources."""
    standard: dict[str, Pattern]
    """By protocol: the model whose prices a session gets if its own model has none here."""
    prices: Annotated[tuple[Price, ...], Meta(max_length=1000)]
    """The first one that matches counts."""

    def find(self, model: str) -> Price | None:
        """Return the price of a model."""
        name = model.lower().rpartition("/")[2]
        for price in self.prices:
            if any(fnmatchcase(name, pattern) for pattern in price.models):
                return price
        return None

    def model_for(self, protocol: str, model: str) -> str:
        """Return the model itself if it has a price, else the standard one of the protocol."""
        if protocol == LOCAL or self.find(model) is not None:
            return model
        return self.standard.get(protocol, model)
