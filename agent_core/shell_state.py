"""Whether a new bash does the same as one that has run commands.

It does, for the system's own programs, if only the folder and the exported variables of the
other one differ from those of a new bash.
"""

import os
import shlex
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

BUILTINS = {"echo", "false", "pwd", "test", "true"}
"""Commands that bash runs itself."""

_FOLDERS = {"/bin", "/usr/bin"}
"""The folders of the system's own programs."""

_FLAGS = b"hBs"
_SHELLOPTS = b"braceexpand:hashall:interactive-comments"
_BASHOPTS = frozenset(
    b"checkwinsize cmdhist complete_fullquote extquote force_fignore globasciiranges globskipdots"
    b" hostcomplete interactive_comments patsub_replacement progcomp promptvars sourcepath".split()
)
"""The options of a bash that reads commands from a pipe, in any version from 4.3."""

_STARTUP = {"BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS", "POSIXLY_CORRECT"}
"""Exported variables that change how a new bash starts."""

_LOADER = ("LD_", "GCONV_", "LOCPATH", "MALLOC_")
"""Beginnings of variables that load code into a program."""

_PER_READER = ("/dev", "/proc", "/sys")
"""Folders whose files differ from reader to reader."""


class ShellState(Struct, frozen=True):
    """What a new bash needs to do the same."""

    folder: Path
    environ: dict[str, str]


class StateReport:
    """A file in memory to which a bash writes its state, before it runs `programs`.

    `words` are their arguments. Close it after use.
    """

    def __init__(self, programs: Collection[str], words: Collection[str]) -> None:
        self._programs = sorted(programs)
        self._words = words
        self._descriptor = -1
        self._folder = Path()

    def script(self, pid: int, has_background: bool) -> str:
        """The beginning of a line that reports the state of the bash `pid`.

        It changes nothing there. It is empty if the state cannot be plain: with processes in
        the background, other limits than ours, a deleted folder, or without /proc.
        """
        folder = _folder_of(pid)
        if folder is None or has_background or not _has_our_limits(pid):
            return ""
        self._folder = folder
        self._descriptor = os.memfd_create("state")
        return _script(self._programs, f"/proc/{os.getpid()}/fd/{self._descriptor}")

    def state(self, environ: Mapping[str, str]) -> ShellState | None:
        """The state, or None if it is not plain. `environ` is the one that bash began with."""
        if self._descriptor < 0:
            return None
        report = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        exported = _exported(report, self._programs, environ)
        if exported is None or not _is_same(exported["PWD"], self._folder):
            return None
        if _has_special_file(self._folder, self._words):
            return None
        return ShellState(self._folder, exported)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _script(programs: Sequence[str], target: str) -> str:
    external = shlex.join(name for name in programs if name not in BUILTINS)
    end = "builtin printf '\\0'"
    return (
        '{ { builtin printf \'%s\\0\' "$-" "$SHELLOPTS" "$BASHOPTS" "$PWD";'
        f" builtin trap -p; builtin enable -n; {end};"
        f" builtin type -t {shlex.join(programs)}; {end}; builtin type -P {external}; {end};"
        f" /usr/bin/env -0; }} || :; }} >{target} 2>/dev/null || :; "
    )


def _exported(
    report: bytes, programs: Sequence[str], environ: Mapping[str, str]
) -> dict[str, str] | None:
    """The environment for a twin, or None if the state is not plain."""
    parts = report.split(b"\0")
    if len(parts) < 8:
        return None
    flags, options, switches, folder, special, types, paths, *variables = parts
    plain = (
        (flags, options) == (_FLAGS, _SHELLOPTS)
        and _BASHOPTS.issuperset(switches.split(b":"))
        and not special
        and types.decode(errors="replace").split()
        == ["builtin" if name in BUILTINS else "file" for name in programs]
        and _are_the_systems(paths, [name for name in programs if name not in BUILTINS])
    )
    exported = dict(os.fsdecode(entry).split("=", 1) for entry in variables if b"=" in entry)
    exported.pop("_", None)
    exported["PWD"] = os.fsdecode(folder)  # `pwd` shows it, exported or not
    if not plain or not _is_harmless(exported, environ):
        return None
    if exported.get("SHLVL", "").isdecimal():
        exported["SHLVL"] = str(int(exported["SHLVL"]) - 1)  # each bash adds one
    return exported


def _are_the_systems(paths: bytes, names: Sequence[str]) -> bool:
    split = [os.path.split(path) for path in paths.decode(errors="replace").splitlines()]
    folders = {folder for folder, _ in split}
    return [name for _, name in split] == list(names) and folders <= _FOLDERS


def _is_harmless(exported: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    changed = {name for name, value in exported.items() if environ.get(name) != value}
    changed |= environ.keys() - exported.keys()
    return not _STARTUP & exported.keys() and not any(name.startswith(_LOADER) for name in changed)


def _has_special_file(folder: Path, words: Iterable[str]) -> bool:
    """Whether a word is a path of something that readers change, or that differs for each."""
    for word in words:
        path = os.path.realpath(folder / word)
        try:
            mode = Path(path).stat().st_mode
        except (OSError, ValueError):
            continue  # no path
        if path.startswith(_PER_READER) or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return True
    return False


def _folder_of(pid: int) -> Path | None:
    """The folder of a process. None if it has been deleted."""
    link = Path(f"/proc/{pid}/cwd")
    try:
        folder = link.readlink()
        return folder if link.samefile(folder) else None
    except OSError:
        return None


def _is_same(path: str, folder: Path) -> bool:
    """Whether bash will take `path` for the name of `folder`."""
    try:
        return path.startswith("/") and folder.samefile(path)
    except OSError:
        return False


def _has_our_limits(pid: int) -> bool:
    ours, others = Path("/proc/self/limits"), Path(f"/proc/{pid}/limits")
    try:
        return ours.read_bytes() == others.read_bytes()
    except OSError:
        return False
