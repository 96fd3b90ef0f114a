"""Low-rank adapters (LoRA) that `peft` saved on their own, merged into the weights they were trained on."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)

from fmlm_cli.errors import UserError, one_line
from fmlm_cli.hub import ADAPTER_WEIGHTS, WEIGHTS, quiet
from fmlm_cli.model.adapting.lora import import_peft, merged
from fmlm_cli.model.build import seeded
from fmlm_cli.model.checkpoints.weights import Filled, fill, read_file, spare_tensors
from fmlm_cli.storage import read_json

ADAPTER = "adapter_config.json"

_PREFIX = "base_model.model."  # of peft's names
_LOW_RANK = ".lora_"
_UNMERGED = ("trainable_token_indices", "layer_replication", "target_parameters")  # of a LoraConfig


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no weights of a model; one with both is refused when loaded."""
    return (folder / ADAPTER).is_file() and not any((folder / name).is_file() for name in WEIGHTS)


def adapter_settings(folder: Path, name: str) -> dict[str, Any]:
    """What an adapter's configuration says. `UserError` for one that is damaged, or cannot be merged."""
    settings = read_json(folder / ADAPTER)
    base = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    if not isinstance(base, str) or not base.strip():
        raise UserError(f"{name}/{ADAPTER} names no base_model_name_or_path: the file is damaged")
    more = [setting for setting in _UNMERGED if settings.get(setting)]
    if settings.get("peft_type") != "LORA" or more:
        kind = more[0] if more else settings.get("peft_type")
        raise UserError(
            f"{name} holds an adapter of the kind '{kind}': merge it with peft, and give the result"
        )
    return dict(settings)


def merged_tensors(
    tensors: Mapping[str, Tensor],
    adapter: Path,
    config: PreTrainedConfig,
    model_class: type[PreTrainedModel],
    name: str,
) -> dict[str, Tensor]:
    """A checkpoint's tensors with an adapter's added to them, and the layers that lie beside it, as a head's.

    `model_class`: what they are going to be loaded as; the adapter may have been trained in another class of
    this type. Raises `UserError` for an adapter that is damaged or does not fit.
    """
    peft = import_peft(f"{name} holds an adapter, which")
    low_rank, whole = _read(adapter, name)
    kind = _class_with(low_rank, config, model_class, name)
    filled = fill(kind, copy.deepcopy(config), tensors, 0, name)
    _check_untied(filled.model, low_rank, name)
    beside = _replace(filled, whole, name)
    try:
        with quiet(), seeded(0):
            settings = peft.PeftConfig.from_pretrained(str(adapter.absolute()))
            settings.modules_to_save = None  # they are in their places already
            peft.inject_adapter_in_model(settings, filled.model)
            report = peft.set_peft_model_state_dict(filled.model, low_rank)
            model = merged(filled.model)
    except Exception as error:  # whatever peft makes of settings and tensors that do not fit
        raise UserError(f"cannot merge the adapter {name}: {one_line(error)}") from error
    lacking = [key for key in report.missing_keys if _LOW_RANK in key]
    if lacking or report.unexpected_keys:
        amiss = f"lacks {lacking[0]}" if lacking else f"has {report.unexpected_keys[0]}"
        raise UserError(f"cannot merge the adapter {name}: by its {ADAPTER} it {amiss}: fetch it again")
    own = {key: p.detach() for key, p in model.named_parameters() if key not in filled.missing}
    buffers = {key: tensors[key] for key, _ in model.named_buffers() if key in tensors}
    spare = spare_tensors(tensors, filled.model, filled.unexpected & tensors.keys())
    return {**buffers, **spare, **own, **beside}


def _read(adapter: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """An adapter's low-rank tensors, and those of layers that were trained whole, by the model's names."""
    path = next((adapter / file for file in ADAPTER_WEIGHTS if (adapter / file).is_file()), None)
    if path is None:
        raise UserError(f"cannot load {name}: it holds no {ADAPTER_WEIGHTS[0]}: fetch the adapter again")
    tensors = {key.removeprefix(_PREFIX): tensor for key, tensor in read_file(path, name).items()}
    low_rank = {key: tensor for key, tensor in tensors.items() if _LOW_RANK in key}
    if not low_rank:
        raise UserError(f"cannot load {name}: {path.name} holds no low-rank weights: fetch the adapter again")
    whole = {
        key.replace(".base_layer.", ".").replace(".modules_to_save.", "."): tensor
        for key, tensor in tensors.items()
        if key not in low_rank
    }
    return low_rank, whole


def _class_with(
    low_rank: Mapping[str, Tensor], config: PreTrainedConfig, model_class: type[PreTrainedModel], name: str
) -> type[PreTrainedModel]:
    """The class of model that has every layer for which there are low-rank tensors."""
    layers = {key.partition(_LOW_RANK)[0] for key in low_rank}
    for kind in (model_class, *_others(config)):
        with torch.device("meta"), quiet():
            modules = dict(kind(copy.deepcopy(config)).named_modules())
        if layers <= modules.keys():
            return kind
    raise UserError(
        f"cannot merge the adapter {name}: no '{config.model_type}' has its {min(layers)}: its "
        f"{ADAPTER} names another model than the one it was trained on"
    )


def _others(config: PreTrainedConfig) -> Iterator[type[PreTrainedModel]]:
    mappings = (MODEL_FOR_MASKED_LM_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING)
    yield from (mapping[type(config)] for mapping in mappings if type(config) in mapping)


def _check_untied(model: PreTrainedModel, low_rank: Mapping[str, Tensor], name: str) -> None:
    """Refuse an adapter of embeddings that are the decoder too: peft trains the one and leaves the other."""
    decoder = getattr(model.get_output_embeddings(), "weight", None)
    for key in low_rank:
        layer = key.partition(_LOW_RANK)[0]
        module = model.get_submodule(layer)
        if module is not model.get_output_embeddings() and getattr(module, "weight", None) is decoder:
            raise UserError(
                f"cannot merge the adapter {name}: it changes {layer}, whose weights the decoder shares: "
                "merge it with peft, and give that"
            )


@torch.no_grad()
def _replace(filled: Filled, whole: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Put tensors in the place of a model's; those for which it has none are given back, as a head's are."""
    parameters, beside = dict(filled.model.named_parameters()), {}
    for key, tensor in whole.items():
        if key not in parameters or key in filled.missing:
            beside[key] = tensor
        elif parameters[key].shape != tensor.shape:
            sizes = [" x ".join(map(str, it.shape)) for it in (tensor, parameters[key])]
            raise UserError(
                f"cannot merge the adapter {name}: its {key} is {sizes[0]}, that of its model {sizes[1]}: "
                "merge it with peft, and give the result"
            )
        else:
            parameters[key].copy_(tensor)
    return beside
