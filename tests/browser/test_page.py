"""The HTML report in a browser: sorting, filtering, themes, keyboard, printing, safety."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.browser.conftest import Tab
from tests.trae_bench.report.test_html import INTERACTING, PLANTS, designed, long_runs
from tests.trae_bench.report.test_untrusted import document, planted
from tests.trae_bench.runs import honest
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.run import RunFile
from trae_bench.report.html import Source, page
from trae_bench.storage.run_file import read_run

Open = Callable[..., Tab]

# The WCAG 2.2 contrast ratio of every text, from its rendered colours.
CONTRASTS = """() => {
  const channel = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((each) => channel(each / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = rgb(getComputedStyle(each).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest("script, .hidden")) continue;
    const style = getComputedStyle(element);
    const ink = element.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(rgb(ink)), light(behind(element))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), element.tagName + " " + element.textContent.slice(0, 40)]);
  }
  return found;
}"""

FULL = Path(__file__).resolve().parents[2] / "results" / "full.json"
LINES = """all => all.map((each) => {
  const range = document.createRange();
  range.selectNodeContents(each);
  return range.getClientRects().length;
})"""
"""The number of lines of each text."""


def run() -> RunFile:
    return honest(lost={("idle", 3): "crash", ("slower", 2): "differ"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages under test."""
    folder = tmp_path_factory.mktemp("pages")
    everything = [Source("run.json", run()), designed("factorial", INTERACTING, k=3)]
    (folder / "one.html").write_text(page([Source("run.json", run())]), "utf-8")
    (folder / "all.html").write_text(page([*everything, long_runs(200, 1000)]), "utf-8")
    return folder


@pytest.fixture
def open_page(browser: Any, folder: Path) -> Iterator[Open]:
    tabs: list[Tab] = []

    def opened(name: str = "all.html", **context: Any) -> Tab:
        tabs.append(Tab(browser, folder / name, **context))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.context.close()


def column(tab: Tab, number: int) -> list[str]:
    cells = tab.page.locator(f"#table tbody tr:not([hidden]) > :nth-child({number})")
    return list(cells.all_text_contents())


def test_the_page_makes_no_requests_and_logs_no_errors(open_page: Open, folder: Path) -> None:
    tab = open_page()
    tab.page.wait_for_load_state("load")
    wanted = [url for url in tab.requests if not url.startswith("data:")]
    assert wanted == [(folder / "all.html").as_uri()]
    assert tab.complaints == []


def test_a_column_sorts_ascending_descending_and_back(open_page: Open) -> None:
    tab = open_page("one.html")
    head = tab.page.get_by_role("columnheader", name="ratio")
    before = column(tab, 6)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    figures = [float(text) for text in column(tab, 6)]
    assert figures == sorted(figures)
    assert figures != [float(text) for text in before]
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in column(tab, 6)] == sorted(figures, reverse=True)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    assert column(tab, 6) == before


def test_sorting_uses_values_not_texts(open_page: Open) -> None:
    """`31.1 MB` is more than `575 ms`: rows are sorted by value, not by text."""
    tab = open_page("one.html")
    tab.page.get_by_role("columnheader", name="off").get_by_role("button").click()
    found = column(tab, 3)
    assert found[-3:] == ["peak_rss"] * 3
    tab.page.get_by_role("columnheader", name="verdict").get_by_role("button").click()
    assert column(tab, 10)[0] == "regression"
    assert tab.page.locator("[aria-sort]").count() == 1


def test_missing_values_sort_last(browser: Any, tmp_path: Path) -> None:
    broken = honest(toggles=("idle", "slower"), lost={("idle", n): "crash" for n in range(99)})
    path = tmp_path / "page.html"
    path.write_text(page([Source("run.json", broken)]), "utf-8")
    tab = Tab(browser, path)
    button = tab.page.get_by_role("columnheader", name="ratio").get_by_role("button")
    for _ in range(2):
        button.click()
        assert column(tab, 6)[-5:] == [""] * 5
        assert "" not in column(tab, 6)[:-5]
    tab.context.close()


