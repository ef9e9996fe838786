"""Reports of a run without a result: the reason, as a comment and as JUnit XML."""

from trae_bench.report.escape import cut, for_markdown, for_xml
from trae_bench.report.text.markdown import MARKER

MAX_REASON = 2000
"""Maximum characters of the reason."""


def comment(why: str) -> str:
    """The reason as a Markdown comment."""
    return f"{MARKER}\n### trae-bench: could not be measured\n\n{_code(why)}\n"


def junit(why: str) -> str:
    """The reason as JUnit XML: one test case with an error."""
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
    """Each line of the reason as a paragraph."""
    lines = cut(why, MAX_REASON).splitlines()
    return "\n\n".join(for_markdown(line, MAX_REASON) for line in lines)
