"""The templates of the HTML pages, and how they are rendered.

Each value is escaped when a template renders it, without a filter in the template.
"""

import base64
import hashlib
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING

from trae_bench.errors import UsageError
from trae_bench.report.escape import for_html, for_terminal
from trae_bench.report.html import svg
from trae_bench.report.html.source import MAX_NAME

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_TEXT = 2000
"""Maximum characters of a sentence or a command."""


def render(template: str, **values: object) -> str:
    """Render a template of this package. Raises `UsageError` if jinja2 is not installed."""
    text: str = environment().get_template(template).render(digest=_digest, **values)
    return text


@cache
def environment() -> "Environment":
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ImportError as error:
        raise UsageError('an HTML report needs jinja2; pip install "trae-bench[report]"') from error
    made = Environment(
        loader=FunctionLoader(text_of),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["name"] = partial(for_terminal, limit=MAX_NAME)
    made.filters["long"] = lambda text: svg.Svg(for_html(text, MAX_TEXT))
    return made


def _clean(value: object) -> object:
    """Cleans each value that the template renders; the template then escapes it for HTML."""
    return value if hasattr(value, "__html__") else for_terminal(str(value))


def text_of(name: str) -> svg.Svg:
    """A file of this package. It is trusted, so it is not escaped."""
    return svg.Svg(files("trae_bench.report.html").joinpath(name).read_text(encoding="utf-8"))


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
