"""The report of compare-masks, as the recipe writes it. What is in it: tests/analysis/test_report.py."""

from pathlib import Path

from fmlm_cli.recipes.compare_report import write_compare_report


def test_writes_the_page_its_text_and_its_figures(tmp_path: Path) -> None:
    results = {
        "arms": [{"name": "random", "label": "random"}, {"name": "full", "label": "fully explored"}],
        "coverage": {
            "random": {"epochs": 2, "never_masked": 0.7, "times_masked": [0.7, 0.28, 0.02]},
            "full": {"epochs": 2, "never_masked": 0.6, "times_masked": [0.6, 0.4]},
        },
        "race": None,
    }
    paths = write_compare_report(tmp_path, results)
    names = ["report.html", "report.md", "figures/coverage.svg", "figures/coverage.png"]
    assert [str(path.relative_to(tmp_path)) for path in paths] == names
    assert all(path.stat().st_size for path in paths)
    assert "After 2 passes random leaves 70 % of the tokens never masked, fully explored 60 %." in paths[
        0
    ].read_text(encoding="utf-8")
