"""What makes a run faster or smaller, and changes its results by rounding only (and dropout's draws)."""

from typing import Literal

from pydantic import Field

from fmlm_cli.config.section import Section


class AttentionSettings(Section):
    """How a model attends."""

    attention: Literal["auto", "varlen", "flash", "flex", "mask", "documents"] = Field(
        "auto",
        description="how documents that share a batch are kept apart; auto: the fastest that is right here | "
        "torch's variable-length kernel | flash-attn | flex attention | a mask | one by one, slowly",
    )


class SpeedSettings(AttentionSettings):
    """The same, and what pays in long runs alone."""

    compile: bool | Literal["auto"] = Field(
        "auto", description="compile the model's layers; auto: on a GPU, where they can be"
    )
    recompute: bool = Field(
        False,
        description="keep no activations inside layers, but compute them again in the backward: a fraction "
        "of the memory, for up to a third more time",
    )
