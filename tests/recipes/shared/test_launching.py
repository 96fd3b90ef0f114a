"""How many processes a command becomes, and which part of the work is this one's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fmlm_cli.errors import UserError
from fmlm_cli.events import Event, Note, ignore
from fmlm_cli.recipes.shared import launching
from fmlm_cli.recipes.shared.launching import hand_over, share_out


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """`gpus(n)`: on a machine with so many, without a launcher; what is started there."""

    def have(number: int) -> list[int]:
        for name in ("RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
            monkeypatch.delenv(name, raising=False)
        started: list[int] = []
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(launching, "run_ranks", lambda ranks, words: started.append(ranks))
        return started

    return have


@pytest.mark.parametrize(
    ("number", "asked", "device", "wanted"),
    [
        (4, None, "auto", 4),
        (4, None, "cuda", 4),
        (4, None, "cuda:1", 1),
        (4, None, "cpu", 1),
        (1, None, "auto", 1),
        (0, None, "auto", 1),
        (4, 1, "auto", 1),
        (0, 3, "cpu", 3),
    ],
)
def test_one_for_each_gpu_unless_it_is_said(
    gpus: Any, number: int, asked: int | None, device: str, wanted: int
) -> None:
    """For ranks that train together as for jobs; what nobody has asked for is told."""
    started, told = gpus(number), list[Event]()
    assert hand_over(asked, device, told.append) is (wanted > 1)
    assert started == [wanted] * (wanted > 1)
    assert share_out(None, asked, device, told.append)[:2] == (None, wanted)
    options = ("--nproc", "--jobs") if asked is None and wanted > 1 else ()
    assert told == [
        Note(f"{wanted} processes, one for each GPU; {option} 1 works on one alone") for option in options
    ]


def test_a_share_and_a_report_start_nobody(gpus: Any) -> None:
    gpus(4)
    assert share_out("2/3", None, "auto", ignore)[:2] == ("2/3", 1)
    assert share_out(None, None, None, ignore)[:2] == (None, 1)


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_that_were_started_do_a_share_each(
    gpus: Any, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    started, told = gpus(0), list[Event]()
    slurm = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURM_STEP_NODELIST": "localhost",
    }
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert hand_over(None, "auto", told.append) is False and not started
    cell, jobs, emit = share_out(None, None, "auto", told.append)
    assert (cell, jobs) == (f"{rank + 1}/2", 1)
    emit(Note("told by the first"))
    assert len(told) == (rank == 0)
    with pytest.raises(UserError, match="--nproc 2: srun has started 2 processes; leave it out"):
        hand_over(2, "auto", ignore)
    with pytest.raises(UserError, match="--jobs 3: srun has started 2 processes, each"):
        share_out(None, 3, "auto", ignore)
