"""Values on their way from the device to the host, which goes on meanwhile."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
MOST_ON_THEIR_WAY = 8  # enough to keep a GPU busy; what more would do is make records late and stops slow


class Letter(Protocol):
    """Values that were sent to the host."""

    @property
    def has_arrived(self) -> bool:
        """Whether reading them would not wait."""
        ...

    def read(self) -> list[float]:
        """The values, once they are there."""
        ...


Post = Callable[[Tensor], Letter]


class _AtHand:
    """Values of a CPU, which are there; or of a device that reading waits for."""

    has_arrived = True

    def __init__(self, values: Tensor) -> None:
        self._values = values

    def read(self) -> list[float]:
        read: list[float] = self._values.tolist()
        return read


class _FromCuda:
    """Values that a GPU copies to the host when it comes to them."""

    def __init__(self, values: Tensor) -> None:
        self._copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._copy.copy_(values, non_blocking=True)
        self._event = torch.cuda.current_stream(values.device).record_event()

    @property
    def has_arrived(self) -> bool:
        return bool(self._event.query())

    def read(self) -> list[float]:
        self._event.synchronize()
        read: list[float] = self._copy.tolist()
        return read


def post(values: Tensor) -> Letter:
    """Send a tensor of one axis to the host; on a GPU this waits for nothing."""
    return _FromCuda(values) if values.is_cuda else _AtHand(values)


class Arrivals(Generic[T]):
    """Things whose values are on their way to the host, at most `most` at a time. They arrive in order.

    `promptly`: they are received as soon as they are there, and not when more than `most` are on their way:
    processes that have to receive the same at the same time cannot go by their clocks.
    """

    def __init__(self, post: Post = post, most: int = MOST_ON_THEIR_WAY, *, promptly: bool = True) -> None:
        self._post, self._most, self._promptly = post, most, promptly
        self._underway: deque[tuple[T, Letter]] = deque()

    def __len__(self) -> int:
        """How many have not been received."""
        return len(self._underway)

    def all_there(self) -> bool:
        """Whether the device has done all that it was given."""
        return not self._underway or self._underway[-1][1].has_arrived

    def send(self, thing: T, values: Tensor) -> None:
        """Send a thing's values after it."""
        self._underway.append((thing, self._post(values)))

    def receive(self, *, wait: bool) -> Iterator[tuple[T, list[float]]]:
        """The things that have arrived, with their values; with `wait` all of them.

        Where more than `most` are on their way, the oldest are waited for.
        """
        while self._underway and (
            wait or len(self._underway) > self._most or (self._promptly and self._underway[0][1].has_arrived)
        ):
            thing, letter = self._underway.popleft()
            yield thing, letter.read()
