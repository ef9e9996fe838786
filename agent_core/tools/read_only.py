"""Which shell commands provably change nothing, so that several may run at the same time.

The proof uses a small part of the shell's language: words, quotes, pipes and sequences, but no
redirection, expansion, substitution, glob or assignment. Each command and each option is in
a table. `git` is not: its configuration can name programs that it runs.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from msgspec import Struct

_MAX_LENGTH = 2000
"""Characters. A longer command is not examined."""

_TOKEN = re.compile(
    r"""[ \t]*(?: (?P<separator>\|\||&&|[|;\n])
      | (?P<word>(?: [A-Za-z0-9_./:=,@%+-] | '[^'\n]*' | "[^"$`\\!\n]*" )+) )[ \t]*""",
    re.VERBOSE,
)
_QUOTED = r"""'([^']*)'|"([^"]*)\""""
_DURATION = r"\d+(\.\d+)?|\.\d+"
_PRINTED_LINES = r"(?:\d+(?:,(?:\d+|\$))?p)(?:;\d+(?:,(?:\d+|\$))?p)*"

Check = Callable[[Sequence[str]], bool]


class Reading(Struct, frozen=True):
    """A command that changes nothing."""

    programs: frozenset[str]
    """The names of the commands that it runs."""
    words: tuple[str, ...]
    """All other words. Some are paths."""

    def may_be_slow(self) -> bool:
        """Whether the command can take longer than it takes to start another shell."""
        return not _SLOW.isdisjoint(self.programs)


@lru_cache(maxsize=256)
def reading(command: str) -> Reading | None:
    """The command's parts, or None if it is not proved that it changes nothing."""
    commands = _simple_commands(command) if len(command) <= _MAX_LENGTH else None
    if not commands:
        return None
    for name, *arguments in commands:
        check = _COMMANDS.get(name)
        if check is None or not check(arguments):
            return None
    return Reading(
        frozenset(words[0] for words in commands),
        tuple(word for words in commands for word in words[1:]),
    )


def _simple_commands(command: str) -> list[list[str]] | None:
    """The words of each simple command. None for anything beyond words and separators."""
    text, at = command.strip(" \t\n"), 0
    commands: list[list[str]] = [[]]
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            return None
        at = token.end()
        if token["word"] is not None:
            commands[-1].append(_unquoted(token["word"]))
        elif commands[-1]:
            commands.append([])
        else:
            return None
    return commands if all(commands) else None


def _unquoted(word: str) -> str:
    if "'" not in word and '"' not in word:
        return word
    return re.sub(_QUOTED, lambda quoted: quoted[1] or quoted[2] or "", word)


class Options(Struct, frozen=True):
    """The options of a command that change nothing."""

    flags: str = ""
    valued: str = ""
    """Letters that take a value: the rest of the word, or the next word."""
    long: frozenset[str] = frozenset()
    """Names of long options. One with a value has it after `=`."""
    most: int | None = None
    """Operands at most."""

    def allow(self, arguments: Sequence[str]) -> bool:
        operands, rest = 0, list(arguments)
        while rest:
            word = rest.pop(0)
            if word == "--":
                operands += len(rest)
                break
            if word.startswith("--"):
                if word[2:].partition("=")[0] not in self.long:
                    return False
            elif word.startswith("-") and word != "-":
                needs_value = self._letters(word[1:])
                if needs_value is None or (needs_value and not rest):
                    return False
                del rest[: 1 if needs_value else 0]
            else:
                operands += 1
        return self.most is None or operands <= self.most

    def _letters(self, letters: str) -> bool | None:
        """Whether the next word is the value of the last letter. None for an unknown letter."""
        for index, letter in enumerate(letters):
            if letter in self.valued:
                return index == len(letters) - 1
            if letter not in self.flags:
                return None
        return False


def _of(flags: str = "", valued: str = "", long: str = "", most: int | None = None) -> Check:
    return Options(flags, valued, frozenset(long.split()), most).allow


def _sleeps(arguments: Sequence[str]) -> bool:
    return len(arguments) == 1 and re.fullmatch(_DURATION, arguments[0]) is not None


def _tests_a_file(arguments: Sequence[str]) -> bool:
    # The operators for numbers and variables can run a command inside an index.
    return len(arguments) == 2 and arguments[0] in {"-e", "-f", "-d", "-s", "-L", "-h"}


def _prints_lines(arguments: Sequence[str]) -> bool:
    """Whether these are the arguments of `sed -n 1,20p FILE`. Other scripts can write."""
    return (
        len(arguments) >= 2
        and arguments[0] == "-n"
        and re.fullmatch(_PRINTED_LINES, arguments[1]) is not None
        and not any(word.startswith("-") for word in arguments[2:])
    )


_TESTS = {"-name", "-iname", "-path", "-ipath", "-type", "-maxdepth", "-mindepth", "-size"}
_SINGLE = {"-not", "-o", "-or", "-a", "-and", "-print", "-empty"}


def _finds(arguments: Sequence[str]) -> bool:
    """Whether find runs and writes nothing: `-exec`, `-delete` and `-fprint` are not known."""
    rest = list(arguments)
    while rest and not rest[0].startswith("-"):
        del rest[0]
    while rest:
        word = rest.pop(0)
        if word in _TESTS and rest:
            del rest[0]
        elif word not in _SINGLE:
            return False
    return True


def _has_no_arguments(arguments: Sequence[str]) -> bool:
    return not arguments


_SLOW = {"diff", "du", "find", "grep", "md5sum", "sha256sum", "sleep", "sort"}
_DIGITS = "0123456789"
_GREP_LONG = (
    "include exclude exclude-dir color line-number recursive ignore-case word-regexp count"
    " files-with-matches files-without-match no-filename with-filename max-count after-context"
    " before-context context only-matching invert-match fixed-strings extended-regexp"
    " perl-regexp regexp quiet no-messages"
)

_COMMANDS: dict[str, Check] = {
    "basename": _of("a"),
    "cat": _of("AbeEnstTv"),
    "cmp": _of("bls", most=2),
    "cut": _of("ns", "bcdf", "delimiter fields characters bytes complement output-delimiter"),
    "diff": _of("abBiNqrsuwE", "U", "unified brief recursive"),
    "dirname": _of(),
    "du": _of("abchkms", "d", "max-depth human-readable summarize apparent-size exclude"),
    "echo": lambda arguments: True,
    "false": _has_no_arguments,
    "find": _finds,
    "grep": _of(f"cEFGhHilLnoPqrRsvwxy{_DIGITS}", "ABCem", _GREP_LONG),
    "head": _of(f"qv{_DIGITS}", "cn", "lines bytes quiet"),
    "ls": _of("aAbBcCdFgGhHiklLmnNopqQrRsStUvxX1", "", "all almost-all recursive human-readable"),
    "md5sum": _of("b"),
    "nl": _of("", "bnsvw"),
    "pwd": _of("LP", most=0),
    "readlink": _of("efmn"),
    "realpath": _of("emsP"),
    "sed": _prints_lines,
    "sha256sum": _of("b"),
    "sleep": _sleeps,
    "sort": _of("bdfgMnruV", "kt", "numeric-sort reverse unique key field-separator"),
    "tail": _of(f"qv{_DIGITS}", "cn", "lines bytes quiet"),
    "test": _tests_a_file,
    "tr": _of("cds"),
    "true": _has_no_arguments,
    "uniq": _of("cdiu", "fsw", "count", most=1),  # the second operand is a file to write
    "wc": _of("clmwL", "", "lines words bytes chars"),
}
