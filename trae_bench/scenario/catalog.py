"""Find the scenario files that are shipped with the package."""

from collections.abc import Iterator
from pathlib import Path

from trae_bench.errors import UsageError
from trae_bench.scenario.diagnostics import suggestion
from trae_bench.scenario.loader import load_all
from trae_bench.scenario.model import Scenario
from trae_bench.scenario.variants import split

ALL = "all"
"""Selects every shipped scenario and every variant."""


def scenario_folder() -> Path:
    """Return the folder of the shipped scenarios.

    It is inside an installed package, or next to the package in a checkout. Raises `UsageError`
    if neither exists.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_scenarios", package.parent / "scenarios"):
        if folder.is_dir():
            return folder
    raise UsageError(f"no scenarios beside {package}; install the package again")


def catalogue() -> dict[str, Path]:
    """Return the shipped scenario files by scenario name, sorted, without reading them.

    Names are unique, because `load` requires the file name to equal the scenario name.
    """
    files = scenario_folder().glob("*.toml")
    return {path.stem: path for path in sorted(files) if path.stem != "claims"}


def every_scenario() -> Iterator[Scenario]:
    """Yield every shipped scenario, each followed by its variants."""
    for path in catalogue().values():
        yield from load_all(path)


def find(name: str) -> Path:
    """Return the file of a shipped scenario, or `name` itself if it is a path to a `.toml` file.

    A `@variant` suffix is ignored. Raises `UsageError` with the closest known names.
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
    kind = ": expected a name or a .toml file" if Path(name).exists() else ""
    raise UsageError(f"no scenario {name!r}{kind}{suggestion(name, known)}")
