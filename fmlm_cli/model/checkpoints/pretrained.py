"""Loading a checkpoint as a masked LM: what it lacks or has too much is told, no foreign code runs unasked.

A checkpoint's own files are read here and not by transformers, which is handed their tensors: so nothing that
a config.json says can make it look for other files, adapters or kernels.
"""

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import MODEL_FOR_MASKED_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from fmlm_cli.errors import UserError, one_line
from fmlm_cli.hub import WEIGHTS, quiet
from fmlm_cli.model.build import known_config, raw_config, seeded
from fmlm_cli.model.checkpoints.own_code import classes_of, needs_own_code
from fmlm_cli.tensors import not_finite


@dataclass(frozen=True)
class Loaded:
    """A masked LM in float32, in evaluation mode, and what its checkpoint lacked or had too much.

    `new`: parameters that the checkpoint lacks, all of them the head's (or of a pooler that the family's
    masked LM has), drawn afresh. `unused`: names of the checkpoint's tensors that found no place. `code`: the
    Python files that were run. All sorted. `tied_anew`: the checkpoint's configuration asks for a decoder
    apart from the embeddings, but it has none, so they are tied now.
    """

    model: PreTrainedModel
    new: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    tied_anew: bool = False


def load_pretrained(
    folder: Path,
    *,
    name: str,
    trust_remote_code: bool = False,
    seed: int = 0,
    announce: Callable[[str], None] = lambda text: None,
) -> Loaded:
    """The masked LM of a local Hugging Face folder, in float32; `name` is what messages call it.

    A checkpoint without a masked-LM head gets a new one, a function of `seed` and tied to the embeddings.
    Code that the checkpoint brings runs only if trusted, only where transformers has none of its own for the
    model's type, and after `announce` was told what will run. Raises `UserError` for what is no masked LM, is
    damaged, or lacks weights of the encoder itself.
    """
    config, model_class, code, foreign = find_class(
        folder, name, trust_remote_code, announce, MODEL_FOR_MASKED_LM_MAPPING, "AutoModelForMaskedLM"
    )
    tensors = read_tensors(folder, name)
    filled, tied_anew = _fill_and_tie(model_class, config, tensors, seed, name)
    check_encoder(filled, name, other_code=foreign)
    filled.model.config.name_or_path = name
    unused = tuple(sorted(filled.unexpected & tensors.keys()))
    return Loaded(filled.model, tuple(filled.missing), unused, code, tied_anew)


def find_class(
    folder: Path,
    name: str,
    trust_remote_code: bool,
    announce: Callable[[str], None],
    mapping: Mapping[type[PreTrainedConfig], type[PreTrainedModel]],
    own_key: str,
) -> tuple[PreTrainedConfig, type[PreTrainedModel], tuple[str, ...], bool]:
    """A checkpoint's configuration and the class of its model, from `mapping` or from code that it brings.

    Also the files of code that were run, and whether it was made for code that was not.
    """
    shown = f"{name}/config.json"
    if (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{name} holds an adapter (adapter_config.json): merge it into its model, and give that"
        )
    raw = raw_config(folder / "config.json", shown)
    code: tuple[str, ...] = ()
    if needs_own_code(raw):
        config, model_class, code = classes_of(folder, raw, name, trust_remote_code, announce, own_key)
    else:
        config = known_config(folder / "config.json", shown)
        if type(config) not in mapping:
            raise UserError(
                f"{shown}: transformers has no {own_key.removeprefix('AutoModelFor')} model for "
                f"'{config.model_type}'"
            )
        model_class = mapping[type(config)]
    make_plain(config, shown)
    return config, model_class, code, "auto_map" in raw and not code


def load_model(
    folder: Path,
    *,
    name: str,
    trust_remote_code: bool = False,
    announce: Callable[[str], None] = lambda text: None,
) -> PreTrainedModel:
    """A masked LM that is whole: a checkpoint without the head is refused."""
    loaded = load_pretrained(folder, name=name, trust_remote_code=trust_remote_code, announce=announce)
    if loaded.new or loaded.tied_anew:
        lacking = ", ".join(loaded.new[:3]) or "its decoder's"
        raise UserError(
            f"{name} lacks weights of a masked LM: {lacking}; give a checkpoint that has its head"
        )
    return loaded.model


def unused_tensors(folder: Path, model: PreTrainedModel, unused: Sequence[str]) -> dict[str, Tensor]:
    """Tensors of a checkpoint by name, in the model's float32, for `save_model` to write beside the model's.

    They are renamed so that the class of another head finds them there: the checkpoint of a bare encoder has
    `pooler.dense.weight`, one with a head `bert.pooler.dense.weight`.
    """
    tensors = _mapped_tensors(folder, str(folder))
    prefix = model.base_model_prefix
    embeddings = model.get_input_embeddings().weight
    bare = prefix and any(
        parameter is embeddings and key in tensors for key, parameter in model.base_model.named_parameters()
    )
    return {f"{prefix}.{key}" if bare else key: _owned(tensors[key]) for key in unused}


