"""How deep every parameter lies, and freezing by depth."""

import re

import pytest
import torch
from transformers import PreTrainedModel

from fmlm_cli.errors import UserError
from fmlm_cli.hub import quiet
from fmlm_cli.model.layers import depths, freeze, head_parameters
from fmlm_cli.model.masked_lm import MaskedLM
from tests.model.families import FAMILIES, LENGTH, MASKED_LM_TYPES, masked_logits, small_config, small_model

LAYERS = {name: 4 if name == "modernbert" else 2 for name in FAMILIES}
LAYERED = [name for name in FAMILIES if name != "albert"]


def small(family: str) -> PreTrainedModel:
    return small_model(FAMILIES[family]())


def layer_in(name: str) -> int | None:
    """The layer that a parameter's name tells."""
    found = re.search(r"\.layers?\.(\d+)\.", name)
    return int(found[1]) if found else None


@pytest.mark.parametrize("family", LAYERED)
def test_depths_are_the_layers_in_the_names(family: str) -> None:
    model, number = small(family), LAYERS[family]
    depth = depths(model)
    assert depth.keys() == dict(model.named_parameters()).keys()
    assert set(depth.values()) - {number + 1} == set(range(number + 1))
    for name, at in depth.items():
        layer = layer_in(name)
        if layer is not None:
            assert at == layer + 1, name
        elif (
            name.startswith("lm_head.decoder.weight") and at == 0
        ):  # named before the embeddings that it is tied to
            assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
        elif not name.startswith(model.base_model_prefix + "."):
            assert at == number + 1, name
        else:
            before = "embeddings" in name and "rel_embeddings" not in name
            assert at == (0 if before or "embed_tokens" in name else number), name


def test_albert_shares_its_layers() -> None:
    model = small("albert")
    depth = depths(model)
    assert {at for name, at in depth.items() if name.startswith("albert.encoder.")} == {2}
    assert {at for name, at in depth.items() if name.startswith("albert.embeddings.")} == {0}
    assert {at for name, at in depth.items() if name.startswith("predictions.")} == {3}
    with pytest.raises(UserError, match=r"model\.freeze 0: the layers of 'albert' share their weights"):
        freeze(model, ["0"])
    assert all(p.requires_grad for p in model.parameters())
    assert all(".embeddings." in name for name in freeze(model, ["embeddings"]))


def test_xlm_has_its_layers_in_several_lists() -> None:
    model = small_model(small_config("xlm"))
    depth = depths(model)
    for part in ("attentions", "layer_norm1", "ffns", "layer_norm2"):
        assert {at for name, at in depth.items() if f".{part}.1." in name} == {2}
    assert depth["transformer.position_embeddings.weight"] == depth["transformer.layer_norm_emb.weight"] == 0


@pytest.mark.parametrize("model_type", MASKED_LM_TYPES)
def test_every_type_in_transformers_has_depths(model_type: str) -> None:
    if model_type in ("bart", "mbart", "mvp", "modernvbert", "ultravbert", "perceiver"):
        pytest.skip("never trained here")
    with quiet():
        model = small_model(small_config(model_type))
    depth = depths(model)
    words = next(n for n, p in model.named_parameters() if p is model.get_input_embeddings().weight)
    assert depth[words] == 0
    assert depth.keys() == dict(model.named_parameters()).keys()
    assert {name for name, at in depth.items() if at == max(depth.values())} >= set(head_parameters(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_is_what_lies_outside_the_base_model_and_is_not_tied(family: str) -> None:
    model = small(family)
    head = head_parameters(model)
    depth = depths(model)
    assert head == [name for name, at in depth.items() if at == LAYERS[family] + 1]
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    decoder = [name for name, p in model.named_parameters() if p is model.get_output_embeddings().weight]
    assert set(decoder) <= set(depth)
    assert (decoder[0] in head) is not tied


@pytest.mark.parametrize("family", LAYERED)
@pytest.mark.parametrize(
    ("parts", "chosen"),
    [
        (["embeddings"], {0}),
        (["0"], {1}),
        (["0-1"], {1, 2}),
        (["embeddings", "1"], {0, 2}),
        ([" 0-0 ", "0", "embeddings"], {0, 1}),
        ([], set()),
    ],
)
def test_what_is_frozen_gets_no_gradient(family: str, parts: list[str], chosen: set[int]) -> None:
    model = small(family)
    frozen = freeze(model, parts)
    assert frozen == [name for name, at in depths(model).items() if at in chosen]
    ids = torch.arange(5, 5 + LENGTH)[None]
    logits = masked_logits(MaskedLM(model), ids, ids - 5, torch.ones_like(ids), torch.arange(4), alone=True)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad is (name not in frozen)
        assert name not in frozen or parameter.grad is None


def test_the_head_can_be_frozen_and_stays_what_it_is_without_parameters_of_its_own() -> None:
    model = small("bert")
    assert freeze(model, ["head"]) == head_parameters(model) != []
    assert all(p.requires_grad for p in model.base_model.parameters())
    config = FAMILIES["bert"]()
    tied = small_model(config)
    tied.cls = tied.get_output_embeddings()
    tied.cls.bias = None
    assert head_parameters(tied) == freeze(tied, ["head"]) == []


def test_a_decoder_tied_to_frozen_embeddings_is_frozen() -> None:
    model = small("bert")
    assert "bert.embeddings.word_embeddings.weight" in freeze(model, ["embeddings"])
    assert not model.get_output_embeddings().weight.requires_grad


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["embedding"], "unknown part of a model 'embedding': did you mean 'embeddings'?"),
        (["tail"], "unknown part of a model 'tail': known are embeddings, head, layers"),
        (["-1"], "unknown part of a model '-1'"),
        ([""], "unknown part of a model ''"),
        (["2"], "model.freeze 2: the model has layers 0 to 1"),
        (["0-2"], "model.freeze 0-2: the model has layers 0 to 1"),
        (["1-0"], "model.freeze 1-0: the range runs backwards; write 0-1"),
        (["embeddings", "0-1", "head"], "model.freeze embeddings, 0-1, head: nothing would be left to train"),
    ],
)
def test_parts_that_there_are_not_are_refused(parts: list[str], message: str) -> None:
    model = small("bert")
    with pytest.raises(UserError, match=re.escape(message)):
        freeze(model, parts)
    assert all(p.requires_grad for p in model.parameters())
