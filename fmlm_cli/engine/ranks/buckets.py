"""Tensors summed over processes in a few large pieces: each piece costs a round trip, whatever its size."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BUCKET_BYTES = 32 << 20  # enough to fill a network; what more would do is hold more memory


@dataclass(frozen=True)
class Bucket:
    """Some tensors of one kind, and all their values in one row: `flat`."""

    tensors: tuple[Tensor, ...]
    flat: Tensor

    @classmethod
    def of(cls, tensors: tuple[Tensor, ...]) -> "Bucket":
        """The values in a row of their own; those of one tensor alone, if they lie in a row, stay there."""
        if len(tensors) == 1 and tensors[0].is_contiguous():
            return cls(tensors, tensors[0].view(-1))
        return cls(tensors, torch.cat([tensor.reshape(-1) for tensor in tensors]))

    def give_back(self) -> None:
        """Put the values of the row where they came from."""
        if self.flat.data_ptr() == self.tensors[0].data_ptr():
            return
        parts = self.flat.split([tensor.numel() for tensor in self.tensors])
        for tensor, part in zip(self.tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def in_buckets(tensors: Iterable[Tensor], most: int = BUCKET_BYTES) -> Iterator[tuple[Tensor, ...]]:
    """The tensors in order, in groups of one type of at most `most` bytes, or of one tensor."""
    group: list[Tensor] = []
    size = 0
    for tensor in tensors:
        full = size + tensor.nbytes > most
        if group and (full or tensor.dtype != group[0].dtype):
            yield tuple(group)
            group, size = [], 0
        group.append(tensor)
        size += tensor.nbytes
    if group:
        yield tuple(group)
