"""`fmlm masks`: what a masking strategy does to real rows, before a night is spent on it."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fmlm_cli import keys
from fmlm_cli.analysis.coverage import Coverage, measure_coverage
from fmlm_cli.analysis.report.findings.commands import in_yaml
from fmlm_cli.config import MasksSettings, flat
from fmlm_cli.corpus.rows.reading import RowReader, Rows
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Doing, Emit, Facts, MaskedRow, NextStep, ignore
from fmlm_cli.masking import RowView, Strategy
from fmlm_cli.masking.schedule import Timetable
from fmlm_cli.objectives.masked_lm import view_of
from fmlm_cli.recipes.shared.held_out import make_objective
from fmlm_cli.recipes.shared.strategy import rate_schedule, resolve_strategy, try_strategy

RANDOM_PASSES = 7  # looked at where the strategy itself knows no number
_OF_TRAINING = {"sequence_length": "sequence_length", "packing": "data.packing"}  # and what it calls them

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MasksResult:
    """What was seen: some rows under all masks of these passes, and coverage of `sampled_rows`."""

    strategy: Strategy
    passes: int
    sampled_rows: int
    rows: tuple[MaskedRow, ...]
    coverage: Coverage


def show_masks(settings: MasksSettings, *, emit: Emit = ignore) -> MasksResult:
    """Show some rows of a store under all masks of some passes, and what they cover in a larger sample.

    Raises `UserError` for settings that do not fit together or the store.
    """
    emit(Doing("reading the rows"))
    store = TokenStore.open(settings.store, verify=())
    strategy = resolve_strategy(settings.masking, store)
    timetable = Timetable(strategy, rate_schedule(settings.masking, strategy))
    if not store.has(settings.split):
        raise UserError(f"{store.root} has no {settings.split} split: choose another with --set split=NAME")
    reader = RowReader(
        store, settings.split, packing=settings.packing, sequence_length=settings.sequence_length
    )
    try_strategy(timetable, reader)
    number = min(len(reader), max(settings.rows, settings.sample))
    key = keys.derive(settings.seed, keys.Stream.SHOWN_ROWS)
    sample = reader.read(keys.permute(np.arange(number), len(reader), key))
    passes = settings.epochs or _passes(strategy)
    _describe(timetable, store, reader, emit)
    shown = tuple(
        _shown(store, strategy, sample.take(np.arange(min(settings.rows, number))), passes, settings.seed)
    )
    for row in shown:
        emit(row)
    view = view_of(sample)
    coverage = measure_coverage(
        view.maskable, (strategy.masks(view, epoch, settings.seed) for epoch in range(passes))
    )
    emit(
        Facts(
            f"coverage of {number:,} rows by {_counted_passes(passes, strategy)}",
            _figures(coverage, strategy),
        )
    )
    for text in _cautions(coverage, strategy, passes):
        emit(Caution(text))
    if timetable.schedule:
        emit(Caution("all of this is at the rate that training begins with"))
    emit(NextStep("see how long it would take to train so", _training(settings, strategy)))
    return MasksResult(strategy, passes, number, shown, coverage)


def _training(settings: MasksSettings, strategy: Strategy) -> str:
    """The command that plans a run with these masks, of as many passes as show each token once at least."""
    words = ["fmlm", "pretrain", "--data", settings.store, "--masking", settings.masking.strategy]
    default = flat(MasksSettings(store="").model_dump(mode="json"))
    for name, value in flat(settings.model_dump(mode="json")).items():
        trained_with = name.startswith("masking.") or name in _OF_TRAINING
        if trained_with and name != "masking.strategy" and value != default.get(name):
            words += ["--set", f"{_OF_TRAINING.get(name, name)}={in_yaml(value)}"]
    budget = f"{max(strategy.cycle, RANDOM_PASSES)}-epochs"
    return shlex.join([*words, "--budget", budget, "--out", "run", "--dry-run"])


def _passes(strategy: Strategy) -> int:
    """A cycle, or one pass with several masks, or a few."""
    if strategy.cycle > 1:
        return strategy.cycle
    return 1 if strategy.masks_per_sequence > 1 else RANDOM_PASSES


def _counted_passes(passes: int, strategy: Strategy) -> str:
    masks = strategy.masks_per_sequence
    counted = f"{passes} {'pass' if passes == 1 else 'passes'}"
    return counted + (f" of {masks} masks" if masks > 1 else "")


def _describe(timetable: Timetable, store: TokenStore, reader: RowReader, emit: Emit) -> None:
    corruption = timetable.strategy.corruption
    emit(
        Facts(
            "masking",
            {
                "strategy": timetable.description,
                "corruption": f"{corruption.mask:.0%} {store.tokenizer.mask_token}, "
                f"{corruption.random:.0%} random, {corruption.keep:.0%} kept, {corruption.draw}",
                "data": (
                    f"{store.root}, {len(reader):,} rows x {reader.sequence_length}, packing "
                    f"{reader.plan.packing}"
                ),
            },
        )
    )


def _shown(store: TokenStore, strategy: Strategy, rows: Rows, passes: int, seed: int) -> Iterator[MaskedRow]:
    """Rows as text, with the masks that each token is in, counted from 1."""
    texts = store.token_texts
    view = view_of(rows)
    masks = np.concatenate([strategy.masks(view, epoch, seed) for epoch in range(passes)], axis=1)
    borders = np.concatenate([_borders(strategy, view, epoch, seed) for epoch in range(passes)], axis=1)
    borders &= masks
    objective = make_objective(store, strategy, seed, static_shapes=False)
    first, ids = masks[:, : strategy.masks_per_sequence], objective.ordinary_ids
    seen, _ = strategy.corrupt(view, first, 0, seed, mask_id=objective.mask_id, ordinary_ids=ids)
    same = (
        (masks[..., 1:] == masks[..., :-1]).all(axis=1)
        & ~borders[..., 1:].any(axis=1)
        & masks[..., 1:].any(axis=1)
    )
    joined = np.pad(same, ((0, 0), (1, 0)))
    for i, number in enumerate(rows.numbers.tolist()):
        used = rows.segments[i] > 0
        yield MaskedRow(
            number=number,
            texts=tuple(texts[token] for token in rows.input_ids[i, used].tolist()),
            maskable=tuple(rows.maskable[i, used].tolist()),
            masks=tuple(tuple((np.flatnonzero(column) + 1).tolist()) for column in masks[i][:, used].T),
            joined=tuple(joined[i, used].tolist()),
            seen=tuple(texts[token] for token in seen[i, 0, used].tolist()),
            counts=tuple(masks[i].sum(axis=1).tolist()),
        )


def _borders(strategy: Strategy, view: RowView, epoch: int, seed: int) -> Bools:
    """Where units begin, in each mask; where the strategy does not tell, nowhere."""
    starts = strategy.units(view, epoch, seed)
    if starts is None:
        return np.zeros((len(view), strategy.masks_per_sequence, view.shape[1]), np.bool_)
    return starts


def _figures(coverage: Coverage, strategy: Strategy) -> dict[str, str]:
    shares = [f"{share:.1%}" for share in coverage.covered]
    if len(shares) > 8:
        shares = [*shares[:6], "...", shares[-1]]
    times = [f"{share:.1%} {_times(k)}" for k, share in enumerate(coverage.times) if share >= 0.0005]
    return {
        "masked": f"{coverage.rate:.2%} of the tokens in a mask (asked for: {strategy.rate:.2%})",
        "tokens in a mask": f"{coverage.mean:.1f} on average, {coverage.smallest} to {coverage.largest}",
        "masked stretch": f"{coverage.stretch:.2f} tokens on average",
        "ever masked": f"{', '.join(shares)} of the tokens after each pass",
        "how often": ", ".join(times),
    }


def _times(number: int) -> str:
    return ("never", "once", "twice")[number] if number < 3 else f"{number} times"


def _cautions(coverage: Coverage, strategy: Strategy, passes: int) -> Iterator[str]:
    if coverage.empty > 0.01:
        yield f"{coverage.empty:.0%} of the masks are empty: rows are short for such a rate"
    if strategy.exploration == "full" and passes % strategy.cycle:
        yield (
            f"{passes} passes are no whole number of cycles: it takes {strategy.cycle} passes to see "
            "every token once"
        )
