"""BERT in the sizes of Turc et al. 2019 (arXiv 1908.08962) and Devlin et al. 2019, with what suits them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Layers, width, heads; what suits the size: peak learning rate, rows a step, fine-tuning's peak rate."""

    layers: int
    hidden: int
    heads: int
    learning_rate: float
    batch_size: int
    finetune_rate: float


PRESETS: Mapping[str, Preset] = {
    "bert-tiny": Preset(2, 128, 2, 1e-3, 32, 3e-4),
    "bert-mini": Preset(4, 256, 4, 1e-3, 32, 3e-4),
    "bert-small": Preset(4, 512, 8, 5e-4, 32, 1e-4),
    "bert-medium": Preset(8, 512, 8, 4e-4, 64, 1e-4),
    "bert-base": Preset(12, 768, 12, 2e-4, 256, 3e-5),
    "bert-large": Preset(24, 1024, 16, 1e-4, 256, 2e-5),
}


def nearest_preset(layers: int, hidden: int) -> Preset:
    """The preset whose size, in parameters of its layers, is nearest: for models that are no preset."""
    size = layers * hidden**2

    def distance(preset: Preset) -> float:
        other = preset.layers * preset.hidden**2
        return max(size / other, other / size)

    return min(PRESETS.values(), key=distance)
