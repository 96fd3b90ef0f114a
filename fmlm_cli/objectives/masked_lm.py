"""Masked language modelling: rows of tokens -> masked batches -> summed cross-entropy of what is masked."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmlm_cli.corpus.rows.reading import Rows
from fmlm_cli.engine.batch import Batch
from fmlm_cli.masking import IGNORED, RowView, Strategy
from fmlm_cli.model.layouts import LAYOUTS, LayoutName
from fmlm_cli.model.masked_lm import HeadOutput
from fmlm_cli.objectives.linear_cross_entropy import HELD, summed_cross_entropy

Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]


def view_of(rows: Rows) -> RowView:
    """Rows as masking sees them."""
    return RowView(rows.maskable, rows.word_starts, rows.row_ids, rows.input_ids)


@dataclass(frozen=True)
class MaskedLanguageModelling:
    """Masks by `strategy` with `seed`; `ordinary_ids` are the ids that random replacements come from.

    `unigram_losses`: float32[vocabulary], -log of each id's share in the training tokens, for comparison.
    `static_shapes`: pad the list of masked positions to a length that suits every step, so that a GPU sees
    the same shapes throughout; padding is ignored by the loss. `layout`: the form of the batches, that of the
    attention backend of the model they are for.
    """

    strategy: Strategy
    seed: int
    mask_id: int
    ordinary_ids: Int64s
    unigram_losses: Tensor
    static_shapes: bool = False
    layout: LayoutName = "rows"

    def prepare(
        self, rows: Rows, epoch: int | Int64s, micro_size: int, mask_epoch: int | Int64s | None = None
    ) -> list[Batch]:
        """The masked batches of some rows in their epochs, at most `micro_size` masked rows in each.

        A row gives as many masked rows, next to each other, as the strategy has masks in one step.
        `mask_epoch`: the epoch whose masks the strategy is asked for, where a schedule counts them otherwise.
        """
        epoch, mask_epoch = _single(epoch), _single(epoch if mask_epoch is None else mask_epoch)
        view = view_of(rows)
        masks = self.strategy.masks(view, mask_epoch, self.seed)
        corrupted, _ = self.strategy.corrupt(
            view, masks, epoch, self.seed, mask_id=self.mask_id, ordinary_ids=self.ordinary_ids
        )
        number, length = masks.shape[1:]
        corrupted, masks = corrupted.reshape(-1, length), masks.reshape(-1, length)
        batches = []
        for begin in range(0, len(masks), micro_size):
            part = slice(begin, begin + micro_size)
            row = part if number == 1 else np.arange(len(masks))[part] // number
            batches.append(self._batch(rows, row, corrupted[part], masks[part]))
        return batches

    def _batch(self, rows: Rows, row: slice | Int64s, corrupted: Int64s, masks: Bools) -> Batch:
        """`row`: for each masked row, which of `rows` it is."""
        segments = rows.segments[row]
        masked = np.flatnonzero(masks)
        targets = rows.input_ids[row].ravel().take(masked)
        count = len(masked)
        if self.static_shapes:
            missing = self._capacity(masks, count) - count
            masked = np.pad(masked, (0, missing))
            targets = np.pad(targets, (0, missing), constant_values=IGNORED)
        inputs = LAYOUTS[self.layout](corrupted, rows.position_ids[row], segments, masked)
        inputs["targets"] = torch.from_numpy(targets)
        numbers = dict.fromkeys(rows.numbers[row].tolist())  # each once, in order
        return Batch(inputs, count, int(np.count_nonzero(segments)), tuple(numbers))

    def _capacity(self, masks: Bools, count: int) -> int:
        """Room for the masked positions: what exact counts of single tokens can need, or a multiple of that.

        Longer units, and counts that are drawn, may need more now and then; then a second shape occurs.
        """
        whole = len(masks) * math.ceil(self.strategy.rate * masks.shape[1] - 1e-9)
        return whole * max(1, math.ceil(count / whole))

    def _predict(self, model: nn.Module, batch: Batch) -> HeadOutput:
        output: HeadOutput = model(**{n: value for n, value in batch.inputs.items() if n != "targets"})
        return output

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed cross-entropy (nats) of the original tokens at the masked positions."""
        hidden, decoder = self._predict(model, batch)
        return summed_cross_entropy(hidden, decoder, batch.inputs["targets"], IGNORED)

    def score(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Sums over the targets: cross-entropy, right predictions, the unigram model's cross-entropy.

        And by token, float[vocabulary]: the cross-entropy of its occurrences, and their number.
        """
        hidden, decoder = self._predict(model, batch)
        targets = batch.inputs["targets"]
        at_once = max(1, HELD // len(self.unigram_losses))
        parts = zip(hidden.split(at_once), targets.split(at_once), strict=True)
        scores = [self._score(decoder(states).float(), aims) for states, aims in parts]
        return {name: torch.stack([part[name] for part in scores]).sum(0) for name in scores[0]}

    def _score(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        real, token = targets != IGNORED, targets.clamp(min=0)
        losses = F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)
        nothing = logits.new_zeros(logits.shape[-1])
        return {
            "eval_loss": losses.sum(),
            "eval_accuracy": ((logits.argmax(-1) == targets) & real).sum(),
            "unigram_loss": (self.unigram_losses.to(targets.device)[token] * real).sum(),
            "token_losses": nothing.index_add(0, token, losses),
            "token_counts": nothing.index_add(0, token, real.to(losses.dtype)),
        }


def _single(epoch: int | Int64s) -> int | Int64s:
    """One number where all are the same, as almost always: it is hashed once, not for every row."""
    same = isinstance(epoch, np.ndarray) and len(epoch) and (epoch == epoch[0]).all()
    return int(epoch[0]) if same else epoch  # type: ignore[index]


def unigram_losses(token_counts: npt.NDArray[np.uint64], never_masked: Collection[int] = ()) -> Tensor:
    """-log p of every id under the frequencies of what can be masked, one added to each: float32[vocabulary].

    Ids in `never_masked` are no targets and take no part; they get the loss of the rarest of the others.
    """
    counts = token_counts.astype(np.float64) + 1
    special = list(never_masked)
    counts[special] = 0
    shares = counts / counts.sum()
    shares[special] = np.delete(shares, special).min()
    return torch.from_numpy(-np.log(shares)).float()
