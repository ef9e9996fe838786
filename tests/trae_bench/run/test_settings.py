"""The project's settings: read strictly, told with file and line, and published as a schema."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from trae_bench.errors import UsageError
from trae_bench.metrics import METRICS
from trae_bench.run import settings
from trae_bench.run.settings import FILE, Settings, apply, load, parse
from trae_bench.stats.metric_rules import metric_threshold
from trae_bench.subject.agents.catalog import shipped

ROOT = Path(__file__).resolve().parents[3]
WHOLE = """\
[project]
name = "mine"

[tool.other]
anything = [1, 2]

[tool.trae-bench]
default-branch = "trunk"
scenarios = ["bugfix", "own/session.toml"]
profile = "full"

[tool.trae-bench.thresholds]
cpu = 0.03
wall = 0.1
requests = 0.001
"""


def test_all_settings_are_read() -> None:
    found = parse(WHOLE)
    assert found == Settings(
        default_branch="trunk",
        scenarios=("bugfix", "own/session.toml"),
        profile="full",
        thresholds={"cpu": 0.03, "wall": 0.1, "requests": 0.001},
    )


@pytest.mark.parametrize("text", ["", "[project]\nname = 'x'\n", "[tool.other]\na = 1\n"])
def test_without_the_table_everything_is_as_it_comes(text: str) -> None:
    assert parse(text) == Settings()


WRONG = {
    'default_branch = "x"': (2, "default_branch", "did you mean default-branch?"),
    'profil = "quick"': (2, "profil", "did you mean profile or prices?"),
    'profile = "quik"': (2, "profile", "did you mean quick?"),
    'default-branch = ""': (2, "default-branch", "length >= 1"),
    "scenarios = 'bugfix'": (2, "scenarios", "expected an array"),
    "scenarios = [\n  'a',\n  3]": (4, "scenarios[1]", "expected a string"),
    "scenarios = ['bugfix',\n 'bugfx']": (3, "scenarios[1]", "did you mean bugfix"),
    "scenarios = ['bugfix', 'fan-out',\n 'bugfix']": (3, "scenarios[2]", "listed twice"),
    "thresholds = 3": (2, "thresholds", "expected a table"),
    "[tool.trae-bench.thresholds]\nwall = 0.2\ncpuu = 0.2": (4, "cpuu", "did you mean cpu"),
    "[tool.trae-bench.thresholds]\nwall = 0.2\ncpu = 3": (4, "cpu", "0.03 is 3 %"),
    "[tool.trae-bench.thresholds]\nwall = 0.2\ncpu = nan": (4, "cpu", "a fraction"),
    "[tool.trae-bench.thresholds]\nwall = 0.2\ncpu = inf": (4, "cpu", "a fraction"),
    "[tool.trae-bench.thresholds]\nwall = 0.2\ncpu = 0": (4, "cpu", "a fraction"),
    "[tool.trae-bench.thresholds]\nwall = 0.2\ncpu = true": (4, "cpu", "a fraction"),
    "[tool.trae-bench.thresholds]\nwall = 0.2\ncpu = '3 %'": (4, "cpu", "a fraction"),
    "[tool.trae-bench.thresholds]\ncpu = 0.01": (3, "cpu", "less than 0.02"),
    "[tool.trae-bench.thresholds]\npeak_rss = 0.001": (3, "peak_rss", "less than 0.01"),
}


@pytest.mark.parametrize("text", WRONG)
def test_whatever_is_wrong_is_named_with_its_line(text: str, tmp_path: Path) -> None:
    line, path, remedy = WRONG[text]
    file = tmp_path / FILE
    file.write_text(f"[tool.trae-bench]\n{text}\n")
    with pytest.raises(UsageError) as caught:
        load(tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{file}:{line}: tool.trae-bench.")
    assert path in said
    assert remedy in said


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        parse("[tool.trae-bench.thresholds]\ncpuu = 0.2\nwal = 0.3\nwall = 0.001\n")
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("content", "said"), [(b"[tool.trae-bench\n", ":1:17:"), (b"\xff\xfe = 1", "not UTF-8")]
)
def test_a_broken_file_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UsageError, match=FILE) as caught:
        load(tmp_path)
    assert said in str(caught.value)


def test_the_nearest_file_with_the_table_is_taken(tmp_path: Path) -> None:
    inner = tmp_path / "package" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / FILE).write_text("[tool.trae-bench]\nprofile = 'full'\n")
    (inner.parent / FILE).write_text("[project]\nname = 'package'\n")
    assert load(inner).profile == "full"
    (inner.parent / FILE).write_text("[tool.trae-bench]\nprofile = 'smoke'\n")
    assert load(inner).profile == "smoke"
    assert load(tmp_path).profile == "full"


def test_nothing_above_the_repository_is_looked_at(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    (repository / ".git").mkdir(parents=True)
    (tmp_path / FILE).write_text("[tool.trae-bench]\nprofile = 'full'\n")
    assert load(repository) == Settings()


def test_thresholds_go_to_their_metrics_and_nowhere_else() -> None:
    found = apply(parse(WHOLE), METRICS)
    assert list(found) == list(METRICS)
    assert {name: metric.threshold for name, metric in found.items() if metric.threshold} == {
        "cpu": 0.03,
        "wall": 0.1,
        "requests": 0.001,
    }
    assert metric_threshold(found["cpu"]) == 0.03
    assert metric_threshold(found["peak_rss"]) == metric_threshold(METRICS["peak_rss"])
    assert apply(Settings(), METRICS) == dict(METRICS)


# -- the schema


def published() -> Any:
    return json.loads((ROOT / "docs/schemas/settings.schema.json").read_text("utf-8"))


def test_the_published_schema_is_current() -> None:
    """Made with `python -m tests.trae_bench.run.test_settings`."""
    assert published() == settings.schema()


def test_the_published_schema_of_agents_is_current() -> None:
    committed = json.loads((ROOT / "docs/schemas/agent.schema.json").read_text("utf-8"))
    assert committed == settings.agent_schema()
    for path in shipped().values():
        jsonschema.validate(tomllib.loads(path.read_text("utf-8")), committed)
    for name, described in committed["$defs"]["AgentEntry"]["properties"].items():
        assert described["description"], name


def test_every_setting_is_described() -> None:
    for name, described in published()["$defs"]["Settings"]["properties"].items():
        assert described["description"], name


def table(text: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = tomllib.loads(text)["tool"]["trae-bench"]
    return found


def test_the_schema_takes_what_is_read() -> None:
    jsonschema.validate(table(WHOLE), published())


@pytest.mark.parametrize("text", ["profil = 'quick'", "profile = 'quik'", "thresholds.cpu = 3"])
def test_the_schema_refuses_what_is_refused(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(table(f"[tool.trae-bench]\n{text}\n"), published())


def test_this_projects_own_settings_are_right() -> None:
    load(ROOT)


if __name__ == "__main__":
    target = ROOT / "docs/schemas/settings.schema.json"
    target.write_text(json.dumps(settings.schema(), indent=2) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '[tool.trae-bench.agents.tiny]\ncommand = "tiny {base_url} {task}"\nabotu = ""\n',
            "pyproject.toml:3: tool.trae-bench.agents.tiny.abotu: unknown field; did you mean",
        ),
        (
            "[tool.trae-bench]\nagents = 3\n",
            "pyproject.toml:2: tool.trae-bench.agents: expected a table",
        ),
    ],
)
def test_a_wrong_agent_is_named(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert str(caught.value).startswith(problem)
