"""What is known of a run before there are data: settings looked through, its checkpoint found and loaded.

Whatever can be refused is refused here, before an hour goes into tokenizing text. Nothing is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.engine.checkpoint import check_optimizer, read_facts
from fmlm_cli.errors import UserError
from fmlm_cli.events import Doing, Emit
from fmlm_cli.model.build import longest_sequence, preset_for, preset_of
from fmlm_cli.model.presets import Preset
from fmlm_cli.recipes.pretraining.planning.data import (
    OpenedStore,
    check_text,
    check_together,
    name_stores,
    open_store,
)
from fmlm_cli.recipes.pretraining.planning.start import Start, begin
from fmlm_cli.recipes.shared.checkpoints import Origin, check_tokenizer, find_checkpoint
from fmlm_cli.recipes.shared.limits import resolve_length, resolve_multiple
from fmlm_cli.recipes.shared.strategy import check_strategy

CONTINUED_RATE = 0.5  # peak learning rate, as a share of that from scratch, of a checkpoint that has its head


@dataclass(frozen=True)
class CheckedRun:
    """A run whose settings hold together, as far as can be told without its data.

    `settings`: with the dropout written in. `origin`, `start`: the checkpoint that it goes on from, and its
    model; None from scratch. `stores`: those that the settings name. `evaluated`: named ones to evaluate on.
    `peak`: learning rate.
    """

    settings: PretrainSettings
    origin: Origin | None
    start: Start | None
    preset: Preset
    stores: tuple[OpenedStore, ...]
    evaluated: dict[str, TokenStore]
    peak: float

    @property
    def name(self) -> str:
        """What messages call the model."""
        return self.origin.name if self.origin else self.settings.model.name


def check_run(settings: PretrainSettings, emit: Emit) -> CheckedRun:
    """Check all that can be checked before there are data. Raises `UserError` for what cannot be."""
    _check_budget(settings)
    strategy = check_strategy(settings.masking)
    named = name_stores(settings)
    emit(Doing("looking for what the run is made from"))
    origin = _find_origin(settings, emit)
    check_text(settings, from_scratch=origin is None)
    stores = tuple(map(open_store, named))
    check_together(stores)
    evaluated = _open_evaluated(settings)
    settings = _with_dropout(settings, origin)
    if origin:
        emit(Doing(f"loading {origin.name}"))
    start = begin(settings, origin, emit) if origin else None
    preset = preset_of(start.model.config) if start else preset_for(settings.model.name)
    peak = _peak(settings, origin, preset.learning_rate, new_head=bool(start and start.new))
    checked = CheckedRun(settings, origin, start, preset, stores, evaluated, peak)
    longest = longest_sequence(start.model) if start else None  # from scratch, known once there is a model
    resolve_length(settings.sequence_length, longest, checked.name)
    batch_size(settings.batch.size, preset.batch_size, strategy.masks_per_sequence)
    if settings.budget.steps is not None:
        check_head_warmup(settings, settings.budget.steps)
    _check_replayed(settings, origin, stores)
    return checked


def _check_replayed(settings: PretrainSettings, origin: Origin | None, stores: Sequence[OpenedStore]) -> None:
    """Refuse stores that will not go together with the text, which is still to be tokenized."""
    text = settings.text
    if origin and text.sources and not (text.add_tokens or text.extend_vocab):
        for replayed in stores:
            check_tokenizer(origin, replayed.store, extended=False)


def check_head_warmup(settings: PretrainSettings, steps: int) -> None:
    """Refuse a head that is trained alone for the whole run."""
    head_steps = settings.optimizer.head_warmup_steps
    if head_steps >= steps:
        raise UserError(
            f"optimizer.head_warmup_steps {head_steps} leaves nothing of the run's {steps:,} steps"
        )


def _open_evaluated(settings: PretrainSettings) -> dict[str, TokenStore]:
    """The stores that are named for evaluation alone; they have to hold validation text."""
    opened = {}
    for name, path in settings.evaluation.stores.items():
        store = TokenStore.open(path, verify=("validation",) if settings.data.verify else ())
        if not store.has("validation"):
            raise UserError(f"{path} has no validation split to evaluate on (evaluation.stores.{name})")
        opened[name] = store
    return opened


def _check_budget(settings: PretrainSettings) -> None:
    given = settings.budget.model_dump(exclude={"minutes"}, exclude_none=True)
    budgets = [f"--{name} {value:g}" for name, value in given.items()]
    if not budgets:
        raise UserError(
            "no budget: say how long to train, as --budget 2000-steps, 5M-tokens, 7-epochs or 20m"
        )
    if len(budgets) > 1:
        raise UserError(f"{len(budgets)} budgets: {' and '.join(budgets)}; keep one")


def _find_origin(settings: PretrainSettings, emit: Emit) -> Origin | None:
    """The checkpoint that the run goes on from, if any."""
    model = settings.model
    if model.checkpoint is None:
        for name, value in {
            "max_positions": model.max_positions,
            "lora.rank": model.lora.rank,
            "revision": model.revision,
            "keep_unused": model.keep_unused,
        }.items():
            if value:
                raise UserError(f"model.{name} is for going on from a checkpoint: give model.checkpoint")
        if settings.optimizer.carry_over:
            raise UserError("optimizer.carry_over is for going on from a run: give model.checkpoint")
        return None
    origin = find_checkpoint(
        model.checkpoint, revision=model.revision, code=model.trust_remote_code, emit=emit
    )
    if settings.optimizer.carry_over:
        if origin.training is None:
            raise UserError(
                f"{origin.name} has no state of an optimizer to carry over: give a run of fmlm's, such as "
                "RUN@step-N"
            )
        check_optimizer(origin.training)
    return origin


def _with_dropout(settings: PretrainSettings, origin: Origin | None) -> PretrainSettings:
    """None from scratch, a run's own where one is gone on with; left open for other checkpoints: theirs."""
    rate = 0.0 if origin is None else origin.settings.model.dropout if origin.settings else None
    if settings.model.dropout is not None or rate is None:
        return settings
    return build(PretrainSettings, settings.model_dump(), nested({"model.dropout": rate}))


def _peak(settings: PretrainSettings, origin: Origin | None, scratch: float, *, new_head: bool) -> float:
    """The peak rate: what is asked for, that of a model of this size, a part of it, or a carried-on run's.

    A head that is new learns too little at the lower one.
    """
    if settings.optimizer.learning_rate is not None:
        return settings.optimizer.learning_rate
    if origin is None:
        return scratch
    if settings.optimizer.carry_over:
        assert origin.training is not None
        step, _ = read_facts(origin.training)
        rate = origin.learning_rate(step)
        peak = origin.settings.optimizer.learning_rate if origin.settings else None
        if rate is not None and peak is not None and rate < peak / 100:
            raise UserError(
                f"the learning rate of {origin.name} has come down to {rate:.1e} at step {step}: go on from "
                "a checkpoint of its stable part (schedule wsd), RUN@step-N, or give optimizer.learning_rate"
            )
        if rate is not None:
            return rate
    return scratch if new_head else scratch * CONTINUED_RATE


def batch_size(size: int | None, default: int, masks: int) -> int:
    """Masked rows in a step: a multiple of the masks that a sequence has in it."""

    def refuse(below: int, above: int) -> UserError:
        nearest = f"{below} and {above}" if below else f"{above} and {above + masks}"
        return UserError(
            f"batch.size {size} must be a multiple of {masks}, the masks of a sequence that share a step; "
            f"the nearest are {nearest}"
        )

    return resolve_multiple(size, default, masks, refuse)
