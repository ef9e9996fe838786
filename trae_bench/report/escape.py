"""Strings from files, made harmless for the place where they are shown.

Whoever shows a string of a run file sends it through the function named after the place. All
of them begin with `for_terminal`: what is harmless there only has to be quoted elsewhere.
"""

import html
import json
import re
import unicodedata

LONGEST = 200
"""Characters of one string that are shown."""

# `::error::…` at the start of a line, and `##[error]` anywhere in it, are commands to the
# runners of CI services; a line may be wrapped anywhere, so the marks go wherever they are.
_COMMANDS = re.compile(r"(?<=:):|(?<=#)#")


def for_terminal(text: str, longest: int = LONGEST) -> str:
    """One line without anything that a terminal would act on or that would hide other text.

    Control characters (escape sequences, newlines, tabs), format characters (bidirectional
    marks, zero-width ones), lone surrogates, private and unassigned ones become `\\x1b`-like
    escapes; so does the second of two colons or hashes, which a CI runner would act on. A
    long string is cut.
    """
    plain = "".join(char if _is_plain(char) else _escaped(char) for char in cut(text, longest))
    return _COMMANDS.sub(lambda found: _escaped(found[0]), plain)


def cut(text: str, longest: int) -> str:
    """What is too long ends in an ellipsis."""
    return text if len(text) <= longest else text[: max(0, longest - 1)] + "…"


def for_json(document: str) -> str:
    """A whole JSON document, its texts unchanged, that can be printed where the others can."""
    plain = "".join(char if char in "\n " or _is_plain(char) else _json(char) for char in document)
    return _COMMANDS.sub(lambda found: _json(found[0]), plain)


def for_html(text: str, longest: int = LONGEST) -> str:
    """For the text of an element, or an attribute in quotes."""
    return html.escape(for_terminal(text, longest))


for_xml = for_html
"""The same: characters that XML cannot hold are escapes by now."""


def for_markdown(text: str, longest: int = LONGEST) -> str:
    """As inline code, also in a table's cell: there nobody is mentioned (`@name`) and nothing
    is linked. An empty text stays empty."""
    plain = _entities(text, longest)
    return f"<code>{plain}</code>" if plain else ""


def markdown_text(text: str, longest: int = LONGEST) -> str:
    """For text without names in it: what Markdown or HTML could act on is an entity.

    GitHub looks for people and issues (`@name`, `#1`, `GH-1`) when entities are characters again,
    so something of no width stands in these.
    """
    return _MENTIONS.sub(r"\g<0>&#8203;", _entities(text, longest))


def _entities(text: str, longest: int) -> str:
    return _PUNCTUATION.sub(lambda found: f"&#{ord(found[0])};", for_terminal(text, longest))


# Left as they are: an underscore within a word, a point within a number, and marks that mean
# nothing to Markdown within a line.
_PUNCTUATION = re.compile(
    r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<![0-9])\.|\.(?![0-9])|[!-$&'*:-@\[-^`{-~]"
)
_MENTIONS = re.compile(r"&#(?:35|64);|\bGH(?=-[0-9])", re.IGNORECASE)


def for_workflow(text: str, longest: int = LONGEST) -> str:
    """For the message of a workflow command of GitHub Actions."""
    return for_terminal(text, longest).replace("%", "%25")


def for_workflow_property(text: str, longest: int = LONGEST) -> str:
    """For a property of a workflow command, such as its title."""
    return for_workflow(text, longest).replace(":", "%3A").replace(",", "%2C")


def for_name(text: str, longest: int = LONGEST) -> str:
    """As part of a name in another tool's file, which will show it who knows where.

    Letters, digits, spaces and a few marks stay, all else becomes `_`; a spreadsheet does not
    take the result for a formula. Two texts can get the same name.
    """
    plain = "".join(char if char.isalnum() or char in _IN_NAMES else "_" for char in text[:longest])
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
