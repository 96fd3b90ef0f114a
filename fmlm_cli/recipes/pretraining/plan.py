"""From settings with gaps to a run without any: every choice made and checked before the first step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.engine.checkpoint import read_facts
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit
from fmlm_cli.masking import FullExploration, Strategy
from fmlm_cli.masking.schedule import Timetable
from fmlm_cli.model.build import longest_sequence, preset_for, preset_of, weights_hash
from fmlm_cli.model.layers import rate_scales
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.pretraining import start as starting
from fmlm_cli.recipes.pretraining.data import (
    Opened,
    RowStream,
    Source,
    check_same_tokens,
    make_stream,
    open_stores,
    verify_stores,
)
from fmlm_cli.recipes.pretraining.resume import deciding
from fmlm_cli.recipes.pretraining.start import Start
from fmlm_cli.recipes.shared.checkpoints import Origin, find_checkpoint
from fmlm_cli.recipes.shared.limits import resolve_length, resolve_packing
from fmlm_cli.recipes.shared.strategy import check_strategy, rate_schedule, resolve_strategy, try_strategy

LARGEST_MICRO_SIZE = 32
CONTINUED_RATE = 0.5  # peak learning rate, as a share of that from scratch, of a checkpoint that has its head
WARMUP, REWARMUP = 0.06, 0.03  # share of the steps


@dataclass(frozen=True)
class Plan:
    """A run with every choice made. `settings` has no gaps left and is what config.yaml gets.

    `timetable`: how rows are masked; `passes` in it is left open, for every source has its own number. `evaluated`:
    the stores whose validation rows are evaluated, by name. `main_evaluation`: the one that decides, if any.
    """

    settings: PretrainSettings
    origin: Origin | None
    start: Start
    model: MaskedLM
    stream: RowStream
    timetable: Timetable
    evaluated: Mapping[str, TokenStore]
    total_steps: int
    scales: Mapping[str, float] = field(default_factory=dict)
    main_evaluation: str | None = None

    @property
    def store(self) -> TokenStore:
        """The store whose vocabulary is the model's."""
        return self.stream.sources[0].store

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
        """How often the run sees each row of the data, replayed ones left out."""
        return self.total_steps * self.sequences_per_step * self.stream.data_share / self.stream.rows

    @cached_property
    def timetables(self) -> list[Timetable]:
        """When each source's rows are masked by what: their passes differ."""
        before = replace(self.stream, first=0).passes(self.stream.first)
        more = self.stream.passes(self.total_steps * self.sequences_per_step)
        return [replace(self.timetable, passes=a + b) for a, b in zip(before, more, strict=True)]

    @cached_property
    def identity(self) -> str:
        """Stands for all that decides the run's results."""
        config = self.start.model.config.to_diff_dict()  # what a config.json said when the run began
        config.pop("transformers_version", None)
        config.pop("_name_or_path", None)
        stores = [[s.store.fingerprint, s.share] for s in self.stream.sources]
        evaluated = {name: store.fingerprint for name, store in self.evaluated.items()}
        content = [stores, evaluated, deciding(self.settings), config]
        if self.origin is not None:
            content.append(weights_hash(self.start.model))
        if self.strategy.settings.collocations is not None:  # then they have a part in the masks
            content.append(self.store.manifest.get("collocations"))
        return storage.sha256_of_json(content)


def resolve(settings: PretrainSettings, emit: Emit) -> Plan:
    """Make every choice that the settings leave open. Raises `UserError` for what cannot be."""
    _check_budget(settings)
    check_strategy(settings.masking)
    origin = _find_origin(settings)
    settings = _with_dropout(settings, origin)
    begun = starting.load(settings, origin, emit) if origin else None
    opened = open_stores(settings, str(origin.folder) if origin else None, emit)
    store = opened[0].store
    strategy = resolve_strategy(settings.masking, store)
    timetable = Timetable(strategy, rate_schedule(settings.masking, strategy))
    if settings.data.verify:
        verify_stores(opened)
    _check_maskable(store)
    if begun and origin:
        preset = preset_of(begun.model.config)
        start = starting.fit(begun, settings, origin, store, emit)
    else:
        preset = preset_for(settings.model.name)
        start = starting.from_scratch(settings, store)
    model = MaskedLM(start.model)
    stream = _stream(settings, origin, opened, model, emit)
    try_strategy(timetable, stream.sources[0].reader)
    size = _batch_size(settings.batch.size, preset.batch_size, strategy.masks_per_sequence)
    steps = _total_steps(settings, stream, size, strategy.masks_per_sequence)
    scratch = preset.learning_rate
    peak = settings.optimizer.learning_rate or _peak(settings, origin, scratch, new_head=bool(start.new))
    settings = _without_gaps(settings, origin, strategy, stream, size, steps, scratch, peak)
    evaluated = _evaluated(settings, opened, continued=origin is not None)
    scales = rate_scales(start.model, settings.optimizer.layer_decay)
    main = next(iter(evaluated), None)  # the first data come first
    return Plan(settings, origin, start, model, stream, timetable, evaluated, steps, scales, main)


