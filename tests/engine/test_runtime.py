"""What settings say of a device and its precision."""

import contextlib

import pytest
import torch

from fmlm_cli.engine.ranks import OneProcess
from fmlm_cli.engine.runtime import Runtime, measure_peak
from fmlm_cli.errors import UserError


def test_a_processor_computes_in_float32_unless_told_otherwise() -> None:
    assert Runtime.resolve("cpu") == Runtime(torch.device("cpu"), torch.float32, OneProcess())
    assert Runtime.resolve("cpu", "bfloat16").precision == torch.bfloat16
    assert Runtime.resolve("cpu", "float32") == Runtime.resolve("cpu", "auto")


@pytest.mark.parametrize("name", ["toaster", "cuda:77", "xpu", "meta", "cpu:x", ""])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(UserError, match="device") as caught:
        Runtime.resolve(name)
    assert name in str(caught.value)


def test_autocast_is_for_less_than_float32() -> None:
    a = torch.ones(2, 2)
    assert isinstance(Runtime.resolve("cpu").autocast(), contextlib.nullcontext)
    with Runtime.resolve("cpu", "bfloat16").autocast():
        assert (a @ a).dtype == torch.bfloat16
    assert (a @ a).dtype == torch.float32


def test_the_peak_is_a_speed() -> None:
    assert measure_peak(Runtime.resolve("cpu"), seconds=0.01) > 1e6
