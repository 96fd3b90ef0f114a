"""What a run leaves at its end: the model with its card, a picture, and what is told of them."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmlm_cli import storage
from fmlm_cli.analysis.report.figures.training import draw_loss_curve
from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.engine.records import evaluations_of
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Doing, Facts, NextStep, Note, duration
from fmlm_cli.recipes.pretraining.live_run import LiveRun
from fmlm_cli.recipes.pretraining.report.describe import passes_line
from fmlm_cli.recipes.pretraining.report.gains import (
    Evaluations,
    before_and_after,
    has_learnt,
    held_out_lines,
    improved_tokens,
)
from fmlm_cli.recipes.pretraining.report.model_card import card_text
from fmlm_cli.recipes.pretraining.report.samples import sample_predictions
from fmlm_cli.recipes.shared.checkpoints import CARD, carry_over_others, keep_hashes
from fmlm_cli.recipes.shared.words import where_line

NEW_HEAD = (
    "the masked-LM head was new, so that most of this fall is the head's being learnt, and no measure of how "
    "well the encoder is adapted"
)

_LONGER = 5  # times the steps, of a run that was too short to learn anything


def finish_run(live: LiveRun, state: TrainState, records: Sequence[Mapping[str, Any]]) -> None:
    """Leave the finished model, its card and its picture, and tell what came of the run."""
    live.emit(Doing("writing the model"))
    evaluations = evaluations_of(records)
    curve = draw_loss_curve(records, live.run.plots)
    better = _improved(live, state)
    with storage.complete_folder(live.run.final) as folder:
        live.save_model(live.model, folder)
        where = where_line(live.runtime)
        told = [caution.text for caution in live.cautions]
        card = card_text(live.plan, state, evaluations, better, told, where)
        storage.write_text(folder / CARD, card)
        keep_hashes(folder)
        carry_over_others(live.run.final, folder)
    _show_predictions(live)
    if live.plan.origin is not None and evaluations:
        live.emit(Facts("held-out loss before and after", before_and_after(evaluations)))
        if live.plan.start.new:
            live.emit(Note(NEW_HEAD))
        if better:
            live.emit(Facts("tokens whose prediction improved most", better))
    live.emit(Facts("done", _results(live, state, evaluations, curve)))
    live.emit(_next_step(live, state, evaluations))


def _improved(live: LiveRun, state: TrainState) -> dict[str, str]:
    """The tokens that are predicted better than by the checkpoint that the run went on from."""
    if live.plan.origin is None or live.main_evaluation is None:
        return {}
    if not live.scores:  # resumed after the last evaluation
        live.evaluate(state.step)
    after = live.scores[live.main_evaluation]
    try:
        return improved_tokens(live.run, after, live.plan.store)
    except UserError as error:  # a table less, which is no reason to lose the model
        live.emit(Caution(f"{error}: there is no table of the tokens that improved most"))
        return {}


def _show_predictions(live: LiveRun) -> None:
    if live.main_evaluation is not None:
        held_out = live.held_out[live.main_evaluation]
        for prediction in sample_predictions(live.model, live.plan.store.tokenizer, held_out):
            live.emit(prediction)


def _results(live: LiveRun, state: TrainState, evaluations: Evaluations, curve: Path) -> dict[str, str]:
    rows = {"model": f"{live.run.final} (a Hugging Face folder)", "loss curve": str(curve)}
    if live.main_evaluation is not None:
        rows |= held_out_lines(evaluations[live.main_evaluation])
    rows["trained"] = (
        f"{state.step:,} steps, {state.tokens:,} tokens, {passes_line(live.plan)}, {duration(state.seconds)}"
    )
    if live.held_out:
        words = ["evaluate", "--from", str(live.run.root), "--data", str(live.plan.store.root)]
        rows["evaluate"] = shlex.join(["fmlm", *words])
    rows["in Python"] = f'AutoModelForMaskedLM.from_pretrained("{live.run.final}")'
    return rows


def _next_step(live: LiveRun, state: TrainState, evaluations: Evaluations) -> NextStep:
    """What the model is for; after going on from a checkpoint, whether it helped: no loss says that."""
    root, before, main = live.run.root, live.plan.origin, live.main_evaluation
    if before is None and main is not None and not has_learnt(evaluations[main]):
        words = ["fmlm", "pretrain", str(live.run.config), "--budget", f"{_LONGER * state.step}-steps"]
        return NextStep(
            "it has learnt no more than word frequencies: train longer",
            shlex.join([*words, "--out", f"{root}-longer"]),
        )
    words = ["fmlm", "finetune", *(("--from", before.name) if before else ()), "--from", str(root)]
    words += ["--train", "train.jsonl", "--dev", "dev.jsonl", "--out", f"{root}-tuned"]
    text = (
        "did it help? Fine-tune both on labelled text of yours" if before else "fine-tune it on labelled text"
    )
    return NextStep(text, shlex.join(words))
