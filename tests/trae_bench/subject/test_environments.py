"""Environments and their size, without a package index."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement as Theirs

from trae_bench.cli import main
from trae_bench.errors import CannotMeasure, ScenarioError
from trae_bench.execution.subprocess_executor import SubprocessExecutor
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Arm, Side, Trial
from trae_bench.model.sample import Sample
from trae_bench.scenario import SubjectSetup, check, find, load, parse
from trae_bench.scenario.measurable import INSTALL_METRICS
from trae_bench.storage.run_file import read_run
from trae_bench.subject.agent_core import AgentCoreSubject, extras
from trae_bench.subject.install import environments, inventory, requirements
from trae_bench.subject.install.environments import (
    EnvironmentBuilder,
    Installer,
    Installs,
    NotMade,
    Work,
    provide,
)
from trae_bench.subject.install.inventory import of_environment, of_records
from trae_bench.subject.install.requirements import (
    Declared,
    Requirement,
    closure,
    declared,
    holds,
    needed,
    normal,
)

SITE = Path("lib", "python3.11", "site-packages")


def install(site: Path, name: str, files: Mapping[str, str], requires: tuple[str, ...] = ()) -> int:
    """Create an installed distribution. Return its bytes, including its RECORD file."""
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    lines = [f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\nProvides-Extra: more\n"]
    lines += [f"Requires-Dist: {text}\n" for text in requires]
    whole = {**files, f"{info}/METADATA": "".join(lines)}
    for path, text in whole.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    listed = [f"{path},sha256=x,{len(text)}\n" for path, text in whole.items()]
    record = "".join([*listed, f"{info}/RECORD,,\n"])
    (site / info / "RECORD").write_text(record)
    return sum(map(len, whole.values())) + len(record)


def empty(prefix: Path) -> Path:
    """Create files like those of `venv`."""
    (prefix / SITE).mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python").symlink_to(sys.executable)
    (prefix / "pyvenv.cfg").write_text("home = here\n")
    (prefix / "lib64").symlink_to("lib")
    return prefix


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    return empty(tmp_path / "full"), empty(tmp_path / "bare")


# -- the inventory


def test_the_empty_environment_is_subtracted(both: tuple[Path, Path]) -> None:
    prefix, bare = both
    size = install(prefix / SITE, "one", {"one/a.py": "a = 1\n", "../../../bin/one": "#!python\n"})
    size += install(prefix / SITE, "two", {"two.py": "b = 2\n"})
    assert of_environment(prefix, bare) == {
        "install_size": size,
        "closure_size": size,
        "unrecorded_size": 0,
        "bytecode_size": 0,
        "distributions": 2,
    }
    assert of_environment(bare, bare) == dict.fromkeys(INSTALL_METRICS, 0)


def test_bytecode_is_counted_separately(both: tuple[Path, Path]) -> None:
    prefix, bare = both
    size = install(prefix / SITE, "one", {"one.py": "a = 1\n"})
    cache = prefix / SITE / "__pycache__"
    cache.mkdir()
    (cache / "one.cpython-311.pyc").write_bytes(b"12345")
    record = prefix / SITE / "one-1.0.dist-info" / "RECORD"
    before = of_environment(prefix, bare)
    assert (before["install_size"], before["bytecode_size"]) == (size, 5)

    line = "__pycache__/one.cpython-311.pyc,,\n"
    record.write_text(record.read_text() + line)
    after = of_environment(prefix, bare)
    assert after["closure_size"] == size, "as if it had never been compiled"
    assert after["unrecorded_size"] == len(line)


def test_a_file_in_two_lists_counts_once(both: tuple[Path, Path]) -> None:
    prefix, bare = both
    shared = {"space/__init__.py": "x" * 100}
    size = install(prefix / SITE, "one", shared) + install(prefix / SITE, "two", shared) - 100
    found = of_environment(prefix, bare)
    assert (found["install_size"], found["closure_size"]) == (size, size)


def test_links_do_not_count_twice(both: tuple[Path, Path]) -> None:
    prefix, bare = both
    file = prefix / "file"
    file.write_text("x" * 1000)
    (prefix / "again").hardlink_to(file)
    elsewhere = prefix.with_name("elsewhere")
    elsewhere.write_text("x" * 10)
    (prefix / "pointer").symlink_to(elsewhere)
    (prefix / "folder").symlink_to(bare)
    os.mkfifo(prefix / "pipe")
    assert of_environment(prefix, bare)["install_size"] == 1000


@pytest.mark.parametrize(
    ("disturb", "bytes_off"),
    [
        (lambda site: (site / "stranger.txt").write_text("12345"), 5),
        (lambda site: (site / "one.py").unlink(), 6),
        (lambda site: (site / "one.py").write_text("longer than it was"), 12),
    ],
)
def test_unlisted_files_are_reported(
    both: tuple[Path, Path], disturb: Callable[[Path], object], bytes_off: int
) -> None:
    prefix, bare = both
    install(prefix / SITE, "one", {"one.py": "a = 1\n"})
    disturb(prefix / SITE)
    assert of_environment(prefix, bare)["unrecorded_size"] == bytes_off


def test_a_missing_environment_is_an_error(both: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        of_environment(tmp_path / "gone", both[1])
    with pytest.raises(FileNotFoundError):
        of_records([tmp_path / "gone-1.0.dist-info" / "RECORD"])


@given(st.lists(st.integers(0, 10**15), max_size=20))
def test_lists_add_up(tmp_path_factory: pytest.TempPathFactory, listed: list[int]) -> None:
    record = tmp_path_factory.mktemp("site") / "a-1.dist-info" / "RECORD"
    record.parent.mkdir()
    text = "".join(f'"file, {number}",x,{size}\n' for number, size in enumerate(listed))
    record.write_text(text)
    found = of_records([record])
    own = 0 if "RECORD" in text else len(text)
    assert found == {"closure_size": sum(listed) + own, "distributions": 1}


def test_the_inventory_needs_no_package(both: tuple[Path, Path], tmp_path: Path) -> None:
    prefix, bare = both
    size = install(prefix / SITE, "one", {"json.py": "raise SystemExit('imported')\n"})
    argv = Installs("x", {(): Work(str(prefix), str(bare))}).command((), tmp_path, 1)
    done = subprocess.run(argv, cwd=prefix / SITE, env={}, capture_output=True, check=True)
    report = json.loads(done.stdout)
    assert report["final_text"] == inventory.MEASURED
    assert report["counters"]["install_size"] == size


# -- requirements


def test_markers_agree_with_packaging() -> None:
    """Return every marker of the installed distributions, with every extra."""
    asked = 0
    for distribution in metadata.distributions():
        offered = distribution.metadata.get_all("Provides-Extra") or []
        for text in distribution.requires or ():
            theirs, ours = Theirs(text), requirements.parse(text)
            assert (ours.name, set(ours.extras)) == (
                normal(theirs.name),
                set(map(normal, theirs.extras)),
            )
            for extra in ("", *offered):
                expected = theirs.marker is None or theirs.marker.evaluate({"extra": extra})
                assert holds(ours.marker, extra) == expected, text
                asked += 1
    assert asked > 100


VARIABLES = sorted(default_environment().keys() - {"platform_release", "platform_version"})
VERSIONS = {"python_version", "python_full_version", "implementation_version"}


@given(
    st.sampled_from(VARIABLES),
    st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "not in"]),
    st.sampled_from(["3", "3.8", "3.11", "3.11.0", "3.12", "3.13.0", "4.0", "2.7.18"]),
    st.sampled_from(["linux", "win32", "posix", "CPython", "Linux Darwin"]),
    st.booleans(),
)
def test_comparisons_agree_with_packaging(
    name: str, operator: str, version: str, word: str, turned: bool
) -> None:
    value = version if name in VERSIONS else word
    # Texts are not ordered.
    if name not in VERSIONS and operator[0] in "<>":
        operator = "=="
    sides = (f"'{value}'", name) if turned else (name, f'"{value}"')
    if turned and name in VERSIONS and "in" in operator:
        operator = "=="
    marker = f"{sides[0]} {operator} {sides[1]} and (os_name == 'posix' or os_name != 'posix')"
    assert holds(marker) == Marker(marker).evaluate()


@pytest.mark.parametrize(
    "marker", ["python_version ~= '3.8'", "nonsense == 'x'", "1", "f()", "(", "os_name == 1"]
)
def test_an_invalid_marker_is_refused(marker: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        holds(marker)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Foo.Bar >= 1, <2 ; os_name == 'x'", "foo-bar >=1,<2"),
        ("foo[B_c, d] (>=1)", "foo[b-c,d] >=1"),
        ("foo @ https://host/foo.whl", "foo @https://host/foo.whl"),
        ("foo", "foo"),
    ],
)
def test_a_requirement_is_formatted_for_an_installer(text: str, plain: str) -> None:
    found = str(requirements.parse(text))
    assert found == plain
    assert (Theirs(found).name, Theirs(found).specifier) == (
        normal(Theirs(text).name),
        Theirs(text).specifier,
    )


OWN = """
[project]
name = "trae-bench"
dependencies = ["base>=1", "never; os_name == 'never'"]
[project.optional-dependencies]
a = ["first"]
b = ["second[more]; os_name != 'never'", "never; os_name == 'never'"]
all = ["trae-bench[a,b]"]
"""


@pytest.fixture
def own(tmp_path: Path) -> Declared:
    (tmp_path / "pyproject.toml").write_text(OWN)
    return declared(tmp_path / "trae_bench")


def test_extras_of_the_checkout_are_followed(own: Declared) -> None:
    def texts(*extras: str) -> list[str]:
        return list(map(str, needed(extras, own)))

    assert own.extras == {"a", "b", "all"}
    assert texts() == ["base >=1"]
    assert texts("a") == ["base >=1", "first"]
    assert texts("all") == texts("b", "a") == ["base >=1", "first", "second[more]"]


def test_without_a_checkout_the_metadata_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "trae-bench", {}, ("base", "sdk; extra == 'more'"))
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\n')
    monkeypatch.syspath_prepend(tmp_path)
    found = declared(tmp_path / "trae_bench")
    assert found.extras == {"more"}
    assert [str(one) for one in needed(("more",), found)] == ["base", "sdk"]


def test_the_lock_covers_the_extras() -> None:
    locked = {
        line.partition("==")[0] for line in environments.constraints().read_text().splitlines()
    }
    named = {one.name for one in needed(sorted(extras()), declared())}
    assert named <= {normal(name) for name in locked}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Create installed distributions, and return their sizes."""
    site = tmp_path / "here"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    sizes = {
        "x-top": install(site, "x-top", {}, ("x-base", "x-extra; extra == 'more'")),
        "x-base": install(site, "x-base", {"x.py": "1"}, ("x-top", "no; os_name == 'never'")),
        "x-extra": install(site, "x-extra", {"y.py": "22"}, ("x-missing; extra == 'more'",)),
    }
    (site / "x_bare-1.0.dist-info").mkdir()
    (site / "x_bare-1.0.dist-info" / "METADATA").write_text("Name: x-bare\nVersion: 1.0\n")
    return sizes


