"""The report of a comparison of maskings: report.html, report.md and figures, from its results."""

from collections.abc import Sequence
from pathlib import Path

from fmlm_cli import storage
from fmlm_cli.analysis.report.figures.drawing import write_figure
from fmlm_cli.analysis.report.html import page
from fmlm_cli.analysis.report.markdown import document
from fmlm_cli.analysis.report.parts import Part, coverage_part, variance_part
from fmlm_cli.analysis.report.race import race_part
from fmlm_cli.analysis.report.summary import arms_table, settings_text, setup_table, summary_of
from fmlm_cli.analysis.report.sweep import sweep_part
from fmlm_cli.analysis.report.tasks import downstream_part
from fmlm_cli.analysis.report.values import Arms, cleaned
from fmlm_cli.analysis.results.comparison import ComparisonResults
from fmlm_cli.analysis.results.plain import as_json, from_json

FIGURES = "figures"


def parts_of(results: ComparisonResults) -> list[Part]:
    """All parts in the report's order; what was not measured says so."""
    arms = Arms.of(results)
    return [
        race_part(results, arms),
        downstream_part(results, arms),
        variance_part(results),
        coverage_part(results, arms),
        sweep_part(results, arms),
    ]


def write_report(root: Path, results: ComparisonResults) -> list[Path]:
    """Write report.html, report.md and figures/NAME.svg and .png below `root`; their paths.

    The same results give the same bytes.
    """
    results = from_json(ComparisonResults, cleaned(as_json(results)))
    parts, arms = parts_of(results), Arms.of(results)
    summary, setup = summary_of(results, arms), [setup_table(results), arms_table(arms)]
    repeat = results.command, settings_text(results)
    paths, drawn = _draw(parts, root / FIGURES)
    html, markdown = root / "report.html", root / "report.md"
    storage.write_text(html, page(summary, parts, drawn, setup, *repeat))
    storage.write_text(markdown, document(summary, parts, setup, *repeat))
    return [html, markdown, *paths]


def _draw(parts: Sequence[Part], folder: Path) -> tuple[list[Path], dict[str, tuple[str, str]]]:
    with storage.clear_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    drawn = {}
    for exhibit in (exhibit for part in parts for exhibit in part.exhibits):
        files, drawn[exhibit.name] = write_figure(exhibit.draw, exhibit.name, folder)
        paths += files
    return paths, drawn
