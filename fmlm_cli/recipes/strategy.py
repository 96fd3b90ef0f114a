"""From masking settings to a strategy that is known to work on a store."""

import numpy as np

from fmlm_cli.config import MaskingSettings
from fmlm_cli.corpus.collocations import read_collocations
from fmlm_cli.corpus.rows import RowReader
from fmlm_cli.corpus.store import TokenStore
from fmlm_cli.errors import UserError
from fmlm_cli.masking import Collocations, Corruption, FullExploration, Strategy, get_strategy
from fmlm_cli.masking.plugins import PluggedIn, check_pure
from fmlm_cli.masking.schedule import RateSchedule


def resolve_strategy(masking: MaskingSettings, store: TokenStore) -> Strategy:
    """The strategy that the settings describe. Raises `UserError` for settings that do not fit together."""
    path = store.collocations
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


def may_use_collocations(strategy: Strategy) -> bool:
    """Whether the store's collocations can have a part in the masks."""
    return isinstance(getattr(strategy, "unit", None), Collocations) or isinstance(strategy, PluggedIn)


def rate_schedule(masking: MaskingSettings, strategy: Strategy) -> RateSchedule | None:
    """How the rate changes over training, if it does."""
    chosen = masking.schedule
    if chosen.final_rate is None:
        return None
    return RateSchedule(chosen.shape, strategy.rate, chosen.final_rate, chosen.plateaus)


def try_strategy(strategy: Strategy, reader: RowReader) -> None:
    """Mask a few rows, so that what cannot work is found before anything is written. Raises `UserError`."""
    text = reader.sequence_length - reader.frame.size
    if isinstance(strategy, FullExploration) and strategy.segments > text:
        raise UserError(
            f"masking.segments {strategy.segments} is more than the {text} tokens of a row: every row would have empty masks; "
            f"set it to {text} or less"
        )
    rows = reader.read(np.arange(min(4, len(reader))))
    strategy.masks(rows.maskable, rows.word_starts, rows.row_ids, 0, 0, rows.input_ids)
    check_pure(strategy, rows.maskable, rows.word_starts, rows.row_ids, rows.input_ids)
