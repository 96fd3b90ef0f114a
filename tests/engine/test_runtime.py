"""What settings say of a device and its precision."""

import contextlib
from pathlib import Path

import pytest
import torch

from fmlm_cli.engine.ranks.protocol import OneProcess
from fmlm_cli.engine.runtime import Runtime, _computes_in_bfloat16, measure_peak
from fmlm_cli.errors import UserError


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that computes in bfloat16, whichever this one is."""
    monkeypatch.setattr("fmlm_cli.engine.runtime._computes_in_bfloat16", lambda: True)


@pytest.mark.usefixtures("bfloat16")
def test_a_processor_computes_in_float32_unless_told_otherwise() -> None:
    assert Runtime.resolve("cpu") == Runtime(torch.device("cpu"), torch.float32, OneProcess())
    assert Runtime.resolve("cpu", "bfloat16").precision == torch.bfloat16
    assert Runtime.resolve("cpu", "float32") == Runtime.resolve("cpu", "auto")


@pytest.mark.parametrize("precision", ["bfloat16", "bfloat16-weights"])
def test_a_processor_without_bfloat16_is_not_asked_for_it(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr("fmlm_cli.engine.runtime._computes_in_bfloat16", lambda: False)
    with pytest.raises(UserError, match=f"precision {precision}: .*use --set precision=float32") as caught:
        Runtime.resolve("cpu", precision)
    assert "\n" not in str(caught.value)
    assert Runtime.resolve("cpu").precision == torch.float32


@pytest.mark.parametrize(
    ("machine", "avx", "onednn", "computes"),
    [
        ("x86_64", True, True, True),
        ("x86_64", False, True, False),  # oneDNN plays bfloat16 with AVX-512 alone, and is slow
        ("aarch64", False, True, True),
        ("arm64", False, False, False),
    ],
)
def test_what_a_processor_must_have_for_bfloat16(
    monkeypatch: pytest.MonkeyPatch, machine: str, avx: bool, onednn: bool, computes: bool
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: onednn)
    monkeypatch.setattr("torch.ops.mkldnn._is_mkldnn_bf16_supported", lambda: onednn, raising=False)
    assert _computes_in_bfloat16() == computes


@pytest.mark.parametrize("name", ["toaster", "cuda:77", "xpu", "meta", "cpu:x", ""])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(UserError, match="device") as caught:
        Runtime.resolve(name)
    assert name in str(caught.value)


@pytest.mark.usefixtures("bfloat16")
def test_autocast_is_for_less_than_float32() -> None:
    a = torch.ones(2, 2)
    assert isinstance(Runtime.resolve("cpu").autocast(), contextlib.nullcontext)
    with Runtime.resolve("cpu", "bfloat16").autocast():
        assert (a @ a).dtype == torch.bfloat16
    assert (a @ a).dtype == torch.float32
    with Runtime.resolve("cpu", "bfloat16-weights").autocast():  # which computes in what its weights have
        assert (a @ a).dtype == torch.float32


@pytest.mark.parametrize("proc", [True, False])
def test_memory_is_at_its_peak_what_was_in_use_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proc: bool
) -> None:
    if not proc:
        monkeypatch.setattr("fmlm_cli.engine.runtime._PROC_STATUS", tmp_path / "none")
    cpu = Runtime.resolve("cpu")
    held = torch.ones(50 * 2**20)  # 200 MiB
    with_it = cpu.peak_memory()
    assert held.sum() > 0
    assert 2**40 > with_it > 200 * 2**20
    del held
    assert cpu.peak_memory() >= with_it - (1 << 20)  # the kernel counts pages in batches


def test_the_peak_is_a_speed() -> None:
    assert measure_peak(Runtime.resolve("cpu"), seconds=0.01) > 1e6
