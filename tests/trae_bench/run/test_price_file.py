"""The file of prices that ships, and errors in those of users."""

import re
from pathlib import Path
from typing import get_args

import pytest

from trae_bench.errors import UsageError
from trae_bench.prompt.prices import LOCAL
from trae_bench.run.price_file import load, parse
from trae_bench.scenario import Protocol

HEAD = 'checked = 2026-01-02\nstandard = {}\n[[prices]]\nmodels = ["a-*"]\nsource = "s"\n'
RATES = "input = 1.0\noutput = 2.0\n"


def shipped_models() -> list[str]:
    """A model of each pattern: `*` stands for nothing, `[678]` for its first letter."""
    names = (pattern for price in load().table.prices for pattern in price.models)
    return [re.sub(r"\[(.)[^]]*\]", r"\1", name).replace("*", "") for name in names]


def test_no_price_that_ships_hides_another() -> None:
    table = load().table
    patterns = [(price, pattern) for price in table.prices for pattern in price.models]
    found = [table.find(model) for model in shipped_models()]
    assert found == [price for price, _ in patterns]


def test_the_prices_that_ship_are_plausible() -> None:
    table = load().table
    for price in table.prices:
        for rates in (price, price.long) if price.long else (price,):
            cached = rates.cached_input
            assert cached is not None
            assert 0 < cached < rates.input < rates.output
            # A vendor that bills writes asks 1.25 times the input, and twice for an hour.
            if rates.cache_write is not None:
                assert rates.cache_write == pytest.approx(1.25 * rates.input)
            if rates.cache_write_1h is not None:
                assert rates.cache_write_1h == pytest.approx(2 * rates.input)


def test_every_protocol_has_a_standard_model() -> None:
    assert {*load().table.standard, LOCAL} == set(get_args(Protocol))


def test_a_file_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(HEAD + RATES)
    found = load(path)
    assert found.source == str(path)
    assert found.label.startswith("2026-01-02 ")
    assert found.label != load().label


@pytest.mark.parametrize(
    ("text", "line", "place", "remedy"),
    [
        (RATES.replace("1.0", "-1.0"), 6, "prices[0].input", ">= 0"),
        ("output = 2.0\n", 3, "prices[0]", "add `input = ...`"),
        (RATES + "cached = 0.1\n", 8, "prices[0].cached", "did you mean cached_input"),
        (RATES + "long = { input = 1, output = 1 }\n", 8, "prices[0].long", "add `above = ...`"),
    ],
)
def test_errors_name_the_line_and_the_remedy(text: str, line: int, place: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(HEAD + text, "own.toml")
    message = str(caught.value)
    assert message.startswith(f"own.toml:{line}: {place}: ")
    assert remedy in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("2026-01-02", '"2026"', "checked: expected a date without quotes, such as 2026-11-29"),
        ("{}", '{ openai = "a-1" }', "no protocol; did you mean openai_chat"),
        ("{}", '{ gemini = "b" }', "'b' has no price; add a [[prices]] table with this model"),
        ('"a-*"', '"A-*"', "'A-*' never matches; write it in lower case"),
        ('["a-*"]', "[]", "prices[0].models: expected `array` of length >= 1"),
        ('["a-*"]', '["a-*"', "expected `,` or the closing `]` of an array"),
    ],
)
def test_contradictions_are_found(old: str, new: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(HEAD.replace(old, new) + RATES, "own.toml")
    assert expected in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file or directory; check its path"):
        load(tmp_path / "none.toml")
