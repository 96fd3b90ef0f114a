"""What becomes of each document: training text, validation text, or neither."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fmlm_cli.corpus.store.making.assembling import LEFT_OUT, Destinations
from fmlm_cli.corpus.store.making.near_duplicates import repeats_nearly
from fmlm_cli.corpus.store.making.parts import Columns
from fmlm_cli.corpus.store.reading import SPLITS
from fmlm_cli.corpus.text.splits import first_of_each, validation_of
from fmlm_cli.errors import UserError
from fmlm_cli.events import counted

TRAIN, VALIDATION = (SPLITS.index(name) for name in ("train", "validation"))


class NoTextError(UserError):
    """A split that was wanted has no document."""


@dataclass(frozen=True)
class Decided:
    """Where each document goes, by corpus, and how many were left out and why."""

    destinations: Mapping[str, Destinations]
    left_out: Mapping[str, int]


def decide(request: Mapping[str, Any], columns: Mapping[str, Columns]) -> Decided:
    """Decide by what was asked for and by the documents' contents alone, in their order.

    `columns`: of "train", and of "validation" where that has text of its own. Documents without tokens go
    first, then training text that is validation text too, then what repeats an earlier document (of
    validation text with its own, before all of training), and a share of what is left is validation.
    """
    train = _Chosen(columns["train"])
    given = _Chosen(columns["validation"]) if "validation" in columns else None
    counts = dict.fromkeys(("empty", "held_out", "duplicate", "near_duplicate"), 0)
    both = [chosen for chosen in (given, train) if chosen is not None]
    counts["empty"] = sum(chosen.drop(chosen.columns.tokens == 0) for chosen in both)
    if given is not None:
        counts["held_out"] = train.drop(np.isin(train.columns.content, given.columns.content))
    if request["dedup"]:
        counts["duplicate"] = sum(chosen.drop(~chosen.first_of_kept()) for chosen in both)
    if request["dedup"] == "near":
        counts["near_duplicate"] = _drop_near(both)
    fraction = 0.0 if given is not None else request["valid_fraction"]
    destinations = {"train": np.full(len(train.kept), LEFT_OUT, np.uint8)}
    destinations["train"][train.kept] = np.where(
        validation_of(train.columns.content[train.kept], fraction), VALIDATION, TRAIN
    )
    if given is not None:
        destinations["validation"] = np.where(given.kept, VALIDATION, LEFT_OUT).astype(np.uint8)
    return Decided(destinations, counts)


class _Chosen:
    """Documents, and which are kept."""

    def __init__(self, columns: Columns) -> None:
        self.columns, self.kept = columns, np.ones(len(columns), np.bool_)

    def drop(self, which: npt.NDArray[np.bool_]) -> int:
        """Keep these no longer; how many of them had been kept."""
        number = int(np.count_nonzero(self.kept & which))
        self.kept &= ~which
        return number

    def first_of_kept(self) -> npt.NDArray[np.bool_]:
        """Which of the documents are the first of their content among those kept."""
        first = np.zeros(len(self.kept), np.bool_)
        first[self.kept] = first_of_each(self.columns.content[self.kept])
        return first


def _drop_near(both: list[_Chosen]) -> int:
    """Keep of all that is alike the first."""
    signatures = np.concatenate([chosen.columns.signature[chosen.kept] for chosen in both])
    repeated = repeats_nearly(signatures)
    number = 0
    for chosen in both:
        own, repeated = np.split(repeated, [np.count_nonzero(chosen.kept)])
        which = np.zeros(len(chosen.kept), np.bool_)
        which[chosen.kept] = own
        number += chosen.drop(which)
    return number


def check_not_empty(
    decided: Decided, request: Mapping[str, Any], texts: tuple[str, str], read: Mapping[str, int]
) -> None:
    """Raises `NoTextError` where a split that was wanted has no document. `texts`: as the user named them."""
    every = np.concatenate([np.empty(0, np.uint8), *decided.destinations.values()])
    train, validation = (int(np.count_nonzero(every == split)) for split in (TRAIN, VALIDATION))
    named, valid = texts
    held = decided.left_out["held_out"]
    if held and not train:
        raise NoTextError(
            f"all {counted(held, 'document')} of {named} are validation text (--valid) too: name other text"
        )
    if not train and (valid or not validation):
        skipped = [
            f"left out: {counted(number, 'document')}, {what}"
            for number, what in (
                (read["bad_text"], "not valid UTF-8"),
                (read["long"], "too long"),
                (read["under_min"], "with fewer characters than --min-chars"),
                (read["over_max"], "with more characters than --max-chars"),
            )
            if number
        ]
        why = f" ({', '.join(skipped)})" if skipped else ""
        raise NoTextError(f"no text in {named}{why}: give sources that hold some")
    if not train:
        raise NoTextError(
            f"{named} holds a single document, which became the validation split: give more text, "
            f"--documents line, --valid SOURCE, or --valid-fraction 0"
        )
    if valid and not validation:
        raise NoTextError(f"no text in {valid} (--valid): give a source that holds some")
