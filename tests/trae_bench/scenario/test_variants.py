"""Variants: what they change, and the line numbers of their errors."""

from pathlib import Path

import pytest

from trae_bench.errors import ScenarioError
from trae_bench.scenario import check, find, load, parse, split

BASE = """\
name = "base"
about = "shows nothing"
task = "do it"
metrics = ["cpu", "wall"]
variants = [
  { name = "far", about = "far away", provider = { rtt_seconds = 0.04 } },
  { name = "crowd", load = { sessions = 9, concurrency = 3 }, metrics = ["cpu"] },
]

[toggles]
vary = ["parallel_tools"]
hold = { event_shell = true }

[provider]
think_seconds = 0.5

[[turns]]
calls = [{ tool = "task_done" }]
"""


def error_of(old: str, new: str, variant: str = "") -> str:
    assert BASE.count(old) == 1
    with pytest.raises(ScenarioError) as caught:
        parse(BASE.replace(old, new), "s.toml", variant)
    return str(caught.value)


def test_a_variant_changes_only_the_keys_it_sets() -> None:
    base, far, crowd = (parse(BASE, variant=variant) for variant in ("", "far", "crowd"))
    assert [variant.name for variant in base.variants] == ["far", "crowd"]
    assert (far.name, far.about, far.variants) == ("base@far", "far away", ())
    assert (far.provider.rtt_seconds, far.provider.think_seconds) == (0.04, 0.5)
    assert (far.toggles, far.metrics, far.turns) == (base.toggles, base.metrics, base.turns)
    assert (crowd.load.sessions, crowd.metrics) == (9, ("cpu",))
    assert crowd.provider == base.provider
    assert base.load.sessions == 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("rtt_seconds", "rtt", "s.toml:6: variants[0].provider.rtt: unknown field"),
        ("0.04", '"far"', "s.toml:6: variants[0].provider.rtt_seconds: expected a number"),
        ("sessions = 9", "sessions = 2", "s.toml:7: variants[1].load.concurrency: variant crowd"),
        (
            'name = "crowd"',
            'name = "far"',
            "s.toml:7: variants[1].name: variant 'far' is defined twice",
        ),
        ('name = "crowd"', 'name = "A B"', "s.toml:7: variants[1].name: expected lower-case"),
        ("load = {", "laod = {", "s.toml:7: variants[1].laod: unknown field; did you mean load?"),
    ],
)
def test_errors_of_a_variant_are_reported_for_any_selection(
    old: str, new: str, expected: str
) -> None:
    assert expected in error_of(old, new)
    assert expected in error_of(old, new, "far")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            'metrics = ["cpu"] }',
            'metrics = ["gpu"] }',
            r"7: variants\[1\]\.metrics\[0\]: .*gpu",
        ),
        ('"parallel_tools"', '"tools"', r"11: toggles\.vary\[0\]: .*tools"),
        ("load = {", "toggles = { hold = {} }, load = {", r"11: toggles\.vary\[0\]: .*_tools"),
        (
            "load = {",
            'toggles = { vary = ["x"] }, load = {',
            r"7: variants\[1\]\.toggles\..*'x'",
        ),
    ],
)
def test_unknown_names_are_reported_where_they_are_set(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    path = tmp_path / "base.toml"
    path.write_text(BASE.replace(old, new))
    with pytest.raises(ScenarioError, match=rf"base\.toml:{expected}"):
        check(load(path, "crowd"), toggles=["event_shell"], metrics=["cpu"], source=path)


def test_an_unknown_variant_lists_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match="no variant 'fra'; did you mean far"):
        parse(BASE, variant="fra")


def test_a_file_name_selects_its_variants(tmp_path: Path) -> None:
    folder = tmp_path / "me@home"
    folder.mkdir()
    path = folder / "base.toml"
    path.write_text(BASE)
    assert load(path, "far").name == "base@far"
    assert find(f"{path}@far") == find(str(path)) == path
    assert split(f"{path}@far") == (str(path), "far")
    assert split(str(path)) == (str(path), "")
    assert find("api-sequential@tls-rtt40").name == "api-sequential.toml"


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ('[[turns]]\ncalls = [{ tool = "task_done" }]\n', "turns"),
        ("[load]\nsessions = 2\n", "load"),
        ("[provider]\ntls = true\n", "provider"),
    ],
)
def test_a_command_has_no_session(more: str, path: str) -> None:
    head = BASE.partition("variants")[0]
    tail = '[toggles]\nvary = ["lazy_tools"]\n[subject]\ncommand = ["--help"]\n'
    none = "" if path == "turns" else "turns = []\n"
    with pytest.raises(ScenarioError, match=rf"{path}: a command runs without a session"):
        parse(head + none + tail + more)
    assert parse(f"{head}turns = []\n{tail}").subject.command == ("--help",)
