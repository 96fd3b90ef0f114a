"""From masking settings to a strategy that is known to work on a store."""

import numpy as np

from fmlm_cli.config import MaskingSettings
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.collocations import read_collocations
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.errors import UserError
from fmlm_cli.masking import (
    Collocations,
    Corruption,
    Strategy,
    check_pure,
    get_strategy,
    nearest_segments,
    strategy_needs,
)
from fmlm_cli.masking.schedule import RateSchedule, Timetable
from fmlm_cli.objectives.masked_lm import view_of

# Names that no option of a strategy can have.
_SETTINGS = {"name", "collocations", *MaskingSettings.model_fields}


def check_strategy(masking: MaskingSettings) -> Strategy:
    """The strategy of these settings before there is a store: what is wrong with them is refused at once.

    Where it takes a store's collocations it has none, so that it is good for all but masking.
    """
    stand_in = Collocations(np.empty(0, np.uint64)) if needs_collocations(masking.strategy) else None
    return _strategy_of(masking, stand_in)


def needs_collocations(strategy: str) -> bool:
    """Whether a strategy can be made only with a store's collocations."""
    return "collocations" in strategy_needs(strategy)


def resolve_strategy(masking: MaskingSettings, store: TokenStore | None) -> Strategy:
    """The strategy that the settings describe. Raises `UserError` for settings that do not fit together.

    `store`: where a strategy that needs collocations finds them.
    """
    path = store.verified_collocations() if store and needs_collocations(masking.strategy) else None
    return _strategy_of(masking, None if path is None else Collocations(read_collocations(path)))


def _strategy_of(masking: MaskingSettings, collocations: Collocations | None) -> Strategy:
    for option in masking.options:
        if option in _SETTINGS:
            raise UserError(
                f"masking.options.{option}: this is a setting of all strategies, masking.{option}"
            )
    return get_strategy(
        masking.strategy,
        segments=masking.segments,
        rate=masking.rate,
        scope=masking.scope,
        masks_per_sequence=masking.masks_per_sequence,
        count=masking.count,
        corruption=Corruption(**masking.corruption.model_dump()),
        collocations=collocations,
        **masking.options,
    )


def rate_schedule(masking: MaskingSettings, strategy: Strategy) -> RateSchedule | None:
    """How the rate changes over training, if it does."""
    schedule = masking.schedule
    if schedule.final_rate is None:
        return None
    return RateSchedule(schedule.shape, strategy.rate, schedule.final_rate, schedule.plateaus)


def try_strategy(timetable: Timetable, reader: RowReader) -> None:
    """Mask a few rows, so that what cannot work is found before anything is written. Raises `UserError`."""
    strategy, text = timetable.strategy, reader.sequence_length - reader.frame.size
    rates = [strategy.rate, timetable.schedule.final if timetable.schedule else strategy.rate]
    segments = nearest_segments(min(rates))
    if strategy.exploration == "full" and segments > text:
        raise UserError(
            f"masking.segments {segments} is more than the {text} tokens of a row: every row would have "
            f"empty masks; set it to {text} or less"
        )
    if strategy.joins_words and not reader.sets_documents_apart:
        raise UserError(
            f"masking {strategy.name}: the store's tokenizer puts nothing between texts, so that units would "
            f"reach from one document into the next: set data.packing to none"
        )
    view = view_of(reader.read(np.arange(min(4, len(reader)))))
    strategy.masks(view)
    check_pure(strategy, view)
