"""Tokens of prompts and replies: an estimate from bytes, and exact counts for OpenAI.

The estimate needs no package and gives the same count on every machine, so the metrics use it.
`trae-bench bill` counts exactly where the extra `tokens` and its encoding are installed.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msgspec import Struct

from trae_bench.prompt.parts import Part

BYTES_PER_TOKEN = 4
"""Bytes of JSON that count as one token.

OpenAI and Google state four characters of English a token (help.openai.com, "What are tokens";
ai.google.dev/gemini-api/docs/tokens; read 2026-11-29). Compared with `o200k_base` by the rule of
`exact_counter`, the estimate is 1 % below to 28 % above for 25 prompts of agent_core (7 to 97 KB,
five protocols), and 12 % below to 11 % above for Python, Markdown and TOML as results of tools
(results/studies/token-estimate.json). Claude models from 4.7 on count about 30 % more tokens for
the same text (platform.claude.com/docs/en/build-with-claude/token-counting).
"""
_MESSAGE_TOKENS = 3
"""Tokens around each message, by OpenAI's cookbook ("How to count tokens with tiktoken")."""
_ENCODING = "o200k_base"
"""The encoding of GPT-4o and later models."""
_URL = f"https://openaipublic.blob.core.windows.net/encodings/{_ENCODING}.tiktoken"
_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
_CACHE_FOLDERS = ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR")
"""Variables that name tiktoken's cache folder, in its order."""


class TokenCounter(Struct, frozen=True):
    """Counts tokens in one way."""

    method: str
    """How it counts, for a reader."""
    of_part: Callable[[Part], int]
    of_text: Callable[[str], int]


def estimated(size: int) -> int:
    """Return the tokens of so many bytes: `size / BYTES_PER_TOKEN`, rounded up."""
    return -(-size // BYTES_PER_TOKEN)


ESTIMATE = TokenCounter(
    method=f"estimate, {BYTES_PER_TOKEN} bytes a token",
    of_part=lambda part: estimated(len(part.text)),
    of_text=lambda text: estimated(len(text.encode(errors="replace"))),
)


@cache
def exact_counter() -> TokenCounter | None:
    """Return the counter for OpenAI models. None without tiktoken or its cached encoding.

    A tool counts as its JSON; a message as the values in its JSON, and three tokens more. What
    OpenAI adds to a prompt on its side is not counted. tiktoken downloads an encoding that its
    cache folder lacks. This function never does.
    """
    if find_spec("tiktoken") is None or not _is_cached():
        return None
    import tiktoken

    encode = tiktoken.get_encoding(_ENCODING).encode_ordinary

    @cache
    def of_text(text: str) -> int:
        return len(encode(text))

    def of_part(part: Part) -> int:
        text = part.text.decode()
        if not part.role:
            return of_text(text)
        return _MESSAGE_TOKENS + sum(map(of_text, _values(json.loads(text))))

    return TokenCounter(f"exact, {_ENCODING}", of_part, of_text)


def _is_cached() -> bool:
    """Whether tiktoken finds the encoding in its cache, and accepts it."""
    named = (os.environ[name] for name in _CACHE_FOLDERS if name in os.environ)
    folder = next(named, str(Path(tempfile.gettempdir()) / "data-gym-cache"))
    # An empty name switches tiktoken's cache off.
    if not folder:
        return False
    name = hashlib.sha1(_URL.encode(), usedforsecurity=False).hexdigest()
    try:
        data = Path(folder, name).read_bytes()
    except OSError:
        return False
    return hashlib.sha256(data).hexdigest() == _SHA256


def _values(value: Any) -> Iterator[str]:
    """Yield the texts and numbers in a JSON value, without the names of fields."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _values(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
