"""Proposed entries of `[[normalise]]`."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench._util.json_tree import map_strings
from trae_bench.scenario import Normalise
from trae_bench.scenario.variation import KINDS, proposed


def replaced(value: Any, entries: tuple[Normalise, ...]) -> Any:
    def clean(text: str) -> str:
        for entry in entries:
            text = re.sub(entry.pattern, entry.replace, text)
        return text

    return map_strings(value, clean)


@pytest.mark.parametrize(
    ("before", "after", "clean"),
    [
        ("3 passed in 0.12s", "3 passed in 1.4s", "3 passed in DURATION"),
        ("at 2026-11-29T14:38:51.123Z", "at 2026-12-01T04:38:51+01:00", "at TIME"),
        ("on 2026-11-29", "on 2026-12-01", "on DATE"),
        ("Sun Nov 29 14:38:51 UTC", "Mon Nov 30 4:38:52 UTC", "DATE TIME UTC"),
        ("now 1795963131.5", "now 1795963132", "now TIME"),
        ("/tmp/tmpa1b2c3d4/x.py", "/tmp/pytest-3/x.py", "/tmp/PATH"),
        ("made tmpa1b2c3d4", "made tmp_______1".replace("_", "z"), "made tmpNAME"),
        ("http://127.0.0.1:5000/", "http://127.0.0.1:61000/", "http://127.0.0.1:PORT/"),
        ("<A at 0x7f00aa>", "<A at 0x7f11bb>", "<A at ADDRESS>"),
        ("commit 0a1b2c3", "commit 9f8e7d6c", "commit ID"),
        ("pid 12", "pid 345", "pid NUMBER"),
        (
            "id 123e4567-e89b-12d3-a456-426614174000",
            "id 00000000-e89b-12d3-a456-426614174000",
            "id ID",
        ),
    ],
)
def test_what_usually_varies_has_an_entry(before: str, after: str, clean: str) -> None:
    entries = proposed([before], [after])
    assert replaced(before, entries) == replaced(after, entries) == clean


def test_only_the_entries_that_are_needed() -> None:
    before = {"a": ["2026-11-29 took 3 s", "pid 1"]}
    after = {"a": ["2026-11-29 took 4 s", "pid 1"]}
    (entry,) = proposed(before, after)
    assert entry.replace == "DURATION"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["took 3 s"], ["took 3 s"]),
        (["took 3 s", "one"], ["took 4 s", "two"]),
        (["took 3 s"], ["took 4 s", "took 4 s"]),
        (["took 3 s", 1], ["took 4 s", True]),
        ({"took 3 s": ""}, {"took 4 s": ""}),
    ],
)
def test_no_entry_if_something_else_differs(before: Any, after: Any) -> None:
    assert proposed(before, after) == ()


_WORDS = st.sampled_from(
    [
        "3 s",
        "4.5s",
        "pid 7",
        "pid 8",
        "0x1f",
        "2026-01-01",
        "12:30:01",
        "x",
        "y",
        "/tmp/a",
        "0a1b2c3",
    ]
)


@given(st.lists(_WORDS, max_size=5), st.lists(_WORDS, max_size=5))
def test_the_entries_make_both_equal(before: list[str], after: list[str]) -> None:
    entries = proposed(before, after)
    assert set(entries) <= set(KINDS)
    if entries:
        assert before != after
        assert replaced(before, entries) == replaced(after, entries)
