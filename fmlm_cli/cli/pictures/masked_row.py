"""A masked row as text: each mask in a colour of its own, or with its number in brackets."""

from dataclasses import replace

from rich.console import Group, RenderableType
from rich.text import Text

from fmlm_cli.cli.markup import visible
from fmlm_cli.events import MaskedRow

# ColorBrewer's qualitative scheme Set3 (Brewer, Harrower & Penn State), told apart by most colour-blind
# readers too.
_COLOURS = (
    "#8dd3c7", "#ffffb3", "#bebada", "#fb8072", "#80b1d3", "#fdb462",
    "#b3de69", "#fccde5", "#d9d9d9", "#bc80bd", "#ccebc5", "#ffed6f",
)  # fmt: skip
COLOURS = len(_COLOURS)  # masks that can be told apart
_KEPT = "\u208c"  # a small =
_SMALL = str.maketrans("0123456789,", "₀₁₂₃₄₅₆₇₈₉ ")


def show_row(row: MaskedRow, *, colours: bool) -> RenderableType:
    """The row's text under all its masks, how many tokens each holds, what the first lets the model see."""
    row = replace(row, texts=[*map(visible, row.texts)], seen=[*map(visible, row.seen)])
    title = Text(f"\nrow {row.number:,}", style="bold")
    title.append(f"  {sum(row.maskable)} tokens that can be masked", style="not bold dim")
    body = _coloured(row) if colours else _bracketed(row)
    legend = Text("tokens in mask", style="dim")
    for number, count in enumerate(row.counts, start=1):
        legend.append("  ")
        legend.append(f" {number} " if colours else f"{number}:", style=_style(number) if colours else "")
        legend.append(f" {count}", style="not dim")
    seen = Text(f"under mask 1 the model sees ({_KEPT}: kept, but to be predicted) ", style="dim")
    for i, (text, masks) in enumerate(zip(row.seen, row.masks, strict=True)):
        seen.append(text.lstrip() if i == 0 else text, style="not dim bold" if 1 in masks else "dim")
        seen.append(_KEPT if 1 in masks and text == row.texts[i] else "", style="dim")
    return Group(title, body, Text(), legend, Text(), seen)


def _style(number: int) -> str:
    return f"#000000 on {_COLOURS[number - 1]}"


def _coloured(row: MaskedRow) -> Text:
    """A token in several masks has the colour of the first, and all their numbers after it."""
    body = Text()
    for i, text in enumerate(row.texts):
        masks = row.masks[i]
        blank = text[: len(text) - len(text.lstrip())]
        style = _style(masks[0]) if masks else ("" if row.maskable[i] else "dim")
        body.append(blank if i else "", style=style if row.joined[i] else "")
        body.append(text[len(blank) :], style=style)
        if len(masks) > 1 and not any(row.joined[i + 1 : i + 2]):
            body.append(",".join(map(str, masks)).translate(_SMALL))
    return body


def _bracketed(row: MaskedRow) -> Text:
    """A unit and the numbers of its masks in brackets: `[3:New York]`, `[2,5:of]`."""
    body = ""
    for i, text in enumerate(row.texts):
        masks = row.masks[i]
        blank = text[: len(text) - len(text.lstrip())] if i else ""
        opened = f"[{','.join(map(str, masks))}:{text.lstrip()}" if masks else text.lstrip()
        body += blank + text.lstrip() if row.joined[i] else blank + opened
        body += "]" if masks and not any(row.joined[i + 1 : i + 2]) else ""
    return Text(body)
