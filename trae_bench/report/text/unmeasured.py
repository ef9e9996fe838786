"""Reports of a run without a result: the reason, as a comment and as JUnit XML."""

from xml.etree.ElementTree import Element, SubElement

from trae_bench.report.escape import cut, for_markdown
from trae_bench.report.text.junit import add_case, document
from trae_bench.report.text.markdown import MARKER

MAX_REASON = 2000
"""Maximum characters of the reason."""


def comment(why: str) -> str:
    """The reason as a Markdown comment, each of its lines as a paragraph."""
    lines = cut(why, MAX_REASON).splitlines()
    reason = "\n\n".join(for_markdown(line, MAX_REASON) for line in lines)
    return f"{MARKER}\n### trae-bench: could not be measured\n\n{reason}\n"


def junit(why: str) -> str:
    """The reason as JUnit XML: one test case with an error."""
    root = Element("testsuites", name="trae-bench")
    suite = SubElement(root, "testsuite", name="trae-bench")
    add_case(suite, "trae-bench", "run", "error", why, MAX_REASON)
    return document(root)
