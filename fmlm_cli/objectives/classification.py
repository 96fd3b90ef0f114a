"""Classification and regression of whole sequences: sequences -> batches -> summed loss."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmlm_cli.corpus.rows.sequences import Int64s, Sequences
from fmlm_cli.engine.batch import Batch
from fmlm_cli.model.classification.sequence_classifier import SequenceClassifier, sequence_inputs
from fmlm_cli.model.layouts import LayoutName
from fmlm_cli.objectives.micro_batches import cut_by_tokens, cut_in_rows


@dataclass(frozen=True)
class SequenceClassification:
    """Cross-entropy over labels, or the squared error of a score.

    `pad`: id of the padding token. `multiple`: rows are padded to a multiple of so many positions, so that a
    GPU sees few shapes. `layout`: the form of the batches, that of the model's attention backend; on a flat
    row no sequence is longer than `multiple`.
    """

    regression: bool
    pad: int
    multiple: int = 1
    layout: LayoutName = "rows"

    @classmethod
    def of_model(
        cls, model: SequenceClassifier, max_length: int, *, pad: int, regression: bool
    ) -> "SequenceClassification":
        """For a model on its device, and sequences of at most `max_length` tokens."""
        layout = model.attention.layout
        few_shapes = 8 if model.pretrained.device.type == "cuda" else 1
        return cls(regression, pad, max_length if layout == "flat" else few_shapes, layout)

    def prepare(
        self, sequences: Sequences, index: Int64s, labels: npt.NDArray[np.generic] | None, micro_size: int
    ) -> list[Batch]:
        """The batches of some sequences, of at most `micro_size` rows' positions each.

        `labels`: of all sequences. On a flat row, where padding costs nothing, short sequences leave room for
        more than `micro_size` of them.
        """
        if self.layout == "flat":
            cuts = cut_by_tokens(sequences.lengths[index], self.multiple, micro_size)
        else:
            cuts = cut_in_rows(len(index), self.multiple, micro_size)
        return [self._batch(sequences, index[cut.part], labels, micro_size) for cut in cuts]

    def _batch(
        self, sequences: Sequences, index: Int64s, labels: npt.NDArray[np.generic] | None, micro_size: int
    ) -> Batch:
        ids, types, present = sequences.padded(index, self.pad, self.multiple)
        inputs = sequence_inputs(self.layout, ids, types, present, micro_size * self.multiple)
        if labels is not None:
            inputs["targets"] = torch.from_numpy(
                labels[index].astype(np.float32 if self.regression else np.int64)
            )
        return Batch(inputs, len(index), int(present.sum()), tuple(index.tolist()))

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits float32[sequences, labels], or scores float32[sequences, 1]."""
        logits: Tensor = model(**{name: value for name, value in batch.inputs.items() if name != "targets"})
        return logits.float()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed cross-entropy (nats), or summed squared error."""
        outputs, targets = self.outputs(model, batch), batch.inputs["targets"]
        if self.regression:
            return F.mse_loss(outputs[:, 0], targets, reduction="sum")
        return F.cross_entropy(outputs, targets, reduction="sum")
