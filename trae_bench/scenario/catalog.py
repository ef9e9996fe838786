"""Where the scenario files are that ship with the package."""

from collections.abc import Iterator
from pathlib import Path

from trae_bench.errors import UsageError
from trae_bench.scenario.diagnostics import suggestion
from trae_bench.scenario.loader import load
from trae_bench.scenario.model import Scenario
from trae_bench.scenario.variants import split

ALL = "all"
"""Names every scenario that ships with the package, and every variant of one."""


def scenario_folder() -> Path:
    """Where the shipped scenarios lie: inside an installed package, beside it in a checkout.

    Raises `UsageError` where they are in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_scenarios", package.parent / "scenarios"):
        if folder.is_dir():
            return folder
    raise UsageError(f"no scenarios beside {package}; install the package again")


def catalogue() -> dict[str, Path]:
    """The files of the shipped scenarios by scenario name, sorted. Reads none of them.

    `load` insists that a file is called after its scenario, so no name occurs twice.
    """
    files = scenario_folder().glob("*.toml")
    return {path.stem: path for path in sorted(files) if path.stem != "claims"}


def every_scenario() -> Iterator[Scenario]:
    """All that ship with the package: each scenario, and after it its variants."""
    for path in catalogue().values():
        first = load(path)
        yield first
        yield from (load(path, variant.name) for variant in first.variants)


def find(name: str) -> Path:
    """The file of a shipped scenario, or `name` itself where it is a path to a file.

    A variant in the name makes no difference. Raises `UsageError` with the nearest known names.
    """
    name, _ = split(name)
    if name.endswith(".toml"):
        if Path(name).is_file():
            return Path(name)
        raise UsageError(f"no scenario file {name!r}")
    known = catalogue()
    if name in known:
        return known[name]
    if Path(f"{name}.toml").is_file():
        raise UsageError(f"no scenario {name!r} is shipped; did you mean {name}.toml?")
    kind = ": one is a name, or a .toml file" if Path(name).exists() else ""
    raise UsageError(f"no scenario {name!r}{kind}{suggestion(name, known)}")
