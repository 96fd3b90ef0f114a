"""JSON by line: one object each."""

import json
import re
from typing import Any

from fmlm_cli.errors import UserError

HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can write it down alone, UTF-8 cannot


def parsed_object(line: str, where: str, example: str) -> dict[str, Any]:
    """The object on one line. `where`: its place, `example`: how it is to be written, for the `UserError`."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, [[[[ without end
        reason = str(error).replace(": line 1 ", ", ")
        raise UserError(f"{where}: not valid JSON ({reason}); each line must be one JSON object") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: {kind(value)}, not an object; write each line as {example}")
    return value


def kind(value: object) -> str:
    """What a value is, in words."""
    words = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list"}
    return "nothing" if value is None else words.get(type(value), "an object")
