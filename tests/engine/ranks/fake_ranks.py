"""Processes that train together, played by threads: the collective calls of a group wait for each other."""

import copy
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")


class Group:
    """What the threads of one group share."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.values: list[Any] = [None] * world
        self.barrier = threading.Barrier(world, timeout=60)


class FakeRanks:
    """One of `group.world` threads."""

    def __init__(self, group: Group, rank: int) -> None:
        self.group, self.rank = group, rank

    @property
    def local_rank(self) -> int:
        return self.rank

    @property
    def world(self) -> int:
        return self.group.world

    @property
    def is_writer(self) -> bool:
        return self.rank == 0

    def mine(self, items: Iterable[T]) -> Iterable[T]:
        return islice(items, self.rank, None, self.group.world)

    def place(self, index: int) -> int:
        return self.rank + index * self.world

    def from_writer(self, value: T | None) -> T:
        given = self.gather(value)[0]
        assert given is not None
        return given

    def meet_on(self, device: torch.device) -> None:
        pass

    def shard(self, *_: Any) -> None:
        raise NotImplementedError

    def gather(self, value: T) -> list[T]:
        self.group.values[self.rank] = value
        self.group.barrier.wait()
        gathered = copy.deepcopy(self.group.values)  # nothing is shared between processes
        self.group.barrier.wait()
        return gathered

    def sum(self, value: Any) -> Any:
        return sum(self.gather(value))

    def any(self, flag: bool) -> bool:
        return any(self.gather(flag))

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        own = [p for p in parameters if p.requires_grad]
        gathered = self.gather([p.grad for p in own])
        for parameter, *gradients in zip(own, *gathered, strict=True):
            there = [gradient for gradient in gradients if gradient is not None]
            parameter.grad = torch.stack(there).sum(0) if there else None


def on_ranks(world: int, act: Callable[[FakeRanks], T]) -> list[T]:
    """What `act` returns on each of so many ranks; the first error of any is raised."""
    group = Group(world)

    def one(rank: int) -> T:
        try:
            return act(FakeRanks(group, rank))
        except BaseException:
            group.barrier.abort()  # nobody waits for a thread that has ended
            raise

    with ThreadPoolExecutor(world) as pool:
        futures = [pool.submit(one, rank) for rank in range(world)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    own = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
    if errors:
        raise (own or errors)[0]
    return [future.result() for future in futures]
