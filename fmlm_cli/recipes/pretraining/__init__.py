"""`fmlm pretrain` and `fmlm continue`."""

from fmlm_cli.recipes.pretraining.run import PretrainResult, pretrain

__all__ = ["PretrainResult", "pretrain"]
