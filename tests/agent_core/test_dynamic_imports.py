"""Which SDKs are installed, determined without importing them."""

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from agent_core.config import ProviderSettings
from agent_core.dynamic_imports import (
    check_provider_availability,
    get_dependency_report,
    load_llm_client,
    validate_all_providers,
)
from agent_core.errors import AgentError, ConfigError, MissingDependencyError
from agent_core.providers import PROVIDERS
from agent_core.sdks import SDKS, import_installed_sdks

PARAMETERS = ProviderSettings(api_key="sk-x", model="m", base_url="http://127.0.0.1:9/v1")


@pytest.fixture
def no_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates the base installation."""
    installed = {sdk.module for sdk in SDKS.values()}
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in installed else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


@pytest.fixture
def broken_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installs an `ollama` that cannot be imported."""
    (tmp_path / "ollama.py").write_text("from os import nothing_of_this_name\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ollama", raising=False)
    monkeypatch.delitem(sys.modules, "agent_core.models.sdk.ollama", raising=False)


def test_every_provider_has_an_sdk() -> None:
    assert list(SDKS) == list(PROVIDERS)


@pytest.mark.usefixtures("no_sdk")
@pytest.mark.parametrize("provider", SDKS)
def test_missing_sdk_raises_an_error_with_the_pip_command(provider: str) -> None:
    assert check_provider_availability(provider) is False
    with pytest.raises(MissingDependencyError) as caught:
        load_llm_client(provider, PARAMETERS)
    error = caught.value
    assert error.install_command == f"pip install 'trae-bench[{SDKS[provider].extra}]'"
    assert error.install_command in str(error)
    assert (error.provider, error.package) == (provider, SDKS[provider].package)
    assert isinstance(error, ImportError)
    assert isinstance(error, AgentError)


def test_every_install_command_names_an_existing_extra() -> None:
    import tomllib

    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())[
        "project"
    ]
    extras = project["optional-dependencies"]
    for sdk in SDKS.values():
        assert any(line.startswith(sdk.package) for line in extras[sdk.extra])
        assert sdk.install_command == f"pip install '{project['name']}[{sdk.extra}]'"


def test_availability_check_imports_no_sdk() -> None:
    program = (
        "import sys; from agent_core.dynamic_imports import *; from agent_core.sdks import SDKS;"
        "[check_provider_availability(p) for p in SDKS]; get_dependency_report();"
        "print([sdk.module for sdk in SDKS.values() if sdk.module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


@pytest.mark.usefixtures("no_sdk")
def test_report_has_the_guides_keys() -> None:
    report = get_dependency_report()
    assert report.keys() == {
        "available_providers",
        "missing_providers",
        "installation_commands",
        "provider_count",
        "dependency_details",
    }
    assert report["available_providers"] == []
    assert report["missing_providers"] == list(SDKS)
    assert report["provider_count"] == {"available": 0, "missing": 7, "total": 7}
    assert report["installation_commands"]["google"] == "pip install 'trae-bench[google]'"
    assert report["dependency_details"]["google"] == {
        "available": False,
        "package": "google-genai",
        "install_command": "pip install 'trae-bench[google]'",
    }


def test_report_and_check_agree() -> None:
    report = get_dependency_report()
    assert report["available_providers"] == [p for p in SDKS if check_provider_availability(p)]
    counted = report["provider_count"]
    assert counted["available"] + counted["missing"] == counted["total"] == len(SDKS)


@pytest.mark.usefixtures("no_sdk")
def test_no_sdk_is_imported_or_valid_without_sdks() -> None:
    assert import_installed_sdks() == ()
    assert validate_all_providers() == dict.fromkeys(SDKS, False)


@pytest.mark.parametrize(
    "ask", [check_provider_availability, lambda p: load_llm_client(p, PARAMETERS)]
)
def test_unknown_provider_is_an_error_with_a_suggestion(ask: object) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'anthropic'"):
        ask("antropic")  # type: ignore[operator]


@pytest.mark.usefixtures("broken_sdk")
def test_incompatible_sdk_is_not_reported_as_missing() -> None:
    assert check_provider_availability("ollama") is True
    with pytest.raises(ConfigError, match=r"pip install -U 'trae-bench\[ollama\]'"):
        load_llm_client("ollama", PARAMETERS)
    assert validate_all_providers()["ollama"] is False
    assert "ollama" not in import_installed_sdks()


@pytest.mark.parametrize("provider", SDKS)
def test_available_sdk_can_be_built(provider: str) -> None:
    pytest.importorskip(SDKS[provider].module)
    load_llm_client(provider, PARAMETERS)
    assert validate_all_providers()[provider] is True


def test_baseline_imports_every_installed_sdk() -> None:
    program = (
        "import sys; from agent_core.sdks import *; from agent_core.dynamic_imports import *;"
        "done = import_installed_sdks();"
        "assert all(name in sys.modules for name in done);"
        "print(sorted(done) == sorted({SDKS[p].module for p in get_dependency_report()"
        "['available_providers']}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"True\n"
