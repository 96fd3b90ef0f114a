"""Making, measuring and saving models, and what fmlm asks of their Hugging Face configurations."""

import copy
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from fmlm_cli.errors import UserError, one_line, unknown_name
from fmlm_cli.hub import quiet
from fmlm_cli.model.presets import PRESETS, Preset, nearest_preset


@dataclass(frozen=True)
class VocabularyFacts:
    """What a model has to know of its tokenizer: the number of ids, and the special ones' ids."""

    size: int
    pad: int
    cls: int | None
    sep: int | None


def preset_for(name: str) -> Preset:
    """The preset of this name, or for a config.json the one nearest in size."""
    return PRESETS[name] if name in PRESETS else preset_of(read_config(name))


def preset_of(config: PreTrainedConfig) -> Preset:
    """The preset nearest in size to a model of this configuration."""
    return nearest_preset(int(config.num_hidden_layers), int(config.hidden_size))


def read_config(name: str) -> PreTrainedConfig:
    """The configuration that a preset's name, or the path of a config.json (or its folder), stands for."""
    if name in PRESETS:
        preset = PRESETS[name]
        return CONFIG_MAPPING[preset.family](**preset.settings)
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file() and path.suffix != ".json" and len(path.parts) == 1:
        raise unknown_name("model", name, [*PRESETS, "or the path of a config.json"])
    return known_config(path, str(path))


def raw_config(path: Path, shown: str) -> dict[str, Any]:
    """The contents of a config.json that has a model type; `shown` is its name in messages."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["model_type"]
    except FileNotFoundError:
        raise UserError(f"no such model configuration: {shown}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{shown}:{error.lineno}: not valid JSON ({error.msg})") from None
    except RecursionError:
        raise UserError(f"{shown}: not a configuration: it is nested too deep") from None
    except (KeyError, TypeError, UnicodeDecodeError):
        raise UserError(
            f"{shown} is not a Hugging Face model configuration: it has no 'model_type'"
        ) from None
    return raw


def known_config(path: Path, shown: str) -> PreTrainedConfig:
    """The configuration in a config.json of a type that transformers itself knows; no other code runs."""
    model_type = raw_config(path, shown)["model_type"]
    try:
        with quiet():
            config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers and huggingface_hub raise kinds of their own for bad values
        raise UserError(
            f"{shown}: transformers cannot read a '{model_type}' configuration ({one_line(error)})"
        ) from None
    refuse_decoder(config, shown)
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        causal = "it is a causal model; " if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else ""
        raise UserError(
            f"{shown}: '{model_type}' has no masked-LM head in transformers: {causal}{USE_ENCODER}"
        )
    return config


def refuse_decoder(config: PreTrainedConfig, shown: str) -> None:
    """Refuse a configuration of a model that is not an encoder alone, whatever its type."""
    if config.is_encoder_decoder:
        raise UserError(
            f"{shown}: '{config.model_type}' has no masked-LM head: it is a sequence-to-sequence model; "
            f"{USE_ENCODER}"
        )
    for setting in ("is_decoder", "causal"):  # the latter in XLM and Flaubert
        if getattr(config, setting, False):
            raise UserError(
                f"{shown}: '{setting}' makes a causal model of this '{config.model_type}', which has no "
                f"masked-LM head: {USE_ENCODER}"
            )


USE_ENCODER = "use an encoder such as bert or modernbert"
_OTHER_HEADS = ("classif", "qa_", "summary")  # in the names of dropout rates that pre-training never runs


def dropout_rates(config: PreTrainedConfig) -> dict[str, float]:
    """The dropout rates that pre-training runs under, by their names in a configuration."""
    return {
        name: float(value)
        for name, value in config.to_dict().items()
        if "dropout" in name
        and not any(head in name for head in _OTHER_HEADS)
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    }


def save_model(
    model: PreTrainedModel,
    folder: Path,
    dropout: Mapping[str, float],
    beside: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Save a model with these dropout rates in its configuration: fine-tuning wants others than pre-training.

    `beside`: tensors that another head finds in the same file, such as a pooler's.
    """
    trained_rates = dropout_rates(model.config)
    model.config.update(dropout)
    try:
        with quiet():
            weights = {**model.state_dict(), **beside} if beside else None
            model.save_pretrained(folder, state_dict=weights)
    finally:
        model.config.update(trained_rates)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws on the CPU as a function of `seed`; afterwards all generators, of devices too, are as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the devices' generators
        yield


