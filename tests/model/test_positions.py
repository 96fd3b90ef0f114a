"""Models with more positions: what they keep, and that they run on longer rows."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, PreTrainedModel

from fmlm_cli.errors import UserError
from fmlm_cli.model.adapting.positions import extend_positions, stretched
from fmlm_cli.model.build import longest_sequence, position_offset, save_model
from fmlm_cli.model.isolation import isolates_documents
from fmlm_cli.model.masked_lm import MaskedLM
from tests.model.families import FAMILIES, POSITIONS, VOCABULARY, masked_logits, small_config, small_model

LEARNED = ["bert", "roberta", "xlm-roberta", "camembert", "mpnet", "albert", "electra", "distilbert"]
WITHOUT = [name for name in ("deberta-v2", "eurobert", "nomic_bert") if name in FAMILIES]
LONGER = 80


def small(family: str) -> PreTrainedModel:
    return small_model(FAMILIES[family]()).eval()


def table(model: PreTrainedModel) -> Tensor:
    found = [p for name, p in model.named_parameters() if name.endswith("position_embeddings.weight")]
    assert len(found) == 1
    return found[0].detach()


def tokens(rows: int, length: int) -> Tensor:
    return torch.randint(5, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(0))


def same_but(extended: PreTrainedModel, model: PreTrainedModel, changed: str) -> None:
    before, after = model.state_dict(), extended.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before if not name.endswith(changed))


@pytest.mark.parametrize("family", LEARNED)
def test_the_table_is_interpolated_and_all_else_kept(family: str) -> None:
    model = small(family)
    before = copy.deepcopy(model.state_dict())
    extended, told = extend_positions(model, LONGER)
    assert told == "48 to 80 positions: the learned positions stretched by linear interpolation"
    assert longest_sequence(extended) == LONGER
    assert position_offset(extended) == position_offset(model) == (2 if table(model).shape[0] == 50 else 0)
    assert not extended.training
    old, new = table(model).numpy(), table(extended).numpy()
    kept = position_offset(model)
    assert np.array_equal(new[:kept], old[:kept])
    assert np.array_equal(new[[kept, -1]], old[[kept, -1]])
    places = np.linspace(0, POSITIONS - 1, LONGER)
    wanted = np.stack([np.interp(places, np.arange(POSITIONS), column) for column in old[kept:].T], axis=1)
    np.testing.assert_allclose(new[kept:], wanted, rtol=1e-6, atol=1e-7)
    same_but(extended, model, "position_embeddings.weight")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert longest_sequence(model) == POSITIONS


@pytest.mark.parametrize("family", [*LEARNED, "modernbert"])
def test_longer_rows_run_packed_and_saved(family: str, tmp_path: Path) -> None:
    extended, _ = extend_positions(small(family), LONGER)
    ids = tokens(2, LONGER)
    with torch.no_grad():
        stock = extended(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert stock.isfinite().all()
    save_model(extended, tmp_path, {})
    again = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert longest_sequence(again) == LONGER
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits, stock, atol=1e-5, rtol=0)
    model = MaskedLM(extended).eval()
    index = torch.tensor([0, 50, LONGER - 1, LONGER + 60])
    with torch.no_grad():
        place = torch.arange(LONGER).expand(2, -1)
        got = masked_logits(model, ids, place, torch.ones_like(ids), index, alone=False)
    torch.testing.assert_close(got, stock.flatten(0, 1)[index], atol=1e-5 * float(stock.abs().max()), rtol=0)
    assert isolates_documents(model, LONGER)


@pytest.mark.parametrize("family", [*LEARNED, "modernbert", *WITHOUT])
def test_as_many_positions_as_there_are_change_nothing(family: str) -> None:
    model = small(family)
    extended, told = extend_positions(model, POSITIONS)
    assert extended is model
    assert told == "48 positions, as before"


def inverse_frequencies(theta: float, dimensions: int) -> Tensor:
    return torch.from_numpy(theta ** -(np.arange(0, dimensions, 2) / dimensions)).float()


@pytest.mark.parametrize(
    ("positions", "theta"), [(8 * POSITIONS, 160_000.0), (2 * POSITIONS, 10_000 * 2 ** (4 / 3))]
)
def test_modernbert_raises_the_rotary_base_of_its_global_layers(
    positions: int, theta: float, tmp_path: Path
) -> None:
    """The published model went from 10,000 at 1,024 positions to 160,000 at eight times as many."""
    config = FAMILIES["modernbert"]()
    config.rope_parameters["full_attention"]["rope_theta"] = 10_000.0
    model = small_model(config).eval()
    extended, told = extend_positions(model, positions)
    assert told == f"48 to {positions} positions: rotary base of the global layers 10,000 to {theta:,.0f}"
    assert extended.config.max_position_embeddings == longest_sequence(extended) == positions
    same_but(extended, model, "-")
    save_model(extended, tmp_path, {})
    for one in (extended, AutoModelForMaskedLM.from_pretrained(tmp_path)):
        rope, rotary = one.config.rope_parameters, one.model.rotary_emb
        assert rope["full_attention"]["rope_theta"] == pytest.approx(theta)
        assert rope["sliding_attention"]["rope_theta"] == 10_000
        assert len(one.model.layers) == 4
        for kind, base in (("full_attention", theta), ("sliding_attention", 10_000.0)):
            in_use = getattr(rotary, f"{kind}_inv_freq")
            torch.testing.assert_close(in_use, inverse_frequencies(base, 8), rtol=1e-5, atol=0)
    assert model.config.rope_parameters["full_attention"]["rope_theta"] == 10_000
    assert model.config.max_position_embeddings == POSITIONS


@pytest.mark.parametrize("family", WITHOUT)
def test_families_without_learned_positions_are_refused(family: str) -> None:
    with pytest.raises(UserError, match=f"max_positions 80: '{family}' has no learned positions"):
        extend_positions(small(family), LONGER)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", *WITHOUT])
def test_fewer_positions_are_refused(family: str) -> None:
    with pytest.raises(UserError, match="max_positions 47 is below the model's 48"):
        extend_positions(small(family), 47)


def test_other_weights_that_grow_with_the_positions_are_refused() -> None:
    """DeBERTa's relative positions are as many as its absolute ones."""
    config = FAMILIES["deberta"]()
    config.position_biased_input = True
    with pytest.raises(UserError, match=r"other weights that depend on it \(deberta.encoder.rel_embeddings"):
        extend_positions(small_model(config), LONGER)


