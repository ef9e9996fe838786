"""Finds the line of each value in a TOML text. `tomllib` returns the values only.

The text must be valid TOML. For other texts the lines are wrong, but the scan still ends.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress

TomlPath = tuple[str | int, ...]
"""Keys and array indices from the root: `("turns", 3, "calls", 0, "tool")`."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\r\n]*")


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


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self.places: dict[TomlPath, int] = {}
        self._lengths: dict[TomlPath, int] = {}
        """Number of tables seen in each array of tables."""

    def run(self) -> None:
        table: TomlPath = ()
        self._blank()
        while self._at < len(self._text):
            before = self._at
            if self._peek("["):
                table = self._header()
            else:
                self._pair(table)
            self._blank()
            if self._at == before:
                self._at += 1

    def _peek(self, token: str) -> bool:
        return self._text.startswith(token, self._at)

    def _blank(self) -> None:
        match = _BLANK.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _mark(self, path: TomlPath) -> None:
        """Set the line of a value, and of each enclosing table that has none yet."""
        line = bisect_right(self._newlines, self._at - 1) + 1
        for length in range(1, len(path) + 1):
            self.places.setdefault(path[:length], line)

    def _header(self) -> TomlPath:
        """Scan `[a.b]` or `[[a.b]]`. The path of `[[a.b]]` is that of its newest table."""
        start, in_array = self._at, self._peek("[[")
        self._at += 2 if in_array else 1
        path: TomlPath = ()
        keys = self._keys()
        for number, key in enumerate(keys, 1):
            path = (*path, key)
            if in_array and number == len(keys):
                self._lengths[path] = self._lengths.get(path, 0) + 1
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
        end, self._at = self._at, start
        self._mark(path)
        self._at = end + (2 if in_array else 1)
        return path

    def _keys(self) -> TomlPath:
        """Scan a dotted key, up to its `=` or `]`."""
        keys: list[str] = []
        while True:
            self._blank()
            match = _STRING.match(self._text, self._at) or _BARE_KEY.match(self._text, self._at)
            if match is None:
                return tuple(keys)
            keys.append(match.group().strip("\"'"))
            self._at = match.end()
            self._blank()
            if not self._peek("."):
                return tuple(keys)
            self._at += 1

    def _pair(self, table: TomlPath) -> None:
        start, path = self._at, (*table, *self._keys())
        end, self._at = self._at, start
        self._mark(path)
        self._at = end
        if self._peek("="):
            self._at += 1
            self._value(path)

    def _value(self, path: TomlPath) -> None:
        self._blank()
        self._mark(path)
        if self._peek("["):
            self._list(path)
        elif self._peek("{"):
            self._inline_table(path)
        else:
            match = _STRING.match(self._text, self._at) or _SCALAR.match(self._text, self._at)
            self._at = match.end() if match else self._at

    def _list(self, path: TomlPath) -> None:
        self._at += 1
        index = 0
        while True:
            self._blank()
            before = self._at
            if self._at >= len(self._text) or self._peek("]"):
                self._at += 1
                return
            self._value((*path, index))
            self._blank()
            if self._peek(","):
                self._at += 1
                index += 1
            elif self._at == before:
                return

    def _inline_table(self, path: TomlPath) -> None:
        self._at += 1
        while True:
            self._blank()
            before = self._at
            if self._at >= len(self._text) or self._peek("}"):
                self._at += 1
                return
            self._pair(path)
            self._blank()
            if self._peek(","):
                self._at += 1
            elif self._at == before:
                return
