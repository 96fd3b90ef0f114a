"""A JSON array, element by element: of a file of any size no more is in memory than the largest of them."""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from fmlm_cli.errors import UserError

_SPACE = re.compile(r"[ \t\n\r]*")
_TOKEN = 16  # characters before a text's end in which a word of JSON may have been cut off: \ud83e\udd8a
_decode = json.JSONDecoder().raw_decode


class _Window:
    """The part of a text that is being read, from a place in it on."""

    def __init__(self, blocks: Iterable[bytes], source: object, most: int) -> None:
        self._blocks, self._source, self._most = iter(blocks), source, most
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text, self._at, self._ended = "", 0, False
        self._line, self._counted = 1, 0  # the line on which the character `counted` stands

    def line(self) -> int:
        """The line of the place that has been reached."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def peek(self) -> str:
        """The next character that is no white space, which is gone to; "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more(1)

    def take(self) -> str:
        """The same, and past it."""
        character = self.peek()
        self._at += 1
        return character

    def value(self) -> Any:
        """The JSON value that begins here, and past it."""
        more = 1
        while True:
            try:
                value, self._at = _decode(self._text, self._at)
                return value
            except RecursionError as error:
                raise self.broken(str(error)) from None
            except json.JSONDecodeError as error:
                if self._ended or not _may_go_on(error):
                    reason, self._at = error.msg, error.pos
                    raise self.broken(reason) from None
            except ValueError as error:  # a number of thousands of digits
                raise self.broken(str(error)) from None
            if len(self._text) - self._at > self._most:
                raise UserError(
                    f"{self._source}:{self.line()}: the element that begins here is longer than "
                    f"{self._most:,} characters; write the file as .jsonl, of which a line can be left out"
                )
            self._more(more)
            more *= 2  # as often as it takes for a long one, and no oftener: each time it is parsed anew

    def broken(self, reason: str) -> UserError:
        """An error for what is no JSON at the place that has been reached."""
        return UserError(
            f"{self._source}:{self.line()}: not valid JSON ({reason}); mend it, or fetch it again"
        )

    def _more(self, number: int) -> None:
        """Take so many more blocks in, and let go of what lies behind."""
        self.line()
        taken = [self._text[self._at :]]
        for _ in range(number):
            block = next(self._blocks, None)
            if block is None:
                self._ended = True
                taken.append(self._decoder.decode(b"", True))
                break
            taken.append(self._decoder.decode(block))
        self._text, self._at, self._counted = "".join(taken), 0, 0


def _may_go_on(error: json.JSONDecodeError) -> bool:
    """Whether a value may only have been cut off by the end of the text."""
    return error.msg.startswith("Unterminated") or error.pos > len(error.doc) - _TOKEN


def array_elements(blocks: Iterable[bytes], source: object, most: int) -> Iterator[tuple[int, Any]]:
    """The elements of the array that a text is, each with the number of the line on which it begins.

    Bytes that are no UTF-8 come as half characters (`surrogateescape`). Raises `UserError` (file, line,
    remedy) for what is no array or no JSON, and for an element of more than `most` characters.
    """
    window = _Window(blocks, source, most)
    if window.take() != "[":
        raise UserError(
            f"{source}: not a JSON array ([...]); write it as one, or an object a line in a .jsonl"
        )
    if window.peek() == "]":
        window.take()
    else:
        yield from _elements(window)
    if window.peek():
        raise window.broken("more after the array's end")


def _elements(window: _Window) -> Iterator[tuple[int, Any]]:
    while True:
        window.peek()
        yield window.line(), window.value()
        mark = window.peek()
        if mark not in (",", "]"):
            raise window.broken("the array is cut short" if not mark else "no comma between two elements")
        window.take()
        if mark == "]":
            return
