"""Scenario files: TOML in, a checked `Scenario` out. Data only; nothing in one is executed
by reading it.

    load(path, variant)   read, parse and check one file
    catalogue(), find()   the files that ship with the package, by name
    check(...)            the names that only other rooms know: tools, toggles, metrics
    json_schema()         for editors; committed as `scenario.schema.json`

Whatever is wrong with a file ends in `ScenarioError`: `file:line: path: what; remedy`.
"""

from trae_bench.scenario.catalog import ALL, catalogue, every_scenario, find, scenario_folder
from trae_bench.scenario.loader import load, parse
from trae_bench.scenario.model import (
    FINISH,
    MAX_THOUGHT,
    USUAL_STATUS,
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
    SubjectSetup,
    ToggleUse,
    Turn,
    Variant,
    WorkspaceFixture,
)
from trae_bench.scenario.names import check
from trae_bench.scenario.schema import json_schema, write_json_schema
from trae_bench.scenario.variants import split

__all__ = [
    "ALL",
    "FINISH",
    "MAX_THOUGHT",
    "USUAL_STATUS",
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
    "write_json_schema",
]
