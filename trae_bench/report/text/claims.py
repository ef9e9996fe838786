"""Claims with their verdicts: for a terminal, as JSON, and as a Markdown table.

A measurement has the form of its claim: `-74.1 % [-75.0 -73.0]` for "60-80 % less",
`3.86x [3.70 4.00]` for "3-5x faster". Every string from a file is escaped.
"""

import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from trae_bench.report.escape import for_markdown, for_terminal, markdown_text
from trae_bench.report.text.terminal import signed
from trae_bench.stats.decision import MAX_LOG_RATIO
from trae_bench.verdicts.claims import (
    VERDICTS,
    ClaimResult,
    Measurement,
    PlaceResult,
    is_unsupported,
)
from trae_bench.verdicts.claims_file import Claim, OwnClaim

MAX_TEXT = 2000
"""Maximum characters of a text from a claims file; the rest is cut."""


def text(judged: Sequence[ClaimResult[Claim]], *, width: int = 80) -> str:
    """A block for each claim: its words, its verdict, and each place with its interval."""
    quotes = (
        "; ".join(f'"{quote.words}" ({quote.section})' for quote in each.claim.said)
        for each in judged
    )
    return _text(judged, [each.claim.id for each in judged], quotes, width)


def own_text(
    judged: Sequence[ClaimResult[OwnClaim]], lines: Sequence[str], *, width: int = 80
) -> str:
    """A block for each sentence of the project; `lines` are their positions (`file:line`)."""
    quotes = [f'"{each.claim.quote}"' for each in judged]
    return _text(judged, lines, quotes, width)


def _text(
    judged: Sequence[ClaimResult[Any]], titles: Sequence[str], words: Iterable[str], width: int
) -> str:
    """The words of a claim are below the title of its block."""
    blocks = ["\n".join(_block(*of, width)) for of in zip(judged, titles, words, strict=True)]
    return "\n\n".join([*blocks, _wrapped(counts([each.verdict for each in judged]), width, "")])


def counts(verdicts: Sequence[str]) -> str:
    """The number of claims by verdict: `3 claims: 2 holds, 1 refuted`."""
    parts = [f"{verdicts.count(name)} {name}" for name in VERDICTS if name in verdicts]
    claims = "claim" if len(verdicts) == 1 else "claims"
    return f"{len(verdicts)} {claims}: {', '.join(parts)}" if parts else "No claims"


def unsupported_lines(judged: Sequence[ClaimResult[OwnClaim]], lines: Sequence[str]) -> list[str]:
    """A sentence for each sentence of the project that the runs do not support."""
    return [
        f"{line}: {each.claim.quote!r} is {each.verdict}: claimed {each.claim.claimed}, "
        f"measured {_contradicting(each)}"
        for each, line in zip(judged, lines, strict=True)
        if is_unsupported(each)
    ]


def _contradicting(judged: ClaimResult[OwnClaim]) -> str:
    return "; ".join(
        f"{measured(found, judged.claim.claimed)} ({_place(found)})"
        for found in judged.found
        if found.verdict in ("refuted", "undecided")
    )


def measured(found: PlaceResult, claimed: str) -> str:
    """The ratio and its interval in the form of the claim; empty if there is none."""
    estimate = found.evidence.row.estimate if found.evidence is not None else None
    if estimate is None or estimate.log_ratio is None or estimate.interval is None:
        return ""
    low, high = estimate.interval.low, estimate.interval.high
    if claimed.endswith("x faster"):
        times = [_times(-value) for value in (estimate.log_ratio, high, low)]
        return f"{times[0]}x [{times[1]} {times[2]}]"
    change = [signed(value) for value in (estimate.log_ratio, low, high)]
    return f"{change[0]} % [{change[1]} {change[2]}]"


def document(judged: ClaimResult[Any]) -> dict[str, Any]:
    """A claim for JSON output."""
    return {
        "claim": judged.claim,
        "verdict": judged.verdict,
        "places": [_document(found) for found in judged.found],
        "measure": judged.commands,
    }


def markdown(
    judged: Sequence[ClaimResult[Claim]], mark: Callable[[Measurement], str]
) -> Iterator[str]:
    """Lines of a table with a row for each claim; `mark` names the run of a figure."""
    yield f"{counts([each.verdict for each in judged])}."
    yield ""
    yield "| claim | claimed | verdict | measured |"
    yield "|---|---|---|---|"
    for each in judged:
        quotes = "<br>".join(
            f"“{markdown_text(quote.words)}” ({markdown_text(quote.section)})"
            for quote in each.claim.said
        )
        cells = (
            quotes,
            markdown_text(each.claim.claimed),
            f"**{each.verdict}**",
            "<br>".join(_markdown_places(each, mark)),
        )
        yield f"| {' | '.join(cells)} |"
    commands = sorted({command for each in judged for command in each.commands})
    if commands:
        yield ""
        yield "These commands measure the rest:"
        yield ""
        yield "```sh"
        yield from (for_terminal(command, MAX_TEXT) for command in commands)
        yield "```"


def _markdown_places(
    judged: ClaimResult[Claim], mark: Callable[[Measurement], str]
) -> Iterator[str]:
    for found in judged.found:
        figure = measured(found, judged.claim.claimed)
        run = f" ({mark(found.evidence)})" if found.evidence is not None else ""
        result = f"{found.verdict}: {figure}{run}" if figure else found.verdict
        yield f"{for_markdown(_place(found))} {result}"
    for note in (judged.claim.not_measurable, judged.claim.note):
        if note:
            yield f"*{markdown_text(note, MAX_TEXT)}*"


def _block(judged: ClaimResult[Any], title: str, words: str, width: int) -> Iterator[str]:
    claim = judged.claim
    claimed = f" (claimed: {for_terminal(claim.claimed)})" if claim.claimed else ""
    yield f"{for_terminal(title)}: {judged.verdict}{claimed}"
    yield _wrapped(words, width)
    for note in (getattr(claim, "not_measurable", ""), claim.note):
        if note:
            yield _wrapped(note, width)
    shown = [(at.verdict, measured(at, claim.claimed), _place(at)) for at in judged.found]
    widths = [max((len(line[n]) for line in shown), default=0) for n in (0, 1)]
    for verdict, figure, place in shown:
        front = f"  {verdict.ljust(widths[0])}  {figure.ljust(widths[1])}  "
        yield _wrapped(place, width, front, " " * len(front)).rstrip()
    for command in judged.commands:
        # A backslash at the end of a line, so that the command can be copied into a shell.
        yield _wrapped(command, width - 2, "  $ ", "      ").replace("\n", " \\\n")


def _wrapped(line: str, width: int, first: str = "  ", later: str = "  ") -> str:
    return textwrap.fill(
        for_terminal(line, MAX_TEXT),
        width,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _place(found: PlaceResult) -> str:
    return f"{found.place.scenario} {found.place.metric}"


def _document(found: PlaceResult) -> dict[str, Any]:
    evidence = found.evidence
    estimate = evidence.row.estimate if evidence is not None else None
    return {
        "scenario": found.place.scenario,
        "metric": found.place.metric,
        "verdict": found.verdict,
        "run": evidence.source.name if evidence is not None else None,
        "estimate": estimate,
    }


def _times(log_ratio: float) -> str:
    value = math.exp(min(log_ratio, MAX_LOG_RATIO))
    return f"{value:.2f}" if value < 999.5 else f"{value:.3g}"
