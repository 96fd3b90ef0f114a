"""From settings with gaps to a run without any: every choice made and checked before the first step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import yaml

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, nested, read_yaml
from fmlm_cli.corpus.rows import RowReader
from fmlm_cli.corpus.store import SPLITS, TokenStore
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit
from fmlm_cli.masking import FullExploration, Strategy
from fmlm_cli.masking.schedule import Timetable
from fmlm_cli.model.build import VocabularyFacts, build_model, longest_sequence, preset_for, set_output_bias
from fmlm_cli.model.masked_lm import MaskedLM, isolates_documents
from fmlm_cli.objectives.masked_lm import unigram_losses
from fmlm_cli.recipes.strategy import rate_schedule, resolve_strategy, try_strategy

DEFAULT_LENGTH = 128
LARGEST_MICRO_SIZE = 32

# Settings that change where and how fast a run goes, but not what it computes: a resumed run may change them.
MAY_CHANGE = ("out", "device", "data.store", "data.verify", "batch.micro_size", "checkpoint", "logging")


@dataclass(frozen=True)
class Plan:
    """A run with every choice made. `settings` has no gaps left and is what config.yaml gets."""

    settings: PretrainSettings
    store: TokenStore
    reader: RowReader
    timetable: Timetable
    model: MaskedLM
    total_steps: int

    @property
    def strategy(self) -> Strategy:
        """How rows are masked, at first if the rate changes over training."""
        return self.timetable.strategy

    @property
    def sequences_per_step(self) -> int:
        """Distinct draws of a row in one step; each is forwarded under `masks_per_sequence` masks."""
        assert self.settings.batch.size is not None
        return self.settings.batch.size // self.strategy.masks_per_sequence

    @property
    def passes(self) -> float:
        """How often the run sees each row."""
        return self.timetable.passes

    @property
    def identity(self) -> str:
        """Stands for all that decides the run's results."""
        config = self.model.pretrained.config.to_diff_dict()  # what a config.json said when the run began
        config.pop("transformers_version", None)
        config.pop("_name_or_path", None)
        deciding = [self.store.fingerprint, _deciding(self.settings), config]
        if self.strategy.settings.collocations is not None:  # then they have a part in the masks
            deciding.append(self.store.manifest.get("collocations"))
        return storage.sha256_of_json(deciding)


