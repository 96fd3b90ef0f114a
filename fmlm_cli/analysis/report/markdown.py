"""The report as Markdown."""

import re
from collections.abc import Iterator, Sequence

from fmlm_cli.analysis.report.parts import Part, ReportTable
from fmlm_cli.analysis.report.summary import Summary
from fmlm_cli.analysis.results.comparison import NextStep


def document(
    summary: Summary, parts: Sequence[Part], setup: Sequence[ReportTable], command: str, settings: str
) -> str:
    """The whole text; figures are linked to."""
    lines = [f"# {_plain(summary.subject)}", "", f"**{_plain(summary.headline)}**", ""]
    lines += next_lines(summary.next_step)
    lines += [*table_lines(summary.glance), "", _plain(summary.key), ""] if summary.glance else []
    lines += [f"- {_plain(f'{tile.label}: {tile.number} ({tile.ends})')}" for tile in summary.tiles]
    lines += [f"- {_plain(text)}" for text in summary.sure]
    lines += ["", _plain(summary.cost), ""]
    for part in parts:
        lines += _part(part)
    lines += ["## What was compared, and how to repeat it", ""]
    for table in setup:
        lines += [*table_lines(table), ""]
    lines += [*fenced(command, "sh"), ""]
    lines += [*fenced(settings, "yaml"), ""] if settings else []
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def next_lines(step: NextStep) -> list[str]:
    """What to do next, and the command in a block, from which it can be copied."""
    return [f"Next: {_plain(step.text)}:", "", *fenced(step.command, "sh"), ""]


def _part(part: Part) -> Iterator[str]:
    yield from (f"## {_plain(part.title)}", "")
    if part.missing:
        yield from (_plain(part.missing), "")
    for note in part.notes:
        yield from (_plain(note), "")
    for exhibit in part.exhibits:
        yield from (f"### {_plain(exhibit.title)}", "", _plain(exhibit.says), "")
        yield from (f"![{_plain(exhibit.title)}](figures/{exhibit.name}.png)", "")
        if exhibit.table is not None:
            yield from (*table_lines(exhibit.table), "")
        yield from (f"How it was computed: {_plain(exhibit.how)}", "")


def _plain(text: str) -> str:
    """`literal`, but for code in backticks."""
    pieces = re.split(r"(`[^`\n]+`)", " ".join(text.split()))
    return _no_block("".join(piece if place % 2 else _escaped(piece) for place, piece in enumerate(pieces)))


def literal(text: str) -> str:
    """One line that Markdown shows as it stands: no HTML, link, emphasis or block begins in it."""
    return _no_block(_escaped(" ".join(text.split())))


def _no_block(line: str) -> str:
    return re.sub(r"^(\d{1,9})([.)])(?=\s|$)|^([-+#=])(?=[-+#=\s]|$)|(#)$", r"\1\\\2\3\4", line)


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)  # a_b is no emphasis


def table_lines(table: ReportTable) -> Iterator[str]:
    """A table, row by row; cells are texts, whatever they hold."""
    yield _row(table.header)
    yield "| --- " * len(table.header) + "|"
    yield from (_row(row) for row in table.rows)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(" ".join(cell.split())) for cell in cells) + " |"


def fenced(text: str, kind: str) -> list[str]:
    """The lines of a block of code, fenced by more backticks than are in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{kind}", text.rstrip("\n"), fence]
