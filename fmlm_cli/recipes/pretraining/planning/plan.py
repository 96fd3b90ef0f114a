"""From settings with gaps to a run without any: check, make the data, load, decide."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, deciding, nested
from fmlm_cli.corpus.rows.packing import PLANNING
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.engine.checkpoint import read_facts
from fmlm_cli.errors import UserError
from fmlm_cli.events import Doing, Emit
from fmlm_cli.masking import Strategy
from fmlm_cli.masking.schedule import Timetable
from fmlm_cli.model.build import longest_sequence, weights_hash
from fmlm_cli.model.layers import rate_scales
from fmlm_cli.model.layerwise.recomputing import layers_to_recompute
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.pretraining.planning.check import CheckedRun, batch_size, check_head_warmup, check_run
from fmlm_cli.recipes.pretraining.planning.data import (
    NamedStore,
    OpenedStore,
    RowSource,
    RowStream,
    check_same_tokens,
    check_together,
    make_store_of_text,
    make_stream,
    open_store,
    store_of_text,
    verify_stores,
)
from fmlm_cli.recipes.pretraining.planning.start import Start, fit_to_store, from_scratch
from fmlm_cli.recipes.shared.checkpoints import Origin
from fmlm_cli.recipes.shared.limits import resolve_length, resolve_packing
from fmlm_cli.recipes.shared.strategy import rate_schedule, resolve_strategy, try_strategy

WARMUP, REWARMUP = 0.06, 0.03  # share of the steps
LEAST_WARMUP = 10  # steps
_NO_PART_IN_RESULTS = ("transformers_version", "_name_or_path")  # of a config.json


@dataclass(frozen=True)
class RunPlan:
    """A run with every choice made. `settings` has no gaps left and is what config.yaml gets.

    But for `batch.micro_size`, which may be "auto" still: that is a question to the device.

    `timetable`: how rows are masked; `passes` in it is left open, for every source has its own number.
    `evaluated`: the stores whose validation rows are evaluated, by name. `by_weight`: their names, the one
    that decides first.
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
    by_weight: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What messages call the model."""
        return self.origin.name if self.origin else self.settings.model.name

    @property
    def store(self) -> TokenStore:
        """The store whose vocabulary is the model's."""
        return self.stream.sources[0].store

    @property
    def strategy(self) -> Strategy:
        """How rows are masked, at first if the rate changes over training."""
        return self.timetable.strategy

    @property
    def trained_length(self) -> int:
        """The longest sequence in tokens all of whose positions are trained, here or before."""
        assert self.settings.sequence_length is not None
        return max(self.settings.sequence_length, self.start.trained)

    @property
    def sequences_per_step(self) -> int:
        """Distinct draws of a row in one step; each is forwarded under `masks_per_sequence` masks."""
        assert self.settings.batch.size is not None
        return self.settings.batch.size // self.strategy.masks_per_sequence

    @property
    def micro_size(self) -> int:
        """Masked rows that are forwarded at once, where that has been decided."""
        assert self.settings.batch.micro_size != "auto"
        return self.settings.batch.micro_size

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

    @property
    def main_evaluation(self) -> str | None:
        """The name of the evaluation that decides, if there is any."""
        return self.by_weight[0] if self.by_weight else None

    @property
    def made_from(self) -> dict[Path, str]:
        """The folders that the run is made from, and what each is."""
        folders = {source.store.root: "store" for source in self.stream.sources}
        folders |= {store.root: "store" for store in self.evaluated.values()}
        return folders if self.origin is None else {**folders, **self.origin.made_from}

    @property
    def evaluated_contents(self) -> dict[str, str]:
        """Fingerprints of the stores that are evaluated, by name."""
        return {name: store.fingerprint for name, store in self.evaluated.items()}

    @property
    def architecture(self) -> dict[str, Any]:
        """What the model's config.json says that has a part in results."""
        config = dict(self.start.model.config.to_diff_dict())
        kept = {name: value for name, value in config.items() if name not in _NO_PART_IN_RESULTS}
        return dict(json.loads(json.dumps(kept)))  # as a checkpoint's facts will be read again

    @property
    def weights(self) -> str:
        """Hash of the weights that the run begins with."""
        return weights_hash(dict(self.start.model.named_parameters()))

    @cached_property
    def decided_by(self) -> dict[str, Any]:
        """All that decides the run's results; to be asked first while the model is as the run begins."""
        content: dict[str, Any] = {
            "data": self.stream.contents,
            "planning": PLANNING,
            "evaluated": self.evaluated_contents,
            "settings": deciding(self.settings),
            "architecture": self.architecture,
        }
        if self.origin is not None:
            content["weights"] = self.weights
        if self.strategy.settings.collocations is not None:  # then they have a part in the masks
            content["collocations"] = self.store.manifest.get("collocations")
        return content

    @property
    def identity(self) -> str:
        """Stands for all that decides the run's results."""
        return storage.sha256_of_json(list(self.decided_by.values()))


