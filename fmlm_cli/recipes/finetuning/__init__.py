"""`fmlm finetune`."""

from fmlm_cli.recipes.finetuning.run import finetune

__all__ = ["finetune"]
