"""The history as text and as a page: complete, safe and reproducible."""

import base64
import hashlib
import re
from collections.abc import Mapping
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.properties import examples
from tests.trae_bench.points import commit_hash, point, stepped
from tests.trae_bench.report.test_html import Reader
from tests.trae_bench.report.test_untrusted import ACTED_ON, PLANT
from trae_bench.report.html import history as html
from trae_bench.report.html.history import Shown, page
from trae_bench.report.text.gate import short
from trae_bench.report.text.history import change, details, overview, sentence, verdict
from trae_bench.verdicts.gate import percent_change
from trae_bench.verdicts.history import Checked, Series, series_of, shifts

LINE = [commit_hash(number) for number in range(30)]
SUBJECTS = {commit: f"change {number}" for number, commit in enumerate(LINE)}


def shown(size: float = 0.05, **changes: str) -> Shown:
    (series,) = series_of(stepped(LINE, 18, size, **changes), LINE)
    return Shown(series, tuple(shifts(series)))


def planted() -> Shown:
    names = {"scenario": PLANT, "metric": PLANT, "agent": PLANT, "unit": PLANT}
    points = [*stepped(LINE, 18, 0.05, **names), point(LINE[0], machine=PLANT, **names)]
    (series,) = series_of(points, LINE)
    return Shown(series, tuple(shifts(series)))


def policy_of(text: str) -> str:
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert found is not None
    return unescape(found[1])


def test_the_policy_allows_the_style_sheet_only() -> None:
    text = page([shown()], SUBJECTS)
    style = re.search("<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy_of(text).startswith(f"default-src 'none'; style-src 'sha256-{digest}'; ")
    assert "script-src" not in policy_of(text)
    assert "<script" not in text
    assert " style=" not in text


def test_the_page_has_every_commit_and_change() -> None:
    found = shown()
    text = page([found], SUBJECTS)
    reader = Reader(text)
    titles = re.findall("<title>(.*?)</title>", text)[1:]
    assert len(titles) == len(LINE)
    assert all(f"change {number}" in title for number, title in enumerate(titles))
    (shift,) = found.shifts
    assert sentence(shift, SUBJECTS) in reader.texts
    assert percent_change(shift.size) in reader.texts
    assert text.count('class="shift regression"') == 1
    assert text.count('class="level"') == 2
    rows = [name for name, _ in reader.tags if name == "tr"]
    assert len(rows) == len(LINE) + 1


def test_the_same_points_give_the_same_page() -> None:
    assert page([shown()], SUBJECTS) == page([shown()], SUBJECTS)


def test_planted_texts_are_escaped() -> None:
    subjects = dict.fromkeys(LINE, PLANT)
    text = page([planted()], subjects)
    reader = Reader(text)
    assert {name for name, _ in reader.tags} <= {
        *("html", "head", "meta", "title", "link", "style", "body", "header", "p", "span", "h1"),
        *("main", "section", "h2", "ul", "li", "svg", "g", "path", "text", "details", "summary"),
        *("div", "table", "thead", "tr", "th", "tbody", "td", "code", "footer"),
    }
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    plain = re.sub("<style>.*?</style>", "", text, flags=re.DOTALL)
    assert not ACTED_ON.search(plain.replace("\n", ""))


def lines_of(found: Shown, subjects: Mapping[str, str]) -> list[str]:
    of_verdicts = [
        line
        for one in found.shifts
        for status in ("confirmed", "not measured")
        for line in verdict(
            Checked(one, status, problem=PLANT), subjects, {found.series.key.scenario: PLANT}
        )
    ]
    table = overview([found.series, found.series], 80)
    return [*details(found.series, found.shifts, subjects, 80), table, *of_verdicts]


def test_planted_texts_do_not_act_in_a_terminal() -> None:
    found = planted()
    assert found.shifts
    wide = replace(found.shifts[0], base=LINE[3], head=LINE[20])
    found = replace(found, shifts=(wide,))
    text = "\n".join(lines_of(found, dict.fromkeys(LINE, PLANT)))
    assert "trae-bench bisect" in text
    assert not ACTED_ON.search(text)


def test_the_table_of_series_keeps_a_change_in_one_line() -> None:
    found = shown(0.3, metric="time_to_first_request_net").series
    lines = overview([found, found], 80).splitlines()
    assert max(map(len, lines)) <= 80
    last = found.commits[-1]
    assert sum(f"{change(last)}  {short(last.commit)}" in line for line in lines) == 2


@pytest.mark.parametrize("limit", ["MAX_SERIES", "MAX_COMMITS"])
def test_a_page_is_limited_and_says_so(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(html, limit, 1)
    text = page([shown(), shown(scenario="other")], SUBJECTS)
    left = {"MAX_SERIES": "1 more series are left out", "MAX_COMMITS": "29 older commits"}
    assert left[limit] in text


def test_a_series_of_another_branch_has_no_plot() -> None:
    (series,) = series_of(stepped(LINE, 18, 0.05), [])
    assert "None of its commits is on this branch." in page([Shown(series, ())], {})


@examples(100)
@given(
    st.lists(
        st.tuples(st.floats(-700, 700), st.floats(0, 700), st.floats(-1e300, 1e300)),
        min_size=1,
        max_size=8,
    )
)
def test_any_values_are_drawn(values: list[tuple[float, float, float]]) -> None:
    points = [
        point(LINE[number], log_ratio, error=error, head=head)
        for number, (log_ratio, error, head) in enumerate(values)
    ]
    (series,) = series_of(points, LINE)
    found = Shown(series, tuple(shifts(series)))
    text = page([found], SUBJECTS)
    assert "nan" not in re.sub("<style>.*?</style>", "", text, flags=re.DOTALL)
    assert len(re.findall('class="dot"', text)) == len(values)
    numbers = [
        float(one)
        for path in re.findall(' d="([^"]*)"', text)
        for one in re.findall(r"-?[0-9.]+", path)
    ]
    assert all(-1 <= number <= 901 for number in numbers)
    assert "\n".join(lines_of(found, SUBJECTS))


def test_the_axis_has_round_changes() -> None:
    text = page([shown(size=0.05)], SUBJECTS)
    assert re.findall(r'<text x="50" y="[0-9.]+">([^<]*)</text>', text) == [
        *("-2.0 %", "0 %", "+2.0 %", "+4.0 %", "+6.0 %", "+8.0 %")
    ]


def series_with(count: int) -> Series:
    (series,) = series_of(stepped(LINE[:count], 99, 0.0), LINE)
    return series


def test_one_commit_is_drawn() -> None:
    text = page([Shown(series_with(1), ())], SUBJECTS)
    assert text.count('class="dot"') == 1
    assert 'class="start"' in text
    assert 'class="end"' not in text
