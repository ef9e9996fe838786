"""Prints the plan of `trae-bench run --dry-run`."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import click

from trae_bench.cli.common import print_json, terminal_width

if TYPE_CHECKING:
    from trae_bench.model.experiment import Cell
    from trae_bench.run.duration import Span
    from trae_bench.run.planner import Plan, RunRequest

HOUR = 3600
HEAD = ("mode", "pairs", "about", "metrics")


def show_plan(request: "RunRequest", *, as_json: bool) -> None:
    """Print what a run would measure and how long it would take."""
    from trae_bench.report.text.listing import columns
    from trae_bench.run.duration import estimate
    from trae_bench.run.planner import plan as make_plan
    from trae_bench.run.runner import RESULTS

    plan = make_plan(request)
    duration = estimate(plan, RESULTS)
    if as_json:
        limits = {"limits": plan.limits, "pairs": plan.max_pairs, "seconds": duration}
        print_json(limits | {"left_out": plan.left_out, "cells": plan.cells})
        return
    rows = [
        _row(cell, plan.pairs_of(cell), span)
        for cell, span in zip(plan.cells, duration.cells, strict=True)
        if not cell.confirms
    ]
    compared = "agent" if request.agents and request.compare is None else "toggle"
    click.echo(columns(("scenario", compared, *HEAD), rows, terminal_width()))
    click.echo()
    for reason in plan.left_out:
        text = f"Left out: {reason}."
        click.echo(click.wrap_text(text, terminal_width(), subsequent_indent="  "))
    for note in () if plan.checkouts is None else plan.checkouts.notes:
        click.echo(click.wrap_text(f"Note: {note}.", terminal_width(), subsequent_indent="  "))
    source = _estimate_source(duration.guessed, plan.scenarios)
    click.echo(f"At most {plan.max_pairs} pairs including warm-up pairs; {_stop_rule(plan)}.")
    click.echo(f"About {_in_words(duration.total)}, {source}.")
    _show_limits(request, plan, duration.total)


def _show_limits(request: "RunRequest", plan: "Plan", total: "Span") -> None:
    """The time limit, and warnings about options that do not fit the plan."""
    from trae_bench.report.text.progress import clock

    budget = plan.limits.budget
    limit = f"{clock(budget)} minutes" if budget else "none"
    source = f"profile {request.profile}" if request.budget is None else "--budget"
    click.echo(f"Time limit: {limit} ({source}).")
    if budget and budget < total.minimum:
        click.echo("The time limit is too short for this plan: name scenarios or raise --budget.")
    max_pairs = max(plan.pairs_of(cell) for cell in plan.cells) - 1
    if request.pairs is not None and request.pairs > max_pairs:
        click.echo(f"Each comparison takes at most {max_pairs} counted pairs; --pairs is higher.")
    if plan.checkouts is not None:
        click.echo("If head is slower, the same number of fresh pairs has to confirm it.")
        if plan.limits.checked:
            runs = f"at least {plan.limits.checked} runs of head"
            click.echo(f"Before the gate passes, {runs} are checked in each scenario.")


def _stop_rule(plan: "Plan") -> str:
    if plan.limits.fixed:
        return "the number is fixed"
    if plan.limits.precision is not None:
        return "fewer if the intervals are narrow enough earlier"
    return "fewer if verdicts come early"


def _row(cell: "Cell", pairs: int, span: "Span") -> tuple[str, ...]:
    metrics = ", ".join(cell.metrics)
    return cell.scenario, cell.contrast.name, cell.mode, str(pairs), _range(span), metrics


def _range(span: "Span") -> str:
    from trae_bench.report.text.progress import clock

    low, high = clock(span.minimum), clock(span.maximum)
    return low if low == high else f"{low}-{high}"


def _in_words(span: "Span") -> str:
    if span.maximum < HOUR:
        return f"{_range(span)} minutes"
    return f"{span.minimum / HOUR:.1f} to {span.maximum / HOUR:.1f} hours"


def _estimate_source(guessed: Collection[str], scenarios: Collection[str]) -> str:
    """What the estimated time is based on."""
    if not guessed:
        return "estimated from earlier runs on this machine"
    if len(guessed) == len(scenarios):
        return "a rough estimate from the scenarios"
    return "estimated from earlier runs on this machine, for new scenarios a rough estimate"
