"""A classifier without padding: the logits and gradients of the stock forward on each sequence alone."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from fmlm_cli.hub import quiet
from fmlm_cli.model.attention import AttentionBackend, DocumentByDocument, MaskOnRows
from fmlm_cli.model.classification.sequence_classifier import (
    SequenceClassifier,
    classifies_alone,
    ready_classifier,
    sequence_inputs,
)
from tests.model.backends import FlatWide, Leaking, Rounded, RoundedLeaking
from tests.model.families import FAMILIES, LENGTH, VOCABULARY

CPU = torch.device("cpu")
ON_ROWS_ALONE = (
    "mpnet",
    "deberta",
    "deberta-v2",
    "nomic_bert",
)  # their attention or pooler knows no flat row
LENGTHS = np.array([LENGTH, 3, 11, 2, LENGTH - 1, 7])


def stock_model(family: str, **chosen: Any) -> PreTrainedModel:
    config = FAMILIES[family]()
    config.update({"num_labels": 3, **chosen})
    torch.manual_seed(0)
    with quiet():
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    return model.double().eval()


def made(types: bool) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    rng = np.random.default_rng(1)
    present = (np.arange(LENGTH) < LENGTHS[:, None]).astype(np.int64)
    ids = rng.integers(5, VOCABULARY, present.shape) * present
    return ids, (np.arange(LENGTH) > LENGTHS[:, None] // 2) * present if types else None, present


def gradients(model: PreTrainedModel, logits: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)) % 3, reduction="sum").backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


FLAT = [(family, DocumentByDocument, {}) for family in FAMILIES if family not in ON_ROWS_ALONE]
ROWS = [(family, MaskOnRows, {}) for family in FAMILIES]
POOLED = [("modernbert", DocumentByDocument, {"classifier_pooling": "mean"})] * ("modernbert" in FAMILIES)


@pytest.mark.parametrize(("family", "backend", "chosen"), [*ROWS, *FLAT, *POOLED])
def test_logits_and_gradients_are_those_of_single_sequences(
    family: str, backend: type[AttentionBackend], chosen: dict[str, Any]
) -> None:
    stock = stock_model(family, **chosen)
    ids, types, present = made(getattr(stock.config, "type_vocab_size", 0) > 1)
    model = ready_classifier(copy.deepcopy(stock), backend, CPU).eval()
    got = model(**sequence_inputs(backend.layout, ids, types, present))
    singly = []
    for row, length in enumerate(LENGTHS):
        alone = {"input_ids": torch.from_numpy(ids[row : row + 1, :length])}
        if types is not None:
            alone["token_type_ids"] = torch.from_numpy(types[row : row + 1, :length])
        singly.append(stock(**alone).logits)
    wanted = torch.cat(singly)
    # DeBERTa and the norms of others compute in float32 whatever the weights are.
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)
    expected = gradients(stock, wanted)
    found = gradients(model.pretrained, got)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flat_row_is_used_where_a_family_can(family: str) -> None:
    model = SequenceClassifier(stock_model(family))
    before = [len(module._forward_pre_hooks) for module in model.modules()]
    can = classifies_alone(model, LENGTH, backend=DocumentByDocument, device=CPU)
    assert can is (family not in ON_ROWS_ALONE)
    assert classifies_alone(model, LENGTH, backend=MaskOnRows)
    assert type(model.attention) is MaskOnRows  # tried on copies
    assert [len(module._forward_pre_hooks) for module in model.modules()] == before


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_sixteen_bits_are_no_leak_and_hide_none(family: str) -> None:
    model = SequenceClassifier(stock_model(family))
    assert classifies_alone(model, LENGTH, backend=Rounded)
    assert not classifies_alone(model, LENGTH, backend=RoundedLeaking)


def test_a_lost_window_is_seen() -> None:
    assert not classifies_alone(SequenceClassifier(stock_model("modernbert")), LENGTH, backend=FlatWide)


def test_one_sequence_to_a_row_needs_no_more_than_a_mask_of_padding() -> None:
    assert classifies_alone(SequenceClassifier(stock_model("bert")), LENGTH, backend=Leaking)


def test_padding_is_not_computed_on_a_flat_row() -> None:
    ids, _, present = made(False)
    model = ready_classifier(stock_model("bert"), DocumentByDocument, CPU)
    shapes: list[tuple[int, ...]] = []
    model.pretrained.bert.encoder.layer[0].register_forward_hook(lambda *x: shapes.append(x[1][0].shape))
    model(**sequence_inputs("flat", ids, None, present))
    tokens = int(LENGTHS.sum())
    [shape] = shapes
    assert shape[-2] >= tokens and shape[-2] - tokens < 64  # rounded up, so that shapes are few


def test_the_wrapped_model_is_called_as_before(tmp_path: Any) -> None:
    """What is asked of it directly, and saved, knows nothing of flat rows."""
    stock = stock_model("bert")
    ids, _, present = made(False)
    rows = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(present)}
    wanted = stock(**rows).logits
    model = SequenceClassifier(stock, DocumentByDocument)
    model(**sequence_inputs("flat", ids, None, present))
    assert torch.equal(model.pretrained(**rows).logits, wanted)
    model.pretrained.save_pretrained(tmp_path)
    assert "fmlm" not in (tmp_path / "config.json").read_text()
