"""Finds keys in texts that are stored or printed."""

import os
import re
from collections.abc import Iterator, Mapping

PLACEHOLDER = "{api_key}"
"""What replaces a key in a command line."""
_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")
_MIN_LENGTH = 8
"""Characters of a variable's value that can be a key."""
_MIN_IN_COMMAND = 12
"""The same in a command line, where shorter ones, such as `postgres`, are often words."""
_KEY = re.compile(r"(?<![\w-])(?:sk-|gsk_|xai-|AIza|hf_|ghp_|github_pat_)(?=[\w-]*\d)[\w-]{16,}")
"""Keys by the prefixes of providers and forges."""


def keys_of(env: Mapping[str, str]) -> Iterator[str]:
    """Yield the values of variables that hold keys."""
    for name, value in env.items():
        if _VARIABLE.search(name.upper()) and len(value) >= _MIN_LENGTH:
            yield value


def without_keys(text: str) -> str:
    """Replace keys in a text: those of the environment, and what looks like one."""
    known = (key for key in keys_of(os.environ) if not key.startswith("/"))
    for key in sorted(known, key=len, reverse=True):
        if len(key) >= _MIN_IN_COMMAND:
            text = text.replace(key, PLACEHOLDER)
    return _KEY.sub(PLACEHOLDER, text)
