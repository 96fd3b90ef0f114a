"""What of a run may be another when it is gone on with (`--allow-changes`), and what cannot be."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import yaml

from fmlm_cli.config import differing
from fmlm_cli.engine.optimizer import Schedule
from fmlm_cli.errors import UserError
from fmlm_cli.events import Remarked
from fmlm_cli.model.build import dropout_rates
from fmlm_cli.recipes.pretraining.planning.plan import RunPlan

# What the rows of a step follow from, and so which of them the run has seen already.
_ROWS = ("seed", "sequence_length", "data.", "batch.size")
_MODEL, _DROPOUT = "model.", "model.dropout"

Changes = Mapping[str, tuple[Any, Any]]  # by a setting's name: before, now


def make_schedule(plan: RunPlan) -> Schedule:
    """The learning rate's course over the run."""
    optimizer = plan.settings.optimizer
    assert optimizer.learning_rate and optimizer.head_learning_rate and optimizer.warmup_share is not None
    return Schedule.of_shares(
        plan.total_steps,
        peak=optimizer.learning_rate,
        warmup_share=optimizer.warmup_share,
        shape=optimizer.schedule,
        final_share=optimizer.final_share,
        decay_share=optimizer.decay_share,
        head_steps=optimizer.head_warmup_steps,
        head_peak=optimizer.head_learning_rate,
    )


def facts_of(plan: RunPlan) -> dict[str, Any]:
    """What a checkpoint keeps of its run, for whoever goes on from it, in this run or another."""
    return {
        "stream": plan.stream.identity,
        "first_row": plan.stream.first,
        "rows_per_step": plan.sequences_per_step,
        "total_steps": plan.total_steps,
        "decided_by": plan.decided_by,
    }


def changes_since(facts: Mapping[str, Any], plan: RunPlan, step: int) -> Changes:
    """What differs in a plan from the run that left `facts` at a step.

    Raises `UserError` for what cannot be changed in the middle of a run, by its name.
    """
    before, now = facts["decided_by"], plan.decided_by
    changed = {
        name: (before["settings"].get(name), now["settings"].get(name))
        for name in differing(before["settings"], now["settings"])
    }
    for name, reason in _unchangeable(facts, plan, changed):
        was, wanted = map(shown, changed.get(name, ("", "")))
        values = f" {was} -> {wanted}" if name in changed else ""
        raise UserError(f"--allow-changes: {name}{values} cannot change in the middle of a run: {reason}")
    _check_total(int(facts["total_steps"]), plan, step)
    if before["evaluated"] != now["evaluated"]:
        changed["held-out text"] = (before["evaluated"], now["evaluated"])
    return changed


def _unchangeable(facts: Mapping[str, Any], plan: RunPlan, changed: Changes) -> Iterator[tuple[str, str]]:
    """What cannot be changed but was, and why not."""
    before, now = facts["decided_by"], plan.decided_by
    for name in changed:
        if name.startswith(_ROWS):
            yield name, "the rows that were seen would not be those of the steps that were made"
        if name.startswith(_MODEL) and name != _DROPOUT:
            yield name, "the checkpoint's weights and optimizer are those of the model as it is"
    rates = dropout_rates(plan.start.model.config)
    for name in differing(before["architecture"], now["architecture"]):
        if name not in rates:
            yield f"the model's {name}", "the checkpoint's weights are those of the model as it is"
    if facts["stream"] != plan.stream.identity or facts["first_row"] != plan.stream.first:
        yield "its data", "the rows that were seen would not be those of the steps that were made"
    if facts["rows_per_step"] != plan.sequences_per_step:
        name = next((name for name in changed if name.startswith("masking.")), "masking")
        yield name, f"a step would have {plan.sequences_per_step} rows, not {facts['rows_per_step']}"
    for name in ("weights", "collocations"):  # which one side may not have
        if name in before and name in now and before[name] != now[name]:
            yield f"its {name}", "they are no longer those that it began with"


def _check_total(before: int, plan: RunPlan, step: int) -> None:
    """Refuse another number of steps where that makes the learning rate jump, or the run too short."""
    if plan.total_steps == before:
        return
    if plan.total_steps <= step:
        raise UserError(f"--allow-changes: a budget of {plan.total_steps:,} steps, and {step:,} are made")
    was, wanted = (
        make_schedule(replace(plan, total_steps=total)).at(step + 1) for total in (before, plan.total_steps)
    )
    if abs(was - wanted) > 1e-9 * max(was, wanted):
        raise UserError(
            f"--allow-changes: a budget of {plan.total_steps:,} steps, not {before:,}, would make the "
            f"learning rate jump from {was:.3g} to {wanted:.3g} at step {step + 1:,}: only the schedule wsd "
            "can take another, before its decay; or begin a run with `fmlm continue`"
        )


def remark_of(step: int, changes: Changes) -> Remarked:
    """That a run went on after a step though some things differ."""
    listed = "; ".join(f"{name} {shown(was)} -> {shown(now)}" for name, (was, now) in changes.items())
    record = {
        "step": step + 1,
        "remark": "settings changed",
        "changes": {n: list(c) for n, c in changes.items()},
    }
    return Remarked(record, f"settings changed after step {step:,} (--allow-changes): {listed}")


def shown(value: Any) -> str:
    """A setting's value in a line."""
    return str(yaml.safe_dump(value, default_flow_style=True).splitlines()[0])
