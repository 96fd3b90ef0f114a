"""The head without its decoder: the same logits and gradients, and no product twice or for nothing."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from fmlm_cli.hub import quiet
from fmlm_cli.model.masked_lm import HeadOutput, MaskedLM
from tests.model.families import FAMILIES, LENGTH, MASKED_LM_TYPES, VOCABULARY, small_config, small_model
from tests.model.test_families import REFUSED, WITH_DECODER

IDS = torch.arange(5, 5 + 2 * LENGTH).view(2, LENGTH)
INDEX = torch.tensor([0, 5, LENGTH - 1, LENGTH, LENGTH + 14])
TRAINED = [name for name in MASKED_LM_TYPES if name not in REFUSED]


def wrapped(family: str) -> MaskedLM:
    with quiet():
        return MaskedLM(small_model(small_config(family))).eval()


def output_of(model: nn.Module, index: Tensor = INDEX) -> HeadOutput:
    with quiet():
        output: HeadOutput = model(IDS, index, position_ids=IDS, segments=None, alone=True)
    return output


def flops(run: Callable[[], Any]) -> int:
    with quiet(), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def saved_in_last_layer(model: MaskedLM) -> int:
    """FLOPs of the last layer's matrices, after its attention, at unmasked positions; and a pooler's."""
    name = model.head.narrowed_before
    if name is None:
        return 0
    layer: Any = model.pretrained.get_submodule(name.removesuffix(".attention.output"))
    parts = (layer.attention.output, layer.intermediate, layer.output)
    pooler = getattr(model.pretrained.base_model, "pooler", None)
    row = sum(w.numel() for w in getattr(pooler, "parameters", list)() if w.ndim == 2)  # it sees one, not two
    matrices = sum(w.numel() for part in parts for w in part.parameters() if w.ndim == 2)
    return 2 * (matrices * (IDS.numel() - len(INDEX)) + row)


def capture_decoder_input(model: MaskedLM) -> Tensor:
    """What the stock forward gives its decoder, at the masked positions: float[masked, width]."""
    seen: list[Tensor] = []
    handle = model.pretrained.get_output_embeddings().register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    with quiet():
        model.pretrained(input_ids=IDS)
    handle.remove()
    return seen[0].flatten(0, 1)[INDEX]


@pytest.mark.parametrize("family", TRAINED)
def test_hidden_states_and_decoder_are_the_stock_ones(family: str) -> None:
    model = wrapped(family)
    with torch.no_grad(), quiet():
        hidden, decoder = output_of(model)
        stock = model.pretrained(input_ids=IDS).logits.flatten(0, 1)[INDEX]
        tolerance = {"rtol": 0, "atol": 2e-5 * max(1.0, float(stock.abs().max()))}
        torch.testing.assert_close(decoder(hidden), stock, **tolerance)
        if family in WITH_DECODER:
            assert isinstance(decoder, nn.Identity)
        else:
            assert decoder is model.pretrained.get_output_embeddings()
            torch.testing.assert_close(hidden, capture_decoder_input(model), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("family", TRAINED)
def test_no_product_is_computed_twice_or_at_unmasked_positions(family: str) -> None:
    """The base model runs on all positions, its head on the masked ones, the decoder once on these.

    Where the last layer is built like BERT's, what follows its attention runs on the masked ones too.
    """
    model = wrapped(family)
    pretrained = model.pretrained
    body = flops(lambda: pretrained.base_model(input_ids=IDS))
    after, rest = divmod((flops(lambda: pretrained(input_ids=IDS)) - body) * len(INDEX), IDS.numel())
    assert rest == 0
    body -= saved_in_last_layer(model)
    assert flops(lambda: output_of(model).logits()) == body + after
    decoder = model.pretrained.get_output_embeddings()
    product = 0 if family in WITH_DECODER else 2 * decoder.weight.numel() * len(INDEX)
    assert flops(lambda: output_of(model)) == body + after - product


@pytest.mark.parametrize("family", ["bert", "modernbert", "distilbert", "eurobert"])
def test_the_model_is_the_stock_one_outside_its_forward(family: str) -> None:
    model = wrapped(family)
    modules, weights = dict(model.named_modules()), model.state_dict()
    output_of(model)
    assert dict(model.named_modules()) == modules
    assert list(dict(model.named_modules())) == list(modules)  # and in order
    assert list(model.state_dict()) == list(weights)

    def fail(*given: Any) -> None:
        raise ValueError("in the head")

    handle = model.pretrained.base_model.register_forward_hook(fail)
    with pytest.raises(ValueError, match="in the head"):
        output_of(model)
    handle.remove()
    assert dict(model.named_modules()) == modules
    assert model._masked_index is None


def test_a_copy_has_a_decoder_of_its_own() -> None:
    model = wrapped("bert")
    again = copy.deepcopy(model)
    for parameter in again.parameters():
        parameter.data.zero_()
    assert output_of(again).decoder is again.pretrained.get_output_embeddings()
    assert not output_of(again).logits().any()
    assert output_of(model).logits().any()


def test_the_decoder_runs_as_a_module_once_and_by_the_caller() -> None:
    model = wrapped("bert")
    ran: list[int] = []
    model.pretrained.get_output_embeddings().register_forward_hook(lambda *given: ran.append(1))
    output = output_of(model)
    assert not ran
    output.logits()
    assert ran == [1]


@pytest.mark.parametrize("family", ["bert", "esm"])
def test_the_output_is_a_tuple_whose_tensors_are_found(family: str) -> None:
    """FSDP2 hangs its work for the backward on the tensors of a module's output that it finds."""
    output = output_of(wrapped(family))
    assert [leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor)] == [output.hidden]
    assert output.hidden.requires_grad


