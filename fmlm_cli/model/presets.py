"""Models by name, with what suits their size.

BERT in the sizes of Turc et al. 2019 (arXiv 1908.08962) and Devlin et al. 2019; RoBERTa (Liu et al. 2019,
arXiv 1907.11692); DistilBERT (Sanh et al. 2019, arXiv 1910.01108); ModernBERT (Warner et al. 2024, arXiv
2412.13663); and DeBERTa-v3 (He et al. 2021, arXiv 2111.09543), whose shape is trained here as a masked LM,
not to detect replaced tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Layers, width, heads; what suits the size: peak learning rate, rows a step, fine-tuning's peak rate.

    `family`: the model's type in transformers. `shape`: what else its configuration says, beside vocabulary
    and special tokens, which are the tokenizer's.
    """

    layers: int
    hidden: int
    heads: int
    learning_rate: float
    batch_size: int
    finetune_rate: float
    family: str = "bert"
    shape: Mapping[str, Any] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Of its configuration in transformers."""
        names = _DISTILBERT if self.family == "distilbert" else _NAMES
        sizes = self.layers, self.hidden, self.heads, 4 * self.hidden
        return {**dict(zip(names, sizes, strict=True)), **(self.shape or {})}


_NAMES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
_DISTILBERT = ("n_layers", "dim", "n_heads", "hidden_dim")

_ROBERTA = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
_MODERNBERT = {  # every third layer sees the whole sequence, the others 64 positions to either side
    "intermediate_size": 1152,  # of each half of a gated unit
    "max_position_embeddings": 8192,
    "global_attn_every_n_layers": 3,
    "local_attention": 128,
}
_DEBERTA_V3 = {
    "max_position_embeddings": 512,
    "type_vocab_size": 0,
    "position_biased_input": False,
    "relative_attention": True,
    "position_buckets": 256,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "layer_norm_eps": 1e-7,
}

PRESETS: Mapping[str, Preset] = {
    "bert-tiny": Preset(2, 128, 2, 1e-3, 32, 3e-4),
    "bert-mini": Preset(4, 256, 4, 1e-3, 32, 3e-4),
    "bert-small": Preset(4, 512, 8, 5e-4, 32, 1e-4),
    "bert-medium": Preset(8, 512, 8, 4e-4, 64, 1e-4),
    "bert-base": Preset(12, 768, 12, 2e-4, 256, 3e-5),
    "bert-large": Preset(24, 1024, 16, 1e-4, 256, 2e-5),
    "distilbert-base": Preset(6, 768, 12, 3e-4, 128, 5e-5, "distilbert"),
    "roberta-base": Preset(12, 768, 12, 2e-4, 256, 3e-5, "roberta", _ROBERTA),
    "modernbert-base": Preset(22, 768, 12, 2e-4, 256, 3e-5, "modernbert", _MODERNBERT),
    "deberta-v3-base": Preset(12, 768, 12, 2e-4, 256, 2e-5, "deberta-v2", _DEBERTA_V3),
}


def nearest_preset(layers: int, hidden: int) -> Preset:
    """The preset whose size, in parameters of its layers, is nearest: for models that are no preset.

    Of several as near, the first.
    """
    size = layers * hidden**2

    def distance(preset: Preset) -> float:
        other = preset.layers * preset.hidden**2
        return max(size / other, other / size)

    return min(PRESETS.values(), key=distance)
