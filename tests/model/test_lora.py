"""Adapters in the encoder: where they are, what they train, and what is saved of them."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

from fmlm_cli.errors import UserError
from fmlm_cli.model.adapting.lora import add_lora, load_trained, merged, save_trained, trained_names
from fmlm_cli.model.build import save_model
from fmlm_cli.model.isolation import isolates_documents
from fmlm_cli.model.masked_lm import MaskedLM
from tests.model.families import FAMILIES, LENGTH, VOCABULARY, masked_logits, small_config, small_model

pytest.importorskip("peft")

ADAPTED = ["bert", "modernbert", "distilbert", "albert", "deberta-v2"]
SETTINGS: dict[str, Any] = {"rank": 3, "alpha": 6.0, "dropout": 0.0, "seed": 7}


def adapted(family: str, train: tuple[str, ...] = (), **settings: Any) -> PreTrainedModel:
    model = small_model(FAMILIES[family]())
    add_lora(model, **{**SETTINGS, **settings}, train=train)
    return model.eval()


def adapters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if ".lora_" in name}


@torch.no_grad()
def disturb(model: nn.Module) -> None:
    """As training would: what is trained is no longer what it began as."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def two_documents() -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.randint(5, VOCABULARY, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    segments = (torch.arange(LENGTH) >= 9).long()[None] + 1
    return ids, torch.cat([torch.arange(9), torch.arange(LENGTH - 9)])[None], segments


@torch.no_grad()
def logits_of(model: PreTrainedModel) -> Tensor:
    return model(input_ids=two_documents()[0]).logits


def close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5 * max(1.0, float(wanted.detach().abs().max())))


@pytest.mark.parametrize("family", ADAPTED)
def test_adapters_begin_as_no_change_beside_every_linear_layer_of_the_encoder(family: str) -> None:
    plain = small_model(FAMILIES[family]()).eval()
    model = adapted(family)
    assert torch.equal(logits_of(model), logits_of(plain))
    prefix = plain.base_model_prefix + "."
    linear = [n for n, m in plain.named_modules() if isinstance(m, nn.Linear) and n.startswith(prefix)]
    names = {f"{name}.lora_{part}.default.weight" for name in linear for part in "AB"}
    assert adapters(model).keys() == names
    assert {name for name, p in model.named_parameters() if p.requires_grad} == names


@pytest.mark.parametrize("family", ADAPTED)
def test_packed_documents_train_the_adapters_only(family: str) -> None:
    model = MaskedLM(adapted(family)).eval()
    assert not model.whole_head
    disturb(model)
    assert isolates_documents(model, LENGTH)
    ids, positions, segments = two_documents()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    logits = masked_logits(model, ids, positions, segments, torch.tensor([2, 8, 9, 20]), alone=False)
    with torch.no_grad():
        alone = model.pretrained(input_ids=ids[:, 9:]).logits[0, [0, 11]]
    close(logits[2:], alone)
    logits.logsumexp(1).sum().backward()
    optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert changed <= set(adapters(model))
    assert len(changed) > len(adapters(model)) / 2


@pytest.mark.parametrize("family", ADAPTED)
def test_merged_is_a_plain_model_with_the_adapted_logits(family: str, tmp_path: Path) -> None:
    model = MaskedLM(adapted(family)).pretrained
    disturb(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = logits_of(model)
    plain = merged(model)
    reference = small_model(FAMILIES[family]())
    assert (wanted - logits_of(reference.eval())).abs().max() > 0.01
    assert plain.state_dict().keys() == reference.state_dict().keys()
    assert {n: type(m) for n, m in plain.named_modules()} == {
        n: type(m) for n, m in reference.named_modules()
    }
    assert all(p.requires_grad for p in plain.parameters())
    close(logits_of(plain), wanted)
    save_model(plain, tmp_path, {})
    close(logits_of(AutoModelForMaskedLM.from_pretrained(tmp_path).eval()), wanted)
    assert torch.equal(logits_of(model), wanted)  # the original is as it was, and is trained on
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in adapters(model).values())
    assert not any(
        one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
        for one, other in zip(plain.parameters(), reference.parameters(), strict=True)
    )
    tied = plain.get_input_embeddings().weight is plain.get_output_embeddings().weight
    assert tied is (reference.get_input_embeddings().weight is reference.get_output_embeddings().weight)
    assert MaskedLM(plain).whole_head is False


