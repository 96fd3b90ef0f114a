"""The report as one HTML file that needs nothing else: pictures, styles and data are in it, and no script.

Every text passes `html.escape`; a content security policy keeps a browser from loading or running anything at
all.
"""

import base64
import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources

from fmlm_cli.analysis.report.parts import Exhibit, Part, ReportTable, Row
from fmlm_cli.analysis.report.summary import Summary

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_NUMBER = re.compile(r"^[+−<×]? ?[\d.,]+")
_WITH_ENDS = re.compile(r"^([^()]+) (\([^()]* to [^()]*\))$")  # an estimate and its interval
_OPTION = re.compile(r"(?<!\S)(--[\w-]+)")


def page(
    summary: Summary,
    parts: Sequence[Part],
    drawn: Mapping[str, tuple[str, str]],
    setup: Sequence[ReportTable],
    command: str,
    settings: str,
) -> str:
    """The whole document. `drawn`: for each exhibit its wide and its narrow figure as SVG."""
    style = resources.files("fmlm_cli.analysis.report").joinpath("report.css").read_text(encoding="utf-8")
    body = [
        _first_screen(summary, parts),
        "<main>",
        *(_part(part, drawn) for part in parts),
        '<section id="repeat"><h2>What was compared, and how to repeat it</h2>',
        *(_table(table, "What was compared") for table in setup),
        f"<h3>Command</h3>{_command(command)}",
        f'<h3>Settings</h3><pre tabindex="0">{escape(settings)}</pre>' if settings else "",
        "</section></main>",
        "<footer>All numbers, unrounded: <code>results.json</code>. Figures as SVG and PNG: "
        "<code>figures/</code>.</footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(summary.subject)}</title><style>\n{style}</style></head><body>\n"
        + "\n".join(text for text in body if text)
        + "\n</body></html>\n"
    )


def _first_screen(summary: Summary, parts: Sequence[Part]) -> str:
    sure = "".join(f"<li>{_prose(text)}</li>" for text in summary.sure)
    tiles = "".join(
        f'<div><dd class="big">{escape(tile.number)}</dd><dt>{escape(tile.label)}</dt>'
        f'<dd class="ends">{escape(tile.ends)}</dd></div>'
        for tile in summary.tiles
    )
    step = summary.next_step
    links = "".join(f'<li><a href="#{part.name}">{escape(part.title)}</a></li>' for part in parts)
    return "\n".join(
        text
        for text in (
            f"<header><h1>{escape(summary.subject)}</h1>",
            f'<h2 class="question">Which masking?</h2><p class="headline">{escape(summary.headline)}</p>',
            f'<h2 class="question">What next?</h2><p class="next">{escape(_begun(step.text))}:</p>',
            _command(step.command),
            f'{_table(summary.glance, "The maskings")}<p class="how">{_prose(summary.key)}</p>'
            if summary.glance
            else "",
            f'<dl class="tiles">{tiles}</dl>' if tiles else "",
            f'<h2 class="question">How sure?</h2><div class="answer"><ul>{sure}</ul></div>' if sure else "",
            '<h2 class="question">What does it cost?</h2>'
            f'<div class="answer"><p>{_prose(summary.cost)}</p></div>'
            if summary.cost
            else "",
            f'<nav aria-label="Parts"><ul>{links}<li><a href="#repeat">Repeat it</a></li></ul></nav>'
            "</header>",
        )
        if text
    )


def _command(line: str) -> str:
    """A command line; where it is too long for a screen, it breaks at no hyphen of an option."""
    words = _OPTION.sub(r"<span>\1</span>", escape(line))
    return f'<pre class="command">{words}</pre>'


def _begun(text: str) -> str:
    return text[:1].upper() + text[1:]


def _prose(text: str) -> str:
    """Escaped; what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _part(part: Part, drawn: Mapping[str, tuple[str, str]]) -> str:
    lines = [f'<section id="{part.name}"><h2>{escape(part.title)}</h2>']
    lines += [f'<p class="missing">{_prose(part.missing)}</p>'] if part.missing else []
    lines += [f'<p class="note">{_prose(note)}</p>' for note in part.notes]
    lines += [_exhibit(exhibit, drawn[exhibit.name]) for exhibit in part.exhibits]
    return "\n".join([*lines, "</section>"])


def _exhibit(exhibit: Exhibit, figures: tuple[str, str]) -> str:
    name, says = exhibit.name, exhibit.says
    csv_link, json_link = (
        _link(name, "csv", as_csv(exhibit.data)),
        _link(name, "json", json_lines(exhibit.data)),
    )
    return "\n".join(
        text
        for text in (
            f'<section id="{name}-figure"><h3>{escape(exhibit.title)}</h3><p class="says">{_prose(says)}</p>',
            f'<figure role="img" aria-label="{escape(says)}">{"".join(figures)}</figure>',
            "" if exhibit.table is None else _table(exhibit.table, exhibit.title),
            f'<p class="how"><b>How it was computed.</b> {_prose(exhibit.how)}</p>',
            f'<p class="data">Data: {csv_link}, {json_link}</p>',
            "</section>",
        )
        if text
    )


def _link(name: str, kind: str, text: str) -> str:
    media = {"csv": "text/csv", "json": "application/json"}[kind]
    held = base64.b64encode(text.encode()).decode("ascii")
    return f'<a download="{name}.{kind}" href="data:{media};charset=utf-8;base64,{held}">{kind.upper()}</a>'


def as_csv(rows: Sequence[Row]) -> str:
    """Rows under a header of all their keys; what a row lacks, and None, is an empty cell."""
    file = io.StringIO()
    header = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(file, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def json_lines(rows: Sequence[Row]) -> str:
    """Rows as a list of objects, one a line."""
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def _table(table: ReportTable, title: str) -> str:
    """In a frame of its own that scrolls, so that a wide table does not make the page wide."""
    numeric = [
        all(_NUMBER.match(row[place]) or row[place] in ("–", "", "baseline") for row in table.rows)
        for place in range(len(table.header))
    ]
    head = "".join(_cell(*cell, 'th scope="col"') for cell in zip(table.header, numeric, strict=True))
    head = f"<thead><tr>{head}</tr></thead>" if any(table.header) else ""
    body = "".join(f"<tr>{_cells(row, numeric)}</tr>" for row in table.rows)
    frame = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}, table">'
    return f"{frame}<table>{head}<tbody>{body}</tbody></table></div>"


def _cells(row: Sequence[str], numeric: Sequence[bool]) -> str:
    """The first one names the row."""
    tags = ['th scope="row"', *["td"] * (len(row) - 1)]
    return "".join(_cell(*cell) for cell in zip(row, numeric, tags, strict=True))


def _cell(text: str, is_number: bool, tag: str) -> str:
    """A cell; of an estimate with its interval, that stands below it, so that a table is no wider."""
    kind = ' class="n"' if is_number else ""
    match = _WITH_ENDS.match(text) if is_number else None
    inner = f'{escape(match[1])} <span class="ends">{escape(match[2])}</span>' if match else escape(text)
    return f"<{tag}{kind}>{inner}</{tag.partition(' ')[0]}>"
