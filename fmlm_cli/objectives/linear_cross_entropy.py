"""The summed cross-entropy of a linear decoder's logits, which pass through a CPU's cache a block at a time.

For a small BERT a batch's logits, [masked, vocabulary], are larger than everything else together, and a
softmax, its logarithm and its gradient write them again and again. Here they are written once. Blocks of the
vocabulary, small enough for a cache, are multiplied and summed up to the logarithm of the norm; a second
round makes of each block its gradient and at once what the backward needs of it, the gradients of hidden
states and decoder. The logits stand transposed, [vocabulary, masked]: so all three products are fast ones.

`torch.nn.functional.linear_cross_entropy`, which torch has from 2.13 on, took ten times as long as decoder
and cross-entropy one after the other, for 576 x 30,522 logits on two CPU cores.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

HELD = (
    1 << 26
)  # logits held at a time, in entries; of more positions than that some are done after the others
_BLOCK_ON_CPU = 1 << 19  # logits in a block there, in entries: what the caches of two cores hold


def summed_cross_entropy(hidden: Tensor, decoder: nn.Module, targets: Tensor, ignored: int) -> Tensor:
    """Sum over `targets`, int64[n], but those `ignored`, of -log softmax of the decoder's logits: a scalar.

    `hidden`: float[n, width]. The logits count in float32 at least, whatever autocast makes of the decoder.
    Its gradients come once: there is no second derivative. A decoder that is more than a linear map of
    weights of its own is called as it is.
    """
    if type(decoder) is not nn.Linear or _is_watched(decoder):
        logits: Tensor = decoder(hidden)
        wide = torch.promote_types(logits.dtype, torch.float32)
        return F.cross_entropy(logits.to(wide), targets, reduction="sum", ignore_index=ignored)
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        hidden = hidden.to(torch.get_autocast_dtype(kind))
    with torch.autocast(kind, enabled=False):
        total: Tensor = _LinearCrossEntropy.apply(hidden, decoder.weight, decoder.bias, targets, ignored)
    return total


def _is_watched(module: nn.Module) -> bool:
    """Whether a call of the module is more than its forward."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return any(map(len, (*hooks, module._backward_pre_hooks)))


class _LinearCrossEntropy(torch.autograd.Function):
    """Its forward makes the gradients too, for a loss whose own gradient is 1; the backward scales them."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, ignored: int
    ) -> Tensor:
        blocks = _Blocks(hidden.dtype, weight, bias)
        gradients = _Gradients(blocks, hidden, ctx.needs_input_grad)
        rows = max(1, HELD // len(weight))
        logits = torch.empty(len(weight) * min(rows, len(hidden)), dtype=blocks.wide, device=hidden.device)
        total = logits.new_zeros(())
        for begin in range(0, len(hidden), rows):
            part = slice(begin, begin + rows)
            states, aims = hidden[part], targets[part]
            counted = aims != ignored
            index = aims.masked_fill(~counted, 0)
            held = logits[: len(weight) * len(states)].view(len(weight), -1)
            norms = blocks.log_norms(states, out=held)
            total += (norms - held.gather(0, index[None])[0]).masked_fill(~counted, 0).sum()
            if any(ctx.needs_input_grad):
                gradients.add(held, norms.masked_fill(~counted, torch.inf), part)
                gradients.add_targets(index, counted, part)
        ctx.gradients = gradients
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the gradients of this cross-entropy were given away by its first backward")
        return (*gradients.scaled_(scale), None, None)


class _Blocks:
    """A decoder by blocks of its vocabulary. `wide`: the type that sums are made in."""

    def __init__(self, dtype: torch.dtype, weight: Tensor, bias: Tensor | None) -> None:
        self.wide = torch.promote_types(dtype, torch.float32)
        self.weight, self.bias = weight, bias
        self.matrix = weight.to(dtype)
        self._added = None if bias is None else bias.to(dtype)[:, None]

    def of(self, rows: int) -> Iterator[slice]:
        """Blocks for the logits of so many positions; on a GPU one."""
        size = len(self.matrix)
        step = max(1, _BLOCK_ON_CPU // max(1, rows)) if self.matrix.device.type == "cpu" else size
        return (slice(begin, begin + step) for begin in range(0, size, step))

    def log_norms(self, states: Tensor, out: Tensor) -> Tensor:
        """Log of the sum of exp(logits), [rows]; the logits of `states` are written to `out`."""
        norms = out.new_full((len(states),), -torch.inf)
        for block in self.of(len(states)):
            logits = out[block]
            product = logits if self.wide == states.dtype else torch.empty_like(logits, dtype=states.dtype)
            if self._added is None:
                torch.mm(self.matrix[block], states.T, out=product)
            else:
                torch.addmm(self._added[block], self.matrix[block], states.T, out=product)
            logits.copy_(product)
            norms = torch.logaddexp(norms, torch.logsumexp(logits, 0))
        return norms


class _Gradients:
    """Gradients of hidden states, matrix and bias, those that are wanted."""

    def __init__(self, blocks: _Blocks, hidden: Tensor, wanted: Sequence[bool]) -> None:
        self._blocks, self._hidden = blocks, hidden
        self._of_hidden, self._of_matrix, self._of_bias = (
            torch.zeros_like(tensor, dtype=blocks.wide) if tensor is not None and needed else None
            for tensor, needed in zip((hidden, blocks.weight, blocks.bias), wanted, strict=False)
        )

    def add(self, logits: Tensor, norms: Tensor, part: slice) -> None:
        """Take up what the softmax of the logits of positions `part` gives; it is left in their memory."""
        states = self._hidden[part]
        for block in self._blocks.of(len(states)):
            shares = logits[block].sub_(norms).exp_()
            if self._of_bias is not None:
                self._of_bias[block] += shares.sum(1)
            shares = shares.to(states.dtype)
            if self._of_matrix is not None:
                _add_product_(self._of_matrix[block], shares, states)
            if self._of_hidden is not None:
                _add_product_(self._of_hidden[part], shares.T, self._blocks.matrix[block])

    def add_targets(self, index: Tensor, counted: Tensor, part: slice) -> None:
        """Take up what the logits of the targets `index` give where they are `counted`."""
        sign = counted.to(self._blocks.wide).neg()
        if self._of_hidden is not None:
            self._of_hidden[part].addcmul_(self._blocks.matrix[index].to(sign.dtype), sign[:, None])
        if self._of_matrix is not None:
            self._of_matrix.index_add_(0, index, self._hidden[part] * sign[:, None])
        if self._of_bias is not None:
            self._of_bias.index_add_(0, index, sign)

    def scaled_(self, scale: Tensor) -> list[Tensor | None]:
        """All of them times `scale`, each in its tensor's type."""
        sums = (self._of_hidden, self._of_matrix, self._of_bias)
        dtypes = (self._hidden.dtype, self._blocks.weight.dtype, self._blocks.weight.dtype)
        return [
            None if total is None else total.mul_(scale).to(dtype)
            for total, dtype in zip(sums, dtypes, strict=True)
        ]


def _add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a product of two matrices, which may be in a narrower type than the sum."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
