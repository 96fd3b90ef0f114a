"""Loading a checkpoint as a masked LM: what it lacks or has too much is told, no code runs unasked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor
from transformers import MODEL_FOR_MASKED_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from fmlm_cli.errors import UserError
from fmlm_cli.model.build import known_config, raw_config
from fmlm_cli.model.checkpoints.adapters import ADAPTER, merged_tensors
from fmlm_cli.model.checkpoints.own_code import classes_of, needs_own_code
from fmlm_cli.model.checkpoints.weights import Filled, fill, read_tensors, spare_tensors


@dataclass(frozen=True)
class Loaded:
    """A masked LM in float32, in evaluation mode, and what its checkpoint lacked or had too much.

    `new`: parameters that the checkpoint lacks, all of them the head's (or of a pooler that the family's
    masked LM has), drawn afresh. `unused`: names of the checkpoint's tensors that found no place. `code`: the
    Python files that were run. All sorted. `spare`: the unused tensors, as `save_model` takes them to write
    beside the model's. `tied_anew`: the checkpoint's configuration asks for a decoder
    apart from the embeddings, but it has none, so they are tied now.
    """

    model: PreTrainedModel
    new: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    spare: Mapping[str, Tensor] = field(default_factory=dict)
    code: tuple[str, ...] = ()
    tied_anew: bool = False


def load_pretrained(
    folder: Path,
    *,
    name: str,
    adapter: Path | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
    announce: Callable[[str], None] = lambda text: None,
) -> Loaded:
    """The masked LM of a local Hugging Face folder, in float32; `name` is what messages call it.

    `adapter`: the folder of one that is merged into the model. A checkpoint without a masked-LM head gets a
    new one, a function of `seed` and tied to the embeddings. Code that the checkpoint brings runs only if
    trusted, only where transformers has none of its own for the model's type, and after `announce` was told
    what will run. Raises `UserError` for what is no masked LM, is damaged, or lacks weights of the encoder
    itself.
    """
    config, model_class, code, foreign = find_class(
        folder, name, trust_remote_code, announce, MODEL_FOR_MASKED_LM_MAPPING, "AutoModelForMaskedLM"
    )
    tensors = read_tensors(folder, name)
    if adapter is not None:
        tensors = merged_tensors(tensors, adapter, config, model_class, name)
    filled, tied_anew = _fill_and_tie(model_class, config, tensors, seed, name)
    check_encoder(filled, name, other_code=foreign)
    filled.model.config.name_or_path = name
    unused = tuple(sorted(filled.unexpected & tensors.keys()))
    spare = spare_tensors(tensors, filled.model, unused)
    return Loaded(filled.model, tuple(filled.missing), unused, spare, code, tied_anew)


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
    if (folder / ADAPTER).is_file():
        raise UserError(f"{name} holds an adapter ({ADAPTER}): merge it into its model, and give that")
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
    adapter: Path | None = None,
    trust_remote_code: bool = False,
    announce: Callable[[str], None] = lambda text: None,
) -> PreTrainedModel:
    """A masked LM that is whole: a checkpoint without the head is refused."""
    loaded = load_pretrained(
        folder, name=name, adapter=adapter, trust_remote_code=trust_remote_code, announce=announce
    )
    if loaded.new or loaded.tied_anew:
        lacking = ", ".join(loaded.new[:3]) or "its decoder's"
        raise UserError(
            f"{name} lacks weights of a masked LM: {lacking}; give a checkpoint that has its head"
        )
    return loaded.model


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


# ---------------------------------------------------------------- the model


def _fill_and_tie(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    tensors: Mapping[str, Tensor],
    seed: int,
    name: str,
) -> tuple[Filled, bool]:
    """As `fill`, a missing decoder tied to the embeddings; also whether that took another configuration.

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
