"""The model cards of fine-tuned models: for what, from what and how they were made, and how good they are."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from fmlm_cli import __version__, storage
from fmlm_cli.analysis.report.markdown import literal
from fmlm_cli.analysis.results.finetuning import CheckpointScores, TaskScores
from fmlm_cli.errors import UserError
from fmlm_cli.events import counted
from fmlm_cli.recipes.finetuning.candidates import Candidate
from fmlm_cli.recipes.finetuning.plan import FinetunePlan
from fmlm_cli.recipes.shared.checkpoints import CARD, FINETUNED, hub_base
from fmlm_cli.recipes.shared.model_cards import (
    HERE,
    Places,
    block,
    card,
    cited,
    facts_table,
    front_matter,
    section,
    table,
    versions,
    warned,
)
from fmlm_cli.recipes.shared.words import where_line
from fmlm_cli.tasks import GLUE_ON_HUB, TaskData

_WRITTEN = ".cards.json"  # hashes of the cards, by which those are known that somebody has written on
_LABELS = 20  # that are named


def write_cards(plan: FinetunePlan, scores: Sequence[CheckpointScores]) -> None:
    """Leave every model its card, anew where there are more scores; one that was changed stays."""
    path = plan.root / "models" / _WRITTEN
    written, models = _written(path), path.parent
    for own in scores:
        for task, of_task in own.tasks.items():
            folder = plan.model_folder(own.name, task)
            if not (folder / FINETUNED).is_file() or plan.loss_of_model(
                own.name, task
            ):  # which has been said
                continue
            target, name = folder / CARD, folder.relative_to(models).as_posix()
            if target.is_file() and storage.sha256_of_file(target) != written.get(name):
                continue
            facts = storage.read_sealed(folder / FINETUNED)
            storage.write_text(target, card_text(plan, plan.candidates[own.name], of_task, facts))
            written[name] = storage.sha256_of_file(target)
    if written:
        storage.write_sealed(path, written)


def _written(path: Path) -> dict[str, Any]:
    """Hashes of the cards of an earlier report."""
    try:
        return dict(storage.read_sealed(path)) if path.is_file() else {}
    except UserError:  # then every card counts as changed, and stays
        return {}


def card_text(plan: FinetunePlan, candidate: Candidate, scores: TaskScores, facts: Mapping[str, Any]) -> str:
    """Markdown with the Hub's front matter. `facts`: what finetuned.json says of the model."""
    data, origin = plan.data[facts["task"]], candidate.origin
    base = hub_base(origin)
    names = [own.origin.name for own in plan.candidates.values() if own.origin.revision is not None]
    places = Places(plan.settings, [*names, *([base] if base else [])])
    begun = places.plain(origin.name)
    title = f"{Path(origin.name).name} for {data.task.name}"
    head = front_matter(
        title,
        "text-classification",
        candidate.model_type,
        plan.settings.hub,
        base_model=base,
        datasets=[GLUE_ON_HUB] if plan.is_glue else [],
        results=list(_results(data, facts, of_glue=plan.is_glue)),
    )
    kind = "A regression model" if data.task.regression else "A classifier"
    of_pairs = " of pairs of texts" if data.task.pair else " of texts"
    masking = origin.settings.masking.strategy if origin.settings else ""
    sections = [
        f"{kind}{of_pairs}, {literal(begun)} fine-tuned by fmlm {__version__}.\n",
        warned([places.plain(note) for note in data.notes]),
        section("Scores", _scores(plan, scores, facts)),
        section("Labels", _labels(data)),
        section("Training", facts_table(_training(plan, candidate, data, facts, begun))),
        section("Use", block(_use(data), "python")),
        section("Settings of the call", places.settings()),
        section("Citation", cited(masking)),
    ]
    return card(head, title, sections)


def _results(data: TaskData, facts: Mapping[str, Any], *, of_glue: bool) -> Iterator[EvalResult]:
    """The model's scores in the form of the Hub's model-index."""
    task = data.task.name
    named = (GLUE_ON_HUB, f"GLUE {task.upper()}") if of_glue else (task, task)
    for kind in ("dev", "test"):
        for split, measures in facts[kind].items():
            for metric, value in measures.items():
                if metric != "score":
                    yield EvalResult(
                        "text-classification",
                        *named,
                        metric,
                        round(value, 4),
                        dataset_config=task if of_glue else None,
                        dataset_split=_split(kind, split),
                    )


def _split(kind: str, split: str) -> str:
    return kind if kind == split else f"{kind} {split}"


def _scores(plan: FinetunePlan, scores: TaskScores, facts: Mapping[str, Any]) -> str:
    """This model's measures beside those of all seeds."""
    rows = []
    for kind, over_seeds in (("dev", scores.dev), ("test", scores.test)):
        for split, measures in facts[kind].items():
            for name, value in measures.items():
                if name == "score" and len(scores.measures) == 1:
                    continue
                every = over_seeds.get(split, {}).get(name)
                mean = f"{100 * every.mean:.1f}" if every and every.mean is not None else "-"
                sd = f"{100 * every.sd:.1f}" if every and every.sd is not None else "-"
                rows.append((_split(kind, split), name.replace("_", "-"), f"{100 * value:.1f}", mean, sd))
    intro = (
        "In percent. This is the run with the best development score, which flatters it there; mean and "
        f"standard deviation are over all {counted(scores.n, 'seed')}.\n\n"
    )
    return intro + table(("split", "measure", "this model", "mean", "sd"), rows)


def _labels(data: TaskData) -> str:
    """The labels by name."""
    if data.task.regression:
        return ""
    names = data.task.labels
    more = f" and {len(names) - _LABELS:,} more" if len(names) > _LABELS else ""
    return f"{literal(', '.join(names[:_LABELS]))}{more}\n"


def _training(
    plan: FinetunePlan, candidate: Candidate, data: TaskData, facts: Mapping[str, Any], begun: str
) -> dict[str, str]:
    """What made the model."""
    revision = candidate.origin.revision
    begun += f" at revision {revision}" if revision else ""
    values = {name.replace("_", " "): json.dumps(value) for name, value in facts["training"].items()}
    return {
        "checkpoint": begun + (", and MNLI" if plan.begins_from_mnli(data.task.name) else ""),
        "data": f"{len(data.train):,} examples, sha256 {data.train.fingerprint}",
        "longest text": f"{facts['max_length']:,} tokens",
        **values,
        "run": facts["cell"],
        "device": where_line(plan.runtime),
        "versions": versions(),
    }


def _use(data: TaskData) -> str:
    """How to ask the model in Python."""
    texts = '{"text": "a text", "text_pair": "another text"}' if data.task.pair else '"a text"'
    more = ', function_to_apply="none"' if data.task.regression else ""
    return (
        "from transformers import pipeline\n\n"
        f'classify = pipeline("text-classification", "{HERE}"{more})\nclassify({texts})'
    )
