"""New token ids: nothing old changes, and a new one begins as the mean of its pieces."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, PreTrainedConfig

from fmlm_cli.errors import UserError
from fmlm_cli.model.adapting.vocabulary import extend_embeddings
from tests.model.families import FAMILIES, VOCABULARY, small_config, small_model


def _with(family: str, **settings: bool) -> Callable[[], PreTrainedConfig]:
    def make() -> PreTrainedConfig:
        config = FAMILIES[family]()
        config.update(settings)
        return config

    return make


# DeBERTa's newer head multiplies with the embeddings itself; ESM's has a bias beside its decoder.
MODELS = {
    **FAMILIES,
    "deberta-v2, newer head": _with("deberta-v2", legacy=False),
    "bert, untied": _with("bert", tie_word_embeddings=False),
    "modernbert, untied": _with("modernbert", tie_word_embeddings=False),
    "esm": lambda: small_config("esm"),
}
PIECES = {VOCABULARY: [7, 9], VOCABULARY + 1: [11], VOCABULARY + 2: [6, 12, 30, 6]}


@pytest.mark.parametrize("family", MODELS)
def test_old_logits_stay_and_new_ones_are_means(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(MODELS[family]()).eval()
    for parameter in model.parameters():
        if parameter.shape == (VOCABULARY,):
            torch.nn.init.normal_(parameter)
    shared = [p for p in model.state_dict().values() if p.shape[:1] == (VOCABULARY,)]
    ids = torch.randint(5, VOCABULARY, (2, 9))
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    with torch.no_grad():
        before = model(ids).logits
        state = torch.random.get_rng_state()
        extend_embeddings(model, VOCABULARY + 3, PIECES, seed=0)
        assert torch.equal(torch.random.get_rng_state(), state)
        after = model(ids).logits
    assert after.shape[-1] == VOCABULARY + 3 == model.config.vocab_size
    scale = float(before.abs().max())
    torch.testing.assert_close(after[..., :VOCABULARY], before, rtol=0, atol=1e-6 * scale)
    for new, parts in PIECES.items():
        torch.testing.assert_close(after[..., new], before[..., parts].mean(-1), rtol=0, atol=2e-6 * scale)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    grown = [p for p in model.state_dict().values() if p.shape[:1] == (VOCABULARY + 3,)]
    assert len(grown) == len(shared)
    assert len({p.data_ptr() for p in grown}) == len({p.data_ptr() for p in shared}), (
        "what is tied stays tied"
    )
    rows = model.get_input_embeddings().weight
    torch.testing.assert_close(rows[VOCABULARY], rows[[7, 9]].mean(0))
    if "lm_predictions.lm_head.weight" in model.state_dict():
        return  # transformers 5.17 cannot load DeBERTa's newer head, extended or not
    model.save_pretrained(tmp_path)
    again = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(ids).logits, after)


def test_rows_of_a_padded_vocabulary_are_used() -> None:
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(FAMILIES["bert"]()).eval()
    extend_embeddings(model, VOCABULARY - 2, {VOCABULARY - 3: [7, 9]}, seed=0)
    rows = model.get_input_embeddings().weight
    assert len(rows) == VOCABULARY
    torch.testing.assert_close(rows[VOCABULARY - 3], rows[[7, 9]].mean(0))


def test_rows_that_nothing_is_known_of_are_drawn_by_the_seed() -> None:
    rows = []
    for seed in (0, 0, 1):
        model = small_model(FAMILIES["bert"]())
        extend_embeddings(model, VOCABULARY + 2, {VOCABULARY + 1: [7]}, seed=seed)
        rows.append(model.get_input_embeddings().weight[VOCABULARY])
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    assert 0 < rows[0].abs().max() < 2


def test_half_precision_and_training_mode_are_kept() -> None:
    model = small_model(FAMILIES["bert"]()).bfloat16().train()
    extend_embeddings(model, VOCABULARY + 3, PIECES, seed=0)
    assert model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("model_type", ["mobilebert", "ibert"])
def test_a_model_that_cannot_grow_is_refused(model_type: str) -> None:
    model = small_model(small_config(model_type))
    with pytest.raises(UserError, match=f"a '{model_type}' model cannot be given new tokens"):
        extend_embeddings(model, VOCABULARY + 3, PIECES, seed=0)


def test_an_id_without_pieces_is_drawn_by_the_seed() -> None:
    def row(seed: int) -> torch.Tensor:
        torch.manual_seed(0)
        model = AutoModelForMaskedLM.from_config(FAMILIES["bert"]())
        extend_embeddings(model, VOCABULARY + 1, {VOCABULARY: []}, seed=seed)
        return model.get_input_embeddings().weight[VOCABULARY].detach()

    assert row(1).isfinite().all()
    assert torch.equal(row(1), row(1))
    assert not torch.equal(row(1), row(2))
