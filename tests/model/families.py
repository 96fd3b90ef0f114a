"""Small random models: of the families that the tests know well, and one of every masked LM in transformers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
)

VOCABULARY = 97
POSITIONS = 48
LENGTH = 24
WINDOW = 3  # positions that ModernBERT's sliding layers see on either side

# Large initial weights make attention sharp, so that a leak shows far above rounding.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.3,
}
NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
BERT: dict[str, Any] = {**SIZES, **NO_DROPOUT, "pad_token_id": 0}
ROBERTA: dict[str, Any] = {**BERT, "pad_token_id": 1, "max_position_embeddings": POSITIONS + 2}
SPECIAL = {"bos_token_id": 2, "eos_token_id": 3}
DISTILBERT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 32,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.3,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
MODERNBERT: dict[str, Any] = {
    **SIZES,
    **SPECIAL,
    "num_hidden_layers": 4,
    "global_attn_every_n_layers": 3,
    "local_attention": 2 * WINDOW,
    "pad_token_id": 0,
    "cls_token_id": 2,
    "sep_token_id": 3,
}
DEBERTA: dict[str, Any] = {
    **BERT,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}

# By their names in transformers, so that a version without one of them skips it by name.
SETTINGS: dict[str, dict[str, Any]] = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "mpnet": ROBERTA,
    "albert": {**BERT, "embedding_size": 8},
    "electra": {**BERT, "embedding_size": 8},
    "distilbert": DISTILBERT,
    "modernbert": MODERNBERT,
    "deberta": DEBERTA,
    "deberta-v2": DEBERTA,
    "eurobert": {**SIZES, **SPECIAL, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0},
    "nomic_bert": {**BERT, "head_dim": 8},
}


def _maker(name: str) -> Callable[[], PreTrainedConfig]:
    return lambda: CONFIG_MAPPING[name](**SETTINGS[name])


FAMILIES = {name: _maker(name) for name in SETTINGS if name in CONFIG_MAPPING}
MISSING = [name for name in SETTINGS if name not in FAMILIES]

# Of these names a configuration gets those that it has.
_SMALL: dict[str, Any] = {
    **ROBERTA,
    **DISTILBERT,
    "embedding_size": 16,
    "hidden_dropout": 0.0,
    "d_model": 16,
    "emb_dim": 16,
    "head_dim": 8,
    "num_key_value_heads": 2,
    "max_2d_position_embeddings": 16,
    "entity_vocab_size": 9,
    "pronunciation_vocab_size": 9,
    "shape_vocab_size": 9,
    "input_embedding_size": 16,
    "output_embedding_size": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": POSITIONS + 2,
}
_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
}
_OWN: dict[str, dict[str, Any]] = {
    **SETTINGS,
    "funnel": {
        "vocab_size": VOCABULARY,
        "block_sizes": [1, 1],
        "d_model": 16,
        "n_head": 2,
        "d_head": 8,
        "d_inner": 32,
        "pad_token_id": 0,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
    },
    "neomme": {"head_dim": 16, "num_key_value_heads": 1, "embedding_rank": 8, "hidden_size": 32},
    "perceiver": {
        "vocab_size": VOCABULARY,
        "num_latents": 4,
        "d_latents": 16,
        "d_model": 16,
        "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2,
        "num_cross_attention_heads": 2,
        "max_position_embeddings": POSITIONS,
    },
    "reformer": {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "attn_layers": ["local", "lsh"],
        "num_attention_heads": 2,
        "attention_head_size": 8,
        "feed_forward_size": 32,
        "axial_pos_shape": [6, 8],
        "axial_pos_embds_dim": [8, 8],
        "max_position_embeddings": 48,
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "num_buckets": 2,
        "hidden_dropout_prob": 0.0,
        "local_attention_probs_dropout_prob": 0.0,
    },
    "modernvbert": {
        "text_config": {**MODERNBERT, "model_type": "modernbert"},
        "vision_config": {**_VISION, "model_type": "siglip_vision_model"},
        "image_token_id": 4,
        "pixel_shuffle_factor": 2,
    },
    "ultravbert": {
        "text_config": {
            **SIZES,
            **SPECIAL,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "model_type": "ultrabert",
        },
        "vision_config": {**_VISION, "model_type": "siglip_vision_model"},
        "image_token_id": 4,
        "pixel_shuffle_factor": 2,
    },
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "mobilebert": {"true_hidden_size": 16, "intra_bottleneck_size": 16, "embedding_size": 8},
}
MASKED_LM_TYPES = sorted(config.model_type for config in MODEL_FOR_MASKED_LM_MAPPING)


def small_config(model_type: str) -> PreTrainedConfig:
    """A configuration of any masked LM in transformers, some thousand parameters large."""
    kind = CONFIG_MAPPING[model_type]
    own = _OWN.get(model_type, {})
    if model_type in SETTINGS or "text_config" in own or "block_sizes" in own or model_type == "reformer":
        return kind(**own)
    default = kind()
    known = {**default.to_dict(), **getattr(kind, "attribute_map", {})}
    fitting = {name: value for name, value in _SMALL.items() if name in known}
    return kind(**{**fitting, **own})


def small_model(config: PreTrainedConfig, **chosen: Any) -> PreTrainedModel:
    """Random weights, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForMaskedLM.from_config(config, **chosen)


def masked_logits(
    model: nn.Module, ids: Tensor, positions: Tensor, segments: Tensor | None, index: Tensor, alone: bool
) -> Tensor:
    """Logits [masked, vocabulary] of a `MaskedLM` that attends on rows."""
    logits: Tensor = model(ids, index, position_ids=positions, segments=segments, alone=alone).logits()
    return logits
