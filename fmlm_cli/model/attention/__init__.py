"""Attention backends: how a Hugging Face model is made to attend within documents only."""

from collections.abc import Mapping

from fmlm_cli.model.attention.backend import AttentionBackend, attending_by
from fmlm_cli.model.attention.flat import DocumentByDocument, FlashAttention, VarlenAttention
from fmlm_cli.model.attention.flex import FlexAttention
from fmlm_cli.model.attention.rows import MaskOnRows

# The fastest first: the first that can be had and keeps documents apart is taken (`isolation`).
BACKENDS: tuple[type[AttentionBackend], ...] = (VarlenAttention, FlashAttention, FlexAttention, MaskOnRows)
# What can be asked for by name: the reference too, which nothing but tests should want.
_ALL: tuple[type[AttentionBackend], ...] = (*BACKENDS, DocumentByDocument)
BY_NAME: Mapping[str, type[AttentionBackend]] = {backend.name: backend for backend in _ALL}

__all__ = [
    "BACKENDS",
    "BY_NAME",
    "AttentionBackend",
    "DocumentByDocument",
    "FlashAttention",
    "FlexAttention",
    "MaskOnRows",
    "VarlenAttention",
    "attending_by",
]
