"""A plan in words: what is about to happen, and what about it may not be what the user wants."""

import platform
from pathlib import Path

import torch
import transformers
from torch import nn

from fmlm_cli import __version__
from fmlm_cli.config import flat
from fmlm_cli.corpus.store.fit import misfit
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.trackers.tracker import RunFacts
from fmlm_cli.events import Caution, Emit, Facts, counted
from fmlm_cli.masking import nearest_segments
from fmlm_cli.model.build import parameter_counts
from fmlm_cli.recipes.pretraining.planning.plan import RunPlan, packing_report
from fmlm_cli.recipes.shared.words import caution_of_others, where_line
from fmlm_cli.recipes.tokenize import HARDLY_KNOWN

FEW_PASSES = "few-passes"  # the code of the caution about scope epoch
TINY_TEXT = "tiny-text"  # and of the one about a text that a model learns by heart
# Trained parameters for a token, above which a text is tiny. Models of GPT's kind keep some 3.6 bits in a
# parameter (Morris et al. 2025, "How much do language models memorize?"), and no token has more than the 15
# to 18 bits of its number in the vocabulary: there is room for the text twenty times over.
MANY_PARAMETERS = 100


def describe_run(plan: RunPlan, runtime: Runtime, attention: str, emit: Emit) -> None:
    """Say what is about to happen, and what about it may not be what the user wants.

    `attention`: by what means the model attends, in words.
    """
    settings = plan.settings
    optimizer = settings.optimizer
    rate = f"{optimizer.learning_rate:g}, {_course(plan)}"
    rows = {
        "model": _model_line(plan),
        **plan.start.done,
        "data": f"{plan.store.root} ({plan.store.fingerprint[:16]}), vocabulary {plan.store.vocabulary:,}",
        **packing_report(plan),
        "masking": plan.timetable.description,
        "budget": f"{plan.total_steps:,} steps of {settings.batch.size} rows = {passes_line(plan)}",
        "learning rate": rate,
        "evaluation": ", ".join(
            name if name == str(store.root) else f"{name} ({store.root})"
            for name, store in plan.evaluated.items()
        ),
        "device": f"{where_line(runtime)}, {counted(torch.get_num_threads(), 'thread')}",
        "attention": attention,
    }
    if plan.stream.first:
        rows["goes on"] = f"from row {plan.stream.first:,} of the stream, where the other run stopped"
    if plan.start.unused:
        rows["not used"] = _unused(plan)
    title = "pre-training" if plan.origin is None else "continued pre-training"
    emit(Facts(title, {name: value for name, value in rows.items() if value}))
    caution_of_others(runtime, emit)


