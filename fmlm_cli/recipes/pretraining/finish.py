"""What a run leaves at its end: the model with its card, a picture, and what is told of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmlm_cli import storage
from fmlm_cli.analysis.report.figures.training import draw_loss_curve
from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.engine.records import evaluations_of
from fmlm_cli.events import Facts
from fmlm_cli.recipes.pretraining.describe import passes_line
from fmlm_cli.recipes.pretraining.gains import (
    Evaluations,
    before_and_after,
    held_out_lines,
    improved_tokens,
)
from fmlm_cli.recipes.pretraining.job import Job
from fmlm_cli.recipes.pretraining.model_card import model_card
from fmlm_cli.recipes.pretraining.samples import sample_predictions
from fmlm_cli.recipes.shared.words import where_line


def finish(job: Job, state: TrainState, records: Sequence[Mapping[str, Any]]) -> None:
    """Leave the finished model, its card and its picture, and tell what came of the run."""
    evaluations = evaluations_of(records)
    curve = draw_loss_curve(records, job.run.plots)
    better = _improved(job, state)
    with storage.complete_folder(job.run.final) as folder:
        job.save_model(folder)
        where = where_line(job.runtime)
        told = [caution.text for caution in job.cautions]
        card = model_card(job.plan, state, evaluations, better, told, where)
        storage.write_text(folder / "README.md", card)
    _show_predictions(job)
    if job.plan.origin is not None and evaluations:
        job.emit(Facts("held-out loss before and after", before_and_after(evaluations)))
        if better:
            job.emit(Facts("tokens whose prediction improved most", better))
    job.emit(Facts("done", _results(job, state, evaluations, curve)))


def _improved(job: Job, state: TrainState) -> dict[str, str]:
    """The tokens that are predicted better than by the checkpoint that the run went on from."""
    if job.plan.origin is None or job.main_evaluation is None:
        return {}
    if not job.scores:  # resumed after the last evaluation
        job.evaluate(state.step)
    return improved_tokens(job.run, job.scores[job.main_evaluation], job.plan.store.tokenizer)


def _show_predictions(job: Job) -> None:
    if job.main_evaluation is not None:
        held_out = job.held_out[job.main_evaluation]
        for prediction in sample_predictions(job.model, job.plan.store.tokenizer, held_out):
            job.emit(prediction)


def _results(job: Job, state: TrainState, evaluations: Evaluations, curve: Path) -> dict[str, str]:
    rows = {"model": f"{job.run.final} (a Hugging Face folder)", "loss curve": str(curve)}
    if job.main_evaluation is not None:
        rows |= held_out_lines(evaluations[job.main_evaluation])
    rows["trained"] = (
        f"{state.step:,} steps, {state.tokens:,} tokens, {passes_line(job.plan)}, "
        f"{state.seconds / 60:.1f} min"
    )
    if job.held_out:
        rows["evaluate"] = f"fmlm evaluate --from {job.run.root} --data {job.plan.store.root}"
    rows["in Python"] = f'AutoModelForMaskedLM.from_pretrained("{job.run.final}")'
    return rows
