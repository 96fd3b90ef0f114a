"""Masked language modelling: rows of tokens -> masked batches -> summed cross-entropy of what is masked."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

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
from fmlm_cli.objectives.micro_batches import (
    COST_ON_CPU,
    COST_ON_GPU,
    columns_needed,
    cut_by_tokens,
    cut_by_widest,
    cut_in_rows,
    widest_first,
)

Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]


class _MaskedRows(NamedTuple):
    """Rows under masks: which of the rows each is, the ids that are shown, and where there is a mask."""

    row: Int64s
    ids: Int64s
    masks: Bools

    def take(self, which: slice | Int64s) -> "_MaskedRows":
        """Some of them."""
        return _MaskedRows(self.row[which], self.ids[which], self.masks[which])


class Piece(NamedTuple):
    """A batch to be: which masked rows, `row * masks_per_sequence + mask`, and how many of their columns."""

    place: Int64s
    width: int


def view_of(rows: Rows) -> RowView:
    """Rows as masking sees them."""
    return RowView(rows.maskable, rows.word_starts, rows.row_ids, rows.input_ids)


@dataclass(frozen=True)
class MaskedLanguageModelling:
    """Masks by `strategy` with `seed`; `ordinary_ids` are the ids that random replacements come from.

    `unigram_losses`: float32[vocabulary], -log of each id's share in the training tokens, for comparison.
    `static_shapes`: for a GPU, pad the list of masked positions to a length that suits every step, so that it
    sees the same shapes throughout; padding is ignored by the loss. `layout`: the form of the batches, that
    of the attention backend of the model they are for.
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
        """The masked batches of some rows in their epochs, of at most `micro_size` rows' positions each.

        A row gives as many masked rows, next to each other, as the strategy has masks in one step.
        `mask_epoch`: the epoch whose masks the strategy is asked for, where a schedule counts them otherwise.

        Padding costs nothing in the layout `flat`, and little in `rows` where no row holds two documents:
        then those of like length share batches, the widest first. So a batch may hold more rows than
        `micro_size`.
        """
        return self.masked(rows, self.cut(rows, micro_size), epoch, micro_size, mask_epoch)

    def cut(self, rows: Rows, micro_size: int) -> list[Piece]:
        """How `prepare` cuts these rows into batches: a question of their lengths alone."""
        number, length = rows.segments.shape
        each = self.strategy.masks_per_sequence
        place = np.arange(number * each)
        if self.layout == "flat":
            tokens = np.count_nonzero(rows.segments, axis=1).repeat(each)
            cuts = cut_by_tokens(tokens, length, micro_size)
        elif rows.segments.max(initial=0) <= 1:
            needed = columns_needed(rows.segments).repeat(each)
            order = widest_first(needed)
            if order is not None:
                place, needed = place[order], needed[order]
            cost = COST_ON_GPU if self.static_shapes else COST_ON_CPU
            cuts = cut_by_widest(needed, length, micro_size, cost)
        else:
            cuts = cut_in_rows(number * each, length, micro_size)
        return [Piece(place[cut.part], cut.width) for cut in cuts]

    def masked(
        self,
        rows: Rows,
        pieces: Sequence[Piece],
        epoch: int | Int64s,
        micro_size: int,
        mask_epoch: int | Int64s | None = None,
    ) -> list[Batch]:
        """The batches of some of the pieces that these rows were cut into.

        Only the rows that are in them are masked: masks are drawn row by row, whatever others there are.
        """
        if not pieces:
            return []
        each = self.strategy.masks_per_sequence
        used = np.unique(np.concatenate([piece.place for piece in pieces]) // each)
        mask_epoch = epoch if mask_epoch is None else mask_epoch
        if len(used) < len(rows.segments):
            rows, epoch, mask_epoch = rows.take(used), _of(epoch, used), _of(mask_epoch, used)
        masked = self._mask(rows, epoch, mask_epoch)
        places = [np.searchsorted(used, piece.place // each) * each + piece.place % each for piece in pieces]
        return [
            self._batch(rows, masked.take(place), piece.width, micro_size)
            for place, piece in zip(places, pieces, strict=True)
        ]

    def prepare_singly(self, rows: Rows, epoch: int | Int64s) -> list[Batch]:
        """A batch for each masked row, in their order: for who asks for the gradient of each."""
        masked = self._mask(rows, epoch, epoch)
        number, length = masked.ids.shape
        cuts = cut_in_rows(number, length, 1)
        return [self._batch(rows, masked.take(cut.part), cut.width, 1) for cut in cuts]

    def _mask(self, rows: Rows, epoch: int | Int64s, mask_epoch: int | Int64s) -> "_MaskedRows":
        epoch, mask_epoch = _single(epoch), _single(mask_epoch)
        view = view_of(rows)
        masks = self.strategy.masks(view, mask_epoch, self.seed)
        corrupted, _ = self.strategy.corrupt(
            view, masks, epoch, self.seed, mask_id=self.mask_id, ordinary_ids=self.ordinary_ids
        )
        number, length = masks.shape[1:]
        row = np.repeat(np.arange(len(masks)), number)
        return _MaskedRows(row, corrupted.reshape(-1, length), masks.reshape(-1, length))

    def _batch(self, rows: Rows, masked: "_MaskedRows", width: int, micro_size: int) -> Batch:
        """The first `width` columns of some masked rows."""
        row, columns = masked.row, slice(0, width)
        segments = rows.segments[row, columns]
        masks = masked.masks[:, columns]
        index = np.flatnonzero(masks)
        targets = torch.from_numpy(rows.input_ids[row, columns].ravel().take(index))
        inputs = LAYOUTS[self.layout](
            np.ascontiguousarray(masked.ids[:, columns]),
            rows.position_ids[row, columns],
            segments,
            index,
            micro_size * masked.ids.shape[1],
        )
        if self.static_shapes:
            missing = self._capacity(inputs["input_ids"], len(index)) - len(index)
            inputs["masked_index"] = F.pad(inputs["masked_index"], (0, missing))
            targets = F.pad(targets, (0, missing), value=IGNORED)
        inputs["targets"] = targets
        numbers = dict.fromkeys(rows.numbers[row].tolist())  # each once, in order
        return Batch(inputs, len(index), int(np.count_nonzero(segments)), tuple(numbers))

    def _capacity(self, input_ids: Tensor, count: int) -> int:
        """Room for the masked positions: what exact counts of single tokens can need, or a multiple of that.

        Longer units, and counts that are drawn, may need more now and then; then a second shape occurs. In a
        flat row the number of documents decides too, and room grows by an eighth.
        """
        number, length = input_ids.shape
        share = 8 if self.layout == "flat" else 1
        whole = number * math.ceil(self.strategy.rate * length / share - 1e-9)
        return whole * max(1, math.ceil(count / whole))

    @staticmethod
    def without_targets(batch: Batch) -> Batch:
        """A batch that costs what this one does, and whose loss, scores and gradients are 0."""
        nothing = torch.full_like(batch.inputs["targets"], IGNORED)
        return replace(batch, inputs={**batch.inputs, "targets": nothing}, count=0, tokens=0, rows=())

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


def _of(epoch: int | Int64s, rows: Int64s) -> int | Int64s:
    """The epochs of some of the rows."""
    return epoch[rows] if isinstance(epoch, np.ndarray) else epoch


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
