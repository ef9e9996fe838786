"""One or several runs as a self-contained HTML page: no network, no other file.

The Content-Security-Policy allows only the page's style sheet and script, by their digests. Every
text of a run file is escaped when the template renders it, without a filter in the template. The
same runs give the same bytes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from trae_bench import __version__
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.report.escape import for_terminal
from trae_bench.report.html import growth, overview, pairs, raw, shares, svg, table
from trae_bench.report.html.source import MAX_NAME, ORDER, Source
from trae_bench.report.html.template import render, text_of
from trae_bench.report.text.terminal import closing, noise_line, side_names

__all__ = ["Source", "page"]


def page(sources: Sequence[Source]) -> str:
    """The whole page. Raises `UsageError` if jinja2 is not installed."""
    sources = _with_unique_names(sources)
    shown, scale, left_out = table.effects(sources)
    data, dropped = raw.document(sources)
    return render(
        "page.html.jinja",
        style=text_of("page.css"),
        script=text_of("page.js"),
        version=__version__,
        overview=overview,
        closing=closing,
        noise_line=noise_line,
        sections=list(_sections(sources)),
        sides=_sides(sources),
        rows=shown,
        order=ORDER,
        left_out=left_out,
        axis=svg.axis(scale),
        choices=_choices(shown),
        data=svg.Svg(data),
        dropped=dropped,
    )


def _with_unique_names(sources: Sequence[Source]) -> list[Source]:
    """Numbers the files that have the same name in different folders."""
    uses = Counter(source.name for source in sources)
    return [
        replace(source, name=f"{number}: {source.name}") if uses[source.name] > 1 else source
        for number, source in enumerate(sources, start=1)
    ]


def _sections(sources: Sequence[Source]) -> Iterator[dict[str, Any]]:
    """The template's data for each run."""
    plots_left = pairs.MAX_PLOTS
    for number, source in enumerate(sources, start=1):
        blocks = pairs.blocks(source, plots_left)
        plots = sum(len(block.panels) for block in blocks)
        plots_left -= plots
        yield {
            "number": number,
            "name": source.name,
            "source": source,
            "headline": overview.headline_of(source),
            "blocks": [block for block in blocks if block.contrast != NOISE_FLOOR],
            "noise": [block for block in blocks if block.contrast == NOISE_FLOOR],
            "plots_left_out": len(source.run.comparisons) - plots,
            "sides": side_names(source.run),
            "shares": shares.shares(source),
            "growth": growth.growth(source),
        }


def _sides(sources: Sequence[Source]) -> tuple[str, str]:
    """Headings of the two sides; runs of toggles and of revisions may be mixed."""
    found = list(dict.fromkeys(side_names(source.run) for source in sources))
    return " or ".join(a for a, _ in found), " or ".join(b for _, b in found)


def _choices(rows: Sequence[table.Effect]) -> dict[str, list[str]]:
    """The filters of the table: each column with its distinct texts, as shown."""
    columns = {
        "run": (row.source.short_name for row in rows),
        "scenario": (row.row.scenario for row in rows),
        "toggle": (row.row.contrast for row in rows),
        "metric": (row.row.metric for row in rows),
    }
    choices = {
        name: list(dict.fromkeys(for_terminal(text, MAX_NAME) for text in texts))
        for name, texts in columns.items()
    }
    verdicts = {row.verdict for row in rows}
    choices["verdict"] = [verdict for verdict in (*ORDER, "-") if verdict in verdicts]
    return {name: texts for name, texts in choices.items() if texts}