def _stream(
    settings: PretrainSettings, origin: Origin | None, opened: Sequence[Opened], model: MaskedLM, emit: Emit
) -> RowStream:
    """The rows in the length and packing that suit the model, from where the run begins in them."""
    of = origin.name if origin else settings.model.name
    length = resolve_length(settings.sequence_length, longest_sequence(model.pretrained), of)
    packing = resolve_packing(settings.data.packing, model, length, emit)
    stream = make_stream(opened, settings, packing, length)
    return replace(stream, first=_first_row(settings, origin, stream))


def _without_gaps(
    settings: PretrainSettings,
    origin: Origin | None,
    strategy: Strategy,
    stream: RowStream,
    size: int,
    steps: int,
    scratch: float,
    peak: float,
) -> PretrainSettings:
    """The settings with every choice written in; `size` rows a step. `scratch`: the peak rate of such a model trained from
    scratch; `peak`: of this one.
    """
    optimizer = settings.optimizer
    if optimizer.head_warmup_steps >= steps:
        raise UserError(
            f"optimizer.head_warmup_steps {optimizer.head_warmup_steps} leaves nothing of the run's {steps:,} steps"
        )
    layout = stream.sources[0].reader.plan
    chosen = {
        "sequence_length": layout.sequence_length,
        "data.packing": layout.packing,
        "data.first_row": stream.first,
        "model.revision": origin.revision if origin else None,
        "masking.masks_per_sequence": strategy.masks_per_sequence,
        "batch.size": size,
        "batch.micro_size": min(settings.batch.micro_size or LARGEST_MICRO_SIZE, size),
        "optimizer.learning_rate": peak,
        "optimizer.head_learning_rate": optimizer.head_learning_rate or scratch,
        "optimizer.warmup_share": _warmup(settings, origin),
        "checkpoint.every_steps": settings.checkpoint.every_steps or min(1000, math.ceil(steps / 10)),
        "evaluation.every_steps": settings.evaluation.every_steps or min(5000, math.ceil(steps / 10)),
        "logging.every_steps": settings.logging.every_steps or math.ceil(steps / 5000),
    }
    return build(PretrainSettings, settings.model_dump(), nested(chosen), {"masking": _written(strategy)})


def _written(strategy: Strategy) -> dict[str, Any]:
    """K and the rate give each other: of the two only the one that the strategy goes by is written."""
    if isinstance(strategy.inside, FullExploration):
        return {"segments": strategy.inside.segments, "rate": None, "scope": strategy.inside.scope}
    return {"segments": None, "rate": strategy.rate}


def _find_origin(settings: PretrainSettings) -> Origin | None:
    """The checkpoint that the run goes on from, if any."""
    chosen = settings.model
    if chosen.checkpoint is None:
        for name, asked in {
            "max_positions": chosen.max_positions,
            "lora.rank": chosen.lora.rank,
            "revision": chosen.revision,
            "keep_unused": chosen.keep_unused,
        }.items():
            if asked:
                raise UserError(f"model.{name} is for going on from a checkpoint: give model.checkpoint")
        if settings.optimizer.carry_over:
            raise UserError("optimizer.carry_over is for going on from a run: give model.checkpoint")
        return None
    origin = find_checkpoint(chosen.checkpoint, revision=chosen.revision, code=chosen.trust_remote_code)
    if settings.optimizer.carry_over and origin.training is None:
        raise UserError(
            f"{origin.name} has no state of an optimizer to carry over: give a run of fmlm's, such as RUN@step-N"
        )
    return origin


def _with_dropout(settings: PretrainSettings, origin: Origin | None) -> PretrainSettings:
    """None from scratch, a run's own where one is gone on with; left open for other checkpoints: theirs."""
    rate = 0.0 if origin is None else origin.settings.model.dropout if origin.settings else None
    if settings.model.dropout is not None or rate is None:
        return settings
    return build(PretrainSettings, settings.model_dump(), nested({"model.dropout": rate}))


