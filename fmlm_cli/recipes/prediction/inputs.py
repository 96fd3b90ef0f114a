"""The texts that `fmlm predict` is given: on the command line, in a file, or on standard input."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fmlm_cli.config import PredictSettings
from fmlm_cli.errors import UserError
from fmlm_cli.readers.bytes import readable
from fmlm_cli.readers.lines import lines_of, numbered_lines


@dataclass(frozen=True)
class Inputs:
    """Texts, and with each its second one, or None. `source`: the file that they are the lines of, if any."""

    texts: Sequence[str]
    pairs: Sequence[str | None]
    source: str | None

    def place(self, number: int) -> str:
        """Where a text (from 0) stands, for messages."""
        return f"{self.source}:{number + 1}" if self.source else f"text {number + 1}"


def read_inputs(settings: PredictSettings) -> Inputs:
    """The texts that the settings hold or name. Raises `UserError` for empty ones and bad UTF-8."""
    if settings.file is not None:
        source, lines = _read_lines(settings.file)
        parts = [line.split("\t") for line in lines]
        inputs = Inputs([p[0] for p in parts], [p[1] if p[1:] else None for p in parts], source)
        for number, texts in enumerate(parts):
            if len(texts) > 2:
                raise UserError(f"{inputs.place(number)}: {len(texts)} texts parted by tabs: give one or two")
    else:
        inputs = Inputs(settings.texts, settings.pairs or [None] * len(settings.texts), None)
    for number, (text, pair) in enumerate(zip(inputs.texts, inputs.pairs, strict=True)):
        _check_text(inputs.place(number), text)
        if pair is not None:
            _check_text(f"{inputs.place(number)}, second text", pair)
    return inputs


def _check_text(place: str, text: str) -> None:
    if not text.strip():
        raise UserError(f"{place}: there is no text: write some, or leave it out")


def _read_lines(file: str) -> tuple[str, list[str]]:
    """The lines of a file, or of standard input for "-", and its name for messages."""
    if file == "-":
        source = "standard input"
        with readable(source):
            lines = [line for _, line in numbered_lines(sys.stdin.buffer, source)]
    else:
        source, lines = file, [line for _, line in lines_of(Path(file))]
    if not any(map(str.strip, lines)):
        raise UserError(f"{source} holds no text: write one text a line")
    return source, [line.removesuffix("\r") for line in lines]


def check_pairs(inputs: Inputs, two: bool, takes: str) -> None:
    """Refuse the first text that is single where `two` are wanted, or the reverse; `takes`: by whom."""
    for number, pair in enumerate(inputs.pairs):
        if (pair is not None) == two:
            continue
        place, file = inputs.place(number), inputs.source is not None
        if two:
            remedy = "part them with a tab" if file else "give --pair once for each TEXT"
            raise UserError(f"{place} is a single text, but {takes} two: {remedy}")
        remedy = "take out the tab" if file else "leave out --pair"
        raise UserError(f"{place} is two texts, but {takes} one: {remedy}")
