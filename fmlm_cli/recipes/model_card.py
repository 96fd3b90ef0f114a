"""The model card: what data, masking, steps and versions made a model, and how well it does."""

import platform
from collections.abc import Sequence
from typing import Any

import torch
import transformers
import yaml

from fmlm_cli import __version__
from fmlm_cli.config import to_yaml
from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.model.build import parameter_counts
from fmlm_cli.recipes.evaluation import EVALUATION_RATE
from fmlm_cli.recipes.resolve import Plan, packing_report


def model_card(
    plan: Plan, state: TrainState, evaluations: Sequence[dict[str, Any]], cautions: Sequence[str], where: str
) -> str:
    """Markdown with the Hub's front matter. `where`: device and precision."""
    front = yaml.safe_dump(
        {
            "library_name": "transformers",
            "pipeline_tag": "fill-mask",
            "tags": ["fmlm", plan.model.pretrained.config.model_type],
        },
        sort_keys=False,
    )
    counts = parameter_counts(plan.model)
    sections = [
        f"---\n{front}---\n",
        f"# {plan.settings.model.name}, pre-trained with {plan.strategy.name} masking\n",
        f"A masked language model of {counts['total']:,} parameters, pre-trained from scratch by fmlm {__version__}.\n",
        "".join(f"> **Note:** {text}.\n\n" for text in cautions),
        "## Training\n\n" + _table(_training(plan, state, where)),
        "## Evaluation\n\n" + _evaluation(evaluations),
        "## Use\n\n```python\nfrom transformers import pipeline\n\n"
        f'pipeline("fill-mask", "PATH/OF/THIS/FOLDER")("... {plan.store.tokenizer.mask_token} ...")\n```\n',
        f"## All settings\n\n```yaml\n{to_yaml(plan.settings)}```\n",
    ]
    return "\n".join(section for section in sections if section)


def _table(rows: dict[str, str]) -> str:
    return "| | |\n| --- | --- |\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items())


def _training(plan: Plan, state: TrainState, where: str) -> dict[str, str]:
    corruption = plan.strategy.corruption
    split = plan.store.manifest["splits"]["train"]
    return {
        "data": f"token store `{plan.store.name}`, fingerprint `{plan.store.fingerprint}`",
        "text": f"{split['documents']:,} documents, {split['tokens']:,} tokens",
        **packing_report(plan),
        "masking": plan.timetable.description,
        "corruption": f"{corruption.mask:g} mask, {corruption.random:g} random, {corruption.keep:g} kept, {corruption.draw}",
        "steps": f"{state.step:,} of {plan.settings.batch.size} rows",
        "tokens forwarded": f"{state.tokens:,}",
        "passes over the data": f"{plan.passes:.2f}",
        "time": f"{state.seconds / 60:.1f} min",
        "seed": str(plan.settings.seed),
        "device": where,
        "versions": f"fmlm {__version__}, torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}",
    }


def _evaluation(evaluations: Sequence[dict[str, Any]]) -> str:
    if not evaluations:
        return "None.\n"
    first, last = evaluations[0], evaluations[-1]
    rows = {
        "loss (nats)": f"{last['eval_loss']:.4f} (before training {first['eval_loss']:.4f})",
        "perplexity": f"{last['eval_perplexity']:,.2f}",
        "accuracy": f"{last['eval_accuracy']:.2%}",
        "unigram cross-entropy of the same targets": f"{last['unigram_loss']:.4f}",
    }
    intro = f"Held-out rows under fixed random masks of {EVALUATION_RATE:.0%} (80/10/10) that depend on no training setting but the rows' length and packing.\n\n"
    return intro + _table(rows)