def test_merged_adds_alpha_by_rank_times_b_a() -> None:
    model = adapted("bert")
    disturb(model)
    plain = merged(model)
    for name, layer in plain.named_modules():
        if f"{name}.lora_A.default.weight" in adapters(model):
            a, b = (adapters(model)[f"{name}.lora_{part}.default.weight"].detach() for part in "AB")
            base = model.get_submodule(name).base_layer
            torch.testing.assert_close(layer.weight.detach(), base.weight.detach() + 6 / 3 * b @ a)
            assert torch.equal(layer.bias, base.bias)


def test_other_parameters_can_be_trained_too() -> None:
    """A decoder tied to the embeddings is trained with them."""
    train = ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias")
    model = adapted("bert", train)
    chosen = {name for name, p in model.named_parameters() if p.requires_grad}
    assert chosen == {*adapters(model), *train}
    assert model.get_output_embeddings().weight.requires_grad
    disturb(model)
    close(logits_of(merged(model)), logits_of(model))


def test_adapters_are_a_function_of_the_seed_and_draw_nothing_global() -> None:
    state = torch.random.get_rng_state()
    first, same, other = adapted("bert"), adapted("bert"), adapted("bert", seed=8)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, parameter in adapters(first).items():
        assert torch.equal(parameter, adapters(same)[name])
        assert torch.equal(parameter, adapters(other)[name]) is ("lora_B" in name)


def test_dropout_is_in_front_of_the_adapters() -> None:
    model = adapted("bert", dropout=0.5).train()
    rates = {m.p for name, m in model.named_modules() if ".lora_dropout." in name}
    assert rates == {0.5}
    disturb(model)
    assert not torch.equal(logits_of(model), logits_of(model))


def test_what_is_trained_is_saved_and_read_back(tmp_path: Path) -> None:
    model = adapted("bert", ("cls.predictions.bias",))
    disturb(model)
    save_trained(model, trained_names(model), tmp_path)
    fresh = adapted("bert", ("cls.predictions.bias",), seed=8)
    assert not torch.equal(logits_of(fresh), logits_of(model))
    load_trained(fresh, trained_names(fresh), tmp_path, "make it anew")
    assert torch.equal(logits_of(fresh), logits_of(model))
    with pytest.raises(UserError, match="holds other adapters"):
        load_trained(other := adapted("bert"), trained_names(other), tmp_path, "make it anew")
    with pytest.raises(UserError, match="holds other adapters"):
        other = adapted("bert", ("cls.predictions.bias",), rank=2)
        load_trained(other, trained_names(other), tmp_path, "make it anew")
    with pytest.raises(UserError, match=r"trained\.safetensors is missing or damaged .*: make it anew$"):
        load_trained(fresh, trained_names(fresh), tmp_path / "elsewhere", "make it anew")
    (tmp_path / "trained.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"trained\.safetensors is missing or damaged .*: make it anew$"):
        load_trained(fresh, trained_names(fresh), tmp_path, "make it anew")


def test_a_model_without_linear_layers_is_refused() -> None:
    config = small_config("fnet")
    model = small_model(config)
    for name, module in list(model.base_model.named_modules()):
        if isinstance(module, nn.Linear):
            model.base_model.set_submodule(name, nn.Identity())
    with pytest.raises(UserError, match="'fnet' has no linear layers"):
        add_lora(model, **SETTINGS)


def test_without_peft_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    model = small_model(FAMILIES["bert"]())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match=r"needs the package peft: pip install 'fmlm\[lora\]'"):
        add_lora(model, **SETTINGS)
    assert model.state_dict().keys() == before.keys()
    assert all(p.requires_grad for p in model.parameters())
