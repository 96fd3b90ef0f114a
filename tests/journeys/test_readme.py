"""The commands and the Python of the README run as they stand, scaled down, in one folder, one after the other."""

from pathlib import Path
from typing import TYPE_CHECKING

from tests.journeys import made
from tests.journeys.pages import Scaling, execute

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[2]
TINY_RACE = (
    "--budget 10-steps --set run.batch.size=4 --set run.sequence_length=64 --set run.evaluation.max_rows=8 "
    "--set run.model.name=bert-tiny"
)
TINY_RUN = "--steps 2 --set batch.size=4 --set sequence_length=64 --set evaluation.max_rows=8"
SMALL = Scaling(
    {
        "corpus/*.txt.gz": "corpus/*.txt",
        "--vocab-size 16384": "--vocab-size 300",
        "--vocab-size 16000": "--vocab-size 300",
        "--model bert-mini --masking fully-explored --epochs 14": f"--model bert-tiny {TINY_RUN}",
        "--data papers-store --epochs 7": f"--data papers-store {TINY_RUN}",
        "--dev dev.jsonl": "--dev dev.jsonl --seeds 2 --epochs 1",
        "--model bert-mini": "",
        "--seeds 5 --budget 7-epochs": f"--seeds 2 --only coverage,race {TINY_RACE}",
        "random,block_masking:Block --budget 7-epochs": f"random,block_masking:Block --only coverage,race --seeds 2 {TINY_RACE}",
        "--max-minutes 230": f"--max-minutes 230 --set model.name=bert-tiny {TINY_RUN}",
        '"budget.steps": 1000': '"budget.steps": 2, "model.name": "bert-tiny", "batch.size": 2',
    }
)


def test_readme(bpe_tokenizer: "PreTrainedTokenizerFast", tmp_path: Path) -> None:
    for name in ("corpus", "papers", "mytext"):
        made.text_files(tmp_path / name)
    made.roberta(tmp_path / "roberta-base", bpe_tokenizer)
    made.labelled_set(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    ran = execute(ROOT / "README.md", tmp_path, SMALL)
    assert len(ran) > 15
    assert (tmp_path / "compared" / "report.html").is_file()
    assert (tmp_path / "loss.png").is_file()
