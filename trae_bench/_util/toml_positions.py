"""Finds the line of each value in a TOML text. `tomllib` returns the values only.

The text must be valid TOML. For other texts the lines are wrong, but the scan still ends.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress

TomlPath = tuple[str | int, ...]
"""Keys and array indices from the root: `("turns", 3, "calls", 0, "tool")`."""

_TOKEN = re.compile(
    r"(?P<blank>[ \t\r]+|#[^\n]*)"
    r'|"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|[A-Za-z0-9_-]+"
    r"|.",
    re.DOTALL,
)
_END = ""
"""The token after the last one. A text has no empty token."""

Places = Mapping[TomlPath, int]
"""Line number of each value, counted from 1."""


def places(text: str) -> Places:
    """Return the line of each value. The root is on line 1. Empty for an empty text."""
    if not text:
        return {}
    scanner = _Scanner(text)
    # Brackets may be nested too deeply for the stack. The lines found so far are enough.
    with suppress(RecursionError):
        scanner.run()
    return {(): 1} | scanner.places


def line_in(known: Places, path: TomlPath) -> int:
    """Return the line of the value at `path`, or of the nearest enclosing table."""
    while path and path not in known:
        path = path[:-1]
    return known.get(path, 1)


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Each token and its line."""
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "blank":
            yield match[0], line
        line += match[0].count("\n")
    yield _END, line


class _Scanner:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._token, self._line = next(self._tokens)
        self.places: dict[TomlPath, int] = {}
        self._lengths: Counter[TomlPath] = Counter()
        """Number of tables seen in each array of tables."""

    def run(self) -> None:
        table: TomlPath = ()
        while self._token != _END:
            line = self._line
            if self._skip("\n"):
                continue
            if self._skip("["):
                table = self._header(line, in_array=self._skip("["))
            else:
                self._pair(table)
            self._skip_until("\n")

    def _skip(self, *tokens: str) -> bool:
        """Skip the next token if it is one of these."""
        found = self._token in tokens
        if found:
            self._token, self._line = next(self._tokens, (_END, self._line))
        return found

    def _skip_until(self, *tokens: str) -> None:
        while self._token not in (*tokens, _END):
            self._skip(self._token)

    def _more(self, end: str) -> bool:
        """Whether an array or inline table has another item; if not, skip its end."""
        while self._skip("\n"):
            pass
        return self._token != _END and not self._skip(end)

    def _mark(self, path: TomlPath, line: int) -> None:
        """Set the line of a value, and of each enclosing table that has none yet."""
        for length in range(1, len(path) + 1):
            self.places.setdefault(path[:length], line)

    def _header(self, line: int, *, in_array: bool) -> TomlPath:
        """Scan `[a.b]` or `[[a.b]]`. The path of `[[a.b]]` is that of its newest table."""
        path: TomlPath = ()
        keys = self._keys()
        for number, key in enumerate(keys, 1):
            path = (*path, key)
            if in_array and number == len(keys):
                self._lengths[path] += 1
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
        self._mark(path, line)
        return path

    def _keys(self) -> TomlPath:
        """Scan a dotted key, up to its `=` or `]`."""
        keys: list[str] = []
        while self._token not in ("=", "]", "\n", _END):
            keys += [] if self._token == "." else [self._token.strip("\"'")]
            self._skip(self._token)
        return tuple(keys)

    def _pair(self, table: TomlPath) -> None:
        line = self._line
        path = (*table, *self._keys())
        self._mark(path, line)
        if self._skip("="):
            self._value(path)

    def _value(self, path: TomlPath) -> None:
        self._mark(path, self._line)
        if self._skip("["):
            index = 0
            while self._more("]"):
                self._value((*path, index))
                self._skip_until(",", "]")
                index += self._skip(",")
        elif self._skip("{"):
            while self._more("}"):
                self._pair(path)
                self._skip_until(",", "}")
                self._skip(",")
        else:
            self._skip_until(",", "]", "}", "\n")