def test_filters_keep_matching_rows(open_page: Open) -> None:
    tab = open_page("one.html")
    assert tab.page.get_by_role("status").text_content() == "15 rows"
    tab.page.get_by_role("combobox", name="verdict", exact=True).select_option("regression")
    assert set(column(tab, 10)) == {"regression"}
    assert tab.page.get_by_role("status").text_content() == "3 of 15 rows"
    tab.page.get_by_role("searchbox").fill("WALL slow")
    assert column(tab, 3) == ["wall"]
    assert tab.page.get_by_role("status").text_content() == "1 of 15 rows"
    tab.page.get_by_role("button", name="Show all").click()
    tab.page.get_by_role("status").get_by_text("15 rows", exact=True).wait_for()
    assert len(column(tab, 3)) == 15


def test_one_table_shows_one_run_of_several(open_page: Open) -> None:
    tab = open_page()
    tab.page.get_by_role("combobox", name="run", exact=True).select_option(index=1)
    assert set(column(tab, 1)) == {"1: run"}


def test_a_button_switches_the_theme(open_page: Open) -> None:
    tab = open_page(color_scheme="dark")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    dark = tab.page.evaluate(background)
    button = tab.page.get_by_role("button", name="Dark theme")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    light = tab.page.evaluate(background)
    assert light == open_page(color_scheme="light").page.evaluate(background)
    assert light != dark
    # The choice is not stored.
    assert tab.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_every_text_has_enough_contrast(open_page: Open, scheme: str, width: int) -> None:
    tab = open_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    tab.page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    found = tab.page.evaluate(CONTRASTS)
    assert len(found) > 300
    assert [(round(ratio, 2), text) for ratio, text in found if ratio < 4.5] == []


