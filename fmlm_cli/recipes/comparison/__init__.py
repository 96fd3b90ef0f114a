"""`fmlm compare-masks`."""

from fmlm_cli.recipes.comparison.run import compare_masks

__all__ = ["compare_masks"]
