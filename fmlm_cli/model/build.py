"""Making and loading models: all that fmlm knows of Hugging Face's configurations and checkpoints."""

import copy
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForMaskedLM,
    BertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers import logging as transformers_logging

from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.model.presets import PRESETS, Preset, nearest_preset


@dataclass(frozen=True)
class VocabularyFacts:
    """What a model has to know of its tokenizer: the number of ids, and the special ones' ids."""

    size: int
    pad: int
    cls: int | None
    sep: int | None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' own advice and progress bars off the console."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def preset_for(name: str) -> Preset:
    """The preset of this name, or for a config.json the one nearest in size."""
    if name in PRESETS:
        return PRESETS[name]
    config = read_config(name)
    return nearest_preset(int(config.num_hidden_layers), int(config.hidden_size))


def read_config(name: str) -> PreTrainedConfig:
    """The configuration that a preset's name, or the path of a config.json (or its folder), stands for."""
    if name in PRESETS:
        preset = PRESETS[name]
        return BertConfig(
            hidden_size=preset.hidden,
            num_hidden_layers=preset.layers,
            num_attention_heads=preset.heads,
            intermediate_size=4 * preset.hidden,
        )
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        if path.suffix == ".json" or len(path.parts) > 1:
            raise UserError(f"no such model configuration: {path}")
        raise unknown_name("model", name, [*PRESETS, "or the path of a config.json"])
    return _read_json_config(path)


def _read_json_config(path: Path) -> PreTrainedConfig:
    try:
        model_type = json.loads(path.read_text(encoding="utf-8"))["model_type"]
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
    except (KeyError, TypeError, UnicodeDecodeError):
        raise UserError(f"{path} is not a Hugging Face model configuration: it has no 'model_type'") from None
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(path, local_files_only=True)
    except Exception as error:  # transformers and huggingface_hub raise kinds of their own for bad values
        reason = _one_line(error)
        raise UserError(
            f"{path}: transformers cannot read a '{model_type}' configuration ({reason})"
        ) from None
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING or config.is_encoder_decoder:
        raise UserError(
            f"{path}: '{model_type}' has no masked-LM head in transformers; use an encoder such as bert or modernbert"
        )
    return config


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


def save_model(model: PreTrainedModel, folder: Path, dropout: Mapping[str, float]) -> None:
    """Save a model with these dropout rates in its configuration: fine-tuning wants others than pre-training."""
    own = dropout_rates(model.config)
    model.config.update(dropout)
    try:
        with quiet_transformers():
            model.save_pretrained(folder)
    finally:
        model.config.update(own)


def build_model(name: str, vocabulary: VocabularyFacts, *, dropout: float, seed: int) -> PreTrainedModel:
    """A freshly initialised masked LM (weights a function of `seed`), its vocabulary that of the tokenizer."""
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
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        try:
            return AutoModelForMaskedLM.from_config(config)
        except Exception as error:  # whatever a family's constructor makes of values that do not fit
            raise UserError(f"model '{name}' cannot be built: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@torch.no_grad()
def set_output_bias(model: PreTrainedModel, log_frequencies: torch.Tensor) -> bool:
    """Start the head's bias at the tokens' log frequencies (float[vocabulary]); False if the head has none.

    The model then begins at the unigram loss, which is what the first hundreds of steps would teach it.
    """
    bias = getattr(model.get_output_embeddings(), "bias", None)
    if bias is None or bias.shape != log_frequencies.shape:
        return False
    bias.copy_(log_frequencies)
    return True


def load_model(checkpoint: str) -> PreTrainedModel:
    """A masked LM with the weights of a local folder, or of a Hub name."""
    path = Path(checkpoint)
    if path.is_dir():
        read_config(checkpoint)
    elif path.exists():
        raise UserError(f"{checkpoint} is a file: give the model's folder")
    try:
        with quiet_transformers():
            model, report = AutoModelForMaskedLM.from_pretrained(
                checkpoint, local_files_only=path.is_dir(), trust_remote_code=False, output_loading_info=True
            )
    except Exception as error:  # safetensors, the Hub and transformers raise kinds of their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"cannot load a masked LM from {checkpoint}: {reason}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"{checkpoint} lacks weights of a masked LM: {', '.join(missing[:3])}; evaluate a checkpoint that has its head"
        )
    return model


def tokenizer_for(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A copy of a tokenizer that knows what this model takes: its longest sequence, and which inputs."""
    fitted = copy.deepcopy(tokenizer)
    longest = longest_sequence(model)
    if longest is not None:
        fitted.model_max_length = longest
    accepted = inspect.signature(model.forward).parameters
    fitted.model_input_names = [name for name in tokenizer.model_input_names if name in accepted]
    return fitted


def position_offset(model: nn.Module) -> int:
    """The position id of a sequence's first token: pad id + 1 in RoBERTa and its kin, else 0."""
    embedding = _position_embedding(model)
    return embedding.padding_idx + 1 if embedding is not None and embedding.padding_idx is not None else 0


def longest_sequence(model: PreTrainedModel) -> int | None:
    """Positions that the model has, or None where it knows no limit."""
    embedding = _position_embedding(model)
    if embedding is not None:
        return int(embedding.num_embeddings) - position_offset(model)
    limit = getattr(model.config, "max_position_embeddings", None)
    return int(limit) if isinstance(limit, int) and limit > 0 else None


def _position_embedding(model: nn.Module) -> nn.Embedding | None:
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, nn.Embedding):
            return module
    return None


def parameter_counts(model: nn.Module) -> dict[str, Any]:
    """All parameters, and those that are not embeddings."""
    embeddings = sum(
        p.numel() for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    )
    total = sum(p.numel() for p in model.parameters())
    return {"total": total, "without_embeddings": total - embeddings}
