"""Attention backends are held to the isolation probe; layouts keep what they are given."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fmlm_cli.model import isolation
from fmlm_cli.model.attention import BACKENDS, BY_NAME, AttentionBackend, DocumentByDocument, MaskOnRows
from fmlm_cli.model.isolation import choose_backend, isolates_documents
from fmlm_cli.model.layouts import LAYOUTS, as_rows
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.shared.limits import resolve_packing
from tests.model.backends import (
    FlatWide,
    Leaking,
    OnePositionOff,
    Rounded,
    RoundedLeaking,
    RoundedWide,
    WideWindow,
)
from tests.model.families import FAMILIES, LENGTH, small_config, small_model

CPU = torch.device("cpu")
ON_CPU = (MaskOnRows, DocumentByDocument)
IGNORE_BOUNDS = ("deberta", "deberta-v2", "mpnet")  # families with an attention of their own
WRONG = [("bert", Leaking), ("roberta", OnePositionOff), ("modernbert", WideWindow), ("modernbert", Leaking)]


class Failing(MaskOnRows):
    """Takes no model at all."""

    name = "failing"

    def __init__(self, pretrained: Any) -> None:
        raise RuntimeError("no such kernel")


def model_of(family: str) -> MaskedLM:
    return MaskedLM(small_model(small_config(family)))


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "deberta", "albert"])
def test_a_backend_is_chosen_where_the_probe_finds_documents_apart(
    family: str, backend: type[AttentionBackend]
) -> None:
    model = model_of(family)
    bound = copy.deepcopy(model)
    bound.attend_by(backend)
    apart = choose_backend(model, CPU, LENGTH, (backend,)) is backend
    assert apart is isolates_documents(bound, LENGTH)
    assert backend.layout in LAYOUTS


def test_backends_have_names_of_their_own() -> None:
    assert len({backend.name for backend in BACKENDS}) == len(BACKENDS)
    assert {name: backend.name for name, backend in BY_NAME.items()} == {name: name for name in BY_NAME}
    assert {*BACKENDS} < {*BY_NAME.values()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_is_right_where_a_family_passes_bounds_on(family: str) -> None:
    found = choose_backend(model_of(family), CPU, LENGTH, (DocumentByDocument,))
    assert found is (None if family in IGNORE_BOUNDS else DocumentByDocument)


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b is not MaskOnRows])
def test_kernels_of_a_gpu_are_not_tried_on_a_cpu(backend: type[AttentionBackend]) -> None:
    assert backend.obstacle(model_of("bert").pretrained, CPU, torch.bfloat16) == "it needs CUDA"


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_sixteen_bits_are_no_leak_and_hide_none(family: str) -> None:
    model = model_of(family)
    assert choose_backend(model, CPU, LENGTH, (RoundedLeaking,)) is None
    assert choose_backend(model, CPU, LENGTH, (RoundedLeaking, Rounded)) is Rounded
    assert not isolates_documents(model, LENGTH, backend=RoundedLeaking)


def test_sixteen_bits_hide_no_road_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a fresh model attention changes logits by little, and what it sees by less than 16 bits may."""
    config = small_config("modernbert")
    config.initializer_range, config.hidden_size = 0.02, 64
    model = MaskedLM(small_model(config))
    assert choose_backend(model, CPU, LENGTH, (Rounded,)) is Rounded
    assert isolates_documents(model, LENGTH, backend=RoundedWide)
    monkeypatch.setattr(isolation, "DocumentByDocument", FlatWide)  # the reference goes that road too
    assert choose_backend(model, CPU, LENGTH, (RoundedWide,)) is None


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_how_a_model_attends_is_not_saved_and_does_not_stay(family: str, tmp_path: Path) -> None:
    model = model_of(family)
    before, own = model.pretrained.config.to_dict(), model.pretrained.config._attn_implementation
    model.attend_by(DocumentByDocument)
    seen = []
    model.pretrained.base_model.register_forward_hook(
        lambda module, *_: seen.append(module.config._attn_implementation)
    )
    ids, ones = np.arange(5, 5 + LENGTH)[None], np.ones((1, LENGTH), np.int64)
    model(**LAYOUTS["flat"](ids, np.arange(LENGTH)[None], ones, np.arange(3)))
    assert seen == [DocumentByDocument.implementation]
    assert model.pretrained.config.to_dict() == before
    assert model.pretrained.config._attn_implementation == own
    model.pretrained.save_pretrained(tmp_path)
    assert "fmlm" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_that_keeps_documents_apart_gets_a_backend(family: str) -> None:
    assert choose_backend(model_of(family), CPU, LENGTH) is MaskOnRows


@pytest.mark.parametrize("family", ["fnet", "convbert", "xlm"])
def test_a_family_that_cannot_keep_documents_apart_gets_none(family: str) -> None:
    model, told = model_of(family), []
    assert choose_backend(model, CPU, LENGTH) is None
    assert resolve_packing("documents", model, LENGTH, told.append) == "none"
    assert len(told) == 1
    assert type(model.attention) is MaskOnRows


@pytest.mark.parametrize(("family", "wrong"), [*WRONG, ("bert", Failing)])
def test_a_backend_that_leaks_is_passed_over(family: str, wrong: type[MaskOnRows]) -> None:
    model = model_of(family)
    attention, modules = model.attention, list(model.named_modules())
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]
    assert choose_backend(model, CPU, LENGTH, (wrong,)) is None
    assert choose_backend(model, CPU, LENGTH, (wrong, MaskOnRows)) is MaskOnRows
    assert model.attention is attention  # tried on copies
    assert list(model.named_modules()) == modules
    assert [len(module._forward_pre_hooks) for module in model.modules()] == hooks


@pytest.mark.parametrize(("family", "wrong"), WRONG)
def test_packing_leaves_the_model_with_the_backend_that_was_found(
    family: str, wrong: type[MaskOnRows], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MaskedLM(small_model(FAMILIES[family]()), wrong)
    assert not isolates_documents(model, LENGTH)
    assert resolve_packing("concat", model, LENGTH, print) == "concat"
    assert type(model.attention) is wrong  # one segment to a row: nothing to keep apart
    assert resolve_packing("documents", model, LENGTH, print) == "documents"
    assert type(model.attention) is MaskOnRows
    assert isolates_documents(model, LENGTH)


def test_deberta_attends_by_a_mask_again_after_another_backend() -> None:
    model = model_of("deberta")
    for backend in (Leaking, MaskOnRows, MaskOnRows):
        model.attend_by(backend)
        assert type(model.attention) is backend
        assert isolates_documents(model, LENGTH) is (backend is MaskOnRows)


@given(
    segments=arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.integers(0, 3)),
    seed=st.integers(0, 99),
)
def test_rows_are_given_as_they_are(segments: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids, positions = rng.integers(5, 50, (2, *segments.shape))
    masked = np.flatnonzero(rng.random(segments.size) < 0.3)
    inputs = as_rows(ids, positions, segments, masked)
    alone = all(len(set(row.tolist()) - {0, 1}) == 0 for row in segments)
    assert inputs.keys() == {"input_ids", "position_ids", "segments", "masked_index", "alone"}
    assert inputs["alone"] is alone
    assert (inputs["segments"] is None) is (alone and 0 not in segments)
    shown = {"input_ids": ids, "position_ids": positions, "segments": segments, "masked_index": masked}
    for name, wanted in shown.items():
        assert inputs[name] is None or (inputs[name].numpy() == wanted).all()
