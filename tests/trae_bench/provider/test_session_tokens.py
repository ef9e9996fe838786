"""Tokens in the log of a session: each request with the turn that answered it."""

import datetime
import json
import sys
from typing import Any

import httpx
import pytest

from trae_bench.model.sample import TokenUse
from trae_bench.prompt import Accounting
from trae_bench.prompt.prices import Price, PriceTable
from trae_bench.prompt.tokens import estimated
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.registration import _prompts
from trae_bench.provider.script import PlayedCall, PlayedTurn, Script
from trae_bench.provider.sent_bodies import SentBodies
from trae_bench.scenario import Fault, Protocol, ProviderConditions

PRICE = Price(models=("gpt-7",), input=8.0, cached_input=1.0, output=4.0, source="made up")
TABLE = PriceTable(
    checked=datetime.date(2026, 11, 29), standard={"openai_chat": "gpt-7"}, prices=(PRICE,)
)
TURNS = (
    PlayedTurn("first" * 8, (PlayedCall("1", "bash", {"command": "true"}),)),
    PlayedTurn("x" * 400),
)
SYSTEM = {"role": "system", "content": "s" * 9000}
TASK = {"role": "user", "content": "task"}
MORE = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]


def ask(url: str, *messages: dict[str, Any]) -> int:
    body = {"model": "scripted", "messages": messages}
    return httpx.post(f"{url}/chat/completions", json=body).status_code


def tokens_of(script: Script, *sent: list[dict[str, Any]]) -> tuple[TokenUse, ...]:
    with Loopback(accounting=Accounting(TABLE)) as provider:
        url = provider.register("one", script)
        for messages in sent:
            try:
                ask(url, *messages)
            except httpx.RemoteProtocolError:
                assert script.conditions.faults
        return provider.collect("one").tokens


@pytest.mark.parametrize("protocol", ["openai_chat", "anthropic_messages"])
def test_no_depth_of_a_prompt_breaks_the_log(protocol: Protocol) -> None:
    """Near the limit of recursion, a prompt can be read but not compared."""
    path = b"/s/one/chat/completions" if protocol == "openai_chat" else b"/s/one/v1/messages"
    for depth in range(sys.getrecursionlimit() - 200, sys.getrecursionlimit()):
        bodies = SentBodies()
        for number in (b"1", b"2"):
            nested = b"[" * depth + number + b"]" * depth
            body = b'{"model":"m","messages":[{"role":"assistant","content":%b}]}' % nested
            bodies.add(1.0, path, 1, body)
        entries, rest = bodies.account()
        account = {"bodies": entries, "output_tokens": [1]}
        logs, tokens = _prompts(account, rest, Accounting(TABLE))
        assert len(logs) == len(tokens)
        assert len(logs) in (0, 2)


def size(*messages: dict[str, Any]) -> int:
    """Tokens of messages: each counts as its JSON with sorted keys."""
    texts = (json.dumps(one, sort_keys=True, separators=(",", ":")) for one in messages)
    return sum(estimated(len(text)) for text in texts)


def test_each_request_has_its_tokens_and_cost() -> None:
    first, second = tokens_of(Script(TURNS), [SYSTEM, TASK], [SYSTEM, TASK, *MORE])
    prefix = size(SYSTEM, TASK)
    called = estimated(len("bash")) + estimated(len('{"command":"true"}'))
    assert (first.input, first.cached, first.written) == (prefix, 0, prefix)
    assert first.output == estimated(40) + called
    assert second.input == prefix + size(*MORE)
    assert (second.cached, second.written) == (prefix, size(*MORE))
    assert second.output == 100
    assert second.model == "gpt-7"
    # Writing has the price of the input here.
    expected = second.written * 8.0 + second.cached * 1.0 + 100 * 4.0
    assert second.cost == pytest.approx(expected / 1e6)


def test_the_cost_without_prices_is_unknown() -> None:
    with Loopback() as provider:
        ask(provider.register("one", Script(TURNS)), TASK)
        (found,) = provider.collect("one").tokens
    assert (found.cost, found.model) == (None, "scripted")


def test_a_repeated_request_after_an_incomplete_reply_has_the_same_turn() -> None:
    conditions = ProviderConditions(faults=(Fault(request=1, kind="cut"),))
    cut, again = tokens_of(Script(TURNS, conditions), [TASK], [TASK])
    assert cut.output == 0
    assert again.output == estimated(40) + 1 + 5
