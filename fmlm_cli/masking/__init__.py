"""Masking: which tokens of which row are predicted when, and what stands there instead.

    rows          what masks are made of        maskable, words, identities                 view.py
    unit          what is masked as a whole     token, word, span of words, collocation     units.py
    exploration   how masks relate              random; full: K disjoint, covering masks    exploration.py
    scope         when the K masks are seen     epoch: one a pass; batch: all in one step   strategies.py
    corruption    what a masked token shows     [MASK], a random token, itself              corruption.py

Named strategies are points of this grid (registry.py); others plug in (plugins.py). Everything is a pure
function of (seed, sequence identity, epoch), vectorised over rows with numpy.

What other rooms use is here, but for rates that change (schedule.py) and pairs of masks (pairs.py).
"""

from fmlm_cli.masking.corruption import IGNORED, Corruption
from fmlm_cli.masking.plugins import check_pure
from fmlm_cli.masking.registry import (
    DEFAULT_SEGMENTS,
    get_strategy,
    random_counterpart,
    register_strategy,
    strategy_names,
    strategy_needs,
)
from fmlm_cli.masking.strategies import (
    Strategy,
    StrategySettings,
    full_exploration,
    nearest_segments,
    random_exploration,
)
from fmlm_cli.masking.units import Collocations, Spans, Tokens, Unit, Words
from fmlm_cli.masking.view import RowView

__all__ = [
    "DEFAULT_SEGMENTS",
    "IGNORED",
    "Collocations",
    "Corruption",
    "RowView",
    "Spans",
    "Strategy",
    "StrategySettings",
    "Tokens",
    "Unit",
    "Words",
    "check_pure",
    "full_exploration",
    "get_strategy",
    "nearest_segments",
    "random_counterpart",
    "random_exploration",
    "register_strategy",
    "strategy_names",
    "strategy_needs",
]
