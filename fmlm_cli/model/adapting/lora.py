"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) in a model's encoder, by the optional `peft`."""

import copy
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from fmlm_cli.errors import UserError
from fmlm_cli.model.build import seeded
from fmlm_cli.tensors import read_own_tensors

TRAINED = "trained.safetensors"  # beside the merged model of a checkpoint


def import_peft(what: str = "model.lora") -> Any:
    """The package `peft`; `UserError`, which says `what` needs it, where it is not installed."""
    try:
        import peft  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        raise UserError(f"{what} needs the package peft: pip install 'fmlm[lora]'") from None
    return peft


def add_lora(
    model: PreTrainedModel, *, rank: int, alpha: float, dropout: float, seed: int, train: Collection[str] = ()
) -> None:
    """Put adapters beside every linear layer of the base model, in place; they begin as no change at all.

    Only they are trained, and the parameters named in `train`, such as a new head's (names as they are before
    this). What is drawn at random is a function of `seed`.
    """
    peft = import_peft()
    parameters = dict(model.named_parameters())
    unknown = sorted(set(train) - set(parameters))
    assert not unknown, f"no such parameters: {unknown}"
    inside = set(model.base_model.modules())
    targets = [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and m in inside]
    if not targets:
        raise UserError(f"model.lora: '{model.config.model_type}' has no linear layers in its encoder")
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets)
    with seeded(seed):
        peft.inject_adapter_in_model(config, model)
    frozen = {id(parameter) for name, parameter in parameters.items() if name not in train}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) not in frozen)


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """A plain copy of a model whose adapters are added to the weights they stand beside."""
    layer_type = import_peft().tuners.tuners_utils.BaseTunerLayer
    plain = copy.deepcopy(model)
    for name, module in [*plain.named_modules()]:
        if isinstance(module, layer_type):
            module.merge()
            parent, _, attribute = name.rpartition(".")
            setattr(plain.get_submodule(parent), attribute, module.get_base_layer())
    if hasattr(plain, "peft_config"):
        del plain.peft_config
    return plain.requires_grad_(True)


def trained_names(model: PreTrainedModel) -> frozenset[str]:
    """The parameters that are trained."""
    return frozenset(name for name, p in model.named_parameters() if p.requires_grad)


def save_trained(model: PreTrainedModel, names: Collection[str], folder: Path) -> None:
    """Write what is trained of a model, its adapters above all, to `folder`; `names`: of all that is."""
    tensors = {name: p.detach().contiguous() for name, p in model.named_parameters() if name in names}
    save_file(tensors, folder / TRAINED)


@torch.no_grad()
def load_trained(
    model: PreTrainedModel,
    names: Collection[str],
    folder: Path,
    remedy: str,
    fill: Callable[[Tensor, Tensor], object] = Tensor.copy_,
) -> None:
    """Read back what `save_trained` wrote, for the same adapters; `remedy`: what to do if it is damaged.

    `fill(parameter, values)`: sets a parameter.
    """
    trained = {name: p for name, p in model.named_parameters() if name in names}
    saved = read_own_tensors(folder / TRAINED, remedy)
    if {name: value.shape for name, value in saved.items()} != {name: p.shape for name, p in trained.items()}:
        raise UserError(f"{folder / TRAINED} holds other adapters than this run's settings make")
    for name, parameter in trained.items():
        fill(parameter, saved[name])
