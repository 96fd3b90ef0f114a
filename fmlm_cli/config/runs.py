"""Settings of looking at runs."""

from typing import Annotated, Literal

from pydantic import Field

from fmlm_cli.config.section import Section


class RunsSettings(Section):
    """`fmlm runs`."""

    folders: tuple[str, ...] = Field((".",), description="folders, below which runs are looked for")
    sort: Literal["name", "state", "loss", "best", "tokens", "time", "changed"] = Field(
        "name", description="what the table is sorted by; changed: the latest first"
    )


class PlotSettings(Section):
    """`fmlm plot`."""

    runs: tuple[str, ...] = Field(description="runs whose curves to draw, or folders of them")
    out: str | None = Field(
        None, description="picture to write: .png, .svg or .pdf; default: draw in the terminal"
    )
    x: Literal["steps", "tokens", "hours"] = Field("steps", description="what losses are drawn against")
    evaluation: str | None = Field(
        None, description="held-out text whose loss is drawn; default: the one that decides"
    )
    width: Annotated[int, Field(ge=300, le=10_000)] = Field(1200, description="of the picture, in pixels")
