"""How the report's figures look, and how they become files: SVG, PNG, and SVG within HTML, light and dark.

A figure is drawn in the light palette. Within HTML each of its colours turns into a CSS variable with that
colour as its fallback, so that the page decides; identifiers get the figure's name, as all figures share one
document.
"""

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmlm_cli.storage import complete_file

_DPI = 160
_OF_SVG = ("Date", "Creator", "Format", "Type")
WIDE, NARROW = 7.4, 3.9  # inches; the narrow one is for phones
INK, SOFT, GRID, PAPER = "#1f2a33", "#66727e", "#dde2e7", "#ffffff"
# Told apart with the usual kinds of colour blindness too; dash and marker differ as well. The first is the
# baseline's.
SERIES = ("#5b6670", "#2b6ca3", "#c8601a", "#178a6b", "#a3558a", "#a88400", "#4596c4", "#7d4f33")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = "osD^vPX*"
# Never masked, once, twice, ...: the first is a warning, the others a scale.
STEPS = ("#cf6a2c", "#1d5a8c", "#4d86b4", "#84aecf", "#b3cde2", "#d6e4ef")

_VARIABLES = {
    INK: "ink",
    SOFT: "soft",
    GRID: "grid",
    PAPER: "paper",
    **{colour: f"series-{place}" for place, colour in enumerate(SERIES)},
    **{colour: f"times-{place}" for place, colour in enumerate(STEPS)},
}
_STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "svg.hashsalt": "fmlm",  # the same figure has the same bytes
    "text.parse_math": False,  # a "$" in a label is a dollar
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.7,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
}

Drawing = Callable[[float], Figure]  # from a width in inches


@contextmanager
def house_style() -> Iterator[None]:
    """Draw and save inside of this; scripts that the font lacks are no reason to fail."""
    with mpl.rc_context(dict(_STYLE)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def colour(place: int) -> str:
    """The colour of the series at `place`; they come round again, in another dash."""
    return SERIES[place] if place < len(SERIES) else SERIES[1 + (place - 1) % (len(SERIES) - 1)]


def dash(place: int) -> Any:
    """The dash of the series at `place`; neighbours differ."""
    return DASHES[(place + 2 * ((place - 1) // (len(SERIES) - 1))) % len(DASHES)] if place else DASHES[0]


def panels(
    width: float, height: float, rows: int, columns: int, **more: Any
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of rows x columns axes, laid out so that no text is cut."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **more)
    return figure, [list(row) for row in axes]


def write_figure(draw: Drawing, name: str, folder: Path) -> tuple[tuple[Path, Path], tuple[str, str]]:
    """Write NAME.svg and NAME.png; those, and the wide and the narrow figure as SVG for within HTML."""
    svg, png = folder / f"{name}.svg", folder / f"{name}.png"
    with house_style():
        figure = _laid_out(draw(WIDE))
        wide = _svg(figure)
        with complete_file(svg) as path:
            path.write_text(wide, encoding="utf-8", newline="\n")
        with complete_file(png) as path:
            figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})
        narrow = _svg(_laid_out(draw(NARROW)))
    return (svg, png), (inline(wide, f"{name}-wide", "wide"), inline(narrow, f"{name}-narrow", "narrow"))


def write_picture(draw: Drawing, path: Path, pixels: int) -> None:
    """Write one figure, as a PNG, SVG or PDF by the ending of `path`; a PNG is so many pixels wide."""
    width = max(pixels / _DPI, NARROW)
    kind = path.suffix.lstrip(".").lower()
    undated = {"png": ("Software",), "svg": _OF_SVG, "pdf": ("Creator", "Producer", "CreationDate")}[kind]
    with house_style(), complete_file(path) as temporary:
        metadata = dict.fromkeys(undated)
        _laid_out(draw(width)).savefig(temporary, format=kind, dpi=pixels / width, metadata=metadata)


def _laid_out(figure: Figure) -> Figure:
    engine = figure.get_layout_engine()
    assert engine is not None  # see `panels`
    engine.execute(figure)
    figure.set_layout_engine("none")  # the layout stands, and need not be found again for every format
    return figure


def _svg(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(_OF_SVG))
    return file.getvalue().decode("utf-8")


def inline(svg: str, name: str, kind: str) -> str:
    """SVG for within HTML: no namespaces, no metadata, own identifiers, the page's colours and font."""
    root = ET.fromstring(svg)
    for element in root.iter():
        element.tag = _local(element.tag)
        for child in [part for part in element if _local(part.tag) in ("metadata", "style")]:
            element.remove(child)
        attributes = {_local(key): _adapted(_local(key), value, name) for key, value in element.items()}
        if element.tag == "g":  # named by matplotlib after what they hold; nothing refers to them
            attributes.pop("id", None)
        element.attrib = attributes
    root.attrib = {"class": kind, "viewBox": root.attrib["viewBox"], "aria-hidden": "true"}
    return ET.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _adapted(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href" and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    if key == "clip-path":
        return value.replace("url(#", f"url(#{name}-")
    if key == "style":
        return re.sub(r"#[0-9a-f]{6}\b", _variable, re.sub(r"font-family: [^;]*; ?", "", value))
    return value


def _variable(match: re.Match[str]) -> str:
    shade = match[0]
    return f"var(--{_VARIABLES[shade]}, {shade})" if shade in _VARIABLES else shade
