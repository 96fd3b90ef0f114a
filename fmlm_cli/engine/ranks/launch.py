"""How this process was launched beside others: by torchrun, Slurm or fmlm itself, says the environment."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from fmlm_cli.errors import UserError, shortened

RENDEZVOUS = "FMLM_RENDEZVOUS"  # the file by which processes that fmlm itself started find each other

_PORTS = range(10_000, 30_000)  # below those that a system hands out by itself
_NUMBERS = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class Launch:
    """One of `world` processes that were started together.

    `rank` counts through all machines, `local_rank` on this one, which has `local_world`. They meet in
    `rendezvous`: a URL, as torch.distributed takes it.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    rendezvous: str
    by: Literal["torchrun", "srun", "fmlm"]

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world}"


def read_launch(environment: Mapping[str, str]) -> Launch | None:
    """How this process was launched; None for one that is alone.

    torchrun's variables stand over Slurm's, of which only those of a job step count: under sbatch there are
    numbers of tasks that nobody has started. Raises `UserError` for variables that are half-set or no
    numbers.
    """
    by_torchrun = [name for name in ("RANK", "WORLD_SIZE") if name in environment]
    if by_torchrun:
        launch = _by_torchrun(environment)
    elif environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        launch = _by_slurm(environment)
    else:
        return None
    if not (0 <= launch.rank < launch.world and 0 <= launch.local_rank < launch.local_world <= launch.world):
        raise UserError(
            f"the environment says that this is process {launch.rank} of {launch.world}, and number "
            f"{launch.local_rank} of {launch.local_world} on this machine, which cannot be: unset RANK and "
            "WORLD_SIZE, or start it by torchrun or srun"
        )
    return launch if launch.world > 1 else None


def _by_torchrun(environment: Mapping[str, str]) -> Launch:
    rank, world = (_number(environment, name) for name in ("RANK", "WORLD_SIZE"))
    own = environment.get(RENDEZVOUS)
    return Launch(
        rank=rank,
        world=world,
        # What starts one process to a machine may leave these out.
        local_rank=_number(environment, "LOCAL_RANK", 0),
        local_world=_number(
            environment, "LOCAL_WORLD_SIZE", max(1, _number(environment, "LOCAL_RANK", 0) + 1)
        ),
        rendezvous=f"file://{own}" if own else _address(environment, world),
        by="fmlm" if own else "torchrun",
    )


def _address(environment: Mapping[str, str], world: int) -> str:
    """Where processes meet that torchrun started: torch reads the rest itself."""
    if world > 1:
        _required(environment, "MASTER_ADDR")
        _number(environment, "MASTER_PORT")
    return "env://"


def _by_slurm(environment: Mapping[str, str]) -> Launch:
    job, step = (_number(environment, name, 0) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    nodes = _required(environment, "SLURM_STEP_NODELIST")
    here = _number(environment, "SLURM_NODEID", 0)
    tasks = list(_repeated(environment.get("SLURM_STEP_TASKS_PER_NODE", "")))
    local_rank = _number(environment, "SLURM_LOCALID")
    port = _PORTS[(job * 31 + step) % len(_PORTS)]  # other jobs of the machine have others
    return Launch(
        rank=_number(environment, "SLURM_PROCID"),
        world=_number(environment, "SLURM_STEP_NUM_TASKS"),
        local_rank=local_rank,
        local_world=tasks[here] if here < len(tasks) else local_rank + 1,
        rendezvous=f"tcp://{first_host(nodes)}:{port}",
        by="srun",
    )


def first_host(nodes: str) -> str:
    """The first machine of a list as Slurm writes it: `gpu[003-005,9],login` begins with gpu003.

    Raises `UserError` for what is no such list.
    """
    name, rest = "", nodes.strip()
    while rest and rest[0] != ",":
        if rest[0] != "[":
            name, rest = name + rest[0], rest[1:]
            continue
        inside, closed, rest = rest[1:].partition("]")
        first = _NUMBERS.match(inside)
        if not (closed and first):
            name = ""
            break
        name += first[1]
    if not name:
        raise UserError(
            f"SLURM_STEP_NODELIST is '{shortened(nodes)}', which names no machine: start it by srun"
        )
    return name


def _repeated(text: str) -> Iterator[int]:
    """`2(x3),1`, as Slurm counts tasks by machine: 2, 2, 2, 1."""
    for number, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        yield from [int(number)] * int(times or 1)


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise UserError(
            f"{name} is not set, and other variables of processes that train together are: start them by "
            "torchrun, srun or --nproc, or unset RANK, WORLD_SIZE and SLURM_STEP_NUM_TASKS"
        )
    return value


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    if default is not None and not environment.get(name):
        return default
    text = _required(environment, name)
    if not (text.isascii() and text.isdigit()):
        raise UserError(
            f"{name} is '{shortened(text)}', not a number: unset it, or start by torchrun or srun"
        )
    return int(text)
