"""What all settings have in common: groups of them, and kinds of values."""

import re
from typing import Annotated, Any, Literal, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Precision = Literal["auto", "float32", "bfloat16", "bfloat16-weights", "float16"]
Packing = Literal["documents", "concat", "none"]

# What is known by name, for shells and editors to offer; the rooms that know more are above this one.
STRATEGIES = [
    *("random", "whole-word", "span", "pmi"),
    *("fully-explored", "fully-explored-word", "fully-explored-span", "fully-explored-pmi"),
]
MODELS = [
    *("bert-tiny", "bert-mini", "bert-small", "bert-medium", "bert-base", "bert-large"),
    *("distilbert-base", "roberta-base", "modernbert-base", "deberta-v3-base"),
]
GLUE = ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]
DEVICES = ["auto", "cpu", "cuda", "mps"]

# Halves of characters, which stand for bytes of a path that are not UTF-8, and what no path can hold.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


class Section(BaseModel):
    """A group of settings. Immutable; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _can_be_kept(cls, value: Any) -> Any:
        """Settings are written to files in UTF-8, and most texts among them are paths."""
        texts = (
            value
            if isinstance(value, tuple)
            else [*value, *value.values()]
            if isinstance(value, dict)
            else [value]
        )
        for text in texts:
            if isinstance(text, str) and _NO_TEXT.search(text):
                raise ValueError(f"{text!a} is not valid UTF-8, or holds a NUL: give another name")
        return value


Unit = Literal["steps", "tokens", "epochs", "minutes"]

SPELLINGS = "2000-steps|5M-tokens|7-epochs|20m"
_BUDGET = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)([kMG]?)[- ]?(steps?|tokens?|epochs?|m|min|h)")
_THOUSANDS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}


class Budget(NamedTuple):
    """How long a run is."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read 2000-steps, 5M-tokens, 7-epochs, 20m or 2h. Raises `ValueError` for anything else."""
        match = _BUDGET.fullmatch(text.strip())
        if match is None or not float(match[1]):
            raise ValueError("write it as 2000-steps, 5M-tokens, 7-epochs, or in time: 20m or 2h")
        number, thousands, unit = match.groups()
        amount = float(number) * _THOUSANDS[thousands]
        if unit in ("m", "min", "h"):
            if thousands:
                raise ValueError("write a time as 20m or 2h")
            return cls(amount * (60 if unit == "h" else 1), "minutes")
        if unit.startswith("step") and amount % 1:
            raise ValueError("write a whole number of steps")
        return cls(amount, cast("Unit", unit.removesuffix("s") + "s"))
