"""Loading a checkpoint's encoder under a head that classifies or scores whole sequences."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)

from fmlm_cli.errors import UserError
from fmlm_cli.model.build import dropout_rates, seeded
from fmlm_cli.model.checkpoints.adapters import merged_tensors
from fmlm_cli.model.checkpoints.pretrained import check_encoder, find_class
from fmlm_cli.model.checkpoints.weights import Filled, fill, read_tensors
from fmlm_cli.model.layers import depths

SCORE = "score"  # the only "label" of a model that gives a score


@dataclass(frozen=True)
class Classifier:
    """An encoder with a head for whole sequences, in float32, and what its checkpoint lacked or had too much.

    `new`: parameters drawn afresh. `unused`: the checkpoint's tensors that found no place. Both sorted.
    """

    model: PreTrainedModel
    new: tuple[str, ...]
    unused: tuple[str, ...]


@dataclass(frozen=True)
class EncoderCheckpoint:
    """A checkpoint that was read once, from which classifiers are made: one for each seed and task."""

    name: str
    config: PreTrainedConfig
    model_class: type[PreTrainedModel]
    tensors: Mapping[str, Tensor]
    foreign: bool

    @classmethod
    def read(
        cls,
        folder: Path,
        *,
        name: str,
        adapter: Path | None = None,
        trust_remote_code: bool = False,
        announce: Callable[[str], None] = lambda text: None,
    ) -> "EncoderCheckpoint":
        """The checkpoint in a Hugging Face folder. `UserError` for what is no encoder or is damaged.

        `adapter`: the folder of one that is merged into the model; it may bring a head for labels of its own.
        """
        config, model_class, _, foreign = find_class(
            folder,
            name,
            trust_remote_code,
            announce,
            MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
            "AutoModelForSequenceClassification",
        )
        tensors = read_tensors(folder, name)
        if adapter is not None:
            tensors = merged_tensors(tensors, adapter, config, model_class, name)
        read = cls(name, config, model_class, tensors, foreign)
        outputs = [tensor for key, tensor in tensors.items() if key in read.output_names]
        if adapter is not None and outputs and len(outputs[0]) != config.num_labels:
            config.num_labels = len(outputs[0])  # the base's configuration knows nothing of them
        return read

    @classmethod
    def of_model(cls, model: PreTrainedModel, name: str) -> "EncoderCheckpoint":
        """What the checkpoint of a model of transformers' own would be, of its very tensors."""
        model_class = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(model.config)]
        return cls(name, model.config, model_class, model.state_dict(), foreign=False)

    @cached_property
    def output_names(self) -> frozenset[str]:
        """Parameters whose size goes with the number of labels. The rest of a head can serve other labels."""
        shapes = []
        for number in (2, 3):
            config = copy.deepcopy(self.config)
            config.num_labels = number
            with torch.device("meta"):
                model = self.model_class(config)
            shapes.append({name: parameter.shape for name, parameter in model.named_parameters()})
        return frozenset(name for name, shape in shapes[0].items() if shapes[1][name] != shape)

    def classifier(
        self, labels: Sequence[str], *, seed: int, dropout: float | None = None, reinit_layers: int = 0
    ) -> Classifier:
        """The encoder with a head for `labels`, or for a score where there are none.

        What the checkpoint has of the head is used, but its outputs only if they are for the same labels; the
        rest is drawn from `seed`. `dropout`: all of the encoder's rates and the head's, instead of the
        checkpoint's own. `reinit_layers`: so many of the top layers are drawn afresh too, and the pooler
        (Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning").
        """
        config = copy.deepcopy(self.config)
        names = list(labels) or [SCORE]
        same_head = _label_names(config) == names
        config.num_labels = len(names)
        config.id2label = dict(enumerate(names))
        config.label2id = {label: number for number, label in config.id2label.items()}
        config.problem_type = "single_label_classification" if labels else "regression"
        if dropout is not None:
            config.update(dict.fromkeys(dropout_rates(config), dropout))
            if hasattr(config, "classifier_dropout"):
                config.classifier_dropout = dropout
        left_out = frozenset() if same_head else self.output_names
        # Copies: the model would train these very tensors, and the next one begin where it ended.
        tensors = {name: tensor.clone() for name, tensor in self.tensors.items() if name not in left_out}
        filled = fill(self.model_class, config, tensors, seed, self.name)
        check_encoder(filled, self.name, other_code=self.foreign)
        again = _reinitialise(filled.model, reinit_layers, seed) if reinit_layers else []
        new = tuple(sorted({*filled.missing, *again}))
        return Classifier(filled.model, new, _unused(filled, self.tensors))


def _unused(filled: Filled, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    return tuple(sorted(filled.unexpected & tensors.keys()))


def _label_names(config: PreTrainedConfig) -> list[str]:
    return [config.id2label[number] for number in sorted(config.id2label)]


@torch.no_grad()
def _reinitialise(model: PreTrainedModel, layers: int, seed: int) -> list[str]:
    """Draw the top layers and the pooler afresh, as the family does; the names of their parameters."""
    number = int(model.config.num_hidden_layers)
    if layers >= number:
        raise UserError(
            f"training.reinit_layers {layers}: the model has {number} layers, and at least one has to stay"
        )
    depth = depths(model)
    if set(range(1, number + 1)) - set(depth.values()):
        raise UserError(
            f"training.reinit_layers: the layers of '{model.config.model_type}' share their weights, or "
            "cannot be told apart"
        )
    inside = {id(p) for p in model.base_model.parameters()}
    redrawn = {
        name
        for name, p in model.named_parameters()
        if id(p) in inside and (number - layers < depth[name] <= number or ".pooler." in name)
    }
    with seeded(seed):
        for prefix, module in model.named_modules():
            names = {f"{prefix}.{name}" for name, _ in module.named_parameters(recurse=False)}
            if names and names <= redrawn:
                _draw(model, module)
    return sorted(redrawn)


def _draw(model: PreTrainedModel, module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter._is_hf_initialized = False  # type: ignore[attr-defined]
    model._init_weights(module)
