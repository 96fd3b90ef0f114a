"""Parts of tensors: cut, made whole, written and read; and a folder that all write, or none has written."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fmlm_cli.engine.ranks.parts import read_parts, write_parts
from fmlm_cli.engine.ranks.protocol import Ranks
from fmlm_cli.engine.ranks.sharding import cut_as, fill, own_part, whole
from fmlm_cli.engine.saving.together import write_together
from fmlm_cli.errors import UserError
from tests.engine.ranks.processes import on_processes, rank_of, results

# Axes that do not come out even, that are shorter than there are processes, and none.
SIZES = [(5, 3), (1, 4), (7,), (2,)]


class _Tensors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.all = nn.ParameterList(
            torch.arange(torch.Size(size).numel()).view(size).double() for size in SIZES
        )


def _cut_and_write(ranks: Ranks, folder: Path) -> list[Any]:
    model, (plain, *_) = _Tensors(), [p.detach().clone() for p in _Tensors().all]
    ranks.shard(model, [], torch.device("cpu"), None)
    parts = {f"{i}/x": parameter.detach() for i, parameter in enumerate(model.all)}
    write_parts({**parts, "0/step": torch.tensor(3.0)}, folder, rank=rank_of(ranks))
    ranks.gather(None)
    rows = [len(own_part(part)) for part in parts.values()]
    again = read_parts(folder, parts.get, "?")
    assert all(torch.equal(own_part(again[name]), own_part(part)) for name, part in parts.items())
    assert torch.equal(whole(cut_as(model.all[0], plain)), plain)
    fill(model.all[0], plain + 1)
    assert torch.equal(whole(model.all[0]), plain + 1)
    return rows


def test_parts_are_read_by_any_number_of_processes(tmp_path: Path) -> None:
    first, second, third = results(on_processes(3, _cut_and_write, tmp_path))
    assert [sum(rows) for rows in zip(first, second, third, strict=True)] == [size[0] for size in SIZES]
    assert len(list(tmp_path.iterdir())) == 3
    read = read_parts(tmp_path, lambda name: None, "?")
    assert read.pop("0/step") == 3.0
    for i, wanted in enumerate(_Tensors().all):
        assert torch.equal(read[f"{i}/x"], wanted)


def _write(ranks: Ranks, folder: Path, fails: str) -> str:
    def begin(path: Path) -> None:
        if fails == "begin":
            raise UserError("the disk is full")
        (path / "weights").touch()

    def seal(path: Path, hashes: Any) -> None:
        if fails == "seal":
            raise UserError("the disk is full")
        assert sorted(hashes) == [f"optimizer/part-0000{rank}.safetensors" for rank in range(ranks.world)]

    with pytest.MonkeyPatch.context() as patch:
        if fails == "part" and rank_of(ranks) == 1:
            patch.setattr("fmlm_cli.engine.saving.together.write_parts", _refuse)
        model = nn.Linear(4, 4)
        ranks.shard(model, [], torch.device("cpu"), None)
        moments = {"w": model.weight.detach()}
        try:
            write_together(folder / "step-1", moments, ranks, begin=begin, seal=seal, then=lambda: None)
        except UserError as error:
            return str(error)
    return "written"


def _refuse(*_: Any, **named: Any) -> None:
    raise OSError(errno.ENOSPC, "no space left on device")


@pytest.mark.parametrize("fails", ["begin", "part", "seal"])
def test_what_one_cannot_write_none_has_written(tmp_path: Path, fails: str) -> None:
    first, second = results(on_processes(2, _write, tmp_path, fails))
    assert first == second and ("no space left" if fails == "part" else "the disk is full") in first
    assert not list(tmp_path.iterdir())


def test_what_all_have_written_is_there(tmp_path: Path) -> None:
    assert results(on_processes(2, _write, tmp_path, "none")) == ["written"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
