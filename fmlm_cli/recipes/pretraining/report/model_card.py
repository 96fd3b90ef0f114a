"""The model card: what data, masking, steps and versions made a model, and how well it does."""

import json
from collections.abc import Iterator, Mapping, Sequence

from huggingface_hub import EvalResult
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from fmlm_cli import __version__
from fmlm_cli.analysis.report.markdown import literal
from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.model.build import longest_sequence, parameter_counts
from fmlm_cli.recipes.pretraining.planning.plan import RunPlan, packing_report
from fmlm_cli.recipes.pretraining.report.gains import Evaluations
from fmlm_cli.recipes.shared.checkpoints import hub_base
from fmlm_cli.recipes.shared.held_out import EVALUATION_RATE
from fmlm_cli.recipes.shared.model_cards import (
    HERE,
    Places,
    block,
    card,
    cited,
    facts_table,
    front_matter,
    hub_sets,
    section,
    versions,
    warned,
)

# Of an evaluation, by the Hub's names, and what they are called beside the numbers.
_METRICS = {
    "loss": "held-out loss (nats)",
    "perplexity": "perplexity",
    "accuracy": "accuracy of masked tokens",
}


def card_text(
    plan: RunPlan,
    state: TrainState,
    evaluations: Evaluations,
    improved: Mapping[str, str],
    cautions: Sequence[str],
    where: str,
) -> str:
    """Markdown with the Hub's front matter.

    `improved`: tokens that gained most. `where`: device and precision.
    """
    base = hub_base(plan.origin) if plan.origin else None
    places = Places(plan.settings, [base] if base else [])
    name = places.plain(plan.name)
    title = f"{name}, pre-trained with {plan.strategy.name} masking"
    facts = front_matter(
        title,
        "fill-mask",
        plan.model.pretrained.config.model_type,
        plan.settings.hub,
        base_model=base,
        datasets=_datasets(plan),
        results=list(_results(evaluations)),
    )
    counts = parameter_counts(plan.model)
    begun = (
        f"trained on from {literal(places.plain(plan.name))}" if plan.origin else "pre-trained from scratch"
    )
    sections = [
        f"A masked language model of {counts['total']:,} parameters, {begun} by fmlm {__version__}.\n",
        warned([places.plain(text) for text in cautions]),
        section("Training", facts_table(_training(plan, state, where, places))),
        section("Evaluation", _evaluation(evaluations)),
        section("Tokens whose prediction improved most", facts_table(improved)),
        section("Use", block(_use(plan.store.tokenizer.mask_token), "python")),
        section("Settings", places.settings()),
        section("Citation", cited(plan.strategy.name)),
    ]
    return card(facts, title, sections)


def _datasets(plan: RunPlan) -> list[str]:
    """The data sets of the Hub that were trained on."""
    requests = (source.store.manifest["request"] for source in plan.stream.sources)
    return hub_sets([source for request in requests for source in request.get("sources") or ()])


def _results(evaluations: Evaluations) -> Iterator[EvalResult]:
    """The last evaluations in the form of the Hub's model-index."""
    for name, records in evaluations.items():
        for metric, label in _METRICS.items():
            value = round(float(records[-1][f"eval_{metric}"]), 4)
            yield EvalResult(
                "fill-mask", name, name, metric, value, dataset_split="validation", metric_name=label
            )


def _use(mask: str) -> str:
    text = json.dumps(f"... {mask} ...", ensure_ascii=False)
    return f'from transformers import pipeline\n\npipeline("fill-mask", "{HERE}")({text})'


def _training(plan: RunPlan, state: TrainState, where: str, places: Places) -> dict[str, str]:
    corruption = plan.strategy.corruption
    split = plan.store.manifest["splits"]["train"]
    begun = {}
    if plan.origin is not None:
        begun["checkpoint"] = places.plain(plan.origin.name) + (
            f" at revision {plan.origin.revision}" if plan.origin.revision else ""
        )
    return {
        **begun,
        **plan.start.done,
        "data": f"token store {plan.store.name}, fingerprint {plan.store.fingerprint}",
        "text": f"{split['documents']:,} documents, {split['tokens']:,} tokens",
        **packing_report(plan),
        **_positions(plan),
        "masking": plan.timetable.description,
        "corruption": (
            f"{corruption.mask:g} mask, {corruption.random:g} random, {corruption.keep:g} kept, "
            f"{corruption.draw}"
        ),
        "steps": f"{state.step:,} of {plan.settings.batch.size} rows",
        "tokens forwarded": f"{state.tokens:,}",
        "passes over the data": f"{plan.passes:.2f}",
        "time": f"{state.seconds / 60:.1f} min",
        "seed": str(plan.settings.seed),
        "device": where,
        "versions": versions(),
    }


def _positions(plan: RunPlan) -> dict[str, str]:
    """Which positions were trained, where the model has others."""
    trained, longest = plan.trained_length, longest_sequence(plan.model.pretrained)
    if trained >= (longest or VERY_LARGE_INTEGER):
        return {}
    return {"longest text": f"{trained:,} tokens: positions beyond were never trained"}


def _evaluation(evaluations: Evaluations) -> str:
    if not evaluations:
        return "None.\n"
    rows: dict[str, str] = {}
    for name, records in evaluations.items():
        first, last = records[0], records[-1]
        rows |= {
            f"{name}: loss (nats)": f"{last['eval_loss']:.4f} (before training {first['eval_loss']:.4f})",
            f"{name}: perplexity": f"{last['eval_perplexity']:,.2f}",
            f"{name}: accuracy": f"{last['eval_accuracy']:.2%}",
            f"{name}: unigram cross-entropy of the same targets": f"{last['unigram_loss']:.4f}",
        }
    intro = (
        f"Held-out rows under fixed random masks of {EVALUATION_RATE:.0%} (80/10/10) that depend on no "
        "training setting but the rows' length and packing.\n\n"
    )
    return intro + facts_table(rows)
