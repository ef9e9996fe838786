"""Tool names as models write them, and as providers accept them."""

import re
from collections.abc import Iterable

_DECORATION = r"(?s)(?<=\w)(?:<\|.*|:\d+|\(\))$|\s+"
"""What models append to a name: `bash<|channel|>commentary`, `bash:0`, `bash()`."""

_FOREIGN = r"[^a-zA-Z0-9_-]"
"""Characters that OpenAI and Anthropic refuse in a name."""
_MAX_LENGTH = 64


def plain_name(name: str) -> str:
    """A tool's name without case and underscores, which models often get wrong."""
    return name.lower().replace("_", "")


def plain_forms(name: str) -> tuple[str, str]:
    """The plain name without decoration, and the same without a prefix such as `functions.`."""
    bare = re.sub(_DECORATION, "", name)
    return plain_name(bare), plain_name(re.split(r"[.:/]|__", bare)[-1])


def is_accepted(name: str) -> bool:
    """Whether every provider takes `name` in a history."""
    return bool(name) and not re.search(_FOREIGN, name)


def accepted_name(name: str, known: Iterable[str]) -> str:
    """`name` for a history that a provider reads, which refuses `functions.bash`.

    A name that it would refuse becomes the one of `known` that it means, if any.
    """
    if is_accepted(name):
        return name
    table = {plain_name(tool): tool for tool in known}
    for form in plain_forms(name):
        if form in table:
            return table[form]
    return re.sub(_FOREIGN, "_", name)[:_MAX_LENGTH] or "unknown"
