"""Settings of looking: at text, at token stores, at a machine, at runs."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fmlm_cli.config.section import Count, Precision, Section, Seed
from fmlm_cli.config.tokenize import ReadingSettings


class InspectSettings(ReadingSettings):
    """`fmlm inspect`."""

    tokenizer: str | None = Field(
        None,
        description="for the estimate: tokenizer folder, vocab.txt, tokenizer.json or Hub name; default: one "
        "learnt from a sample",
    )
    split: str | None = Field(
        None,
        description="the split of a store that is shown, or of a data set that is read",
    )
    verify: bool = Field(False, description="of a store: hash every file and compare")
    shown: Count = Field(3, description="documents to show")
    seed: Seed = Field(0, description="seed: which documents of a store")

    @model_validator(mode="after")
    def _something(self) -> "InspectSettings":
        if not self.sources:
            raise ValueError(
                "nothing to inspect: give STORE, a token store, or SOURCE, text (files, folders, globs)"
            )
        return self


class DoctorSettings(Section):
    """`fmlm doctor`."""

    device: str = Field("auto", description="auto | cpu | cuda | cuda:N | mps")
    precision: Precision = Field("auto", description="as for pretrain")
    out: str = Field(".", description="folder whose disk is looked at; default: the one that one is in")


class RunsSettings(Section):
    """`fmlm runs`."""

    folders: tuple[str, ...] = Field((".",), description="folders, below which runs are looked for")
    sort: Literal["name", "state", "loss", "best", "tokens", "time", "changed"] = Field(
        "name", description="what the table is sorted by; changed: the latest first"
    )


class PlotSettings(Section):
    """`fmlm plot`."""

    runs: tuple[str, ...] = Field(
        description="runs, comparisons and fine-tunings whose curves to draw, or folders of them"
    )
    out: str | None = Field(
        None, description="picture to write: .png, .svg or .pdf; default: draw in the terminal"
    )
    x: Literal["steps", "tokens", "hours"] = Field("steps", description="what losses are drawn against")
    evaluation: str | None = Field(
        None, description="held-out text whose loss is drawn; default: the one that decides"
    )
    width: Annotated[int, Field(ge=300, le=10_000)] = Field(1200, description="of the picture, in pixels")
