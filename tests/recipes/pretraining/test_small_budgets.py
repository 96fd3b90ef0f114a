"""What is said of going on with too little: of passes, of text, and of what a tokenizer knows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import BertForMaskedLM

from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.events import ignore
from fmlm_cli.recipes.pretraining.planning.plan import plan_run
from fmlm_cli.recipes.pretraining.report.describe import FEW_PASSES, TINY_TEXT, cautions
from fmlm_cli.recipes.tokenize import HARDLY_KNOWN
from tests.conftest import MakeStore, generate_documents

Said = Callable[..., dict[str, str]]


@pytest.fixture
def said(small_encoder: Path, make_store: MakeStore, tmp_path: Path) -> Said:
    """`said(texts, **dotted names)`: the cautions about going on with these texts, by their codes."""

    def of(texts: list[str], **changed: Any) -> dict[str, str]:
        store = tmp_path / "store"
        if not store.exists():
            make_store(store, texts, texts[:1])
        fixed = {
            "data.stores": [str(store)],
            "model.checkpoint": str(small_encoder),
            "out": str(tmp_path / "run"),
            "budget.epochs": 14,
            "sequence_length": 32,
            "batch.size": 7,
        }
        plan = plan_run(build(PretrainSettings, nested({**fixed, **changed})), ignore)
        return {caution.code: caution.text for caution in cautions(plan)}

    return of


def test_a_tiny_text_is_said_with_what_helps(said: Said, small_encoder: Path) -> None:
    few = [" ".join(text.split()[:40]) for text in generate_documents(1)]
    text = said(few)[TINY_TEXT]
    assert "each predicted 2.0 times" in text  # by 14 passes of a seventh
    tokens, parameters = (
        int(text.split(end)[0].split()[-1].replace(",", "")) for end in (" tokens", " trained")
    )
    named = BertForMaskedLM.from_pretrained(small_encoder).named_parameters()  # tied ones once
    inside = sum(p.numel() for name, p in named if not name.endswith("embeddings.weight"))
    assert parameters == round(inside / tokens) > 100
    assert "fewer passes, --lora 8 or a lower optimizer.learning_rate" in text
    assert TINY_TEXT not in said(few, **{"budget.epochs": 3})  # which predict less than all of it
    assert TINY_TEXT not in said(few, **{"model.lora.rank": 1})
    # Each of the masks of a step predicts too.
    assert TINY_TEXT in said(few, **{"budget.epochs": 2, "masking.scope": "batch"})


def test_a_text_is_not_tiny_for_a_small_model(said: Said) -> None:
    assert TINY_TEXT not in said(generate_documents(60))


def test_rows_that_are_left_out_do_not_count(said: Said) -> None:
    assert TINY_TEXT in said(generate_documents(60), **{"data.max_rows": 2})


def test_few_passes_are_said(said: Said) -> None:
    texts = generate_documents(30)
    once = said(texts, **{"budget.epochs": 1})
    assert "act almost as random ones" in once[FEW_PASSES] and "data.max_rows" in once[FEW_PASSES]
    assert FEW_PASSES not in said(texts, **{"budget.epochs": 1, "masking.scope": "batch"})
    assert FEW_PASSES not in said(texts, **{"budget.epochs": 1, "masking.strategy": "random"})
    assert FEW_PASSES not in said(texts, **{"budget.epochs": 2.5})


def test_a_tokenizer_that_hardly_knows_the_text_is_said(said: Said) -> None:
    foreign = ["the \u0434\u043e\u043c \u0438 \u043b\u0435\u0441 \u0432\u043e\u0434\u0430 river " * 6]
    text = said(foreign)[HARDLY_KNOWN]
    assert "unknown and never predicted" in text and "made for such text would serve better" in text
