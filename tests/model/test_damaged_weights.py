"""Weights that are no numbers: refused by name wherever they are loaded, and never taken for a property."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

from fmlm_cli.errors import UserError
from fmlm_cli.model.classification.first_token import check_outputs
from fmlm_cli.model.classifier import EncoderCheckpoint
from fmlm_cli.model.isolation import choose_backend, isolates_documents
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.tensors import not_finite
from tests.model.checkpoints import BERT, MASKED_LMS, by_kind, load, refused, saved
from tests.model.families import FAMILIES, LENGTH, small_model

UNUSED = "a.tensor.that.finds.no.place"


def with_value(folder: Path, kind: str, name: str, value: float, dtype: torch.dtype = torch.float32) -> None:
    """Set the last number of one of a checkpoint's tensors."""
    path = folder / ("model.safetensors" if kind == "safetensors" else "pytorch_model.bin")
    tensors = load_file(path) if kind == "safetensors" else torch.load(path, weights_only=True)
    tensors = {key: tensor.clone().to(dtype) for key, tensor in {**tensors, UNUSED: torch.zeros(3)}.items()}
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path) if kind == "safetensors" else torch.save(tensors, path)


@by_kind
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("model", MASKED_LMS, ids=lambda model: type(model).__name__)
def test_no_tensor_of_a_checkpoint_may_hold_what_is_no_number(
    model: BertForMaskedLM, value: float, kind: str, tmp_path: Path
) -> None:
    for name in (*dict(model.named_parameters()), UNUSED):
        saved(model, tmp_path, kind)
        with_value(tmp_path, kind, name, value)
        for said in (refused(tmp_path), refused_as_encoder(tmp_path)):
            assert f"its weights are damaged ({name} holds NaN or infinity)" in said


def refused_as_encoder(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        EncoderCheckpoint.read(folder, name="given")
    return str(caught.value)


def test_what_float32_cannot_hold_is_no_number_either(tmp_path: Path) -> None:
    saved(MASKED_LMS[0], tmp_path)
    with_value(tmp_path, "safetensors", UNUSED, 1e300, torch.float64)
    assert f"({UNUSED} holds NaN or infinity)" in refused(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_largest_numbers_of_each_type_are_loaded(dtype: torch.dtype, tmp_path: Path) -> None:
    largest = min(torch.finfo(dtype).max, torch.finfo(torch.float32).max)
    saved(MASKED_LMS[0], tmp_path)
    with_value(tmp_path, "safetensors", "bert.embeddings.word_embeddings.weight", -largest, dtype)
    assert load(tmp_path).model.bert.embeddings.word_embeddings.weight[-1, -1] == -largest


numbers = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(st.lists(st.lists(numbers, max_size=5), max_size=5))
def test_the_first_that_is_not_finite_is_named(values: list[list[float]]) -> None:
    tensors = {str(i): torch.tensor(row, dtype=torch.float32) for i, row in enumerate(values)}
    wanted = next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)
    assert not_finite({"whole": torch.tensor([1, 2]), **tensors}) == wanted


# ---------------------------------------------------------------- finite weights, outputs that are not


def overflowing(first: int = 0) -> BertForMaskedLM:
    """A model whose outputs overflow in rows that are longer than `first`."""
    model = (
        BertForMaskedLM(BertConfig(**BERT.to_diff_dict())) if not first else small_model(FAMILIES["bert"]())
    )
    with torch.no_grad():
        model.bert.embeddings.position_embeddings.weight[first] = 3e38
    return model.eval()


def test_a_model_whose_outputs_overflow_is_refused() -> None:
    with pytest.raises(UserError, match=r"^this 'bert' gives outputs that are not finite .*far too large"):
        MaskedLM(overflowing())


def test_a_probe_does_not_take_not_finite_for_unequal() -> None:
    """In short rows all is well; in longer ones documents would seem to be seen by each other."""
    model = MaskedLM(overflowing(first=12))
    assert isolates_documents(model, 12)
    for probe in (isolates_documents, lambda *it: choose_backend(it[0], torch.device("cpu"), it[1])):
        with pytest.raises(UserError, match="outputs that are not finite"):
            probe(model, LENGTH)


def test_a_classifier_whose_outputs_overflow_is_refused(tmp_path: Path) -> None:
    def classifier(model: BertForMaskedLM, folder: str) -> None:
        encoder = EncoderCheckpoint.read(saved(model, tmp_path / folder), name="given")
        check_outputs(encoder.classifier(["no", "yes"], seed=0).model)

    classifier(MASKED_LMS[0], "whole")
    with pytest.raises(UserError, match="outputs that are not finite"):
        classifier(overflowing(), "overflowing")
