"""Texts that users and files bring, on a terminal: shown, never obeyed."""

import re

from rich import markup

# Escape sequences, which a terminal would carry out, and halves of characters, which no encoding has; a
# carriage return would overwrite the line. Tabs and line ends stay.
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def visible(text: str) -> str:
    r"""The text with control characters written out, as \x1b."""
    return _UNSHOWN.sub(lambda match: ascii(match[0])[1:-1], text)


def escape(text: str) -> str:
    """Markup of rich's that shows the text as it stands."""
    return markup.escape(visible(text))
