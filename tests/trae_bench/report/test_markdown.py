"""The Markdown comment: verdict first, table folded, below the limit for any run."""

import html
import re
from collections.abc import Callable
from functools import cache

import msgspec
import pytest

from tests.trae_bench.runs import honest
from trae_bench.metrics import METRICS
from trae_bench.model.result import Pairs
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_markdown, markdown_text
from trae_bench.report.text.markdown import MARKER, MAX_COMMENT, comment, headline

replace = msgspec.structs.replace


@cache
def run() -> RunFile:
    return honest()


@cache
def lossy() -> RunFile:
    return honest(lost={("slower", n): "differ" for n in range(9)} | {("idle", 4): "crash"})


@cache
def crashed() -> RunFile:
    return honest(toggles=("idle",), lost={("idle", n): "crash" for n in range(9)})


def test_the_verdict_comes_first_and_the_table_is_folded() -> None:
    lines = comment(run()).splitlines()
    assert lines[0] == MARKER
    assert lines[1] == "### trae-bench: 3 regressions"
    worse = [n for n, line in enumerate(lines) if line.startswith("- **regression**")]
    better = [n for n, line in enumerate(lines) if line.startswith("- **improvement**")]
    fold = lines.index("<details><summary>15 comparisons</summary>")
    end = lines.index("</details>")
    assert len(worse) == len(better) == 3
    assert max(worse) < min(better) < fold < end
    rows = [line for line in lines[fold:end] if line.startswith("| <code>")]
    assert len(rows) == 15
    assert not any("A/A" in row for row in rows)
    assert {line.count("|") for line in lines[fold:end] if line.startswith("|")} == {10}
    assert lines[fold + 1] == ""  # or GitHub takes the table for plain text


def test_figures_machine_and_commit_are_shown() -> None:
    text = comment(run())
    assert re.search(r"slower</code> / <code>cpu</code>: \d+ ms → \d+ ms, ratio 1\.\d+", text)
    assert "<code>0123456789</code>, on <code>2 x an ordinary one, 8.59 GB of memory</code>" in text
    assert lines_before_the_rows(text)[3].startswith("<code>A/A noise&#58; cpu")
    dirty = replace(run(), header=replace(run().header, code={"commit": "a", "dirty": True}))
    assert "uncommitted changes" in comment(dirty)


def for_information(run: RunFile) -> RunFile:
    return replace(run, comparisons=tuple(replace(row, gated=False) for row in run.comparisons))


def lines_before_the_rows(text: str) -> list[str]:
    return text.partition("- **")[0].splitlines()


@pytest.mark.parametrize(
    ("made", "claimed", "message"),
    [
        (run, True, "3 regressions"),
        (run, False, "too few pairs for verdicts"),
        (lambda: honest(toggles=("faster",)), True, "no regression, 3 improvements"),
        (lambda: honest(toggles=("idle",), noise=0.2), True, "no regression"),
        (lambda: for_information(run()), True, "no gated verdict"),
        (lambda: honest(toggles=("idle",)), True, "no regression"),
        (lossy, True, "the two sides give different answers"),
        (lossy, False, "the two sides give different answers"),
        (crashed, True, "nothing could be measured"),
        (lambda: replace(run(), comparisons=()), True, "nothing could be measured"),
    ],
)
def test_headline(made: object, claimed: bool, message: str) -> None:
    assert callable(made)
    assert headline(made(), claimed=claimed).startswith(message)


def test_lost_pairs_have_a_reason() -> None:
    text = comment(lossy())
    (line,) = (line for line in text.splitlines() if "duet pairs lost" in line and "idle" in line)
    assert line.startswith("- 1 duet pairs lost (not measured)")
    assert "oh no" in line
    assert "answers differ" in text


def test_lost_pairs_of_a_probe_are_listed_separately() -> None:
    head = crashed().header
    watched = {"peak_rss": replace(head.metrics["peak_rss"], probe="memory")}
    run = replace(crashed(), header=replace(head, metrics=head.metrics | watched))
    found = re.findall(r"^- \d+ ([\w ]+) pairs lost", comment(run), re.M)
    assert found == ["duet", "duet memory", "serial"]


def test_metrics_that_are_too_noisy_are_all_named() -> None:
    names = [f"metric-{n}" for n in range(20)]
    floor = replace(run().noise[0], smallest_effect=0.2, reliability="too noisy")
    noisy = tuple(replace(floor, metric=name) for name in names)
    header = replace(
        run().header, metrics=run().header.metrics | dict.fromkeys(names, METRICS["cpu"])
    )
    text = comment(replace(run(), header=header, noise=noisy))
    assert all(f"{name}," in text or f"{name}<" in text for name in names)


