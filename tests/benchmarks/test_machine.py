"""The floor: FLOPs by formula, against torch's own count and against figures from elsewhere."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForMaskedLM, BertConfig, ModernBertConfig

from fmlm_cli.model.build import read_config
from tests.benchmarks.machine import MASK_RATE, describe, training_flops
from tests.benchmarks.material import model_configs

SIZES = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4, "num_attention_heads": 4}


@pytest.mark.parametrize(("length", "flops"), [(128, 0.544e9), (512, 0.587e9)])
def test_bert_base_costs_what_is_known_of_it(length: int, flops: float) -> None:
    config = model_configs()["bert-base"].to_dict()
    assert training_flops(config, 30522, length) == pytest.approx(flops, rel=2e-3)


@pytest.mark.parametrize(
    "config", [BertConfig(**SIZES), ModernBertConfig(**SIZES)], ids=["bert", "modernbert"]
)
def test_a_forward_costs_what_torch_counts(config: Any) -> None:
    length, vocabulary = 32, 500  # within ModernBERT's window, for torch counts what is masked out too
    config.vocab_size, config.pad_token_id = vocabulary, 0
    config.bos_token_id = config.cls_token_id = config.eos_token_id = config.sep_token_id = 1
    model = AutoModelForMaskedLM.from_config(config).eval()
    ids = torch.arange(2 * length).view(2, length)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(input_ids=ids)
    head = 3 * 2 * (64**2 + 64 * vocabulary)
    everywhere = training_flops(config.to_dict(), vocabulary, length) + (1 - MASK_RATE) * head
    assert counter.get_total_flops() == pytest.approx(2 * length * everywhere / 3, rel=0.01)


def test_windows_of_modernbert_bound_what_a_token_attends_to() -> None:
    config: Mapping[str, Any] = model_configs()["modernbert-base"].to_dict()
    longer = training_flops(config, 30522, 2048) - training_flops(config, 30522, 1024)
    of_full_attention = [kind == "full_attention" for kind in config["layer_types"]]
    assert longer == pytest.approx(3 * 4 * 1024 * config["hidden_size"] * sum(of_full_attention))


def test_models_are_those_of_the_presets() -> None:
    for name in ("bert-tiny", "bert-mini", "bert-base"):
        assert model_configs()[name].to_diff_dict() == read_config(name).to_diff_dict()


def test_the_machine_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.benchmarks.machine.measure_peak", lambda device: 1e9)
    found = describe("cpu")
    assert found["device"] and found["threads"] == torch.get_num_threads()
    assert set(found["versions"]) == {"python", "torch", "transformers", "accelerate", "fmlm"}
