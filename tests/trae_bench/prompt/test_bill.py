"""Costs, checked by hand."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.model.sample import CacheUse, TokenUse
from trae_bench.prompt.bill import Accounting, SessionMeter, total
from trae_bench.prompt.parts import Part, Prompt
from trae_bench.prompt.prices import LongRates, Price, PriceTable

LONG = LongRates(above=5000, input=20.0, output=100.0)
PRICE = Price(
    models=("claude-*",),
    input=10.0,
    cached_input=1.0,
    cache_write=12.5,
    cache_write_1h=20.0,
    output=50.0,
    source="made up",
    long=LONG,
)
PLAIN = Price(models=("gpt-?", "gpt-[67]*"), input=2.0, output=3.0, source="made up")
TABLE = PriceTable(
    checked=datetime.date(2026, 11, 29),
    standard={"anthropic_messages": "claude-x", "openai_chat": "gpt-7"},
    prices=(PRICE, PLAIN),
)


def test_each_kind_of_token_has_its_rate() -> None:
    used = CacheUse(input=1000, cached=400, written=200, written_1h=100)
    fresh = 300
    expected = fresh * 10.0 + 400 * 1.0 + 200 * 12.5 + 100 * 20.0 + 7 * 50.0
    assert PRICE.cost(used, 7) == pytest.approx(expected / 1e6)


def test_rates_that_are_left_out_are_those_of_the_input() -> None:
    used = CacheUse(input=1000, cached=400, written=200, written_1h=100)
    assert PLAIN.cost(used, 0) == pytest.approx(1000 * 2.0 / 1e6)


@pytest.mark.parametrize(("size", "rate"), [(5000, 10.0), (5001, 20.0)])
def test_a_long_prompt_has_other_rates(size: int, rate: float) -> None:
    assert PRICE.rates(size).input == rate


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 1000), st.integers(0, 5000))
def test_the_cache_never_makes_a_read_dearer(
    fresh: int, cached: int, more: int, output: int
) -> None:
    part = CacheUse(fresh + cached + more, cached)
    whole = CacheUse(fresh + cached + more, cached + more)
    assert PRICE.cost(whole, output) <= PRICE.cost(part, output)


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("claude-x", PRICE),
        ("anthropic/Claude-X", PRICE),
        ("gpt-7-mini", PLAIN),
        ("gpt-5.5", None),
        ("my-claude-x", None),
        ("", None),
    ],
)
def test_a_model_is_found_by_its_name(model: str, price: Price | None) -> None:
    assert TABLE.find(model) is price


def prompt(protocol: str, model: str, *texts: str) -> Prompt:
    return Prompt(protocol, model, tuple(Part("", text.encode(), "user") for text in texts))


def test_an_unknown_model_has_the_prices_of_the_standard_one() -> None:
    meter = SessionMeter(Accounting(TABLE))
    assert meter.add(0.0, prompt("openai_chat", "scripted", "x" * 400), 10).cost == pytest.approx(
        (100 * 2.0 + 10 * 3.0) / 1e6
    )
    # Gemini has no standard model in this table.
    assert meter.add(0.0, prompt("gemini", "scripted", "x" * 400), 10).cost is None


def test_the_user_can_name_the_model() -> None:
    meter = SessionMeter(Accounting(TABLE, model="claude-x"))
    found = meter.add(0.0, prompt("openai_chat", "gpt-7", "x" * 400), 0)
    assert found.cost == pytest.approx(100 * 10.0 / 1e6)


def test_a_local_model_costs_nothing() -> None:
    assert SessionMeter(Accounting(TABLE)).add(0.0, prompt("ollama_chat", "gpt-7", "x"), 1) == (
        TokenUse(1, output=1, cost=0.0, uncached_cost=0.0, model="gpt-7")
    )


def test_without_prices_nothing_has_a_cost() -> None:
    meter = SessionMeter(Accounting())
    assert meter.add(0.0, prompt("ollama_chat", "", "x"), 1).cost is None
    assert meter.add(0.0, prompt("openai_chat", "gpt-7", "x"), 1).cost is None


def test_each_model_has_its_own_cache() -> None:
    meter = SessionMeter(Accounting())
    first = prompt("openai_chat", "gpt-7", "x" * 8000)
    other = prompt("openai_chat", "gpt-8", "x" * 8000)
    cached = [meter.add(0.0, one, 0).cached for one in (first, other, first, other)]
    assert cached == [0, 0, 2000, 2000]


def test_a_sum_has_a_cost_if_each_request_has_one() -> None:
    one = TokenUse(10, 1, 2, 3, 4, output=5, cost=0.5, uncached_cost=2.0, model="a")
    both = TokenUse(20, 2, 4, 6, 8, output=10, cost=1.0, uncached_cost=4.0, model="a")
    assert total([one, one]) == both
    assert total([one, TokenUse(1, output=0, model="b")]).cost is None
    assert total([one, TokenUse(1, output=0, model="b")]).model == "a, b"
    assert total([]) == TokenUse(0, output=0, cost=0, uncached_cost=0)


def test_the_cost_without_a_cache_prices_all_input_alike() -> None:
    meter = SessionMeter(Accounting(TABLE))
    for _ in range(2):
        # No breakpoint: nothing is written, nothing is read.
        found = meter.add(0.0, prompt("anthropic_messages", "", "x" * 8000), 0)
    assert found.cost == found.uncached_cost == pytest.approx(2000 * 10.0 / 1e6)