def build_model(name: str, vocabulary: VocabularyFacts, *, dropout: float, seed: int) -> PreTrainedModel:
    """A freshly initialised masked LM (weights a function of `seed`), with the tokenizer's vocabulary."""
    config = read_config(name)
    config.vocab_size = vocabulary.size
    config.pad_token_id = vocabulary.pad
    for attribute, token in (("cls_token_id", vocabulary.cls), ("sep_token_id", vocabulary.sep)):
        if hasattr(config, attribute):
            setattr(config, attribute, token)
    for attribute, token in (("bos_token_id", vocabulary.cls), ("eos_token_id", vocabulary.sep)):
        if getattr(config, attribute, None) is not None:
            setattr(config, attribute, token)
    config.update(dict.fromkeys(dropout_rates(config), dropout))
    with seeded(seed), quiet():
        try:
            return AutoModelForMaskedLM.from_config(config)
        except Exception as error:  # whatever a family's constructor makes of values that do not fit
            raise UserError(f"model '{name}' cannot be built: {one_line(error)}") from error


@torch.no_grad()
def set_output_bias(model: PreTrainedModel, log_frequencies: torch.Tensor) -> bool:
    """Start the head's bias at the tokens' log frequencies (float[vocabulary]); False if the head has none.

    The model then begins at the unigram loss, which is what the first hundreds of steps would teach it.
    """
    bias = getattr(model.get_output_embeddings(), "bias", None)
    if bias is None or len(bias) < len(log_frequencies):
        return False
    bias.fill_(
        log_frequencies.min()
    )  # ids beyond the tokenizer's, in a checkpoint whose vocabulary is padded
    bias[: len(log_frequencies)] = log_frequencies
    return True


def with_dropout(model: PreTrainedModel, rate: float) -> PreTrainedModel:
    """The same weights in a model built anew with all dropout rates `rate`: modules copy them when built."""
    config = copy.deepcopy(model.config)
    config.update(dict.fromkeys(dropout_rates(config), rate))
    fresh = empty_model(model, config)
    fresh.load_state_dict(model.state_dict())
    return fresh.train(model.training)


def empty_model(like: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """A model of the same class, device and dtype with another configuration, its weights still to be set."""
    with torch.random.fork_rng(devices=[]), quiet():
        return type(like)(config).to(device=like.device, dtype=like.dtype)


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """Hex SHA-256 of tensors, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_for(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, trained: int | None = None
) -> PreTrainedTokenizerFast:
    """A copy of a tokenizer that knows what this model takes: its longest sequence, and which inputs.

    `trained`: positions that were trained; a sequence is then no longer than these.
    """
    fitted = copy.deepcopy(tokenizer)
    longest = longest_sequence(model)
    if longest is not None:
        fitted.model_max_length = longest
    if trained is not None:
        fitted.model_max_length = min(fitted.model_max_length, trained)
    accepted = set(inspect.signature(model.forward).parameters)
    types = _token_types(model)
    if types is not None and types < _types_of_a_pair(tokenizer):
        accepted.discard("token_type_ids")  # a model that is not given them takes all for the first type
    fitted.model_input_names = [name for name in tokenizer.model_input_names if name in accepted]
    return fitted


def _token_types(model: nn.Module) -> int | None:
    """How many types of tokens a model tells apart; None where it does not embed them."""
    tables = (m for n, m in model.named_modules() if n.rpartition(".")[2] == "token_type_embeddings")
    return min((len(table.weight) for table in tables), default=None)


def _types_of_a_pair(tokenizer: PreTrainedTokenizerFast) -> int:
    """How many types of tokens a tokenizer gives in a batch of pairs of texts."""
    types = tokenizer("a", "a", return_token_type_ids=True)["token_type_ids"]
    return 1 + max([tokenizer.pad_token_type_id, *types])


def position_offset(model: nn.Module) -> int:
    """The position id of a sequence's first token: pad id + 1 in RoBERTa and its kin, else 0."""
    embedding = _position_embedding(model)
    return embedding.padding_idx + 1 if embedding is not None and embedding.padding_idx is not None else 0


def longest_sequence(model: PreTrainedModel) -> int | None:
    """Positions that the model has, or None where it knows no limit."""
    configured = getattr(model.config, "max_position_embeddings", None)
    limits = [configured] if isinstance(configured, int) and configured > 0 else []
    embedding = _position_embedding(model)
    if embedding is not None:  # YOSO and its kin have two rows more than positions
        limits.append(len(embedding.weight) - position_offset(model))
    return min(limits, default=None)


def _position_embedding(model: nn.Module) -> nn.Embedding | None:
    """The table of learned positions; I-BERT's is an embedding of its own kind, with the same attributes."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and hasattr(module, "padding_idx"):
            return module
    return None


def parameter_counts(model: nn.Module) -> dict[str, Any]:
    """All parameters, and those that are not embeddings."""
    embeddings = sum(
        p.numel() for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    )
    total = sum(p.numel() for p in model.parameters())
    return {"total": total, "without_embeddings": total - embeddings}
