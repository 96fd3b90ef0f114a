"""Recipes: plain functions from settings to results. They alone put the rooms together; no Typer in here."""

from fmlm_cli.recipes.compare import compare_masks
from fmlm_cli.recipes.evaluate import evaluate
from fmlm_cli.recipes.finetune import finetune
from fmlm_cli.recipes.masks import masks
from fmlm_cli.recipes.predict import predict
from fmlm_cli.recipes.pretrain import pretrain
from fmlm_cli.recipes.tokenize import tokenize

__all__ = ["compare_masks", "evaluate", "finetune", "masks", "predict", "pretrain", "tokenize"]
