"""Masking: which tokens of which row are predicted when, and what stands there instead.

    unit          what is masked as a whole     token, word, span of words, collocation     units.py
    exploration   how masks relate              random; full: K disjoint, covering masks     exploration.py
    scope         when the K masks are seen     epoch: one a pass; batch: all in one step    strategies.py
    corruption    what a masked token shows     [MASK], a random token, itself               corruption.py

Named strategies are points of this grid (registry.py); others plug in (plugins.py). Everything is a pure
function of (seed, sequence identity, epoch), vectorised over rows with numpy.
"""

from fmlm_cli.masking.corruption import Corruption
from fmlm_cli.masking.registry import get_strategy, register_strategy, strategy_names
from fmlm_cli.masking.strategies import (
    Exploration,
    FullExploration,
    RandomExploration,
    Strategy,
    StrategySettings,
    full_exploration,
    random_exploration,
)
from fmlm_cli.masking.units import Collocations

__all__ = [
    "Collocations",
    "Corruption",
    "Exploration",
    "FullExploration",
    "RandomExploration",
    "Strategy",
    "StrategySettings",
    "full_exploration",
    "get_strategy",
    "random_exploration",
    "register_strategy",
    "strategy_names",
]
