"""Processes that train one model together by torch.distributed, which nothing else in the house knows of.

What decides what comes next (counts, flags, settings) travels between the hosts by gloo, so that no device is
waited for. Gradients travel between GPUs by NCCL, where each process has one of its own, else by gloo too.
"""

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.rendezvous import rendezvous

from fmlm_cli.engine import signals
from fmlm_cli.engine.ranks.buckets import Bucket, in_buckets
from fmlm_cli.engine.ranks.endings import LostRankError
from fmlm_cli.engine.ranks.launch import Launch
from fmlm_cli.engine.ranks.launcher import tidy_up_after_launcher
from fmlm_cli.engine.ranks.protocol import Addend, OneProcess, Ranks
from fmlm_cli.engine.ranks.sharding import shard
from fmlm_cli.engine.ranks.watch import Watch
from fmlm_cli.engine.ranks.wires import connect
from fmlm_cli.errors import USER_ERROR, AnotherEndedError, UserError, name_process, one_line

T = TypeVar("T")

# For all processes to be there after the first: modules may take minutes to load from a busy network.
_TO_MEET = timedelta(minutes=5)
_TO_BE_MISSED = 30.0  # seconds after which it is told who is not there
_LOOK_EVERY = 0.05  # second
_GIVEN_UP = "given-up"
_TO_WAIT = timedelta(days=7)  # for one that is at work alone, as at tokenizing: the watch tells of its end

_LOST = (
    "a process of this run has ended without a word: the same command with "
    "--resume goes on from the newest checkpoint"
)


