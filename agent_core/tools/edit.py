"""The tool `str_replace_based_edit_tool`: view, create and edit text files."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent_core.errors import ToolError
from agent_core.messages import ToolOutput
from agent_core.ports import Access, ToolContext
from agent_core.tools import TOOLS
from agent_core.tools.paths import LIMIT, clip, editing, names

_CONTEXT_LINES = 4
"""Lines shown before and after an edit."""

_MAX_NAMED_LINES = 20
"""Line numbers listed if `old_str` is not unique."""


class EditTool:
    """Trae Agent's editor. An edit holds the lock of its file from the read to the write."""

    spec = TOOLS["str_replace_based_edit_tool"].spec

    def __init__(self, context: ToolContext) -> None:
        self._files = context.files
        self._workspace = context.workspace

    def access(self, arguments: Mapping[str, Any]) -> Access:
        touched = names(self._workspace.resolve(arguments["path"]))
        if arguments["command"] == "view":
            return Access("files", reads=touched)
        return Access("files", writes=touched)

    async def execute(self, arguments: Mapping[str, Any]) -> ToolOutput:
        path = self._workspace.resolve(arguments["path"])
        command = arguments["command"]
        if command == "view":
            return ToolOutput(True, await self._view(path, arguments.get("view_range")))
        async with editing(path):
            if command == "create":
                text = await self._create(path, arguments)
            elif command == "str_replace":
                text = await self._str_replace(path, arguments)
            elif command == "insert":
                text = await self._insert(path, arguments)
            else:
                known = ", ".join(self.spec.parameters["properties"]["command"]["enum"])
                raise ToolError(f"Unknown command '{command}'. Known commands: {known}.")
        return ToolOutput(True, text)

    async def close(self) -> None:
        pass

    async def _view(self, path: Path, view_range: list[int] | None) -> str:
        listing = _listing(path)
        if listing is not None:
            if view_range:
                raise ToolError(f"{path} is a folder; view_range is for files.")
            return clip(f"Files and folders in {path}, two levels deep:\n{listing}")
        first, last = _range(view_range) if view_range else (1, None)
        lines = await self._files.read_lines(path, first, last, LIMIT)
        if first > lines.count or (last is not None and last > lines.count):
            raise ToolError(
                f"view_range {view_range} is out of range: the file has {lines.count} lines."
            )
        note = f" ({lines.note})" if lines.note else ""
        numbered = _numbered(clip(lines.text, lines.length), first)
        return f"{path} with line numbers{note}:\n{numbered}"

    async def _create(self, path: Path, arguments: Mapping[str, Any]) -> str:
        text = _required(arguments, "file_text")
        _require_new(path)
        await self._files.write(path, text)
        if text.startswith("#!") and text.partition("\n")[0].endswith("\r"):
            return f"Created {path}. Its lines end in CRLF, so it cannot be started as a script."
        return f"Created {path}."

    async def _str_replace(self, path: Path, arguments: Mapping[str, Any]) -> str:
        old = _required(arguments, "old_str")
        new = arguments.get("new_str") or ""
        if not old:
            raise ToolError("'old_str' is empty; use 'insert' to add text.")
        text = await self._files.read(path)
        at = text.find(old)
        if at < 0:
            hint = _near_miss(text, old)
            raise ToolError(
                f"Nothing was replaced: old_str does not occur in {path} as given.{hint}"
            )
        if text.find(old, at + 1) >= 0:
            raise ToolError(
                f"Nothing was replaced: old_str occurs more than once in {path}, in lines"
                f" {_lines_of(text, old)}. Include more of the surrounding text."
            )
        changed = text[:at] + new + text[at + len(old) :]
        await self._files.write(path, changed)
        return f"Edited {path}. Result:\n{_around(changed, at, at + len(new))}"

    async def _insert(self, path: Path, arguments: Mapping[str, Any]) -> str:
        after: int = _required(arguments, "insert_line")
        new: str = _required(arguments, "new_str")
        lines = (await self._files.read(path)).split("\n")
        if not 0 <= after <= len(lines):
            raise ToolError(f"insert_line {after} is out of range: use 0 to {len(lines)}.")
        before = "".join(f"{line}\n" for line in lines[:after])
        changed = "\n".join([*lines[:after], *new.split("\n"), *lines[after:]])
        await self._files.write(path, changed)
        start = min(len(before), len(changed))
        return f"Edited {path}. Result:\n{_around(changed, start, start + len(new))}"


def _near_miss(text: str, old: str) -> str:
    """A sentence about a place that differs from `old` in white space only, if there is one."""
    if "\N{REPLACEMENT CHARACTER}" in old and "\N{REPLACEMENT CHARACTER}" not in text:
        return " U+FFFD stands for a byte that is not UTF-8; choose an old_str without it."
    for strip, difference in ((str.rstrip, "blanks at line ends"), (str.strip, "indentation")):
        plain, wanted = _mapped(text, strip), _mapped(old, strip).strip("\n")
        at = plain.find(wanted) if wanted else -1
        if at >= 0:
            line = plain.count("\n", 0, at) + 1
            return f" Line {line} differs from it in {difference}; view it and copy it exactly."
    return ""


def _mapped(text: str, change: Callable[[str], str]) -> str:
    return "\n".join(change(line) for line in text.split("\n"))


def _required(arguments: Mapping[str, Any], name: str) -> Any:
    if arguments.get(name) is None:
        raise ToolError(f"'{name}' is missing; the command '{arguments['command']}' needs it.")
    return arguments[name]


def _range(view_range: list[int]) -> tuple[int, int | None]:
    """First and last line; None is the end. Raises `ToolError` for an invalid range."""
    match view_range:
        case [first, -1] if first >= 1:
            return first, None
        case [first, last] if 1 <= first <= last:
            return first, last
    raise ToolError(
        f"view_range {view_range} is invalid: use [first, last], counted from 1,"
        " or [first, -1] to the end."
    )


def _numbered(text: str, first: int) -> str:
    lines = enumerate(text.split("\n"), first)
    return "".join(f"{number:6}\t{line}\n" for number, line in lines)


def _around(text: str, start: int, end: int) -> str:
    """The lines from offset `start` to `end`, with some context."""
    first = max(text.count("\n", 0, start) - _CONTEXT_LINES, 0)
    last = text.count("\n", 0, end) + _CONTEXT_LINES
    selected = "\n".join(text.split("\n")[first : last + 1])
    return _numbered(clip(selected), first + 1)


def _lines_of(text: str, old: str) -> str:
    """The numbers of the first lines in which `old` begins."""
    numbers: list[int] = []
    line, scanned, at = 1, 0, text.find(old)
    while at >= 0 and len(numbers) < _MAX_NAMED_LINES:
        line += text.count("\n", scanned, at)
        if line not in numbers:
            numbers.append(line)
        scanned, at = at, text.find(old, at + 1)
    more = " and more" if at >= 0 else ""
    return ", ".join(map(str, numbers)) + more


def _require_new(path: Path) -> None:
    if path.exists():
        raise ToolError(f"{path} exists; 'create' makes new files only. Edit it instead.")


def _listing(folder: Path) -> str | None:
    """The sorted paths in `folder`, two levels deep, without hidden ones. None for a file."""
    if not folder.is_dir():
        return None
    paths: list[str] = []
    for entry in _visible(folder):
        paths.append(entry.path)
        if entry.is_dir(follow_symlinks=False):
            paths += [inner.path for inner in _visible(entry.path)]
    return "\n".join(paths)


def _visible(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except PermissionError:
        return []  # an unreadable folder must not hide the others
    return sorted(shown, key=lambda entry: entry.name)