def plan_run(settings: PretrainSettings, emit: Emit, *, tokenized: bool = False) -> RunPlan:
    """Make every choice that the settings leave open: check, tokenize any text, then load and decide.

    Only the tokenizing writes anything; `tokenized`: another process has done it. Raises `UserError` for what
    cannot be.
    """
    checked = check_run(settings, emit)
    return decide(checked, make_data(checked, emit, tokenized=tokenized), emit)


def make_data(checked: CheckedRun, emit: Emit, *, tokenized: bool = False) -> tuple[OpenedStore, ...]:
    """The stores that the run reads, its text tokenized by the checkpoint's tokenizer if text was given."""
    settings, origin = checked.settings, checked.origin
    if not settings.text.sources:
        return checked.stores
    assert origin is not None
    made = (
        store_of_text(settings) if tokenized else make_store_of_text(settings, origin.tokenizer_folder, emit)
    )
    opened = (open_store(NamedStore(str(made), None)), *checked.stores)
    check_together(opened)
    return opened


def decide(checked: CheckedRun, opened: Sequence[OpenedStore], emit: Emit) -> RunPlan:
    """The plan of a checked run over these stores. Nothing is written."""
    settings, origin = checked.settings, checked.origin
    store = opened[0].store
    strategy = resolve_strategy(settings.masking, store)
    timetable = Timetable(strategy, rate_schedule(settings.masking, strategy))
    evaluated = _evaluated(checked, opened)
    if settings.data.verify:
        emit(Doing("checking the hashes of the stores"))
        verify_stores(opened)
    emit(Doing("preparing the model and the rows"))
    _check_maskable(store)
    if checked.start and origin:
        start = fit_to_store(checked.start, settings, origin, store, emit)
    else:
        start = from_scratch(settings, store)
    model = MaskedLM(start.model)
    if settings.speed.recompute:
        layers_to_recompute(model)
    stream = _stream(checked, opened, model, emit)
    try_strategy(timetable, stream.sources[0].reader)
    names = {store.fingerprint: name for name, store in evaluated.items()}
    settings, steps = _without_gaps(checked, strategy, stream, names)
    scales = rate_scales(model, start.model, settings.optimizer.layer_decay)
    by_weight = tuple(evaluated)  # in the order in which they are found: the first data come first
    return RunPlan(settings, origin, start, model, stream, timetable, evaluated, steps, scales, by_weight)


def _stream(checked: CheckedRun, opened: Sequence[OpenedStore], model: MaskedLM, emit: Emit) -> RowStream:
    """The rows in the length and packing that suit the model, from where the run begins in them."""
    settings = checked.settings
    length = resolve_length(settings.sequence_length, longest_sequence(model.pretrained), checked.name)
    packing = resolve_packing(settings.data.packing, model, length, emit)
    stream = make_stream(opened, settings, packing, length)
    return replace(stream, first=_first_row(settings, checked.origin, stream))


def _without_gaps(
    checked: CheckedRun, strategy: Strategy, stream: RowStream, evaluated: Mapping[str, str]
) -> tuple[PretrainSettings, int]:
    """The settings with every choice written in, and the run's steps. `evaluated`: names by fingerprint."""
    settings, origin, masks = checked.settings, checked.origin, strategy.masks_per_sequence
    size, micro = batch_size(settings.batch.size, checked.preset.batch_size, masks), settings.batch.micro_size
    steps = _total_steps(settings, stream, size, masks)
    check_head_warmup(settings, steps)
    row_plan = stream.sources[0].reader.plan
    choices = {
        "sequence_length": row_plan.sequence_length,
        "data.packing": row_plan.packing,
        "data.first_row": stream.first,
        "model.revision": origin.revision if origin else None,
        "masking.masks_per_sequence": masks,
        "batch.size": size,
        "batch.micro_size": micro if micro == "auto" else min(micro, size),
        "optimizer.learning_rate": checked.peak,
        "optimizer.head_learning_rate": settings.optimizer.head_learning_rate or checked.preset.learning_rate,
        "optimizer.warmup_share": _warmup(settings, origin, steps),
        "checkpoint.every_steps": settings.checkpoint.every_steps or min(1000, math.ceil(steps / 10)),
        "evaluation.names": evaluated,
        "evaluation.every_steps": settings.evaluation.every_steps or min(5000, math.ceil(steps / 10)),
        "logging.every_steps": settings.logging.every_steps or math.ceil(steps / 5000),
    }
    masking = {"masking": _written(strategy)}
    return build(PretrainSettings, settings.model_dump(), nested(choices), masking), steps


