"""The report of `fmlm compare-masks`, from what its results.json holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmlm_cli.analysis.report import write_report


def write_compare_report(root: Path, results: Mapping[str, Any]) -> list[Path]:
    """Write report.html, report.md and figures/NAME.svg and .png below `root`; their paths, report.html first.

    Any part of `results` may be absent or None; its chapter then says what would make it.
    """
    return write_report(root, results)
