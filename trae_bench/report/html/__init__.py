"""One or several runs as a self-contained HTML page: no network, no other file.

The Content-Security-Policy allows only the page's style sheet and script, by their digests. Every
text of a run file is escaped when the template renders it, without a filter in the template. The
same runs give the same bytes.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from trae_bench import __version__
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import UsageError
from trae_bench.report.escape import for_html, for_terminal
from trae_bench.report.html import growth, overview, pairs, raw, shares, svg, table
from trae_bench.report.html.source import MAX_NAME, ORDER, Source
from trae_bench.report.text.terminal import closing, noise_line, side_names

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["Source", "page"]

MAX_TEXT = 2000
"""Maximum characters of a sentence or a command."""


def page(sources: Sequence[Source]) -> str:
    """The whole page. Raises `UsageError` if jinja2 is not installed."""
    environment = _environment()
    sources = _with_unique_names(sources)
    style, script = _part("page.css"), _part("page.js")
    shown, scale, left_out = table.effects(sources)
    data, dropped = raw.document(sources)
    text: str = environment.get_template("page.html.jinja").render(
        digest=_digest,
        style=style,
        script=script,
        version=__version__,
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
    return text


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


# -- the template -----------------------------------------------------------------------


@cache
def _environment() -> "Environment":
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ImportError as error:
        raise UsageError('an HTML report needs jinja2; pip install "trae-bench[report]"') from error
    environment = Environment(
        loader=FunctionLoader(_part),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(overview=overview, closing=closing, noise_line=noise_line)
    environment.filters["name"] = partial(for_terminal, limit=MAX_NAME)
    environment.filters["long"] = lambda text: svg.Svg(for_html(text, MAX_TEXT))
    return environment


def _clean(value: object) -> object:
    """Cleans each value that the template renders; the template then escapes it for HTML."""
    return value if hasattr(value, "__html__") else for_terminal(str(value))


def _part(name: str) -> svg.Svg:
    """A file of this package. It is trusted, so it is not escaped."""
    return svg.Svg(files("trae_bench.report.html").joinpath(name).read_text(encoding="utf-8"))


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