def make_plain(config: PreTrainedConfig, shown: str) -> None:
    """Refuse quantized weights, and bring a configuration to the usual attention and outputs.

    Attention that has to be fetched or built is not chosen, nor other outputs than the usual: some choices of
    both can be loaded, but not saved.
    """
    if getattr(config, "quantization_config", None):
        raise UserError(f"{shown}: the weights are quantized: give the checkpoint that they were made from")
    if config._attn_implementation not in (None, "eager", "sdpa"):
        config._attn_implementation = None
    for setting, usual in (
        ("output_attentions", False),
        ("output_hidden_states", False),
        ("return_dict", True),
    ):
        if getattr(config, setting, usual) != usual:
            setattr(config, setting, usual)


# ---------------------------------------------------------------- the files


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """All tensors of a checkpoint, floats in float32. `UserError` for one with a value that is not finite."""
    tensors = {key: _owned(tensor) for key, tensor in _mapped_tensors(folder, name).items()}
    if key := not_finite(tensors):
        raise UserError(
            f"cannot load {name}: its weights are damaged ({key} holds NaN or infinity): give a checkpoint "
            "from before that"
        )
    return tensors


def _mapped_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """All tensors of a checkpoint, mapped into memory, not yet read; of both kinds, those in safetensors."""
    cannot = f"cannot load {name}"
    weights = next((folder / file for file in WEIGHTS if (folder / file).is_file()), None)
    if weights is None:
        raise UserError(
            f"{cannot}: it holds no weights (no {WEIGHTS[0]} or {WEIGHTS[2]}): give a whole checkpoint"
        )
    tensors: dict[str, Tensor] = {}
    for path in _parts(weights, cannot) if weights.suffix == ".json" else [weights]:
        try:
            with quiet():
                tensors |= _from_pickle(path) if path.suffix == ".bin" else load_file(path)
        except FileNotFoundError:
            raise UserError(f"{cannot}: {path.name} is missing: fetch the checkpoint again") from None
        except (pickle.UnpicklingError, _NoTensorsError) as error:
            raise UserError(
                f"{cannot}: {path.name} is damaged, or holds other things than tensors, which are never "
                "loaded: give the checkpoint as safetensors"
            ) from error
        except Exception as error:  # torch and safetensors raise kinds of their own
            raise UserError(
                f"{cannot}: {path.name} is cut short or damaged ({one_line(error)}): fetch it again"
            ) from error
    return tensors


def _parts(index: Path, cannot: str) -> list[Path]:
    """The files that an index names, all of them beside it."""
    try:
        names = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, AttributeError, TypeError):
        names = set()
    if not names or any(Path(name).name != name or name.startswith(".") for name in names):
        raise UserError(f"{cannot}: {index.name} is damaged: fetch it again")
    return [index.with_name(name) for name in sorted(names)]


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


def _fill_and_tie(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    tensors: Mapping[str, Tensor],
    seed: int,
    name: str,
) -> tuple[Filled, bool]:
    """The same, a missing decoder tied to the embeddings, and whether that took another configuration.

    Drawn at random it would have to learn every word anew. Some families cannot tie theirs.
    """
    filled = fill(model_class, config, tensors, seed, name)
    if _output_weight(filled.model) not in filled.missing:
        return filled, False
    config.tie_word_embeddings = True
    tied = fill(model_class, config, tensors, seed, name)
    return (filled, False) if _output_weight(tied.model) in tied.missing else (tied, True)


def _output_weight(model: PreTrainedModel) -> str | None:
    """The name of the decoder's weight if it is a parameter of its own."""
    weight = getattr(model.get_output_embeddings(), "weight", None)
    return next((name for name, parameter in model.named_parameters() if parameter is weight), None)


def check_encoder(filled: Filled, name: str, *, other_code: bool) -> None:
    """Refuse a checkpoint that lacks weights of the encoder; a pooler, built by some families, is none."""
    model = filled.model
    inside = {id(parameter) for parameter in model.base_model.parameters()}
    head = model.get_output_embeddings()
    if model.base_model is model and head is not None:  # no telling the rest of a head from the encoder
        inside -= {id(parameter) for parameter in head.parameters()}
    lacking = [
        key
        for key, parameter in model.named_parameters()
        if key in filled.missing and id(parameter) in inside and ".pooler." not in key
    ]
    if not lacking:
        return
    has = f"; it has others, such as {min(filled.unexpected)}" if filled.unexpected else ""
    why = (
        "it was made for code of its own, but fmlm runs transformers' where there is some"
        if other_code
        else f"give a whole checkpoint of this '{model.config.model_type}'"
    )
    raise UserError(
        f"cannot load {name}: it lacks weights of the encoder ({', '.join(lacking[:2])}"
        f"{f' and {len(lacking) - 2} more' if lacking[2:] else ''}{has}): {why}"
    )
