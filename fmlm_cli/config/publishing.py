"""Settings of publishing a model on the Hub."""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from fmlm_cli.config.section import PartedByCommas, Section


@dataclass(frozen=True)
class _Written:
    """A text in a fixed form; `instead`: what is said of any other."""

    pattern: str
    instead: str

    def __call__(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"'{text}' {self.instead}")
        return text


_LICENSE = _Written(
    r"[a-z0-9][a-z0-9.+-]*",
    "is no licence's name on the Hub: write it as apache-2.0, mit, cc-by-4.0 or other",
)
_LANGUAGE = _Written(
    r"[a-z]{2,3}|multilingual|code",
    "is no code of a language: write two or three letters, as en or deu, multilingual or code",
)


class CardSettings(Section):
    """What a model's card and repository need that no run knows."""

    public: bool = Field(False, description="let everybody see the repository; it is private otherwise")
    license: Annotated[str, AfterValidator(_LICENSE)] | None = Field(
        None,
        description="licence that the model's card names, as the Hub calls it, e.g. apache-2.0; default: "
        "none, and then nobody may use the model",
    )
    language: PartedByCommas[Annotated[str, AfterValidator(_LANGUAGE)]] = Field(
        (), description="languages of the text, for the model's card, by their codes of ISO 639: en, deu"
    )


class HubSettings(CardSettings):
    """What becomes of the finished model on the Hub: by default nothing."""

    push_to: str | None = Field(
        None,
        description="upload the finished model to this repository of the Hub, NAME or OWNER/NAME, private "
        "unless hub.public is set; default: nothing is uploaded",
    )


class PushSettings(CardSettings):
    """`fmlm push`."""

    run: str = Field(description="a finished run, its final model, or a model that fmlm finetune left")
    name: str = Field(description="repository of the Hub, which is made if need be: NAME or OWNER/NAME")
    logs: bool = Field(False, description="upload the run's metrics.jsonl and its picture of the losses too")
