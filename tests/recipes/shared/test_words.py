"""A machine that is busy is told of; how many threads compute is what was asked for."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fmlm_cli.config import EvaluateSettings, FinetuneSettings, PredictSettings, PretrainSettings, build
from fmlm_cli.engine.ranks.protocol import OneProcess
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.events import Caution, Event
from fmlm_cli.recipes.evaluate import evaluate_checkpoints
from fmlm_cli.recipes.finetuning.plan import plan_finetuning
from fmlm_cli.recipes.prediction import predict
from fmlm_cli.recipes.pretraining import pretrain
from fmlm_cli.recipes.pretraining.timing import time_steps
from fmlm_cli.recipes.shared import words

CPU = Runtime(torch.device("cpu"), torch.float32)
THREE = {"speed": {"threads": 3}}


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class TwoProcesses(OneProcess):
    @property
    def world(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("runtime", "others", "own", "advice"),
    [
        (CPU, 0, 9, None),
        (CPU, 1, 7, None),
        (CPU, 1, 8, "--threads 7 may"),
        (CPU, 6, 3, "--threads 2 may"),
        (CPU, 50, 8, "--threads 1 may"),
        (CPU, 50, 1, ""),
        (replace(CPU, device=torch.device("cuda")), 50, 8, None),
        (replace(CPU, ranks=TwoProcesses()), 50, 8, None),  # the others are its own
    ],
)
def test_other_work_is_told_of_where_it_is_in_the_way(
    runtime: Runtime, others: int, own: int, advice: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "at_work", lambda: others)
    monkeypatch.setattr(words, "usable_cores", lambda: 8)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    torch.set_num_threads(own)
    told = list[Event]()
    words.caution_of_others(runtime, told.append)
    if advice is None:
        assert told == []
    else:
        [caution] = told
        assert isinstance(caution, Caution) and caution.code == words.BUSY
        assert f" {others} thread" in caution.text and "of other work on 8 cores" in caution.text
        assert advice in caution.text
        assert advice or "--threads" not in caution.text


def test_what_is_at_work_is_read_where_linux_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "loadavg"
    monkeypatch.setattr(words, "_LOADAVG", file)
    assert words.at_work() == 0
    for running, others in (("5/80", 4), ("1/80", 0), ("0/80", 0)):
        file.write_text(f"9.00 8.00 7.00 {running} 4711\n")
        assert words.at_work() == others


def test_so_many_threads_compute_as_are_asked_for() -> None:
    Runtime.resolve("cpu", threads=3)
    assert torch.get_num_threads() == 3
    Runtime.resolve("cpu")
    assert torch.get_num_threads() == 3  # nobody asked


CALLS: dict[str, Callable[[str, str, str], Any]] = {
    "pretrain": lambda out, encoder, store: pretrain(build(PretrainSettings, {"out": out}, THREE)),
    "timing": lambda out, encoder, store: time_steps(build(PretrainSettings, THREE), lambda event: None),
    "finetune": lambda out, encoder, store: plan_finetuning(
        build(FinetuneSettings, {"checkpoint": encoder, "out": out}, THREE), lambda event: None
    ),
    "predict": lambda out, encoder, store: predict(
        build(PredictSettings, {"checkpoint": encoder, "texts": ["a"]}, THREE)
    ),
    "evaluate": lambda out, encoder, store: evaluate_checkpoints(
        build(EvaluateSettings, {"checkpoints": [encoder], "store": store}, THREE)
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_recipe_passes_them_on(
    name: str, small_encoder: Path, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def resolve(*words: Any, **settings: Any) -> None:
        asked.append(settings.get("threads"))
        raise RuntimeError("far enough")

    monkeypatch.setattr(Runtime, "resolve", resolve)
    with pytest.raises(RuntimeError, match="far enough"):
        CALLS[name](str(tmp_path / "out"), str(small_encoder), str(tiny_store))
    assert asked == [3]