@pytest.mark.parametrize("family", ["yoso", "ibert", "luke", "longformer", "big_bird"])
def test_other_families_with_a_table_run_on_longer_rows(family: str) -> None:
    """YOSO has two rows before the first position without saying so."""
    model = small_model(small_config(family)).eval()
    extended, _ = extend_positions(model, LONGER)
    assert longest_sequence(extended) == LONGER
    first = [
        next(p for n, p in m.named_parameters() if n.endswith("position_embeddings.weight"))
        for m in (model, extended)
    ]
    assert torch.equal(first[0][[0, -1]], first[1][[0, -1]])
    kept = 2 if family == "yoso" else position_offset(model)
    assert torch.equal(first[0][: kept + 1], first[1][: kept + 1])
    with torch.no_grad():
        assert extended(input_ids=tokens(1, LONGER)).logits.isfinite().all()


def test_nothing_global_is_drawn_and_the_dtype_stays() -> None:
    model = small("bert").to(torch.bfloat16).train()
    state = torch.random.get_rng_state()
    extended, _ = extend_positions(model, LONGER)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert extended.dtype == torch.bfloat16
    assert extended.training


def test_attention_stays_the_chosen_one() -> None:
    chosen: dict[str, Any] = {"attn_implementation": "eager"}
    extended, _ = extend_positions(small_model(FAMILIES["bert"](), **chosen), LONGER)
    assert extended.config._attn_implementation == "eager"


def test_a_straight_line_stays_straight() -> None:
    line = torch.arange(5.0)[:, None]
    longer = stretched(line, 1, 10)
    assert longer[:, 0].tolist() == pytest.approx([0, *np.linspace(1, 4, 10)])
