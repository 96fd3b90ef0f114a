"""Classification and regression of whole sequences: sequences -> batches -> summed loss."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmlm_cli.corpus.rows.sequences import Int64s, Sequences
from fmlm_cli.engine.batch import Batch


@dataclass(frozen=True)
class SequenceClassification:
    """Cross-entropy over labels, or the squared error of a score.

    `pad`: id of the padding token. `multiple`: rows are padded to a multiple of so many positions, so that a
    GPU sees few shapes.
    """

    regression: bool
    pad: int
    multiple: int = 1

    def prepare(
        self, sequences: Sequences, index: Int64s, labels: npt.NDArray[np.generic] | None, micro_size: int
    ) -> list[Batch]:
        """The batches of some sequences, at most `micro_size` in each. `labels`: of all sequences."""
        return [
            self._batch(sequences, index[begin : begin + micro_size], labels)
            for begin in range(0, len(index), micro_size)
        ]

    def _batch(self, sequences: Sequences, index: Int64s, labels: npt.NDArray[np.generic] | None) -> Batch:
        ids, types, present = sequences.padded(index, self.pad, self.multiple)
        inputs = {"input_ids": torch.from_numpy(ids)}
        if types is not None:
            inputs["token_type_ids"] = torch.from_numpy(types)
        tokens = int(present.sum())
        if tokens < present.size:  # without a mask attention is faster
            inputs["attention_mask"] = torch.from_numpy(present)
        if labels is not None:
            inputs["targets"] = torch.from_numpy(
                labels[index].astype(np.float32 if self.regression else np.int64)
            )
        return Batch(inputs, len(index), tokens, tuple(index.tolist()))

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits float32[sequences, labels], or scores float32[sequences, 1]."""
        inputs = {name: value for name, value in batch.inputs.items() if name != "targets"}
        logits: Tensor = model(**inputs).logits
        return logits.float()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed cross-entropy (nats), or summed squared error."""
        outputs, targets = self.outputs(model, batch), batch.inputs["targets"]
        if self.regression:
            return F.mse_loss(outputs[:, 0], targets, reduction="sum")
        return F.cross_entropy(outputs, targets, reduction="sum")
