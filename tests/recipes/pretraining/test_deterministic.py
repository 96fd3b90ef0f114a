"""`deterministic`: the same bits on a GPU, again and resumed; a CPU gives them anyway."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.recipes import pretraining
from fmlm_cli.recipes.shared.speed import check_repeats
from tests.recipes.runs import KINDS, Settings, assert_same, at_step, raise_error

pytestmark = pytest.mark.usefixtures("quick")
DETERMINISTIC = {"deterministic": True}


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is set for the process ends with the test."""
    for name in ("CUBLAS_WORKSPACE_CONFIG", "TORCHINDUCTOR_DETERMINISTIC"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
        monkeypatch.delenv(name)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


def test_a_cpu_gives_the_same_bits_with_it_and_without(settings: Settings) -> None:
    kind = KINDS["dropout"]
    plain = pretraining.pretrain(settings("plain", **kind))
    assert_same(pretraining.pretrain(settings("again", **kind, **DETERMINISTIC)), plain)
    assert torch.are_deterministic_algorithms_enabled()


def test_what_is_set_for_the_process() -> None:
    runtime = Runtime.resolve("cpu", deterministic=True)
    assert runtime.deterministic and not Runtime.resolve("cpu").deterministic
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.backends.cudnn.benchmark


def test_gradients_that_differ_are_refused() -> None:
    model, calls = nn.Linear(3, 1), list[int]()

    def once(noise: float = 0.0) -> None:
        calls.append(1)
        model.zero_grad()
        (model(torch.randn(2, 3)) * (1 + noise * len(calls))).sum().backward()

    check_repeats(model, once)
    with pytest.raises(UserError, match=r"^deterministic: the same batch gave two different gradients"):
        check_repeats(model, lambda: once(1e-3))


def test_an_operation_that_cannot_be_so_is_refused_in_a_line() -> None:
    def once() -> None:
        raise RuntimeError("x_cuda does not have a deterministic implementation, but you set ...\nYou can")

    with pytest.raises(UserError, match=r"^deterministic: x_cuda does not have .*; set it to false$"):
        check_repeats(nn.Linear(1, 1), once)


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["auto", "flex", "mask"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_gives_the_same_bits_again_and_resumed(
    settings: Settings, attention: str, precision: str, compiled: bool
) -> None:
    kind: dict[str, Any] = {
        **KINDS["steps"],
        **DETERMINISTIC,
        "budget.steps": 30,
        "device": "cuda",
        "precision": precision,
        "speed.attention": attention,
        "speed.compile": compiled and attention != "mask",
    }
    whole = pretraining.pretrain(settings("whole", **kind))
    assert_same(pretraining.pretrain(settings("again", **kind)), whole)
    parts = settings("parts", **kind)
    with pytest.raises(RuntimeError):
        pretraining.pretrain(parts, emit=at_step(16, raise_error))
    assert_same(pretraining.pretrain(parts, resume=True), whole)
