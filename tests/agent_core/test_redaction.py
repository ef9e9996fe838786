"""Secrets are removed, and nothing else changes."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent_core.encoding import encode_json
from agent_core.redaction import REPLACEMENT, Redactor
from tests.agent_core.histories import VALUES

SECRETS = st.lists(st.text(min_size=8, max_size=12), min_size=1, max_size=3)


@given(secrets=SECRETS, value=VALUES, data=st.data())
def test_every_secret_is_redacted(secrets: list[str], value: Any, data: st.DataObject) -> None:
    redactor = Redactor(secrets)
    planted = {"deep": [data.draw(st.sampled_from(secrets)) + " and more", value]}
    encoded = encode_json(planted)
    assert redactor.touches(encoded)
    assert not Redactor(secrets).touches(encode_json(redactor.tree(planted))) or any(
        secret in REPLACEMENT for secret in secrets
    )


@given(value=VALUES)
def test_text_without_secrets_is_unchanged(value: Any) -> None:
    redactor = Redactor(["a secret that is never drawn"])
    assert redactor.tree(value) == value
    assert msgspec.json.decode(encode_json(redactor.tree(value))) == msgspec.json.decode(
        encode_json(value)
    )


def test_longer_secret_is_replaced_first() -> None:
    redactor = Redactor(["abcdefgh", "abcdefgh-ijk"])
    assert redactor.text("x abcdefgh-ijk abcdefgh") == f"x {REPLACEMENT} {REPLACEMENT}"


def test_secret_is_recognised_without_its_newline() -> None:
    redactor = Redactor(["abcdefgh\n", " \r\n"])
    assert redactor.text(f"{b'Bearer abcdefgh' + bytes([10])!r}") == f"b'Bearer {REPLACEMENT}\\n'"


def test_short_values_are_not_secrets() -> None:
    assert Redactor(["test", ""]).text("a test") == "a test"


def test_secrets_of_the_environment() -> None:
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