def facts_for_trackers(plan: RunPlan, root: Path, runtime: Runtime) -> RunFacts:
    """What experiment trackers show beside the records of a run in `root`: settings, and where it runs."""
    system = {
        "device": where_line(runtime),
        "processes": runtime.ranks.world,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "fmlm": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    counts = {"total_steps": plan.total_steps, "parameters": parameter_counts(plan.model)["total"]}
    config = flat({**plan.settings.model_dump(mode="json"), **counts, "system": system})
    return RunFacts(root, plan.settings.logging.project, config)


def _model_line(plan: RunPlan) -> str:
    """What is trained, and its size."""
    counts = parameter_counts(plan.model)
    name = plan.name
    if plan.origin is not None:
        at = f" at {plan.origin.revision[:12]}" if plan.origin.revision else ""
        name += f"{at} ({plan.start.model.config.model_type})"
    trained = sum(p.numel() for p in plan.start.model.parameters() if p.requires_grad)
    some = f", {_size(trained)} of them trained" if trained < counts["total"] else ""
    without = _size(counts["without_embeddings"])
    return f"{name}, {_size(counts['total'])} parameters ({without} without embeddings){some}"


def _size(parameters: int) -> str:
    """A number of parameters, in millions where it comes to some."""
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e5 else f"{parameters:,}"


def _course(plan: RunPlan) -> str:
    """The learning rate's course in words."""
    optimizer = plan.settings.optimizer
    parts = [f"warm-up {optimizer.warmup_share:.0%} of the steps" if optimizer.warmup_share else "no warm-up"]
    if optimizer.schedule == "wsd":
        parts.append(
            f"held, decay over the last {optimizer.decay_share:.0%}"
            if optimizer.decay_share
            else "held to the end"
        )
    else:
        parts.append(f"{optimizer.schedule} decay")
    if optimizer.head_warmup_steps:
        parts.insert(
            0,
            f"after {optimizer.head_warmup_steps:,} steps of the head alone at "
            f"{optimizer.head_learning_rate:g}",
        )
    if optimizer.layer_decay != 1:
        parts.append(f"times {optimizer.layer_decay:g} from layer to layer downwards")
    if optimizer.carry_over:
        parts.append("with the optimizer's state of the run before")
    return "; ".join(parts)


def _unused(plan: RunPlan) -> str:
    """The checkpoint's weights that found no place."""
    unused, some = plan.start.unused, 6
    named = ", ".join(unused[:some]) + (f" and {len(unused) - some} more" if len(unused) > some else "")
    fate = "kept beside the new weights" if plan.start.kept else "dropped; --keep-unused keeps them"
    return f"{named} of the checkpoint ({fate})"


def passes_line(plan: RunPlan) -> str:
    """How often the data are seen."""
    masks = plan.strategy.masks_per_sequence
    return f"{plan.passes:.2f} passes over the data" + (f", each under {masks} masks" if masks > 1 else "")


def cautions(plan: RunPlan) -> list[Caution]:
    """What the console and the model card have to say about the limits of this run."""
    limits = []
    if plan.strategy.cycle > 1 and plan.passes < 2:
        text = (
            f"the budget makes {plan.passes:.2f} passes over the data; below 2, {plan.strategy.name} masks "
            "with scope epoch act almost as random ones (fewer rows with data.max_rows, or scope batch, "
            "would change that)"
        )
        limits.append(Caution(text, FEW_PASSES))
    schedule, last = plan.timetable.schedule, plan.timetables[0].last
    if schedule is not None and last.cycle > 1 and last.cycle != nearest_segments(schedule.final):
        text = (
            f"the number of segments changes only between cycles of passes: in {plan.passes:.2f} passes the "
            f"mask rate goes to {last.rate:.1%}, not to {1 / nearest_segments(schedule.final):.1%}"
        )
        limits.append(Caution(text, "rate-not-reached"))
    if plan.model.whole_head:
        family = plan.start.model.config.model_type
        text = (
            f"the head of '{family}' cannot be run on masked positions alone: it runs on all of them, "
            "which takes more time and memory"
        )
        limits.append(Caution(text, "whole-head"))
    if plan.origin is not None and plan.origin.after_model:
        text = (
            f"{plan.origin.name} is a sentence encoder: what makes one vector of a text "
            f"({', '.join(plan.origin.after_model)}) is no part of a masked LM and is not written with the "
            "new weights, of which sentence-transformers would take the mean over the tokens"
        )
        limits.append(Caution(text, "sentence-encoder"))
    if plan.origin is not None:
        misfits = (misfit(source.store) for source in plan.stream.sources)
        limits += [Caution(text, HARDLY_KNOWN) for text in misfits if text]
        limits += [Caution(text, TINY_TEXT) for text in [_tiny_text(plan)] if text]
    if not plan.evaluated:
        limits.append(Caution("the store has no validation split: there is no evaluation", "no-evaluation"))
    return limits


def _tiny_text(plan: RunPlan) -> str | None:
    """What there is to say of a text that is small beside what is trained on it, and seen often."""
    model = plan.start.model
    embedded = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad and id(p) not in embedded)
    sources = [source for source in plan.stream.sources if not source.replay]
    tokens = sum(s.reader.plan.used / len(s.reader.plan) * len(s.reader) for s in sources)
    predicted = plan.passes * plan.strategy.rate * plan.strategy.masks_per_sequence
    if trained <= MANY_PARAMETERS * tokens or predicted < 1:
        return None
    lora = "" if plan.settings.model.lora.rank else ", --lora 8"
    return (
        f"the text is tiny for the model: {tokens:,.0f} tokens, each predicted {predicted:.1f} times, and "
        f"{trained / tokens:,.0f} trained parameters for each (embeddings left out), which learn it by "
        f"heart; fewer passes{lora} or a lower optimizer.learning_rate forget less of what the model knew"
    )
