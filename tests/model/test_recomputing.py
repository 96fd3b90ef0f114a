"""Layers that are computed again in the backward: the same gradients, dropout's draws included."""

import copy

import pytest
import torch
from torch import Tensor, nn

from fmlm_cli.errors import UserError
from fmlm_cli.model.adapting.dropout import draw_dropout_by_bits
from fmlm_cli.model.adapting.lora import add_lora
from fmlm_cli.model.attention import DocumentByDocument, MaskOnRows
from fmlm_cli.model.layers import layer_lists
from fmlm_cli.model.layerwise.recomputing import recompute_layers
from fmlm_cli.model.layouts import LAYOUTS
from fmlm_cli.model.masked_lm import MaskedLM
from tests.model.families import FAMILIES, LENGTH, VOCABULARY, small_config, small_model

ROWS = 3


def made(family: str, dropout: float) -> MaskedLM:
    config = small_config(family)
    for name in config.to_dict():
        if "dropout" in name and isinstance(getattr(config, name), float):
            setattr(config, name, dropout)
    model = MaskedLM(small_model(config)).train()
    draw_dropout_by_bits(model)
    return model


def gradients(model: MaskedLM, layout: str = "rows") -> dict[str, Tensor]:
    """Of a row of two documents and padding, and of others."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, VOCABULARY, (ROWS, LENGTH), generator=generator).numpy()
    segments = torch.ones(ROWS, LENGTH, dtype=torch.long)
    segments[:, 9:], segments[0, 20:] = 2, 0
    positions = torch.cat([torch.arange(9), torch.arange(LENGTH - 9)]).expand(ROWS, -1)
    index = torch.tensor([1, 4, 12, LENGTH + 3, LENGTH + 20, 2 * LENGTH + 7]).numpy()
    inputs = LAYOUTS[layout](ids, positions.numpy().copy(), segments.numpy(), index, ROWS * LENGTH)  # type: ignore[index]
    model.zero_grad()
    torch.manual_seed(3)
    model(**inputs).logits().float().square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def kept_bytes(model: MaskedLM) -> int:
    """What the forward keeps for the backward."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    ids = torch.randint(5, VOCABULARY, (ROWS, LENGTH))
    positions, segments = torch.arange(LENGTH).expand(ROWS, -1), torch.ones(ROWS, LENGTH).long()
    inputs = {"input_ids": ids, "position_ids": positions, "segments": segments, "alone": False}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**inputs, masked_index=torch.arange(3)).logits()
    return sum(kept.values())


def number_of_layers(model: MaskedLM) -> int:
    return sum(map(len, layer_lists(model.pretrained)))


def assert_same(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-6 * float(value.abs().max() + 1))


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "albert"])
def test_the_gradients_are_the_same_in_every_family(family: str) -> None:
    plain = made(family, 0.2)
    recomputed = copy.deepcopy(plain)
    recompute_layers(recomputed)
    wanted = gradients(plain)
    assert any(value.abs().max() > 0 for value in wanted.values())
    assert_same(gradients(recomputed), wanted)
    assert kept_bytes(recomputed) < kept_bytes(plain)
    assert [*recomputed.state_dict()] == [*plain.state_dict()]
    copied = copy.deepcopy(recomputed)
    assert all(module._compiled_call_impl is None for module in copied.modules())


def test_the_flat_layout_and_adapters() -> None:
    for backend, layout, adapted in ((DocumentByDocument, "flat", False), (MaskOnRows, "rows", True)):
        plain = made("bert", 0.2 if layout == "rows" else 0.0)
        plain.attend_by(backend)
        if adapted:
            add_lora(plain.pretrained, rank=2, alpha=4.0, dropout=0.1, seed=0)
            for parameter in plain.parameters():
                if parameter.requires_grad:
                    nn.init.normal_(parameter, std=0.3)
        recomputed = copy.deepcopy(plain)
        recompute_layers(recomputed)
        assert_same(gradients(recomputed, layout), gradients(plain, layout))


def test_what_runs_in_the_backward_is_each_layer_once_but_the_last() -> None:
    """Not the hooks on a layer, such as those that gather what is sharded."""
    model, calls, hooks = made("bert", 0.0), list[int](), list[int]()
    (layers,) = layer_lists(model.pretrained)
    for number, layer in enumerate(layers):
        layer.attention.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
        layer.register_forward_pre_hook(lambda *_, number=number: hooks.append(number))
    recompute_layers(model)
    gradients(model)
    assert model.narrowed_layer is layers[-1]
    last = len(layers) - 1
    assert calls == [*range(last + 1), *reversed(range(last))] and hooks == [*range(last + 1)]
    calls.clear()
    with torch.no_grad():
        kept_bytes(model)
    assert calls == [*range(last + 1)]


def test_what_cannot_be_recomputed_is_refused_in_words() -> None:
    with pytest.raises(UserError, match=r"speed\.recompute: the layers of 'albert' cannot be told apart"):
        recompute_layers(made("albert", 0.0))
    config = small_config("bert")
    config.num_hidden_layers = 1
    with pytest.raises(UserError, match=r"speed\.recompute: the model has one layer"):
        recompute_layers(MaskedLM(small_model(config)))
