"""Presets of other families than BERT: the published shapes, and that each of them trains."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fmlm_cli.masking import get_strategy
from fmlm_cli.model import build
from fmlm_cli.model.build import VocabularyFacts, build_model, longest_sequence, parameter_counts
from fmlm_cli.model.isolation import choose_backend
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.model.presets import PRESETS
from fmlm_cli.objectives.masked_lm import MaskedLanguageModelling, unigram_losses
from tests.objectives.made_rows import MASK, ORDINARY, VOCABULARY, make_rows

OTHERS = [name for name, preset in PRESETS.items() if preset.family != "bert"]


# Parameters of the published checkpoints' masked LMs, tied weights once: distilbert-base-uncased (66 M),
# roberta-base (125 M), ModernBERT-base (149 M); microsoft/deberta-v3-base has 86 M beside 98 M embeddings.
@pytest.mark.parametrize(
    ("name", "vocabulary", "pad", "total", "positions"),
    [
        ("distilbert-base", 30522, 0, 66_985_530, 512),
        ("roberta-base", 50265, 1, 124_697_433, 512),
        ("modernbert-base", 50368, 50283, 149_655_232, 8192),
        ("deberta-v3-base", 128100, 0, 184_551_780, 512),
    ],
)
def test_presets_have_the_published_sizes(
    name: str, vocabulary: int, pad: int, total: int, positions: int
) -> None:
    with torch.device("meta"):
        model = build_model(name, VocabularyFacts(vocabulary, pad, 1, 2), dropout=0.0, seed=0)
    assert parameter_counts(model)["total"] == total
    assert longest_sequence(model) == positions


def test_every_preset_of_another_family_has_its_published_size_tested() -> None:
    (cases,) = (mark.args[1] for mark in test_presets_have_the_published_sizes.pytestmark)
    assert [case[0] for case in cases] == OTHERS


def test_modernberts_layers_attend_locally_but_for_every_third() -> None:
    config = build.read_config("modernbert-base")
    full = [kind == "full_attention" for kind in config.layer_types]
    assert full == [layer % 3 == 0 for layer in range(22)]
    assert config.local_attention == 128


def scaled_down(name: str, monkeypatch: pytest.MonkeyPatch) -> MaskedLM:
    """A preset with two layers, or as many as it has kinds of, of width 32."""
    preset = PRESETS[name]
    shape: dict[str, Any] = {**(preset.shape or {}), "initializer_range": 0.1}
    if "intermediate_size" in shape:
        shape["intermediate_size"] = 48
    if "local_attention" in shape:
        shape["local_attention"] = 6
    small = replace(preset, layers=4 if name.startswith("modern") else 2, hidden=32, heads=2, shape=shape)
    monkeypatch.setattr(build, "PRESETS", {name: small})
    facts = VocabularyFacts(VOCABULARY, 0, 1, 2)
    return MaskedLM(build_model(name, facts, dropout=0.0, seed=0))


@pytest.mark.parametrize("name", OTHERS)
def test_a_step_of_each_preset_learns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In rows that several documents share, by a backend that keeps them apart."""
    model = scaled_down(name, monkeypatch)
    backend = choose_backend(model, torch.device("cpu"), 16)
    assert backend is not None
    model.attend_by(backend)
    rows = make_rows([[5, 5, 6], [16], [7, 9]])
    mlm = MaskedLanguageModelling(
        get_strategy("fully-explored", segments=3),
        0,
        MASK,
        ORDINARY,
        unigram_losses(np.ones(VOCABULARY, np.uint64)),
        layout=model.attention.layout,
    )
    (batch,) = mlm.prepare(rows, 0, 8)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    before = copy.deepcopy(dict(model.named_parameters()))
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = mlm.loss(model, batch)
        loss.backward()
        losses.append(loss.item())
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
    assert losses[1] < losses[0]
    untouched = [key for key, p in model.named_parameters() if torch.equal(p, before[key])]
    assert untouched == []
