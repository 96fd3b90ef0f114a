"""Pairs of texts in models of as many token types as there are, by tokenizers that give types and others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from fmlm_cli.corpus.tokenizer.loading import save_tokenizer
from fmlm_cli.hub import quiet
from fmlm_cli.model.build import save_model, tokenizer_for
from tests.model.families import MASKED_LM_TYPES, small_config, small_model

TYPES = "token_type_ids"
REFUSED = ("perceiver", "tapas", "modernvbert", "ultravbert")  # no masked LMs of fmlm's: a test says so


def made(family: str, types: int | None, vocabulary: int) -> PreTrainedModel:
    """A small model of so many types; None: of the family's own number."""
    config = small_config(family)
    config.vocab_size = vocabulary
    if types is not None:
        config.type_vocab_size = types
    with quiet():
        return small_model(config)


def stock_pair(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Any:
    """What the stock classes make of a pair of texts, from what fmlm saves."""
    with quiet():
        save_model(model, folder, {})
        save_tokenizer(tokenizer_for(model, tokenizer), folder)
        inputs = AutoTokenizer.from_pretrained(folder)("the water", "a long river", return_tensors="pt")
        with torch.no_grad():
            outputs = AutoModel.from_pretrained(folder).eval()(**inputs)
    assert outputs[0].isfinite().all()
    return inputs


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
@pytest.mark.parametrize("family", [family for family in MASKED_LM_TYPES if family not in REFUSED])
def test_the_stock_pair_call_works(
    family: str,
    kind: str,
    wordpiece_tokenizer: PreTrainedTokenizerFast,
    bpe_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    tokenizer = wordpiece_tokenizer if kind == "wordpiece" else bpe_tokenizer
    stock_pair(made(family, None, len(tokenizer)), tokenizer, tmp_path)


@pytest.mark.parametrize("types", [1, 2, 3])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "albert", "xlm-roberta-xl"])
def test_types_are_given_where_the_model_has_both(
    family: str, types: int, wordpiece_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    inputs = stock_pair(made(family, types, len(wordpiece_tokenizer)), wordpiece_tokenizer, tmp_path)
    assert (TYPES in inputs) == (types > 1)
    assert wordpiece_tokenizer.model_input_names[1] == TYPES  # the tokenizer itself stays as it is


def test_a_type_for_padding_counts_too(wordpiece_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """XLNet's kind: padding is of a type of its own."""
    for types in (2, 3, 4):
        tokenizer = tokenizer_for(made("bert", 2, len(wordpiece_tokenizer)), wordpiece_tokenizer)
        tokenizer._pad_token_type_id = 3
        fitted = tokenizer_for(made("bert", types, len(wordpiece_tokenizer)), tokenizer)
        assert (TYPES in fitted.model_input_names) == (types == 4)
