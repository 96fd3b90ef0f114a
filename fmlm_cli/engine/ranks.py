"""The processes that train one model together, as one of them sees them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor, nn

T = TypeVar("T")
Addend = TypeVar("Addend", int, float, Tensor)


class Ranks(Protocol):
    """What a process knows of the others. Each method but `mine` is called by all, in the same order."""

    @property
    def is_writer(self) -> bool:
        """Whether this process writes checkpoints and records: one of them does."""
        ...

    def mine(self, items: Iterable[T]) -> Iterable[T]:
        """This process's part of what all of them have, in order; each item is one process's."""
        ...

    def sum(self, value: Addend) -> Addend:
        """The sum of all processes' values, the same on all."""
        ...

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by the sum of all processes'; one may have had no part of it."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        ...

    def gather(self, value: T) -> list[T]:
        """All processes' values, in the order of their ranks."""
        ...


@dataclass(frozen=True)
class OneProcess:
    """A process that trains alone: nothing is copied, nothing waits."""

    @property
    def is_writer(self) -> bool:
        """It is."""
        return True

    def mine(self, items: Iterable[T]) -> Iterable[T]:
        """All of them."""
        return items

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
