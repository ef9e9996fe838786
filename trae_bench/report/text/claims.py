"""Claims and what became of them: for a terminal, as JSON, and as a table in Markdown.

What was measured is told as the claim is: `-74.1 % [-75.0 -73.0]` beside "60-80 % less",
`3.86x [3.70 4.00]` beside "3-5x faster". Every string of a file is escaped.
"""

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
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

LONGEST = 2000
"""Characters of a text from a claims file that are shown."""


def text(judged: Sequence[ClaimResult[Claim]], *, width: int = 80) -> str:
    """A block for each claim: whose words, and each place with its interval."""
    return _text(judged, [(one.claim.id, _said(one.claim)) for one in judged], width)


def own_text(
    judged: Sequence[ClaimResult[OwnClaim]], lines: Sequence[str], *, width: int = 80
) -> str:
    """The same of our own sentences; `lines` say where each stands."""
    quotes = [f'"{one.claim.quote}"' for one in judged]
    return _text(judged, list(zip(lines, quotes, strict=True)), width)


def _text(judged: Sequence[ClaimResult[Any]], heads: Sequence[tuple[str, str]], width: int) -> str:
    """`heads` are the title of each block and the words under it."""
    blocks = [
        "\n".join(_block(one, title, said, width))
        for one, (title, said) in zip(judged, heads, strict=True)
    ]
    return "\n\n".join([*blocks, _wrapped(counts([one.verdict for one in judged]), width, "")])


def counts(verdicts: Sequence[str]) -> str:
    """`12 hold ...` in one line."""
    told = [f"{verdicts.count(name)} {name}" for name in VERDICTS if name in verdicts]
    claims = "claim" if len(verdicts) == 1 else "claims"
    return f"{len(verdicts)} {claims}: {', '.join(told)}" if told else "No claims"


def unsupported_lines(judged: Sequence[ClaimResult[OwnClaim]], lines: Sequence[str]) -> list[str]:
    """A sentence for each of our own that the runs do not bear out."""
    return [
        f"{where}: {one.claim.quote!r} is {one.verdict}: claimed {one.claim.claimed}, "
        f"measured {_against(one)}"
        for one, where in zip(judged, lines, strict=True)
        if is_unsupported(one)
    ]


def _against(judged: ClaimResult[OwnClaim]) -> str:
    return "; ".join(
        f"{measured(found, judged.claim.claimed)} ({_place(found)})"
        for found in judged.found
        if found.verdict in ("refuted", "undecided")
    )


def measured(found: PlaceResult, claimed: str) -> str:
    """The ratio and its interval in the form of the claim; empty where there is none."""
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
    """One claim for JSON."""
    return {
        "claim": judged.claim,
        "verdict": judged.verdict,
        "places": [_document(found) for found in judged.found],
        "measure": judged.commands,
    }


def markdown(
    judged: Sequence[ClaimResult[Claim]], mark: Callable[[Measurement], str]
) -> Iterator[str]:
    """Lines of a table, one row a claim; `mark` says from which run a figure is."""
    yield f"{counts([one.verdict for one in judged])}."
    yield ""
    yield "| claim | claimed | verdict | measured |"
    yield "|---|---|---|---|"
    for one in judged:
        said = "<br>".join(
            f"“{markdown_text(each.words)}” ({markdown_text(each.section)})"
            for each in one.claim.said
        )
        cells = (
            said,
            markdown_text(one.claim.claimed),
            f"**{one.verdict}**",
            "<br>".join(_markdown_places(one, mark)),
        )
        yield f"| {' | '.join(cells)} |"
    commands = sorted({command for one in judged for command in one.commands})
    if commands:
        yield ""
        yield "What is not measured yet, these measure:"
        yield ""
        yield "```sh"
        yield from (for_terminal(command, LONGEST) for command in commands)
        yield "```"


def _markdown_places(
    judged: ClaimResult[Claim], mark: Callable[[Measurement], str]
) -> Iterator[str]:
    for found in judged.found:
        figure = measured(found, judged.claim.claimed)
        run = f" ({mark(found.evidence)})" if found.evidence is not None else ""
        told = f"{found.verdict}: {figure}{run}" if figure else found.verdict
        yield f"{for_markdown(_place(found))} {told}"
    for note in (judged.claim.not_measurable, judged.claim.note):
        if note:
            yield f"*{markdown_text(note, LONGEST)}*"


def _block(judged: ClaimResult[Any], title: str, said: str, width: int) -> Iterator[str]:
    claim = judged.claim
    promised = f" (claimed: {for_terminal(claim.claimed)})" if claim.claimed else ""
    yield f"{for_terminal(title)}: {judged.verdict}{promised}"
    yield _wrapped(said, width)
    for note in (getattr(claim, "not_measurable", ""), claim.note):
        if note:
            yield _wrapped(note, width)
    shown = [(one.verdict, measured(one, claim.claimed), _place(one)) for one in judged.found]
    widths = [max((len(line[n]) for line in shown), default=0) for n in (0, 1)]
    for verdict, figure, place in shown:
        front = f"  {verdict.ljust(widths[0])}  {figure.ljust(widths[1])}  "
        yield _wrapped(place, width, front, " " * len(front)).rstrip()
    for command in judged.commands:
        # To be copied whole: the shell goes on where a line ends so.
        yield _wrapped(command, width - 2, "  $ ", "      ").replace("\n", " \\\n")


def _wrapped(line: str, width: int, first: str = "  ", later: str = "  ") -> str:
    return textwrap.fill(
        for_terminal(line, LONGEST),
        width,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _said(claim: Claim) -> str:
    return "; ".join(f'"{each.words}" ({each.section})' for each in claim.said)


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