def test_a_closure_follows_extras_and_ends(here: dict[str, int]) -> None:
    assert set(closure([Requirement("x-top")])) == {"x-top", "x-base"}
    assert set(closure([Requirement("x-top", ("more",))])) == {"x-top", "x-base", "x-extra"}
    with pytest.raises(LookupError, match="x-missing is not installed here"):
        closure([Requirement("x-extra", ("more",))])


# -- creating environments

TOOL = """
import json, os, sys, time
from pathlib import Path
what, log, prefix, *asked = sys.argv[1:]
with open(log, "a") as file:
    file.write(json.dumps({"asked": asked, "env": dict(os.environ)}) + "\\n")
site = Path(prefix, "lib/python3.11/site-packages")
if what == "make":
    site.mkdir(parents=True)
    Path(prefix, "pyvenv.cfg").write_text("home")
elif what == "fill":
    for name in asked:
        name = name.partition("[")[0].partition(" ")[0].replace("-", "_")
        info = site / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("x" * 1000)
        (site / f"{name}.py").write_text("a = 1\\n")
        (info / "RECORD").write_text(
            f"{name}.py,x,6\\n{name}-1.dist-info/METADATA,x,1000\\n{name}-1.dist-info/RECORD,,\\n"
        )
elif what == "fail":
    print("the index is away")
    sys.exit(3)
elif what == "hang":
    if os.fork():
        time.sleep(1000)
    time.sleep(1000)
"""