class TorchRanks:
    """One of `launch.world` processes. Every method but `mine` and `place` waits for the others.

    Raises `LostRankError` where one has ended.
    """

    def __init__(self, launch: Launch, hosts: dist.ProcessGroup) -> None:
        self._launch, self._hosts, self._devices = launch, hosts, hosts

    @property
    def rank(self) -> int:
        """This process's number."""
        return self._launch.rank

    @property
    def local_rank(self) -> int:
        """This process's number on its machine."""
        return self._launch.local_rank

    @property
    def world(self) -> int:
        """How many processes there are."""
        return self._launch.world

    @property
    def is_writer(self) -> bool:
        """The first is."""
        return self.rank == 0

    def mine(self, items: Iterable[T]) -> Iterable[T]:
        """Every `world`-th item, from number `rank` on."""
        return islice(items, self.rank, None, self.world)

    def place(self, index: int) -> int:
        """The place of `mine`'s item number `index` among all."""
        return self.rank + index * self.world

    def sum(self, value: Addend) -> Addend:
        """Of numbers by their hosts; of a tensor on its device."""
        if isinstance(value, Tensor):
            total = value.clone()
            self._reduce(total, dist.ReduceOp.SUM, self._devices if value.is_cuda else self._hosts)
            return total
        exact = torch.float64 if isinstance(value, float) else torch.int64
        held = torch.tensor(value, dtype=exact)
        self._reduce(held, dist.ReduceOp.SUM, self._hosts)
        return type(value)(held.item())

    def any(self, flag: bool) -> bool:
        """By their hosts."""
        held = torch.tensor(int(flag))
        self._reduce(held, dist.ReduceOp.MAX, self._hosts)
        return bool(held)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """In buckets, one of which is packed while the one before it travels."""
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        # An optimizer passes over what has no gradient; one of zeros it would decay.
        has = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.uint8)
        self._reduce(has, dist.ReduceOp.MAX, self._hosts)
        gradients = []
        for parameter, anywhere in zip(trained, has.tolist(), strict=True):
            if anywhere:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        self._sum_all(gradients)

    def _sum_all(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the sum of all processes'."""
        underway: deque[tuple[Bucket, dist.Work]] = deque()
        with _told_as_lost():
            for group in in_buckets(tensors):
                bucket = Bucket.of(group)
                underway.append((bucket, dist.all_reduce(bucket.flat, group=self._devices, async_op=True)))
                if len(underway) > 1:
                    _arrive(*underway.popleft())
            while underway:
                _arrive(*underway.popleft())

    def gather(self, value: T) -> list[T]:
        """By their hosts; the values are pickled."""
        values: list[T] = [value] * self.world
        with _told_as_lost():
            dist.all_gather_object(values, value, group=self._hosts)
        return values

    def from_writer(self, value: T | None) -> T:
        """By their hosts, pickled."""
        held = [value]
        with _told_as_lost():
            dist.broadcast_object_list(held, src=0, group=self._hosts)
        (given,) = held
        assert given is not None
        return given

    def meet_on(self, device: torch.device) -> None:
        """NCCL between GPUs of which each process has one of its own.

        Raises `UserError`, in all processes, where they are on devices of several kinds, or on MPS.
        """
        kinds = self.gather(device.type)
        other = next((rank for rank, kind in enumerate(kinds) if kind != kinds[0]), None)
        if other is not None:
            raise UserError(
                f"process 0 is on {kinds[0]} and process {other} on {kinds[other]}: name one for all, as "
                "with --set device=cpu"
            )
        if device.type == "mps":
            raise UserError(
                "several processes cannot share an MPS device: use --set device=cpu, or one process"
            )
        if device.type != "cuda" or not dist.is_nccl_available():
            return
        gpus = self.gather((socket.gethostname(), str(torch.cuda.get_device_properties(device).uuid)))
        if len(set(gpus)) == self.world:
            with _told_as_lost():
                self._devices = dist.new_group(backend="nccl", timeout=_TO_WAIT)

    def leave(self, *, at_once: bool) -> None:
        """Close what connects this process to the others; `at_once`: whatever is still under way."""
        if at_once and self._devices is not self._hosts:
            self._devices.abort()
        dist.destroy_process_group()

    def shard(
        self, model: nn.Module, layers: Sequence[nn.Module], device: torch.device, low: torch.dtype | None
    ) -> None:
        """Raises `UserError`, in all processes, for GPUs that several of them share."""
        if device.type == "cuda" and self._devices is self._hosts:
            raise UserError(
                "speed.shard: each process needs a GPU of its own, and NCCL between them: start no more "
                "processes than there are GPUs, or set it to false"
            )
        shard(model, layers, DeviceMesh.from_group(self._devices, device.type), low)

    def _reduce(self, tensor: Tensor, operation: dist.ReduceOp.RedOpType, group: dist.ProcessGroup) -> None:
        with _told_as_lost():
            dist.all_reduce(tensor, operation, group=group)


def _arrive(bucket: Bucket, work: dist.Work) -> None:
    work.wait()
    bucket.give_back()


@contextlib.contextmanager
def _told_as_lost() -> Iterator[None]:
    """What gloo and NCCL raise where a connection was closed."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise LostRankError(_LOST) from error


@contextlib.contextmanager
def _told_as_lost_while_computing() -> Iterator[None]:
    """The same where FSDP has them at work, and what it raises may have been made something else."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, LostRankError) and any(map(_is_of_a_connection, _causes(error))):
            raise LostRankError(_LOST) from error
        raise


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _is_of_a_connection(error: BaseException) -> bool:
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))


@contextlib.contextmanager
def joined(
    launch: Launch | None,
    is_saving: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda text: None,
) -> Iterator[Ranks]:
    """The processes of a launch, as this one sees them; nobody leaves before all have come to the end.

    However one ends, the others end too, and one of them says why: the process that it happened to raises
    what it was, and the others raise `AnotherEndedError`. Raises `UserError` where the others are not there
    in time. `is_saving`: whether this process is writing what its end should wait for. `tell`: says, in the
    first process, who is waited for.
    """
    if launch is None:
        yield OneProcess()
        return
    take_own_gpu(launch)
    ranks = TorchRanks(launch, _meet(launch, tell))
    watch = Watch(launch, ranks.gather(socket.gethostname()), connect(launch, ranks.from_writer), is_saving)
    stop = signals.of_process()
    stop.tell_others = lambda error: watch.end_by(error).teller == launch.rank
    if not ranks.is_writer:
        signals.leave_the_clock_to_another()
    try:
        with _told_as_lost_while_computing():
            yield ranks
            ranks.any(False)
    except BaseException as error:
        stop.patient = True  # it is about to end: one more signal changes nothing
        try:
            _raise_once(error, watch, launch)
        finally:
            ranks.leave(at_once=True)
    else:
        ranks.leave(at_once=False)
    finally:
        watch.close()
        tidy_up_after_launcher(launch)


