"""Attention backends are held to the isolation probe; layouts keep what they are given."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fmlm_cli.model.attention import BACKENDS, AttentionBackend, MaskOnRows
from fmlm_cli.model.isolation import choose_backend, isolates_documents
from fmlm_cli.model.layouts import LAYOUTS, as_rows
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.shared.limits import resolve_packing
from tests.model.backends import Leaking, OnePositionOff, WideWindow
from tests.model.families import FAMILIES, LENGTH, small_config, small_model

CPU = torch.device("cpu")
WRONG = [("bert", Leaking), ("roberta", OnePositionOff), ("modernbert", WideWindow), ("modernbert", Leaking)]


class Failing(MaskOnRows):
    """Takes no model at all."""

    name = "failing"

    def __init__(self, pretrained: Any) -> None:
        raise RuntimeError("no such kernel")


def model_of(family: str) -> MaskedLM:
    return MaskedLM(small_model(small_config(family)))


@pytest.mark.parametrize("backend", BACKENDS)
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
