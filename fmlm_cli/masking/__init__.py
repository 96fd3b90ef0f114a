"""Masking: which tokens of which row are predicted when, and what stands there instead.

Everything here is a pure function of (seed, sequence identity, epoch), vectorised over rows with numpy.
"""

from fmlm_cli.masking.corruption import Corruption
from fmlm_cli.masking.strategies import STRATEGIES, Strategy, get_strategy

__all__ = ["STRATEGIES", "Corruption", "Strategy", "get_strategy"]
