"""Layers are compiled in place, or left as they were; what that does to a run, `recipes/pretraining` tests."""

import copy

import pytest
import torch

from fmlm_cli.model.layers import layer_lists
from fmlm_cli.model.layerwise.compiling import NotCompiledError, compile_layers
from tests.model.families import small_config, small_model


def compiled(model: torch.nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if module._compiled_call_impl is not None]


@pytest.mark.parametrize("family", ["bert", "modernbert", "deberta"])
def test_layers_are_compiled_in_place(family: str) -> None:
    model = small_model(small_config(family))
    names, during = [name for name, _ in model.named_parameters()], list[str]()
    number = compile_layers(model, lambda: during.extend(compiled(model)))
    (layers,) = layer_lists(model)
    wanted = [name for name, module in model.named_modules() if any(module is layer for layer in layers)]
    assert number == len(wanted) == len(layers)
    assert compiled(model) == during == wanted
    assert [name for name, _ in model.named_parameters()] == names
    assert compiled(copy.deepcopy(model)) == []  # copies, as probes make them, are not


def test_a_layer_that_is_left_out_stays_as_it_is() -> None:
    model = small_model(small_config("bert"))
    [layers] = layer_lists(model)
    assert compile_layers(model, lambda: None, layers[-1]) == len(layers) - 1
    assert len(compiled(model)) == len(layers) - 1 and layers[-1]._compiled_call_impl is None
    config = small_config("bert")
    config.num_hidden_layers = 1
    model = small_model(config)
    [layers] = layer_lists(model)
    with pytest.raises(NotCompiledError, match="its only layer"):
        compile_layers(model, lambda: None, layers[-1])


def test_what_cannot_be_compiled_stays_as_it_was() -> None:
    model = small_model(small_config("bert"))

    def fails() -> None:
        raise RuntimeError("no C++ compiler found\nand more of it")

    with pytest.raises(NotCompiledError, match=r"^no C\+\+ compiler found$"):
        compile_layers(model, fails)
    assert compiled(model) == []
    model(input_ids=torch.tensor([[5, 6, 7]]))


def test_a_device_that_is_full_says_nothing_of_compiling() -> None:
    def fails() -> None:
        raise torch.OutOfMemoryError("of 80 GiB none is left")

    with pytest.raises(torch.OutOfMemoryError):
        compile_layers(small_model(small_config("bert")), fails)


def test_layers_that_are_one_cannot_be_told_apart() -> None:
    with pytest.raises(NotCompiledError, match="the layers of 'albert' cannot be told apart"):
        compile_layers(small_model(small_config("albert")), lambda: None)