def _peak(settings: PretrainSettings, origin: Origin | None, scratch: float, *, new_head: bool) -> float:
    """The peak rate: a model's of this size, a part of it, or the one at which a run is carried on.

    A head that is new learns too little at the lower one.
    """
    if origin is None:
        return scratch
    if settings.optimizer.carry_over:
        assert origin.training is not None
        step, _ = read_facts(origin.training)
        rate = origin.learning_rate(step)
        peak = origin.settings.optimizer.learning_rate if origin.settings else None
        if rate is not None and peak is not None and rate < peak / 100:
            raise UserError(
                f"the learning rate of {origin.name} has come down to {rate:.1e} at step {step}: go on from a checkpoint of its stable "
                f"part (schedule wsd), RUN@step-N, or give optimizer.learning_rate"
            )
        if rate is not None:
            return rate
    return scratch if new_head else scratch * CONTINUED_RATE


def _warmup(settings: PretrainSettings, origin: Origin | None) -> float:
    if settings.optimizer.warmup_share is not None:
        return settings.optimizer.warmup_share
    return WARMUP if origin is None else REWARMUP


def _first_row(settings: PretrainSettings, origin: Origin | None, stream: RowStream) -> int:
    """Where the stream is begun: a run over the same rows as the one it goes on from begins where that stopped."""
    if settings.data.first_row is not None:
        return settings.data.first_row
    if origin is not None and origin.training is not None:
        step, facts = read_facts(origin.training)
        if facts.get("stream") == stream.identity:
            return int(facts["first_row"] + step * facts["rows_per_step"])
    return 0


def _evaluated(
    settings: PretrainSettings, opened: Sequence[Opened], *, continued: bool
) -> dict[str, TokenStore]:
    """The stores to evaluate on by name: the data's, replayed ones, and those that were named."""
    data = [each for each in opened if not each.replay]
    named: dict[str, TokenStore] = {}

    def add(name: str, store: TokenStore) -> None:
        known = {other.identity("validation") for other in named.values()}
        if store.has("validation") and store.identity("validation") not in known:
            named[name if name not in named else f"{name}-{len(named) + 1}"] = store

    for each in data:
        add("domain" if continued and len(data) == 1 else each.store.name, each.store)
    for name, path in settings.evaluation.stores.items():
        store = TokenStore.open(path, verify=("validation",) if settings.data.verify else ())
        check_same_tokens(opened[0].store, store)
        if not store.has("validation"):
            raise UserError(f"{path} has no validation split to evaluate on (evaluation.stores.{name})")
        add(name, store)
    for each in opened:
        if each.replay:
            add(each.store.name, each.store)
    return named


def _check_maskable(store: TokenStore) -> None:
    """Refuse a store whose every token is a special one: there would be nothing to predict."""
    ordinary = np.delete(store.token_counts, list(store.special.never_masked))
    if not ordinary.any():
        raise UserError(
            f"{store.root} holds nothing but unknown tokens: tokenize the text with a tokenizer that suits it"
        )


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


def _total_steps(settings: PretrainSettings, stream: RowStream, size: int, masks: int) -> int:
    """Optimizer steps of the budget, rounded up; a pass is over the data, what is replayed comes on top."""
    budget = settings.budget
    if budget.steps is not None:
        return budget.steps
    if budget.epochs is not None:
        rows = budget.epochs * stream.rows / stream.data_share
        return max(1, math.ceil(rows * masks / size - 1e-9))
    assert budget.tokens is not None
    tokens_per_row = sum(
        source.share * source.reader.plan.used(source.reader.frame) / len(source.reader.plan)
        for source in stream.sources
    )
    return max(1, math.ceil(budget.tokens / (size * tokens_per_row)))


def packing_report(plan: Plan) -> dict[str, str]:
    """What became of the documents: rows, and what padding and cutting cost; for several stores, of each."""
    rows: dict[str, str] = {}
    several = len(plan.stream.sources) > 1
    passes = plan.stream.passes(plan.total_steps * plan.sequences_per_step)
    for source, seen in zip(plan.stream.sources, passes, strict=True):
        if several:
            kind = "replay" if source.replay else "data"
            rows[f"{kind} {source.store.name}"] = f"{source.share:.1%} of all rows, {seen:.2f} passes"
        for name, value in _packed(source).items():
            rows[f"{name} of {source.store.name}" if several else name] = value
    return rows


def _packed(source: Source) -> dict[str, str]:
    reader: RowReader = source.reader
    layout = reader.plan
    positions = len(layout) * layout.sequence_length
    documents = source.store.manifest["splits"]["train"]["documents"]
    kept = f"{len(reader):,}" + (f" of {len(layout):,} (data.max_rows)" if len(reader) < len(layout) else "")
    return {
        "rows": f"{kept} x {layout.sequence_length} positions, packing {layout.packing}",
        "padding": f"{1 - layout.used(reader.frame) / positions:.1%} of all positions",
        "cut": f"{layout.cut:,} of {documents:,} documents are longer than a row and were cut; no token is dropped",
    }
