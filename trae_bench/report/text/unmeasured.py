"""The reports of a run that came to nothing: why, where a CI service and a reader look for it."""

from trae_bench.report.escape import cut, for_markdown, for_xml
from trae_bench.report.text.markdown import MARKER

MAX_REASON = 2000
"""Characters."""


def comment(why: str) -> str:
    """In Markdown, with the mark of every report."""
    return f"{MARKER}\n### trae-bench: could not be measured\n\n{_code(why)}\n"


def junit(why: str) -> str:
    """JUnit's XML: one case, with an error."""
    counts = 'tests="1" failures="0" errors="1" skipped="0"'
    return f"""\
<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="trae-bench" {counts}>
 <testsuite name="trae-bench" {counts}>
  <testcase classname="trae-bench" name="run" time="0">
   <error message="{for_xml(why, MAX_REASON)}"/>
  </testcase>
 </testsuite>
</testsuites>
"""


def _code(why: str) -> str:
    """A line of the reason a paragraph."""
    lines = cut(why, MAX_REASON).splitlines()
    return "\n\n".join(for_markdown(line, MAX_REASON) for line in lines)