def resolve(settings: PretrainSettings, emit: Emit) -> Plan:
    """Make every choice that the settings leave open. Raises `UserError` for what cannot be."""
    _check_budget(settings)
    if settings.data.store is None:
        raise UserError("no data: give --data STORE, a folder made by `fmlm tokenize`")
    store = TokenStore.open(settings.data.store, verify=())
    strategy = resolve_strategy(settings.masking, store)
    timetable = Timetable(strategy, rate_schedule(settings.masking, strategy))
    preset = preset_for(settings.model.name)
    size = _batch_size(settings.batch.size, preset.batch_size, strategy.masks_per_sequence)
    store.verify(SPLITS if settings.data.verify else ())
    _check_maskable(store)
    model = new_model(settings, store)
    length = resolve_length(settings.sequence_length, longest_sequence(model.pretrained), settings.model.name)
    packing = resolve_packing(settings.data.packing, model, length, emit)
    reader = RowReader(
        store, "train", packing=packing, sequence_length=length, max_rows=settings.data.max_rows
    )
    try_strategy(timetable, reader)
    steps = total_steps(settings, reader, size, strategy.masks_per_sequence)
    passes = steps * (size // strategy.masks_per_sequence) / len(reader)
    full = strategy.inside if isinstance(strategy.inside, FullExploration) else None
    chosen = {
        "sequence_length": length,
        "data.packing": packing,
        "masking.masks_per_sequence": strategy.masks_per_sequence,
        "batch.size": size,
        "batch.micro_size": min(settings.batch.micro_size or LARGEST_MICRO_SIZE, size),
        "optimizer.learning_rate": settings.optimizer.learning_rate or preset.learning_rate,
        "checkpoint.every_steps": settings.checkpoint.every_steps or min(1000, math.ceil(steps / 10)),
        "evaluation.every_steps": settings.evaluation.every_steps or min(5000, math.ceil(steps / 10)),
        "logging.every_steps": settings.logging.every_steps or math.ceil(steps / 5000),
    }
    # K and the rate give each other: of the two only the one that the strategy goes by is written.
    by = (
        {"segments": full.segments, "rate": None, "scope": full.scope}
        if full
        else {"segments": None, "rate": strategy.rate}
    )
    resolved = build(PretrainSettings, settings.model_dump(), nested(chosen), {"masking": by})
    return Plan(resolved, store, reader, replace(timetable, passes=passes), model, steps)


def _check_maskable(store: TokenStore) -> None:
    """Refuse a store whose every token is a special one: there would be nothing to predict."""
    ordinary = np.delete(store.token_counts, list(store.special.never_masked))
    if not ordinary.any():
        raise UserError(
            f"{store.root} holds nothing but unknown tokens: tokenize the text with a tokenizer that suits it"
        )


def new_model(settings: PretrainSettings, store: TokenStore) -> MaskedLM:
    """The freshly initialised model: a function of the seed, the vocabulary and its frequencies."""
    chosen = settings.model
    model = build_model(chosen.name, vocabulary_of(store), dropout=chosen.dropout, seed=settings.seed)
    if chosen.unigram_bias:
        set_output_bias(model, -unigram_losses(store.token_counts, store.special.never_masked))
    return MaskedLM(model)


def _check_budget(settings: PretrainSettings) -> None:
    given = [
        f"--{name} {value:g}" for name, value in settings.budget.model_dump().items() if value is not None
    ]
    if not given:
        raise UserError("no budget: say how long to train with one of --steps, --tokens, --epochs")
    if len(given) > 1:
        raise UserError(f"{len(given)} budgets: {' and '.join(given)}; keep one")


def _batch_size(asked: int | None, default: int, masks: int) -> int:
    """Masked rows in a step: a multiple of the masks that a sequence has in it."""
    if asked is None:
        return max(1, round(default / masks)) * masks
    if asked % masks:
        below, above = asked // masks * masks, (asked // masks + 1) * masks
        nearest = f"{below} and {above}" if below else f"{above} and {above + masks}"
        raise UserError(
            f"batch.size {asked} must be a multiple of {masks}, the masks of a sequence that share a step; the nearest are {nearest}"
        )
    return asked


def vocabulary_of(store: TokenStore) -> VocabularyFacts:
    """What a model has to know of the store's tokenizer."""
    special = store.special
    return VocabularyFacts(store.vocabulary, special.pad, store.tokenizer.cls_token_id, special.separator)


def resolve_length(asked: int | None, limit: int | None, model: str) -> int:
    """Positions in a row: what was asked for if the model has them, else 128 or the model's limit."""
    if asked is None:
        return min(DEFAULT_LENGTH, limit or DEFAULT_LENGTH)
    if limit is not None and asked > limit:
        raise UserError(
            f"sequence_length {asked} is beyond the {limit} positions of {model}: set it to {limit} or less"
        )
    return asked


def resolve_packing(asked: str, model: MaskedLM, length: int, emit: Emit) -> Any:
    """The packing asked for, or one that is right where the model cannot keep documents apart."""
    if asked != "documents" or isolates_documents(model, max(length, 4)):
        return asked
    family = model.pretrained.config.model_type
    emit(
        Caution(
            f"'{family}' cannot keep packed documents apart: data.packing is none (one document to a row) instead of documents"
        )
    )
    return "none"


def total_steps(settings: PretrainSettings, reader: RowReader, size: int, masks: int) -> int:
    """Optimizer steps of the budget, rounded up."""
    budget = settings.budget
    if budget.steps is not None:
        return budget.steps
    if budget.epochs is not None:
        return max(1, math.ceil(budget.epochs * len(reader) * masks / size - 1e-9))
    assert budget.tokens is not None
    tokens_per_row = reader.plan.used(reader.frame) / len(reader.plan)
    return max(1, math.ceil(budget.tokens / (size * tokens_per_row)))


def packing_report(plan: Plan) -> dict[str, str]:
    """What became of the documents: rows, and what padding and cutting cost."""
    rows, layout = plan.reader, plan.reader.plan
    positions = len(layout) * layout.sequence_length
    used = layout.used(rows.frame)
    documents = plan.store.manifest["splits"]["train"]["documents"]
    kept = (
        f"{len(rows):,} of {len(layout):,} (data.max_rows)" if len(rows) < len(layout) else f"{len(layout):,}"
    )
    return {
        "rows": f"{kept} x {layout.sequence_length} positions, packing {layout.packing}",
        "padding": f"{1 - used / positions:.1%} of all positions",
        "cut": f"{layout.cut:,} of {documents:,} documents are longer than a row and were cut; no token is dropped",
    }


def _deciding(settings: PretrainSettings) -> dict[str, Any]:
    """The settings that decide results, flat."""
    flat = _flatten(settings.model_dump(mode="json"))
    return {
        k: v for k, v in flat.items() if not any(k == free or k.startswith(f"{free}.") for free in MAY_CHANGE)
    }


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def settings_to_resume(settings: PretrainSettings, run: storage.RunDirectory) -> PretrainSettings:
    """A run's own settings, with what `settings` sets explicitly laid over them."""
    return build(PretrainSettings, saved_settings(run).model_dump(), settings.model_dump(exclude_unset=True))


def check_same_run(plan: Plan, run: storage.RunDirectory) -> None:
    """Refuse to resume a run under settings that would have made it another one."""
    before, now = _deciding(saved_settings(run)), _deciding(plan.settings)
    for name in {**before, **now}:  # options of a strategy may be in one of the two alone
        if before.get(name) != now.get(name):
            raise UserError(
                f"{run.root} was started with {name} {_shown(before.get(name))}, not {_shown(now.get(name))}: "
                f"drop that setting to resume, or give another --out"
            )


def _shown(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).splitlines()[0]


def saved_settings(run: storage.RunDirectory) -> PretrainSettings:
    """The settings of a run that exists; `UserError` if its config.yaml is not one of fmlm's."""
    return build(PretrainSettings, read_yaml(run.config, PretrainSettings))
