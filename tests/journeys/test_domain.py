"""domain.md comes true."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.journeys import made
from tests.journeys.pages import Scaling, execute

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAGE = Path(__file__).with_name("domain.md")
SMALL = Scaling(
    {
        "--budget 7-epochs": "--budget 12-steps --set batch.size=8 --set sequence_length=64 "
        "--set evaluation.every_steps=6 --set logging.every_steps=6",
        "--seeds 5": "--seeds 2 --epochs 1",
    }
)


@pytest.mark.slow
def test_domain(bpe_tokenizer: "PreTrainedTokenizerFast", tmp_path: Path) -> None:
    made.text_files(tmp_path / "my-text", files=1, between="\n")
    made.roberta(tmp_path / "roberta-base", bpe_tokenizer)
    made.labelled_set(tmp_path)
    execute(PAGE, tmp_path, SMALL)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "adapted" / "final" / "model.safetensors").is_file()
