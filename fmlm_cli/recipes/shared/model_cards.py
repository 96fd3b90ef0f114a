"""What model cards are made of: Markdown with the Hub's front matter."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
import yaml

from fmlm_cli import __version__
from fmlm_cli.analysis.report.markdown import fenced, literal, table_lines
from fmlm_cli.analysis.report.parts import ReportTable


def card(facts: Mapping[str, Any], title: str, sections: Sequence[str]) -> str:
    """A whole card. `facts`: the front matter; empty sections are left out."""
    front = yaml.safe_dump(dict(facts), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{front}---\n", f"# {literal(title)}\n", *sections]
    return "\n".join(part for part in parts if part)


def section(title: str, content: str) -> str:
    """A section with its title; none where it has no content."""
    return f"## {title}\n\n{content}" if content else ""


def warned(cautions: Sequence[str]) -> str:
    """Cautions, each as a quotation."""
    return "".join(f"> **Note:** {literal(text)}.\n\n" for text in cautions)


def facts_table(rows: Mapping[str, str]) -> str:
    """Names and values as a table without a header."""
    return table(("", ""), list(rows.items())) if rows else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(table_lines(ReportTable(header, rows))) + "\n"


def block(text: str, kind: str) -> str:
    """A block of code."""
    return "\n".join(fenced(text, kind)) + "\n"


def versions() -> str:
    """Of what made a model."""
    return (
        f"fmlm {__version__}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}"
    )
