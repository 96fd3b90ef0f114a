"""What a process knows of the others with which it trains one model; and one that trains alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
Addend = TypeVar("Addend", int, float, Tensor)


class Ranks(Protocol):
    """What a process knows of the others.

    Each method but `mine` and `place` is called by all, in the same order.
    """

    @property
    def local_rank(self) -> int:
        """This process's number among those of its machine, from 0."""
        ...

    @property
    def world(self) -> int:
        """How many processes there are."""
        ...

    @property
    def is_writer(self) -> bool:
        """Whether this process writes checkpoints and records: one of them does."""
        ...

    def mine(self, items: Iterable[T]) -> Iterable[T]:
        """This process's part of what all of them have, in order; each item is one process's."""
        ...

    def place(self, index: int) -> int:
        """The place that the item number `index` of this process's part has among all."""
        ...

    def sum(self, value: Addend) -> Addend:
        """The sum of all processes' values, the same on all."""
        ...

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by the sum of all processes'.

        A process may have none, which counts as zeros; where none has one, none gets one.
        """
        ...

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        ...

    def gather(self, value: T) -> list[T]:
        """All processes' values, in the order of their ranks."""
        ...

    def from_writer(self, value: T | None) -> T:
        """The value that the writer has, on all; the others' are not looked at."""
        ...

    def meet_on(self, device: torch.device) -> None:
        """Settle how tensors on this process's device travel to the others'."""
        ...

    def shard(
        self, model: nn.Module, layers: Sequence[nn.Module], device: torch.device, low: torch.dtype | None
    ) -> None:
        """Leave each process its part of a model, on its device: see `sharding`."""
        ...


@dataclass(frozen=True)
class OneProcess:
    """A process that trains alone: nothing is copied, nothing waits."""

    local_rank: ClassVar[int] = 0
    world: ClassVar[int] = 1
    is_writer: ClassVar[bool] = True

    def mine(self, items: Iterable[T]) -> Iterable[T]:
        """All of them."""
        return items

    def place(self, index: int) -> int:
        """The same."""
        return index

    def sum(self, value: Addend) -> Addend:
        """The value."""
        return value

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """They are summed already."""

    def any(self, flag: bool) -> bool:
        """The flag."""
        return flag

    def gather(self, value: T) -> list[T]:
        """The value alone."""
        return [value]

    def from_writer(self, value: T | None) -> T:
        """The value."""
        assert value is not None
        return value

    def meet_on(self, device: torch.device) -> None:
        """There is nobody to meet."""

    def shard(
        self, model: nn.Module, layers: Sequence[nn.Module], device: torch.device, low: torch.dtype | None
    ) -> None:
        """Its part is the whole."""
