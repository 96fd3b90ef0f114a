"""What a finished model says of the lengths that it was trained on."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from fmlm_cli import storage
from fmlm_cli.recipes import pretraining
from tests.recipes.runs import Settings

pytestmark = pytest.mark.usefixtures("quick")


def says(final: Path) -> tuple[int, bool]:
    """The longest sequence by the saved tokenizer, and whether the card says that positions are untrained."""
    limit = AutoTokenizer.from_pretrained(final).model_max_length
    return limit, f"{limit} tokens: positions beyond were never trained" in (final / "README.md").read_text()


def test_final_says_the_length_that_was_trained(settings: Settings) -> None:
    def final(out: str, length: int, **changed: Any) -> Path:
        chosen = {"sequence_length": length, "budget.steps": 1, **changed}
        return pretraining.pretrain(settings(out, **chosen)).run.final

    assert says(final("whole", 32)) == (32, False)
    short = final("short", 16)
    assert says(short) == (16, True)
    from_short = {"model.checkpoint": str(short.parent)}
    assert says(final("shorter", 12, **from_short)) == (16, True)  # 16 were trained before
    assert says(final("longer", 24, **from_short)) == (24, True)
    assert says(final("extended", 32, **from_short, **{"model.max_positions": 64})) == (32, True)
    assert says(final("extended little", 12, **from_short, **{"model.max_positions": 64})) == (16, True)


def test_a_checkpoint_that_says_nothing_is_taken_to_be_trained_whole(settings: Settings) -> None:
    whole = pretraining.pretrain(settings(**{"budget.steps": 1})).run.final
    config = whole / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"model_max_length": 32', '"model_max_length": 1e30'))
    (whole / storage.HASHES).unlink()  # it was meant to be changed
    chosen = {"model.checkpoint": str(whole), "sequence_length": 12, "budget.steps": 1}
    assert says(pretraining.pretrain(settings("on", **chosen)).run.final) == (32, False)
    chosen |= {"model.max_positions": 64}
    assert says(pretraining.pretrain(settings("more", **chosen)).run.final) == (32, True)
