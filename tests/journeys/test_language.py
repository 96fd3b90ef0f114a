"""language.md comes true."""

import json
from pathlib import Path

import pytest

from tests.journeys import made
from tests.journeys.pages import Scaling, execute

PAGE = Path(__file__).with_name("language.md")
SMALL = Scaling(
    {
        "--vocab-size 16000": "--vocab-size 300",
        "bert-mini": "bert-tiny",
        "--seeds 5": "--seeds 2",
        "--budget 14-epochs": "--budget 10-steps --set run.batch.size=4 --set run.sequence_length=64 "
        "--set run.evaluation.max_rows=8 --set run.evaluation.every_steps=5 --set variance.sequences=10 "
        "--set variance.checkpoints=[late] --set variance.corruptions=[race] --set variance.random=2",
        "--budget 28-epochs": "--budget 8-steps --set batch.size=4 --set sequence_length=64 "
        "--set evaluation.every_steps=4",
    }
)


@pytest.mark.slow
def test_language(tmp_path: Path) -> None:
    made.text_files(tmp_path / "my-language")
    execute(PAGE, tmp_path, SMALL)
    results = json.loads((tmp_path / "compared" / "results.json").read_text())
    assert [arm["name"] for arm in results["arms"]][:1] == ["random"] and results["seeds"] == [0, 1]
    assert (tmp_path / "compared" / "report.html").is_file()
    assert (tmp_path / "my-bert" / "final" / "model.safetensors").is_file()