class BiasAfterwards(nn.Module):
    """A head that does something to its decoder's logits, if nothing in a fresh model: what is added is 0."""

    def __init__(self, head: nn.Module, width: int) -> None:
        super().__init__()
        self.head = head
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.head(hidden) + self.bias


class TwoProducts(nn.Module):
    """A head that asks its decoder twice."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden: Tensor) -> Tensor:
        self.head(hidden)
        return self.head(hidden)


@pytest.mark.parametrize("kind", ["bias", "twice"])
def test_a_decoder_that_is_not_the_last_word_stays_in_the_head(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As wide as the vocabulary, so that no shape tells."""
    config = FAMILIES["bert"]()
    config.hidden_size = config.vocab_size = 16
    pretrained = small_model(config)
    pretrained.cls = BiasAfterwards(pretrained.cls, 16) if kind == "bias" else TwoProducts(pretrained.cls)
    decoder = pretrained.cls.head.predictions.decoder
    monkeypatch.setattr(type(pretrained), "get_output_embeddings", lambda self: decoder)
    model = MaskedLM(pretrained).eval()
    assert model.head.decoder is None
    if kind == "bias":
        with torch.no_grad():
            pretrained.cls.bias.copy_(torch.arange(16.0))
    ids = IDS % 16
    output = model(ids, INDEX, position_ids=ids, segments=None, alone=True)
    wanted = pretrained(input_ids=ids).logits.flatten(0, 1)[INDEX]
    torch.testing.assert_close(output.logits(), wanted, rtol=1e-5, atol=1e-5)


def test_a_head_on_all_positions_still_leaves_out_its_decoder() -> None:
    class Averaging(nn.Module):
        def __init__(self, transform: nn.Module) -> None:
            super().__init__()
            self.transform = transform

        def forward(self, hidden: Tensor) -> Tensor:
            return self.transform(hidden - hidden.mean(1, keepdim=True))

    pretrained = small_model(FAMILIES["bert"]())
    pretrained.cls.predictions.transform = Averaging(pretrained.cls.predictions.transform)
    model = MaskedLM(pretrained).eval()
    assert model.head == (True, "cls.predictions.decoder", None)
    output = output_of(model)
    assert output.hidden.shape == (len(INDEX), pretrained.config.hidden_size)
    wanted = pretrained(input_ids=IDS).logits.flatten(0, 1)[INDEX]
    torch.testing.assert_close(output.logits(), wanted, rtol=1e-5, atol=1e-5)
    assert output_of(model, INDEX[:0]).logits().shape == (0, VOCABULARY)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "deberta"])
def test_the_last_layer_runs_on_masked_positions_once_its_attention_is_done(family: str) -> None:
    model, shapes = wrapped(family), []
    layers = model.pretrained.base_model.encoder.layer
    for layer in layers:
        layer.intermediate.register_forward_hook(lambda _, inputs, output: shapes.append(output.shape[:2]))
    output_of(model)
    assert shapes == [IDS.shape] * (len(layers) - 1) + [(1, len(INDEX))]
    shapes.clear()
    with quiet():
        model.pretrained(input_ids=IDS)
    assert shapes == [IDS.shape] * len(layers)