def _written(strategy: Strategy) -> dict[str, Any]:
    """K and the rate give each other: of the two only the one that the strategy goes by is written."""
    if strategy.exploration == "full":
        return {"segments": strategy.segments, "rate": None, "scope": strategy.scope}
    return {"segments": None, "rate": strategy.rate}


def _warmup(settings: PretrainSettings, origin: Origin | None, steps: int) -> float:
    """The share of the steps that warm up; by default some steps even of a short run, but not most of it."""
    if settings.optimizer.warmup_share is not None:
        return settings.optimizer.warmup_share
    least = LEAST_WARMUP / (steps - settings.optimizer.head_warmup_steps)
    return max(WARMUP if origin is None else REWARMUP, min(round(least, 4), 0.5))


def _first_row(settings: PretrainSettings, origin: Origin | None, stream: RowStream) -> int:
    """Where the stream is begun: where the run that it goes on from stopped, if its rows are the same."""
    if settings.data.first_row is not None:
        return settings.data.first_row
    if origin is not None and origin.training is not None:
        step, facts = read_facts(origin.training)
        if facts.get("stream") == stream.identity:
            return int(facts["first_row"] + step * facts["rows_per_step"])
    return 0


def _evaluated(checked: CheckedRun, opened: Sequence[OpenedStore]) -> dict[str, TokenStore]:
    """The stores to evaluate on by name: the data's, those named for it, replayed ones; each text once."""
    data = [opened_store for opened_store in opened if not opened_store.replay]
    by_name: dict[str, TokenStore] = {}

    def add(name: str, store: TokenStore) -> None:
        identities = {other.identity("validation") for other in by_name.values()}
        if store.has("validation") and store.identity("validation") not in identities:
            by_name[name if name not in by_name else f"{name}-{len(by_name) + 1}"] = store

    def own_name(store: TokenStore) -> str:
        return checked.settings.evaluation.names.get(store.fingerprint, store.name)

    for opened_store in data:
        store = opened_store.store
        add("domain" if checked.origin and len(data) == 1 else own_name(store), store)
    for name, store in checked.evaluated.items():
        check_same_tokens(opened[0].store, store)
        add(name, store)
    for opened_store in opened:
        if opened_store.replay:
            add(own_name(opened_store.store), opened_store.store)
    return by_name


def _check_maskable(store: TokenStore) -> None:
    """Refuse a store whose every token is a special one: there would be nothing to predict."""
    ordinary = np.delete(store.token_counts, list(store.special.never_masked))
    if not ordinary.any():
        raise UserError(
            f"{store.root} holds nothing but unknown tokens: tokenize the text with a tokenizer that suits it"
        )


def _total_steps(settings: PretrainSettings, stream: RowStream, size: int, masks: int) -> int:
    """Optimizer steps of the budget, rounded up."""
    budget = settings.budget
    if budget.steps is not None:
        return budget.steps
    if budget.epochs is not None:
        return stream.steps_of_passes(budget.epochs, size // masks)
    assert budget.tokens is not None
    return stream.steps_of_tokens(budget.tokens, size)


def packing_report(plan: RunPlan) -> dict[str, str]:
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


def _packed(source: RowSource) -> dict[str, str]:
    reader: RowReader = source.reader
    layout = reader.plan
    documents = source.store.manifest["splits"]["train"]["documents"]
    kept = f"{len(reader):,}" + (f" of {len(layout):,} (data.max_rows)" if len(reader) < len(layout) else "")
    return {
        "rows": f"{kept} x {layout.sequence_length} positions, packing {layout.packing}",
        "padding": f"{layout.padding:.1%} of all positions",
        "cut": (
            f"{layout.cut:,} of {documents:,} documents are longer than a row and were cut; no token is "
            "dropped"
        ),
    }
