"""Scenario files: read TOML, validate it, return a `Scenario`. Reading a file executes nothing.

    load(path, variant)   read, parse and validate one file
    catalogue(), find()   the files shipped with the package, by name
    check(...)            check names of tools, toggles, metrics and extras against known ones
    json_schema()         JSON Schema for editors; committed in `docs/schemas/`

Every error in a file raises `ScenarioError`: `file:line: path: problem; remedy`.
"""

from trae_bench.scenario.catalog import ALL, catalogue, every_scenario, find, scenario_folder
from trae_bench.scenario.loader import load, parse
from trae_bench.scenario.model import (
    DEFAULT_FAULT_STATUS,
    FINISH_TOOL,
    MAX_THINK_SECONDS,
    Extras,
    Fault,
    GeneratedFiles,
    Load,
    Normalise,
    Oracle,
    Protocol,
    ProviderConditions,
    Scenario,
    ScriptedCall,
    SubAgent,
    SubjectSetup,
    ToggleUse,
    Turn,
    Variant,
    WorkspaceFixture,
)
from trae_bench.scenario.names import check
from trae_bench.scenario.schema import json_schema
from trae_bench.scenario.variants import split

__all__ = [
    "ALL",
    "DEFAULT_FAULT_STATUS",
    "FINISH_TOOL",
    "MAX_THINK_SECONDS",
    "Extras",
    "Fault",
    "GeneratedFiles",
    "Load",
    "Normalise",
    "Oracle",
    "Protocol",
    "ProviderConditions",
    "Scenario",
    "ScriptedCall",
    "SubAgent",
    "SubjectSetup",
    "ToggleUse",
    "Turn",
    "Variant",
    "WorkspaceFixture",
    "catalogue",
    "check",
    "every_scenario",
    "find",
    "json_schema",
    "load",
    "parse",
    "scenario_folder",
    "split",
]
