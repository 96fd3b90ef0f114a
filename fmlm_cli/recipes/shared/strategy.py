"""From masking settings to a strategy that is known to work on a store."""

import numpy as np

from fmlm_cli.config import MaskingSettings
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.collocations import read_collocations
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.errors import UserError
from fmlm_cli.masking import Collocations, Corruption, FullExploration, Strategy, get_strategy
from fmlm_cli.masking.plugins import check_pure
from fmlm_cli.masking.registry import BUILT_IN
from fmlm_cli.masking.schedule import RateSchedule, Timetable
from fmlm_cli.masking.strategies import nearest_segments
from fmlm_cli.masking.units import Spans

# Names that no option of a strategy can have.
_SETTINGS = {"name", "collocations", *MaskingSettings.model_fields}


def check_strategy(masking: MaskingSettings) -> Strategy | None:
    """The built-in strategy of these settings, with what is wrong with them refused; None where it takes a store to tell."""
    if masking.strategy in BUILT_IN and not masking.strategy.endswith("pmi"):
        return resolve_strategy(masking, None)
    return None


def resolve_strategy(masking: MaskingSettings, store: TokenStore | None) -> Strategy:
    """The strategy that the settings describe. Raises `UserError` for settings that do not fit together.

    `store`: where a strategy that is not built in, or works with collocations, finds those.
    """
    for option in masking.options:
        if option in _SETTINGS:
            raise UserError(
                f"masking.options.{option}: this is a setting of all strategies, masking.{option}"
            )
    own = masking.strategy in BUILT_IN and not masking.strategy.endswith("pmi")
    path = None if own or store is None else store.verified_collocations()
    return get_strategy(
        masking.strategy,
        segments=masking.segments,
        rate=masking.rate,
        scope=masking.scope,
        masks_per_sequence=masking.masks_per_sequence,
        count=masking.count,
        corruption=Corruption(**masking.corruption.model_dump()),
        collocations=None if path is None else Collocations(read_collocations(path)),
        **masking.options,
    )


def rate_schedule(masking: MaskingSettings, strategy: Strategy) -> RateSchedule | None:
    """How the rate changes over training, if it does."""
    chosen = masking.schedule
    if chosen.final_rate is None:
        return None
    return RateSchedule(chosen.shape, strategy.rate, chosen.final_rate, chosen.plateaus)


def try_strategy(timetable: Timetable, reader: RowReader) -> None:
    """Mask a few rows, so that what cannot work is found before anything is written. Raises `UserError`."""
    strategy, text = timetable.strategy, reader.sequence_length - reader.frame.size
    rates = [strategy.rate, timetable.schedule.final if timetable.schedule else strategy.rate]
    segments = nearest_segments(min(rates))
    if isinstance(strategy.inside, FullExploration) and segments > text:
        raise UserError(
            f"masking.segments {segments} is more than the {text} tokens of a row: every row would have empty masks; "
            f"set it to {text} or less"
        )
    several = isinstance(getattr(strategy.inside, "unit", None), Spans | Collocations)
    if several and not reader.sets_documents_apart:
        raise UserError(
            f"masking {strategy.name}: the store's tokenizer puts nothing between texts, so that units would reach from one document "
            f"into the next: set data.packing to none"
        )
    rows = reader.read(np.arange(min(4, len(reader))))
    strategy.masks(rows.maskable, rows.word_starts, rows.row_ids, 0, 0, rows.input_ids)
    check_pure(strategy, rows.maskable, rows.word_starts, rows.row_ids, rows.input_ids)
