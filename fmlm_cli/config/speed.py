"""What makes a run faster or smaller, and changes its results by rounding only (and dropout's draws)."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from fmlm_cli.config.section import Section


class ComputingSettings(Section):
    """How a model attends, and by how many threads it computes."""

    attention: Literal["auto", "varlen", "flash", "flex", "mask", "documents"] = Field(
        "auto",
        description="how documents that share a batch are kept apart; auto: the fastest that is right here | "
        "torch's variable-length kernel | flash-attn | flex attention | a mask | one by one, slowly",
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        description="threads that each process computes with on a CPU; default: one a core of its own, or "
        "OMP_NUM_THREADS",
    )


class SpeedSettings(ComputingSettings):
    """The same, and what pays in long runs alone."""

    compile: bool | Literal["auto"] = Field(
        "auto", description="compile the model's layers; auto: on a GPU, where they can be"
    )
    recompute: bool = Field(
        False,
        description="keep no activations inside layers, but compute them again in the backward: a fraction "
        "of the memory, for up to a third more time",
    )

    shard: bool = Field(
        False,
        description="leave each of several processes a part of weights, gradients and the optimizer's state "
        "(FSDP2): less memory, for more that travels",
    )

    @field_validator("compile", mode="before")
    @classmethod
    def _auto_or_bool(cls, value: Any) -> Any:
        """In one sentence, where a union has one for each of its members."""
        if value != "auto" and not isinstance(value, bool):
            raise ValueError(f"should be auto, true or false, not {value!r}")
        return value
