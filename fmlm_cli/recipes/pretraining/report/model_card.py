"""The model card: what data, masking, steps and versions made a model, and how well it does."""

import json
from collections.abc import Mapping, Sequence

from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from fmlm_cli import __version__
from fmlm_cli.analysis.report.markdown import literal
from fmlm_cli.config import to_yaml
from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.model.build import longest_sequence, parameter_counts
from fmlm_cli.recipes.pretraining.planning.plan import RunPlan, packing_report
from fmlm_cli.recipes.pretraining.report.gains import Evaluations
from fmlm_cli.recipes.shared.held_out import EVALUATION_RATE
from fmlm_cli.recipes.shared.model_cards import block, card, facts_table, section, versions, warned


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
    facts = {
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "tags": ["fmlm", plan.model.pretrained.config.model_type],
    }
    if plan.origin is not None and plan.origin.revision is not None:  # a Hub name, which the Hub makes a link
        facts["base_model"] = plan.origin.name
    counts = parameter_counts(plan.model)
    begun = f"gone on with from {literal(plan.origin.name)}" if plan.origin else "pre-trained from scratch"
    sections = [
        f"A masked language model of {counts['total']:,} parameters, {begun} by fmlm {__version__}.\n",
        warned(cautions),
        section("Training", facts_table(_training(plan, state, where))),
        section("Evaluation", _evaluation(evaluations)),
        section("Tokens whose prediction improved most", facts_table(improved)),
        section("Use", block(_use(plan.store.tokenizer.mask_token), "python")),
        section("All settings", block(to_yaml(plan.settings), "yaml")),
    ]
    return card(facts, f"{plan.name}, pre-trained with {plan.strategy.name} masking", sections)


def _use(mask: str) -> str:
    text = json.dumps(f"... {mask} ...", ensure_ascii=False)
    return f'from transformers import pipeline\n\npipeline("fill-mask", "PATH/OF/THIS/FOLDER")({text})'


def _training(plan: RunPlan, state: TrainState, where: str) -> dict[str, str]:
    corruption = plan.strategy.corruption
    split = plan.store.manifest["splits"]["train"]
    begun = {}
    if plan.origin is not None:
        begun["checkpoint"] = plan.origin.name + (
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
