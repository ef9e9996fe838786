"""Claims files: reads and validates claims about ratios of metrics."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from trae_bench.scenario import scenario_folder
from trae_bench.scenario.diagnostics import Diagnostic, raise_for, suggestion
from trae_bench.scenario.loader import text_of
from trae_bench.scenario.model import Name
from trae_bench.scenario.toml_errors import explain, read_toml
from trae_bench.verdicts.claim_range import parse_range

ShortText = Annotated[str, Meta(min_length=1, max_length=1000)]


class ScenarioMetric(Struct, frozen=True, forbid_unknown_fields=True):
    """A metric of a scenario in which a claim can be checked."""

    scenario: str
    """`name` or `name@variant`."""
    metric: str


class RatioClaim(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A claimed range of the ratio of a metric with toggles on to it with them off."""

    claimed: str = ""
    """`64 % less`, `60-80 % less`, `10 % more`, `3-5x faster`, or `within 1 %`."""
    toggles: tuple[str, ...] = ()
    """Switched on together, with all others off."""
    places: tuple[ScenarioMetric, ...] = ()
    note: Annotated[str, Meta(max_length=1000)] = ""
    """How the words were interpreted, if they are ambiguous."""


class Citation(Struct, frozen=True, forbid_unknown_fields=True):
    """Section of a document that states a claim, and its words."""

    section: ShortText
    words: ShortText


class Claim(RatioClaim, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A claim of another project."""

    id: Name
    said: Annotated[tuple[Citation, ...], Meta(min_length=1, max_length=20)]
    not_measurable: Annotated[str, Meta(max_length=1000)] = ""
    """Why the claim cannot be measured; excludes `claimed`, `toggles` and `places`."""


class OwnClaim(RatioClaim, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sentence of this project's documents, which the runs must support."""

    document: ShortText
    """Path relative to the claims file's folder."""
    quote: ShortText
    """Words from the document; line breaks are ignored."""


class ClaimsFile(Struct, frozen=True, forbid_unknown_fields=True):
    """Content of a claims file."""

    about: ShortText
    """Document that makes the claims."""
    claims: Annotated[tuple[Claim, ...], Meta(max_length=1000)] = ()
    own: Annotated[tuple[OwnClaim, ...], Meta(max_length=1000)] = ()


def claims_file() -> Path:
    """Path of the claims file that ships with the package."""
    return scenario_folder() / "claims.toml"


def load(path: Path) -> ClaimsFile:
    """Read a claims file. Raises `ScenarioError` with `file:line: field: problem; remedy`."""
    return parse(text_of(path), str(path))


def parse(text: str, source: str = "<claims>") -> ClaimsFile:
    """Parse the text of a claims file; `source` names it in errors. Raises `ScenarioError`."""
    try:
        file = msgspec.convert(read_toml(text, source), ClaimsFile)
    except msgspec.ValidationError as error:
        path, problem = explain(str(error), ClaimsFile)
        raise_for([(path, problem)], source, text)
        raise
    raise_for(list(_inconsistencies(file)), source, text)
    return file


def check(
    file: ClaimsFile,
    *,
    scenarios: Mapping[str, Collection[str]],
    metrics: Collection[str],
    source: Path,
) -> None:
    """Check that scenarios, toggles and metrics exist.

    `scenarios` maps each scenario to the toggles that it can vary; `source` is the claims file,
    for the line numbers of errors. Raises `ScenarioError`.
    """
    raise_for(list(_unknown_names(file, scenarios, metrics)), str(source), text_of(source))


def _all_claims(file: ClaimsFile) -> Iterator[tuple[str, int, RatioClaim]]:
    """Every claim with its table and its index."""
    for table, claims in (("claims", file.claims), ("own", file.own)):
        for index, claim in enumerate(claims):
            yield table, index, claim


def _inconsistencies(file: ClaimsFile) -> Iterator[Diagnostic]:
    ids: set[str] = set()
    for index, claim in enumerate(file.claims):
        if claim.id in ids:
            yield ("claims", index, "id"), f"{claim.id!r} is used twice; rename one of the claims"
        ids.add(claim.id)
    for table, index, ratio_claim in _all_claims(file):
        for field, problem in _field_problems(ratio_claim):
            yield (table, index, field), problem


def _field_problems(claim: RatioClaim) -> Iterator[tuple[str, str]]:
    """Field and problem."""
    if isinstance(claim, Claim) and claim.not_measurable:
        for field in ("claimed", "toggles", "places"):
            if getattr(claim, field):
                yield field, "not allowed with `not_measurable`; remove one of the two"
        return
    try:
        parse_range(claim.claimed)
    except ValueError as error:
        yield "claimed", str(error)
    for field in ("toggles", "places"):
        values = getattr(claim, field)
        if not values:
            yield field, f"is empty; add `{field} = [...]`"
        elif len(set(values)) < len(values):
            yield field, "has a duplicate; remove it"


def _unknown_names(
    file: ClaimsFile, scenarios: Mapping[str, Collection[str]], metrics: Collection[str]
) -> Iterator[Diagnostic]:
    for table, index, claim in _all_claims(file):
        for number, place in enumerate(claim.places):
            path = (table, index, "places", number)
            name, metric = place.scenario, place.metric
            if metric not in metrics:
                yield path, f"no metric {metric!r}{suggestion(metric, metrics)}"
            if name not in scenarios:
                yield path, f"no scenario {name!r}{suggestion(name, scenarios)}"
            varied = scenarios.get(name, claim.toggles)
            for toggle in claim.toggles:
                if toggle not in varied:
                    yield path, f"{name} cannot vary {toggle}{suggestion(toggle, varied)}"
