"""Secrets stay out, and nothing else changes."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent_core.encoding import encode_json
from agent_core.redaction import REPLACEMENT, Redactor
from tests.agent_core.histories import VALUES

SECRETS = st.lists(st.text(min_size=8, max_size=12), min_size=1, max_size=3)


@given(secrets=SECRETS, value=VALUES, data=st.data())
def test_no_secret_is_left_and_none_is_overlooked(
    secrets: list[str], value: Any, data: st.DataObject
) -> None:
    redactor = Redactor(secrets)
    planted = {"deep": [data.draw(st.sampled_from(secrets)) + " and more", value]}
    encoded = encode_json(planted)
    assert redactor.touches(encoded)
    assert not Redactor(secrets).touches(encode_json(redactor.tree(planted))) or any(
        secret in REPLACEMENT for secret in secrets
    )


@given(value=VALUES)
def test_what_holds_no_secret_is_left_alone(value: Any) -> None:
    redactor = Redactor(["a secret that nobody draws"])
    assert redactor.tree(value) == value
    assert msgspec.json.decode(encode_json(redactor.tree(value))) == msgspec.json.decode(
        encode_json(value)
    )


def test_the_longer_of_two_secrets_goes_first() -> None:
    redactor = Redactor(["abcdefgh", "abcdefgh-ijk"])
    assert redactor.text("x abcdefgh-ijk abcdefgh") == f"x {REPLACEMENT} {REPLACEMENT}"


def test_a_secret_is_known_without_its_newline_too() -> None:
    redactor = Redactor(["abcdefgh\n", " \r\n"])
    assert redactor.text(f"{b'Bearer abcdefgh' + bytes([10])!r}") == f"b'Bearer {REPLACEMENT}\\n'"


def test_short_words_are_no_secrets() -> None:
    assert Redactor(["test", ""]).text("a test") == "a test"


def test_the_environments_secrets() -> None:
    environ = {
        "OPENAI_API_KEY": "sk-0123456789",
        "GITHUB_TOKEN": "gh-0123456789",
        "HOME": "/home/somebody",
        "TOKENIZERS_PARALLELISM": "false-or-so",
    }
    redactor = Redactor.of_environment(environ, extra=["from-the-file"])
    text = " ".join([*environ.values(), "from-the-file"])
    assert (
        redactor.text(text)
        == f"{REPLACEMENT} {REPLACEMENT} /home/somebody false-or-so {REPLACEMENT}"
    )
    assert "0123456789" not in repr(redactor)