def test_every_control_is_reachable_by_keyboard(open_page: Open) -> None:
    tab = open_page("one.html")
    wanted = tab.page.locator("a, button, input, select, summary, [tabindex='0']")
    names = [one.evaluate("each => each.outerHTML") for one in wanted.all() if one.is_visible()]
    reached, shown = [], []
    for _ in names:
        tab.page.keyboard.press("Tab")
        reached.append(tab.page.evaluate("document.activeElement.outerHTML"))
        shown.append(tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle"))
    assert set(reached) == set(names)
    assert set(shown) == {"solid"}
    assert "Skip to the table" in reached[0]
    tab.page.get_by_role("columnheader", name="ratio").get_by_role("button").focus()
    tab.page.keyboard.press("Enter")
    assert tab.page.locator("[aria-sort='ascending']").count() == 1


@pytest.mark.parametrize("width", [320, 768, 1024, 1280, 1920])
def test_page_fits_the_screen_width(open_page: Open, width: int) -> None:
    tab = open_page(viewport={"width": width, "height": 700})
    tab.page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


def test_names_are_not_broken_inside_a_word(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(page([Source("full.json", read_run(FULL))]), "utf-8")
    tab = Tab(browser, path)
    for width in (1060, 1200, 1279, 1280):
        tab.page.set_viewport_size({"width": width, "height": 700})
        names = tab.page.locator("#table tbody tr > :is(:nth-last-child(8), :nth-last-child(9))")
        assert set(names.evaluate_all(LINES)) == {1}, width
    tab.context.close()


def test_cards_keep_the_roles_of_a_table(open_page: Open) -> None:
    tab = open_page("one.html", viewport={"width": 320, "height": 700})
    table = tab.page.get_by_role("table", name="Effects of each toggle")
    assert table.get_by_role("row").count() == 16
    assert table.get_by_role("columnheader", name="ratio").count() == 1
    assert table.get_by_role("rowheader", name="wall", exact=True).count() == 3
    texts = table.locator("tbody tr").first.locator("th, td")
    sizes = texts.evaluate_all(
        "all => all.map((each) => parseFloat(getComputedStyle(each).fontSize))"
    )
    assert min(sizes) >= 13


def test_print_has_everything_except_controls(open_page: Open) -> None:
    tab = open_page(color_scheme="dark")
    tab.page.emulate_media(media="print")
    for name in ("nav", "#theme", "#filters", ".actions"):
        assert not tab.page.locator(name).first.is_visible(), name
    for text in ("Noise floor: pairs of equal sides", "work / A/A", "digest of work"):
        folded = tab.page.locator("details").filter(has_text=text).first
        assert folded.locator("figure, table, dl").first.is_visible(), text
    assert tab.page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert tab.page.pdf(format="A4").startswith(b"%PDF")
    # Sections that were folded are folded again.
    tab.page.emulate_media(media="screen")
    assert tab.page.locator("details[open]").count() == 0


def test_the_page_is_readable_without_scripts(open_page: Open) -> None:
    tab = open_page("one.html", java_script_enabled=False)
    assert tab.page.get_by_text("work / slower / cpu").first.is_visible()
    assert len(column(tab, 3)) == 15
    for name in ("#theme", "#filters", ".actions"):
        assert not tab.page.locator(name).is_visible()
    assert tab.page.get_by_text("Saving needs JavaScript").is_visible()


def test_the_data_can_be_saved(open_page: Open) -> None:
    tab = open_page("one.html")
    with tab.page.expect_download() as saved:
        tab.page.get_by_role("button", name="Save as JSON").click()
    assert saved.value.suggested_filename == "trae-bench.json"
    (found,) = json.loads(Path(saved.value.path()).read_text("utf-8"))["runs"]
    assert found["file"] == "run.json"
    with tab.page.expect_download() as saved:
        tab.page.get_by_role("button", name="Save as CSV").click()
    assert saved.value.suggested_filename == "trae-bench.csv"
    lines = list(csv.DictReader(io.StringIO(Path(saved.value.path()).read_text("utf-8"))))
    expected = sum(len(each["pairs"]) * len(each["metrics"]) for each in found["cells"])
    assert len(lines) == expected
    lost = [line for line in lines if line["void"]]
    assert {(line["contrast"], line["pair"]) for line in lost} == {("idle", "3"), ("slower", "2")}
    assert {line["contrast"] for line in lines} == {NOISE_FLOOR, "faster", "slower", "idle"}
    (wall,) = (
        line
        for line in lines
        if (line["contrast"], line["metric"], line["pair"]) == ("idle", "wall", "1")
    )
    (sample,) = (
        one
        for one in run().samples
        if (one.contrast, one.mode, one.pair, one.side) == ("idle", "serial", 1, "B")
    )
    assert float(wall["b"]) == pytest.approx(sample.metrics["wall"], rel=1e-4)
    assert tab.complaints == []


def test_the_policy_blocks_injected_code(open_page: Open) -> None:
    tab = open_page("one.html")
    blocked = tab.page.evaluate("""async () => {
      const blocked = [];
      addEventListener("securitypolicyviolation", (each) => blocked.push(each.effectiveDirective));
      const script = document.createElement("script");
      script.textContent = "window.ran = true";
      const style = document.createElement("style");
      style.textContent = "h1 { display: none }";
      const image = new Image();
      image.src = "https://example.invalid/x.png";
      const link = document.createElement("div");
      link.innerHTML = "<p onclick='window.ran = true' style='color: red'>x</p>";
      document.body.append(script, style, image, link);
      link.firstChild.click();
      await fetch("https://example.invalid/").catch(() => {});
      await new Promise((done) => setTimeout(done));
      return blocked;
    }""")
    assert set(blocked) >= {
        "script-src-elem",
        "script-src-attr",
        "style-src-elem",
        "style-src-attr",
        "img-src",
        "connect-src",
    }
    assert tab.page.evaluate("window.ran") is None
    assert tab.page.locator("h1").is_visible()


def test_untrusted_text_does_not_run(browser: Any, tmp_path: Path) -> None:
    sources = []
    for plant in PLANTS:
        made = planted(document(), lambda old, plant=plant: old and old[:40] + plant)
        sources.append(Source("=run" + plant, msgspec.convert(made, RunFile)))
    path = tmp_path / "page.html"
    path.write_text(page(sources), "utf-8")
    tab = Tab(browser, path)
    for each in tab.page.locator("button:visible:not([data-save])").all():
        each.click()
    with tab.page.expect_download() as saved:
        tab.page.get_by_role("button", name="Save as CSV").click()
    rows = list(csv.reader(io.StringIO(Path(saved.value.path()).read_text("utf-8"))))
    assert len({row[0] for row in rows[1:]}) == len(PLANTS)
    for row in rows:
        assert len(row) == 10
        assert not [
            cell for cell in row if (cell[:1] in "=+@" and cell) or set(cell) & set("<\x1b\n")
        ]
    assert tab.complaints == []
    assert tab.page.locator("script").count() == 2
    assert tab.page.locator("svg script, [onload], [onclick], [style]").count() == 0
    assert len([url for url in tab.requests if not url.startswith(("data:", "blob:"))]) == 1
    tab.context.close()
