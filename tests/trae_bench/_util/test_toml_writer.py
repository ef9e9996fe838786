"""Written TOML parses to the same document."""

import tomllib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trae_bench._util.toml_writer import toml_text

TEXTS = st.text() | st.text(alphabet="a'\"\\\n\r\t\x00\x7f é😀=[]#", max_size=12)
PLAIN = st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS
VALUES = st.recursive(
    PLAIN | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
@example({"a": {"b": {}}, "c": [{"d": 1}, {"e": [{"f": "x\ny"}]}], "g": 1})
@example({"a": [{}, {"b": [[{"c": {}}]]}]})
@example({"a": "line\n'"})
@example({"a": "1\n'''\n2"})
@example({"a": "\nbegins and ends with one\n"})
def test_round_trip(document: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(document)) == document


def test_the_output_is_readable() -> None:
    document = {
        "table": {"text": "two\nlines\n", "deep": {"x": [1, 2.5, True]}},
        "name": "é",
        "rows": [{"n": 1}, {"n": 2, "inner": [{"k": {}}]}],
    }
    assert (
        toml_text(document)
        == """\
name = "é"

[table]
text = '''
two
lines
'''

[table.deep]
x = [1, 2.5, true]

[[rows]]
n = 1

[[rows]]
n = 2

[[rows.inner]]
k = {}
"""
    )


@pytest.mark.parametrize("value", [None, [None], {"b": None}, object()])
def test_unsupported_values_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="TOML cannot represent"):
        toml_text({"a": value})