class Tool:
    """A fake installer that uses no index and records its calls."""

    def __init__(self, folder: Path) -> None:
        self._script = folder / "tool.py"
        self._script.write_text(TOOL)
        self._log = folder / "calls"

    def installer(self, fill: str = "fill", name: str = "fake 1") -> Installer:
        start = (sys.executable, "-I", str(self._script))
        log = str(self._log)
        return Installer(name, (*start, "make", log, "{prefix}"), (*start, fill, log, "{prefix}"))

    @property
    def calls(self) -> list[dict[str, Any]]:
        return list(map(json.loads, self._log.read_text().splitlines()))


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool(tmp_path)


ONE = Requirement("one", (), ">=1")


def builder(tool: Tool, tmp_path: Path, **changes: Any) -> EnvironmentBuilder:
    return EnvironmentBuilder(tool.installer(**changes), [].append, tmp_path / "cache")


def test_an_environment_is_made_once(tool: Tool, tmp_path: Path) -> None:
    made = builder(tool, tmp_path).environment([ONE])
    assert [call["asked"] for call in tool.calls] == [[], ["one >=1"]]
    assert of_environment(made, builder(tool, tmp_path).environment([]))["distributions"] == 1
    assert len(tool.calls) == 3
    assert builder(tool, tmp_path).environment([ONE]) == made
    assert len(tool.calls) == 3
    assert list(made.glob("lib/python3.11/site-packages/__pycache__/one.*.pyc"))
    assert sorted(p.name for p in made.parent.iterdir() if p == made) == [made.name]
    assert not list(made.parent.glob("making-*"))


