"""`fmlm runs` and `fmlm plot`: runs seen from outside, by their config.yaml and metrics.jsonl."""

from fmlm_cli.recipes.overview.listing import list_runs

__all__ = ["list_runs"]
