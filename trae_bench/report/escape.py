"""Escapes strings from files for the place where they are shown.

Pass each string of a run file through the function named after that place. All functions first
apply `for_terminal`, then quote the result for their format.
"""

import html
import json
import re
import unicodedata

MAX_TEXT = 200
"""Maximum characters of one string; the rest is cut."""

# CI runners execute `::error::…` at the start of a line and `##[error]` anywhere in it. A line may
# be wrapped anywhere, so these marks are escaped wherever they are.
_COMMANDS = re.compile(r"(?<=:):|(?<=#)#")


def for_terminal(text: str, limit: int = MAX_TEXT) -> str:
    """One line of printable characters, at most `limit` long.

    Control characters (escape sequences, newlines, tabs), format characters (bidirectional marks,
    zero-width characters), lone surrogates, private and unassigned characters become escapes such
    as `\\x1b`. So does the second of two colons or hashes, because CI runners read commands there.
    """
    plain = "".join(char if _is_plain(char) else _escaped(char) for char in cut(text, limit))
    return _COMMANDS.sub(lambda found: _escaped(found[0]), plain)


def cut(text: str, limit: int) -> str:
    """Cuts a text to `limit` characters; a cut text ends in an ellipsis."""
    return text if len(text) <= limit else text[: max(0, limit - 1)] + "…"


def cut_middle(text: str, limit: int) -> str:
    """Cuts a text to `limit` characters in the middle: the ends of metric names tell them apart."""
    if len(text) <= limit:
        return text
    tail = max(0, (limit - 1) // 3)
    return text[: max(0, limit - 1 - tail)] + "…" + (text[-tail:] if tail else "")


def for_json(document: str) -> str:
    """A whole JSON document with unsafe characters as JSON escapes; its values do not change."""
    plain = "".join(char if char in "\n " or _is_plain(char) else _json(char) for char in document)
    return _COMMANDS.sub(lambda found: _json(found[0]), plain)


def for_html(text: str, limit: int = MAX_TEXT) -> str:
    """For the text of an element or a quoted attribute."""
    return html.escape(for_terminal(text, limit))


for_xml = for_html
"""XML needs nothing more: `for_terminal` escapes the characters that XML forbids."""


def for_markdown(text: str, limit: int = MAX_TEXT) -> str:
    """For a name: inline code, which GitHub does not scan for mentions (`@name`) and links.

    Also valid in a table cell. An empty text stays empty. GitHub links e-mail addresses in code
    too, and those behind `mailto:` and `xmpp:`. A zero-width space after the `@` prevents that.
    """
    plain = _ADDRESSES.sub(r"\g<0>&#8203;", _entities(text, limit))
    return f"<code>{plain}</code>" if plain else ""


def markdown_text(text: str, limit: int = MAX_TEXT) -> str:
    """For prose: characters with a meaning in Markdown or HTML become entities.

    GitHub decodes entities before it looks for mentions and issues (`@name`, `#1`, `GH-1`). A
    zero-width space in them prevents that.
    """
    return _MENTIONS.sub(r"\g<0>&#8203;", _entities(text, limit))


def _entities(text: str, limit: int) -> str:
    return _PUNCTUATION.sub(lambda found: f"&#{ord(found[0])};", for_terminal(text, limit))


# An underscore within a word, a point within a number and marks without a meaning in Markdown
# stay as they are.
_PUNCTUATION = re.compile(
    r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<![0-9])\.|\.(?![0-9])|[!-$&'*:-@\[-^`{-~]"
)
# An `@` starts the domain of an address if a dot follows. Variants of scenarios (`name@variant`)
# have none, and stay searchable.
_ADDRESSES = re.compile(r"&#64;(?=(?:[A-Za-z0-9-]|_|&#95;|&#45;)*(?:\.|&#46;))")
_MENTIONS = re.compile(r"&#(?:35|64);|\bGH(?=-[0-9])", re.IGNORECASE)


def for_workflow(text: str, limit: int = MAX_TEXT) -> str:
    """For the message of a GitHub Actions workflow command."""
    return for_terminal(text, limit).replace("%", "%25")


def for_workflow_property(text: str, limit: int = MAX_TEXT) -> str:
    """For a property of a workflow command, such as its title."""
    return for_workflow(text, limit).replace(":", "%3A").replace(",", "%2C")


def for_name(text: str, limit: int = MAX_TEXT) -> str:
    """For a name in another tool's file, safe wherever that tool shows it.

    Letters, digits, spaces and a few marks stay; other characters become `_`. A spreadsheet does
    not read the result as a formula. Two texts can get the same name.
    """
    plain = "".join(char if char.isalnum() or char in _IN_NAMES else "_" for char in text[:limit])
    return re.sub(r"^[^\w(/]", "_", plain.strip())


_IN_NAMES = frozenset(" ._-+/@,()")


def _is_plain(char: str) -> bool:
    return char == " " or unicodedata.category(char)[0] not in "CZ"


def _json(char: str) -> str:
    return json.dumps(char)[1:-1] if not char.isascii() else f"\\u{ord(char):04x}"


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