def test_few_pairs_get_no_verdict() -> None:
    text = comment(run(), claimed=False)
    assert "**regression**" not in text
    assert "| regression |" not in text


def test_the_largest_run_fits() -> None:
    """A thousand rows with the longest names, in which each character takes six."""
    rows = [
        replace(
            row,
            scenario="|" * 190 + str(n),
            contrast="<" * 200,
            pairs=Pairs(1, 2, 3, ("`" * 8000,)),
        )
        for n in range(100)
        for row in run().comparisons
    ]
    huge = replace(run(), comparisons=tuple(rows))
    text = comment(huge)
    assert len(text) < MAX_COMMENT
    assert len(text) > MAX_COMMENT * 0.7
    assert text.count("<details>") == text.count("</details>") == 1
    shown, left = len(re.findall(r"^\| <code>", text, re.M)), re.search(r"(\d+) more rows", text)
    assert left is not None
    assert shown + int(left[1]) == len(rows)
    assert text.count("- **regression**") == 10
    assert "- and 290 more: **regression**" in text


def test_the_longest_facts_fit() -> None:
    facts = dict.fromkeys(("cpu", "cores", "kernel", "python"), "|" * 8000)
    header = replace(
        run().header,
        machine=facts,
        code={"commit": "|" * 8000},
        created="|" * 200,
        metrics=run().header.metrics | {"|" * 200: METRICS["cpu"]},
    )
    noise = tuple(replace(floor, metric="|" * 200) for floor in run().noise)
    assert len(comment(replace(run(), header=header, noise=noise))) < MAX_COMMENT


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("parallel_tools", "parallel_tools"),
        ("1.5 s", "1.5 s"),
        ("_x_", "&#95;x&#95;"),
        ("a|b", "a&#124;b"),
        ("`x`", "&#96;x&#96;"),
        ("<b>", "&#60;b&#62;"),
        ("&amp;", "&#38;amp&#59;"),
        ("www.x", "www&#46;x"),
        ("[a](b)", "&#91;a&#93;(b)"),
        ("a::b", "a&#58;&#92;x3ab"),
        ("a\nb", "a&#92;x0ab"),
    ],
)
def test_text_is_escaped_for_markdown(text: str, shown: str) -> None:
    assert markdown_text(text) == shown
    assert for_markdown(text) == f"<code>{shown}</code>"


def test_mentions_and_references_are_prevented() -> None:
    """GitHub decodes entities before it looks for names and numbers, except in code."""
    text = "@me o/r#1 GH-12 gh-1 HIGH-5"
    assert html.unescape(markdown_text(text)) == (
        "@\u200bme o/r#\u200b1 GH\u200b-12 gh\u200b-1 HIGH-5"
    )
    assert for_markdown(text) == "<code>&#64;me o/r&#35;1 GH-12 gh-1 HIGH-5</code>"


# The prefix of an extended autolink: GitHub Flavored Markdown 0.29, section 6.9. The parser reads
# `www.` and schemes in the source, but looks for addresses after it has decoded entities.
AUTOLINK = re.compile(r"(?:https?|ftp)://\w|www\.\w", re.IGNORECASE)
ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.ASCII)


@pytest.mark.parametrize(
    "text",
    [
        "a@b.co",
        "a.b-c_d+e@b-c.example.org",
        "a@b_c.org",
        "a@1.2",
        "mailto:a@b.co",
        "MAILTO:a@b.co",
        "xmpp:a@b.co/resource",
        "a@b@c.co",
        "www.example.org",
        "(WWW.example.org)",
        "http://example.org",
        "HTTPS://1.2.3.4/x",
        "ftp://example.org/x_y",
    ],
)
@pytest.mark.parametrize("escape", [for_markdown, markdown_text])
def test_nothing_becomes_an_autolink(escape: Callable[[str], str], text: str) -> None:
    assert AUTOLINK.search(text) or ADDRESS.search(text)
    escaped = escape(f"see {text}, please")
    assert not AUTOLINK.search(escaped)
    assert not ADDRESS.search(escaped)
    assert not ADDRESS.search(html.unescape(escaped))
    assert html.unescape(escaped).replace("\u200b", "").count(text) == 1


def test_the_name_of_a_variant_stays_as_it_is() -> None:
    assert for_markdown("long@memory 1.5") == "<code>long&#64;memory 1.5</code>"


def test_an_empty_text_stays_empty() -> None:
    assert for_markdown("") == ""
