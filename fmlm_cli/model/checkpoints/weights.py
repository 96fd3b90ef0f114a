"""A checkpoint's tensors, read from its files here and not by transformers, and put into a model by it.

So nothing that a config.json says can make it look for other files, adapters or kernels.
"""

import json
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from fmlm_cli.errors import UserError, one_line
from fmlm_cli.hub import WEIGHTS, quiet
from fmlm_cli.model.build import seeded
from fmlm_cli.tensors import not_finite


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """All tensors of a checkpoint, floats in float32; of both kinds of files, those in safetensors.

    Raises `UserError` for files that are damaged, and for a value that is not finite.
    """
    weights = next((folder / file for file in WEIGHTS if (folder / file).is_file()), None)
    if weights is None:
        raise UserError(
            f"cannot load {name}: it holds no weights (no {WEIGHTS[0]} or {WEIGHTS[2]}): give a whole "
            "checkpoint"
        )
    tensors: dict[str, Tensor] = {}
    for path in _parts(weights, name) if weights.suffix == ".json" else [weights]:
        tensors |= read_file(path, name)
    return tensors


def read_file(path: Path, name: str) -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint, as `read_tensors` gives them."""
    cannot = f"cannot load {name}"
    try:
        with path.open("rb"), quiet():  # safetensors calls a file missing that may not be read
            mapped = _from_pickle(path) if path.suffix == ".bin" else load_file(path)
    except FileNotFoundError:
        raise UserError(f"{cannot}: {path.name} is missing: fetch the checkpoint again") from None
    except PermissionError:
        raise
    except (pickle.UnpicklingError, _NoTensorsError) as error:
        raise UserError(
            f"{cannot}: {path.name} is damaged, or holds other things than tensors, which are never "
            "loaded: give the checkpoint as safetensors"
        ) from error
    except Exception as error:  # torch and safetensors raise kinds of their own
        raise UserError(
            f"{cannot}: {path.name} is cut short or damaged ({one_line(error)}): fetch it again"
        ) from error
    tensors = {key: _owned(tensor) for key, tensor in mapped.items()}
    if key := not_finite(tensors):
        raise UserError(
            f"{cannot}: its weights are damaged ({key} holds NaN or infinity): give a checkpoint from before "
            "that"
        )
    return tensors


def _parts(index: Path, name: str) -> list[Path]:
    """The files that an index names, all of them beside it."""
    try:
        parts = {str(part) for part in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, AttributeError, TypeError):
        parts = set()
    if not parts or any(Path(part).name != part or part.startswith(".") for part in parts):
        raise UserError(f"cannot load {name}: {index.name} is damaged: fetch it again")
    return [index.with_name(part) for part in sorted(parts)]


class _NoTensorsError(Exception):
    """A pickle holds something else than a state dict."""


def _from_pickle(path: Path) -> dict[str, Tensor]:
    """A state dict; `weights_only` keeps torch from calling whatever a pickle names."""
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    tensors = (
        {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    )
    if not tensors:
        raise _NoTensorsError
    return tensors


def _owned(tensor: Tensor) -> Tensor:
    """A tensor's values in float32 if they are floats, in memory that no change of the file can reach."""
    return tensor.detach().to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)


# ---------------------------------------------------------------- the model


@dataclass(frozen=True)
class Filled:
    """A model with a checkpoint's weights. `missing`: its parameters that the checkpoint lacks, sorted."""

    model: PreTrainedModel
    missing: list[str]
    unexpected: set[str]


def fill(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    tensors: Mapping[str, Tensor],
    seed: int,
    name: str,
) -> Filled:
    """A model of these tensors; what they lack is a function of `seed`."""
    try:
        with seeded(seed), quiet():
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                dtype=torch.float32,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # refused below, in one line
                output_loading_info=True,
            )
    except Exception as error:  # whatever a family's constructor makes of values that do not fit
        raise UserError(f"cannot load {name}: {one_line(error)}") from error
    for parameter, stored, configured in sorted(report["mismatched_keys"]):
        sizes = [" x ".join(map(str, shape)) or "a single number" for shape in (stored, configured)]
        raise UserError(
            f"cannot load {name}: {parameter} is {sizes[0]}, but {sizes[1]} by config.json: "
            "the two are not of the same model"
        )
    missing = [key for key, _ in model.named_parameters() if key in report["missing_keys"]]
    return Filled(model, sorted(missing), set(report["unexpected_keys"]))


def spare_tensors(
    tensors: Mapping[str, Tensor], model: PreTrainedModel, names: Iterable[str]
) -> dict[str, Tensor]:
    """Tensors of a checkpoint for which a model has no place, by the names at which other heads find them.

    The checkpoint of a bare encoder has `pooler.dense.weight`, one with a head `bert.pooler.dense.weight`.
    """
    prefix = model.base_model_prefix
    embeddings = model.get_input_embeddings().weight
    bare = prefix and any(
        parameter is embeddings and key in tensors for key, parameter in model.base_model.named_parameters()
    )
    return {f"{prefix}.{name}" if bare else name: tensors[name] for name in names}