def take_own_gpu(launch: Launch) -> None:
    """Let `cuda` mean a GPU of this process's own, as far as the machine has enough of them."""
    if torch.cuda.is_available():
        torch.cuda.set_device(launch.local_rank % torch.cuda.device_count())


def _meet(launch: Launch, tell: Callable[[str], None]) -> dist.ProcessGroup:
    """Find the others; the group of their hosts."""
    try:
        place = _meeting_place(launch)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # it may be the same place again
        _await_all(dist.PrefixStore(f"fmlm/{attempt}", place), launch, tell)
        dist.init_process_group(
            "gloo", store=place, rank=launch.rank, world_size=launch.world, timeout=_TO_MEET
        )
        group = dist.new_group(backend="gloo", timeout=_TO_WAIT)
    except UserError:
        raise
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{launch} has not met the others at {launch.rendezvous} ({one_line(error)}): see that all were "
            "started, and that this address can be reached from their machines"
        ) from error
    assert group is not None
    return group


def _meeting_place(launch: Launch) -> dist.Store:
    """What all can write to and read, which the first process or the launcher has opened."""
    address = urlsplit(launch.rendezvous)
    if address.scheme == "tcp":  # torch's way there counts who has come, and does not say who has not
        return dist.TCPStore(
            str(address.hostname),
            int(address.port or 0),
            is_master=launch.rank == 0,
            timeout=_TO_MEET,
            wait_for_workers=False,
        )
    place, _, _ = next(rendezvous(launch.rendezvous, launch.rank, launch.world, timeout=_TO_MEET))
    return place


def _await_all(place: dist.Store, launch: Launch, tell: Callable[[str], None]) -> None:
    """Until all are there. Where they are not in time one, as a rule the first, says who is missing."""
    names = [str(rank) for rank in range(launch.world)]
    place.set(names[launch.rank], "")
    minutes, began, told = _TO_MEET.total_seconds() / 60, time.monotonic(), launch.rank > 0
    while not place.check(names):
        if place.check([_GIVEN_UP]):
            raise AnotherEndedError(USER_ERROR)
        waited = time.monotonic() - began
        if waited > _TO_BE_MISSED and not told:
            told, missing = True, _missing(place, names)
            tell(f"waiting up to {minutes:g} minutes for {missing}, which may have been killed as it began")
        if waited > 60 * minutes * (2 if launch.rank else 1):
            place.set(_GIVEN_UP, "")
            time.sleep(20 * _LOOK_EVERY)  # the others may read that from this process
            raise UserError(
                f"{_missing(place, names)} is not there {minutes:g} minutes after the first: see what it "
                "says, or whether its machine has killed it as it began (as for memory), and start all again"
            )
        time.sleep(_LOOK_EVERY)


def _missing(place: dist.Store, names: Sequence[str]) -> str:
    return f"rank {', '.join(name for name in names if not place.check([name]))} of {len(names)}"


def _raise_once(error: BaseException, watch: Watch, launch: Launch) -> NoReturn:
    """Raise what has ended this process if it is this one that tells of it."""
    ending = watch.end_by(error)
    if ending.teller != launch.rank:
        raise AnotherEndedError(ending.code) from error
    if ending.rank != launch.rank:
        raise LostRankError(ending.line) from error
    if launch.rank:
        name_process(error, watch.name_of(launch.rank))
    raise error
