"""What all settings have in common: groups of them, kinds of values, and which of them decide a result."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

T = TypeVar("T")

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Precision = Literal["auto", "float32", "bfloat16", "bfloat16-weights", "float16"]
Packing = Literal["documents", "concat", "none"]


def _parted_by_commas(value: Any) -> Any:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(each, str) for each in given):
        return value
    parts = (part.strip() for each in given for part in each.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


# Texts, of which `a,b` is two; each counts once.
PartedByCommas = Annotated[tuple[T, ...], BeforeValidator(_parted_by_commas)]

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


# ---------------------------------------------------------------- which settings decide a result

_FREE = "decides no result as it is written"

# The type of a setting, or of a group, that may differ between two calls of which one goes on with what the
# other left: it has no part in the result, as `device`, or what it comes to is recorded in its place: the
# contents of data and weights, the precision that `auto` becomes. Every other setting decides.
Free = Annotated[T, _FREE]


def deciding(settings: BaseModel, prefix: str = "", only: Collection[str] | None = None) -> dict[str, Any]:
    """The settings that decide a result, flat, in plain values of JSON and in the order of their definition.

    Names are dotted, with `prefix` before them; options of the user's own count one by one, as
    `masking.options.p`. `only`: names of settings and of whole groups; the others are left out.
    """
    decided = _decided(type(settings), settings.model_dump(mode="json"))
    return {prefix + name: value for name, value in decided if only is None or _within(name, only)}


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names of what is not the same in two answers of `deciding`; what one lacks counts as None there."""
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def _decided(
    section: type[BaseModel], tree: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    for name, field in section.model_fields.items():
        if _FREE in field.metadata:
            continue
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _decided(inner, tree[name], f"{prefix}{name}.")
        else:
            yield from _leaves(prefix + name, tree[name])


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, part in value.items():
        yield from _leaves(f"{name}.{key}", part)


def _within(name: str, groups: Collection[str]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)
