"""Upgrades run files of format version 1 to version 2. Plain values in, plain values out.

The upgrade trusts nothing: a document of another shape raises `msgspec.ValidationError`.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from trae_bench.design.contrasts import NOISE_FLOOR, is_fixed
from trae_bench.model.aliases import current_metric

Document = dict[str, Any]


def seal_of_v1(document: Document) -> str:
    """The seal of version 1: SHA-256 over the run, then each sample, all with sorted keys."""
    found = hashlib.sha256()
    samples = document.get("samples")
    for part in ({**document, "seal": "", "samples": []}, *(samples or ())):
        found.update(msgspec.json.encode(part, order="sorted"))
    return found.hexdigest()


def upgrade(document: Document) -> Document:
    """A run of version 1 as version 2 has it. Raises `msgspec.ValidationError`."""
    try:
        return {
            **document,
            "header": _header(document["header"]),
            "noise": [_noise(row) for row in document["noise"]],
            "comparisons": [_with_metric(row) for row in document["comparisons"]],
            "samples": [_sample(sample) for sample in document["samples"]],
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise msgspec.ValidationError(
            f"not a run of format version 1: {type(error).__name__} {error}"
        ) from error


def _header(header: Document) -> Document:
    found = dict(header)
    limits = {name: found.pop(name) for name in ("budget", "pairs", "noise_pairs")}
    limits["precision"] = found.pop("precision", None)
    limits["fixed"] = is_fixed(found.get("design", "add-one"))
    compared = found.pop("compared", None)
    cells = [_cell(cell) for cell in found["cells"]]
    scenarios = {
        name: _scenario(used, [cell for cell in cells if cell["scenario"] == name])
        for name, used in found["scenarios"].items()
    }
    metrics = (_metric(metric) for metric in found["metrics"].values())
    return {
        **found,
        "version": 2,
        "limits": limits,
        "scenarios": scenarios,
        "cells": cells,
        "metrics": {metric["name"]: metric for metric in metrics},
        # Version 1 did not store the filter. The rows that were planned stand for it.
        "filters": _rows(cells),
        "revisions": None if compared is None else _revisions(compared),
    }


def _metric(metric: Document) -> Document:
    return {**metric, "name": current_metric(metric["name"])}


def _cell(cell: Document) -> Document:
    contrast = {name: value for name, value in cell["contrast"].items() if name != "scenario"}
    metrics = [current_metric(name) for name in cell["metrics"]]
    return {**cell, "contrast": contrast, "metrics": metrics}


def _scenario(used: Document, cells: list[Document]) -> Document:
    """What the cells were generated from, read off the cells."""
    metrics = list(dict.fromkeys(name for cell in cells for name in cell["metrics"]))
    arms = [cell["contrast"][side] for cell in cells for side in ("a", "b")]
    found = {"requested": used["asked"], "digest": used["digest"], "metrics": metrics}
    heads = [arm["toggles"] for arm in arms if arm["name"] == "head"]
    if heads:
        base = next(arm["toggles"] for arm in arms if arm["name"] == "base")
        return {**found, "varied": [], "baseline": base, "head": heads[0]}
    toggles: Mapping[str, bool] = arms[0]["toggles"] if arms else {}
    named = {name for arm in arms if arm["name"] != "none" for name in arm["name"].split("+")}
    varied = [name for name in toggles if name in named]
    return {**found, "varied": varied, "baseline": {**toggles, **dict.fromkeys(varied, False)}}


def _rows(cells: list[Document]) -> list[str]:
    """A filter pattern for each planned row."""
    return [
        f"{cell['scenario']}/{cell['contrast']['name']}/{name}"
        for cell in cells
        if cell["contrast"]["name"] != NOISE_FLOOR and not cell.get("confirms")
        for name in cell["metrics"]
    ]


def _revisions(compared: Document) -> Document:
    return {
        "base": {"name": compared["base"], "commit": compared["base_commit"], "modified": False},
        "head": {
            "name": compared["head"],
            "commit": compared["head_commit"],
            "modified": compared["changed"],
        },
        "requested": compared["said"],
        "own_environments": compared.get("own_environments", False),
        "new": compared.get("new", {}),
    }


def _noise(row: Document) -> Document:
    found = _with_metric(row)
    found["reliability"] = found.pop("standing")
    return found


def _with_metric(row: Document) -> Document:
    return {**row, "metric": current_metric(row["metric"])}


def _sample(sample: Document) -> Document:
    metrics = {current_metric(name): value for name, value in sample["metrics"].items()}
    return {**sample, "metrics": metrics}