def test_the_cache_key_covers_everything_that_determines_the_content(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("one==1\n")
    monkeypatch.setattr(environments, "constraints", lambda: lock)
    found = {builder(tool, tmp_path).environment([])}
    found.add(builder(tool, tmp_path).environment([ONE]))
    found.add(builder(tool, tmp_path, name="fake 2").environment([ONE]))
    lock.write_text("one==2\n")
    found.add(builder(tool, tmp_path).environment([ONE]))
    assert len(found) == 4
    assert len({len(str(path)) for path in found}) == 1


@pytest.mark.parametrize(
    ("fill", "said"), [("fail", "the index is away"), ("hang", "killed after"), ("none", "another")]
)
def test_an_incomplete_environment_is_never_kept(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: str, said: str
) -> None:
    if fill == "hang":
        monkeypatch.setattr(environments, "STEP_SECONDS", 0.5)
    with pytest.raises(NotMade, match=said):
        builder(tool, tmp_path, fill=fill).environment([ONE])
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(NotMade, match="XDG_CACHE_HOME"):
        builder(tool, tmp_path).environment([])


def test_unused_environments_are_deleted(tool: Tool, tmp_path: Path) -> None:
    environments, many_days = builder(tool, tmp_path), 40 * 86400
    old, kept = environments.environment([]), environments.environment([ONE])
    (tmp_path / "cache" / "making-it").mkdir()
    for place in (tmp_path / "cache").iterdir():
        os.utime(place, (time.time() - many_days,) * 2)
    # A run marks it as used.
    assert environments.environment([ONE]) == kept
    new = environments.environment([Requirement("two")])
    assert sorted((tmp_path / "cache").iterdir()) == sorted([kept, new])
    assert environments.environment([]) == old


def test_two_concurrent_runs_share_one_environment(tmp_path: Path) -> None:
    made, target = tmp_path / "made", tmp_path / "target"
    made.mkdir()
    (target / "theirs").mkdir(parents=True)
    environments._move(made, target)
    assert (target / "theirs").is_dir()
    with pytest.raises(OSError, match="made"):
        environments._move(tmp_path / "made" / "nothing", tmp_path / "other")


def test_the_installer_gets_the_users_settings(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://index.example")
    monkeypatch.setenv("PIP_TARGET", "/somewhere")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("PIP_NO_TEXT", "\udcff")
    monkeypatch.setenv("https_proxy", "http://proxy.example")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/certificates")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("UV_PUBLISH_TOKEN", "secret")
    builder(tool, tmp_path).environment([])
    seen = tool.calls[0]["env"]
    assert seen["PIP_INDEX_URL"] == "http://index.example"
    assert (seen["PIP_NO_INPUT"], seen["HOME"]) == ("1", os.environ["HOME"])
    assert seen["https_proxy"] == "http://proxy.example"
    assert seen["REQUESTS_CA_BUNDLE"] == "/certificates"
    assert {"PIP_TARGET", "PYTHONPATH", "PIP_NO_TEXT"}.isdisjoint(seen)
    assert "secret" not in seen.values()


@pytest.mark.parametrize(
    ("cache", "expected"), [("/c", "/c"), ("", "home/.cache"), ("relative", "home/.cache")]
)
def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, cache: str, expected: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setenv("HOME", "home")
    assert environments.cache_folder() == Path(expected, "trae-bench", "installs")


def wheel(folder: Path) -> None:
    """Build the smallest wheel that installers accept."""
    files = {
        "tiny.py": "x = 1\n",
        "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny-1.0.dist-info/entry_points.txt": "[console_scripts]\ntiny = tiny:x\n",
    }
    lines = []
    for path, text in files.items():
        hashed = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        lines.append(f"{path},sha256={hashed.decode()},{len(text)}\n")
    files["tiny-1.0.dist-info/RECORD"] = "".join([*lines, "tiny-1.0.dist-info/RECORD,,\n"])
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


REAL = list(environments.available())


@pytest.mark.parametrize("installer", REAL, ids=[one.name.split()[0] for one in REAL])
def test_a_real_installer_installs_what_its_lists_contain(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(tmp_path)
    settings = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": str(tmp_path),
        "PIP_NO_INDEX": "1",
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "UV_FIND_LINKS": str(tmp_path),
        "UV_NO_CONFIG": "1",
        "UV_OFFLINE": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    environments = EnvironmentBuilder(installer, [].append, tmp_path / "cache")
    found = of_environment(
        environments.environment([Requirement("tiny")]), environments.environment([])
    )
    assert (found["distributions"], found["unrecorded_size"]) == (1, 0)
    # The entry point's script and the installer's own files are included.
    assert found["install_size"] == found["closure_size"] > 300
    assert 0 < found["bytecode_size"] < 1000


# -- environments of a run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Declare fake requirements of the agent."""
    always, more = Requirement("x-base"), Requirement("x-top", ("more",), "", "extra == 'more'")
    made_up = Declared((always, more), frozenset({"more"}))
    monkeypatch.setattr(requirements, "declared", lambda: made_up)


@pytest.mark.usefixtures("asked")
def test_the_first_installer_that_works_makes_all(tool: Tool, tmp_path: Path) -> None:
    said: list[str] = []
    tools = [tool.installer("fail", "broken 1"), tool.installer(), tool.installer("hang")]
    found = provide([(), ("more",)], said.append, installers=tools, cache=tmp_path / "c")
    assert found.facts == {"installer": "fake 1"}
    assert len({work.empty for work in found.work.values()}) == 1
    assert [line.split()[0] for line in said] == ["broken", "fake", "fake"]


@pytest.mark.usefixtures("asked")
def test_without_an_index_installed_distributions_are_measured(
    tool: Tool, tmp_path: Path, here: dict[str, int]
) -> None:
    said: list[str] = []
    tools = [tool.installer("fail")]
    found = provide([(), ("more",)], said.append, installers=tools, cache=tmp_path / "c")
    assert found.facts == {"installer": "none"}
    assert "the index is away" in said[-1]
    assert "there is no install_size" in said[-1]
    records = {extras: list(map(Path, work.records)) for extras, work in found.work.items()}
    # x-base requires x-top without its extra.
    bare = here["x-base"] + here["x-top"]
    assert of_records(records[()]) == {"closure_size": bare, "distributions": 2}
    assert of_records(records["more",])["closure_size"] == sum(here.values())


@pytest.mark.parametrize("missing", ["x-nowhere", "x-bare"])
@pytest.mark.usefixtures("here")
def test_without_any_distribution_nothing_can_be_measured(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    made_up = Declared((Requirement(missing),))
    monkeypatch.setattr(requirements, "declared", lambda: made_up)
    with pytest.raises(CannotMeasure, match="neither uv nor pip") as caught:
        provide([()], print, installers=[])
    assert missing in str(caught.value)
    assert "install trae-bench[all-providers]" in str(caught.value)


def test_an_environment_must_be_provided_first(tmp_path: Path) -> None:
    with pytest.raises(CannotMeasure, match="openai"):
        Installs().command(("openai",), tmp_path, 3)


# -- the scenario


def trial(side: Side, **changes: Any) -> Trial:
    arm = Arm("some", {"optional_deps": side == "B"}, **changes)
    return Trial("install-size", "a/b", "duet", 1, side, "AB".index(side), arm, 0)


class NoProvider:
    """A provider that must not be called."""

    def register(self, *_: object) -> str:
        raise AssertionError

    environ = collect = register


def weighed(both: tuple[Path, Path], scratch: Path) -> Iterator[Sample]:
    """Run each side of a pair in a process."""
    prefix, bare = map(str, both)
    work = {(): Work(bare, bare), ("all-providers",): Work(prefix, bare)}
    scenario = load(find("install-size"))
    executor: SubprocessExecutor[None] = SubprocessExecutor(
        AgentCoreSubject(Installs("fake", work)),
        NoProvider(),  # type: ignore[arg-type]
        {scenario.name: scenario},
        script=lambda *_: None,
        scratch=scratch,
    )
    with executor:
        yield from executor.run([trial("A"), trial("B")])


def test_both_sides_are_measured_with_equal_answers(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    size = install(both[0] / SITE, "sdk", {"sdk.py": "x = 1\n"})
    a, b = weighed(both, tmp_path / "scratch")
    for sample in (a, b):
        assert (sample.status, sample.correct) == ("ok", True), sample.problem
    assert (a.transcript, a.workspace) == (b.transcript, b.workspace)
    assert (a.metrics["install_size"], b.metrics["install_size"]) == (size, 0)
    assert (a.metrics["distributions"], b.metrics["distributions"]) == (1, 0)


def test_a_deleted_environment_fails_the_trial(both: tuple[Path, Path], tmp_path: Path) -> None:
    both[0].rename(tmp_path / "elsewhere")
    a, b = weighed(both, tmp_path / "scratch")
    assert (a.status, b.status) == ("failed", "ok")
    assert a.problem is not None
    assert "FileNotFoundError" in a.problem


def test_subjects_without_installs_refuse_the_scenario(tmp_path: Path) -> None:
    scenario = load(find("install-size"))
    with pytest.raises(CannotMeasure, match="revisions"):
        AgentCoreSubject().command(trial("A", revision="head"), scenario, [], tmp_path, 3)


GOOD = """
name = "weighed"
about = ""
task = ""
turns = []
metrics = ["install_size"]
[toggles]
vary = ["one"]
[subject.install]
off = ["more"]
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("turns = []", 'turns = [{ text = "hello" }]', "without turns"),
        ("[toggles]", '[provider]\ntransport = "respx"\n[toggles]', "without provider"),
        ("[toggles]", "[load]\nsessions = 2\n[toggles]", "without load"),
        ("[toggles]", '[workspace.files]\na = "b"\n[toggles]', "without workspace"),
        ("[toggles]", '[oracle]\ncommand = "true"\n[toggles]', "without oracle"),
        ('vary = ["one"]', 'vary = ["one", "two"]', "one toggle"),
        ('vary = ["one"]', "vary = []", "one toggle"),
        ('vary = ["one"]', 'vary = ["one"]\nhold = { two = true }', "toggles.hold"),
        ('off = ["more"]', 'on = ["more"]\noff = ["more"]', "same extras"),
        ('off = ["more"]', "", "same extras"),
        ("[subject.install]", '[subject]\ncommand = ["x"]\n[subject.install]', "all keys but"),
        ("[subject.install]", "[subject]\nruns = 2\n[subject.install]", "all keys but"),
        ('off = ["more"]', 'off = ["No Name"]', "lower-case"),
    ],
)
def test_settings_that_contradict_an_install_are_refused(old: str, new: str, said: str) -> None:
    assert parse(GOOD).subject != SubjectSetup()
    assert GOOD.count(old) == 1
    with pytest.raises(ScenarioError, match=said):
        parse(GOOD.replace(old, new))


def test_install_metrics_need_an_install_scenario() -> None:
    scenario = parse(GOOD)
    check(scenario, metrics=METRICS, extras=["more"])
    with pytest.raises(ScenarioError, match=r"install.off\[0\]: no extra 'more'"):
        check(scenario, extras=["other"])
    for name in METRICS:
        running = msgspec.structs.replace(scenario, metrics=(name,), subject=SubjectSetup())
        weighing = msgspec.structs.replace(scenario, metrics=(name,))
        wrong, right = (running, weighing) if name in INSTALL_METRICS else (weighing, running)
        check(right)
        with pytest.raises(ScenarioError, match=f"{name} measures"):
            check(wrong)
    assert METRICS.keys() > INSTALL_METRICS


# -- the command


def test_a_runtime_metric_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "install-size", "--dry-run", "--metric", "cpu"]) == 2
    assert "cpu measures a run" in capsys.readouterr().err


@pytest.fixture
def fake(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TRAE_BENCH_LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(environments, "available", lambda: [tool.installer()])
    return tool


def test_a_run_measures_both_installs(
    fake: Tool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["run", "install-size@ollama", "--profile", "smoke", "--out", "r.json"]
    assert main(args) == 0
    run = read_run(Path("r.json"))
    assert run.header.versions["installer"] == "fake 1"
    rows = {row.metric: row for row in run.comparisons if row.contrast == "optional_deps"}
    assert rows.keys() == INSTALL_METRICS
    assert all(row.pairs.measured == 2 for row in rows.values())
    found = rows["distributions"].estimate
    assert found is not None
    assert (found.a, found.b) == (10, 9)
    assert rows["install_size"].judgement.verdict == "improvement"
    assert rows["unrecorded_size"].judgement.verdict == "equivalent"
    printed = capsys.readouterr()
    assert "fake 1 installs" in printed.err

    # Resuming with another installer would change the run.
    Path("r.json").unlink()
    monkeypatch.setattr(environments, "available", lambda: [fake.installer(name="fake 2")])
    assert main(["run", "--resume", "r.journal.jsonl"]) == 2
    assert "installer was 'fake 1'" in capsys.readouterr().err


@pytest.mark.usefixtures("fake")
def test_a_run_without_index_and_sdks_cannot_measure(
    tool: Tool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(environments, "available", lambda: [tool.installer("fail")])
    made_up = Declared((Requirement("x-nowhere"),), extras())
    monkeypatch.setattr(requirements, "declared", lambda: made_up)
    assert main(["run", "install-size", "--profile", "smoke", "--out", "r.json"]) == 4
    assert "x-nowhere is not installed here" in capsys.readouterr().err
    assert not Path("r.json").exists()
    assert not Path("r.journal.jsonl").exists()
