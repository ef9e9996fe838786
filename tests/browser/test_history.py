"""The page of a history in a browser: themes, narrow screens, safety."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Tab
from tests.browser.test_page import CONTRASTS
from tests.trae_bench.report.test_history import LINE, SUBJECTS, planted, shown
from tests.trae_bench.report.test_untrusted import PLANT
from trae_bench.report.html.history import page


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    found = [shown(), shown(size=-0.05, scenario="faster"), shown(size=0.015, scenario="small")]
    (folder / "history.html").write_text(page(found, SUBJECTS), "utf-8")
    (folder / "planted.html").write_text(page([planted()], dict.fromkeys(LINE, PLANT)), "utf-8")
    return folder


@pytest.fixture(params=["light", "dark"])
def tab(browser: Any, pages: Path, request: pytest.FixtureRequest) -> Iterator[Tab]:
    opened = Tab(browser, pages / "history.html", color_scheme=request.param)
    yield opened
    opened.context.close()


def test_every_text_is_readable(tab: Tab) -> None:
    tab.page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
    found = tab.page.evaluate(CONTRASTS)
    assert len(found) > 100
    assert not [each for each in found if each[0] < 4.5]
    assert not tab.complaints
    assert len(tab.requests) == 1


def test_each_series_has_a_named_plot(tab: Tab) -> None:
    plots = tab.page.get_by_role("img")
    assert plots.count() == 3
    assert "two-files cpu" in tab.page.content()
    box = plots.first.bounding_box()
    assert box["width"] > 600


@pytest.mark.parametrize("name", ["history.html", "planted.html"])
def test_a_narrow_screen_needs_no_sideways_scrolling(browser: Any, pages: Path, name: str) -> None:
    opened = Tab(browser, pages / name, viewport={"width": 390, "height": 800})
    try:
        root = "document.documentElement"
        assert opened.page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
        assert not opened.complaints
        assert opened.page.locator("script").count() == 0
    finally:
        opened.context.close()
