"""Processes of their own, by torch.distributed: what they sum and say to each other."""

from typing import Any

import torch
from torch import nn

from fmlm_cli.engine.ranks.protocol import Ranks
from tests.engine.ranks.processes import on_processes, rank_of, results


def _talk(ranks: Ranks) -> dict[str, Any]:
    rank = rank_of(ranks)
    return {
        "mine": list(ranks.mine("abcdefg")),
        "places": [ranks.place(i) for i, _ in enumerate(ranks.mine("abcdefg"))],
        "sums": (ranks.sum(2**40 + rank), ranks.sum(0.5 + rank), ranks.sum(torch.tensor([rank, 1.0]))),
        "any": (ranks.any(rank == 1), ranks.any(False)),
        "gathered": ranks.gather({"rank": rank}),
        "from writer": ranks.from_writer("a plan" if ranks.is_writer else None),
        "writes": ranks.is_writer,
    }


def test_what_processes_say_to_each_other() -> None:
    first, second, third = results(on_processes(3, _talk))
    assert first["mine"] == ["a", "d", "g"] and first["places"] == [0, 3, 6]
    assert (second["mine"], third["places"]) == (["b", "e"], [2, 5])
    assert [found.pop("writes") for found in (first, second, third)] == [True, False, False]
    for found in (first, second, third):
        whole, halves, tensor = found["sums"]
        assert (whole, halves, tensor.tolist()) == (3 * 2**40 + 3, 4.5, [3.0, 3.0])
        assert found["any"] == (True, False) and found["from writer"] == "a plan"
        assert found["gathered"] == [{"rank": 0}, {"rank": 1}, {"rank": 2}]


def _gradients(ranks: Ranks) -> tuple[list[Any], list[int]]:
    """Those of four parameters, and the elements of each tensor that travelled."""
    import torch.distributed as dist

    everywhere, on_one, nowhere, frozen, large = (
        nn.Parameter(torch.zeros(size), requires_grad=size != 5) for size in (2, 3, 4, 5, 10_000_000)
    )
    everywhere.grad = torch.full((2,), 1.0 + rank_of(ranks))
    large.grad = torch.ones(10_000_000)
    if rank_of(ranks) == 1:
        on_one.grad = torch.ones(3)
    travelled: list[int] = []
    plain = dist.all_reduce

    def counting(tensor: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        travelled.append(tensor.numel())
        return plain(tensor, *arguments, **named)

    dist.all_reduce = counting
    try:
        ranks.sum_gradients([everywhere, on_one, nowhere, frozen, large])
    finally:
        dist.all_reduce = plain
    assert large.grad.eq(2.0).all()
    return [p.grad for p in (everywhere, on_one, nowhere, frozen)], travelled


def test_gradients_are_summed_and_nobody_gets_one_that_nobody_has() -> None:
    for (everywhere, on_one, nowhere, frozen), travelled in results(on_processes(2, _gradients)):
        assert everywhere.tolist() == [3.0, 3.0] and on_one.tolist() == [1.0, 1.0, 1.0]
        assert nowhere is None and frozen is None
        # Which of the four have one, and one round of the gradients: 40 MB need a bucket of their own.
        assert travelled == [4, 5, 10_000_000]
