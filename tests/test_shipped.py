"""What a stranger meets first works: the README's code, its options and settings, and the paper's
configurations.
"""

import json
import re
import signal
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from fmlm_cli.config import (
    CompareSettings,
    FinetuneSettings,
    PretrainSettings,
    build,
    read_yaml,
    setting_names,
)
from fmlm_cli.masking import plugins
from fmlm_cli.recipes.comparison import compare_masks
from tests.cli.test_help import PAGES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMPARISONS = sorted((ROOT / "configs" / "paper").glob("*.yaml"))


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_strategy_of_ones_own_in_the_readme_works(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [block] = [block for block in code_blocks("python") if block.startswith("# block_masking.py")]
    (tmp_path / "block_masking.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "registered", {})
    handler = signal.getsignal(signal.SIGTERM)
    for name in ("block_masking:Block", "block"):  # the decorator runs when the module is imported
        result = CliRunner().invoke(app, ["masks", str(tiny_store), "--masking", name, "--json"])
        assert result.exit_code == 0, result.output
        shown = json.loads(result.stdout)
        for row in shown["rows"]:
            for number, count in enumerate(row["counts"], start=1):
                places = [
                    i
                    for i, (masks, m) in enumerate(zip(row["masks"], row["maskable"], strict=True))
                    if m and number in masks
                ]
                assert len(places) == count
                between = range(places[0], places[-1])
                assert all(number in row["masks"][i] or not row["maskable"][i] for i in between)
    signal.signal(signal.SIGTERM, handler)
    sys.modules.pop("block_masking")


def test_options_in_the_readme_exist() -> None:
    pages = "".join(CliRunner().invoke(app, [*words, "--help"]).output for words in (*PAGES, ()))
    before, others = README.split("\n## Beside what there is\n")  # whose options are theirs
    own = before + others.partition("\n## ")[2]
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", own))
    assert len(mentioned) > 20
    assert {option for option in mentioned if not re.search(rf"{option}(?![\w-])", pages)} == set()


def test_the_readme_is_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 250


def test_settings_in_the_readme_exist() -> None:
    names = {*setting_names(PretrainSettings), *setting_names(FinetuneSettings)}
    groups = {name.split(".")[0] for name in names if "." in name}
    mentioned = {
        name for name in re.findall(r"`([a-z]+\.[a-z_.]+)[`=]", README) if name.split(".")[0] in groups
    }
    assert mentioned
    free = "masking.options."  # a strategy's own names come after it
    assert {name for name in mentioned if name not in names and not name.startswith(free)} == set()


@pytest.mark.parametrize(
    ("page", "least"), [("README.md", 8), ("tests/SURVIVES.md", 20)], ids=["promises", "survives"]
)
def test_what_is_promised_is_held_by_tests_that_there_are(page: str, least: int) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    held = re.findall(r"^\| .*`([a-z_/]+\.py)::([a-z_0-9]+)` \|$", text, flags=re.MULTILINE)
    assert len(held) >= least
    assert text.count(".py::") == len(held)
    for path, name in held:
        tests = (ROOT / "tests" / path).read_text(encoding="utf-8")
        assert re.search(rf"^ *def {name}\(", tests, flags=re.MULTILINE), (path, name)


def test_links_lead_somewhere() -> None:
    pages = [
        *ROOT.glob("*.md"),
        *(path for top in (".github", "configs", "tests") for path in (ROOT / top).rglob("*.md")),
    ]
    assert len(pages) > 3
    for page in pages:
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == [], page


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.name)
def test_the_papers_experiments_can_be_planned(path: Path, tiny_store: Path, tmp_path: Path) -> None:
    """Each comparison as it stands, on a tiny store: all but training, and with a preset for the checkpoint."""
    given = {
        "out": str(tmp_path / "compared"),
        "only": ["coverage"],
        "run": {"data": {"stores": [str(tiny_store)]}, "model": {"checkpoint": None, "name": "bert-tiny"}},
    }
    text = path.read_text(encoding="utf-8")
    assert "Reconstructed from the paper's abstract" in text and "Assumptions:" in text
    tree = read_yaml(path, CompareSettings)  # checks all of it
    tree.pop("downstream", None)
    compare_masks(build(CompareSettings, tree, given))
    assert (tmp_path / "compared" / "report.html").is_file()
