"""Checkpoints that cannot be loaded as a masked LM: each is refused with one line, and none runs code."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertLMHeadModel,
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.model.checkpoints import (
    MASKED_LMS,
    SIZE,
    by_kind,
    refused,
    saved,
)

# ---------------------------------------------------------------- other models


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2)), "causal model"),
        (lambda: BertLMHeadModel(BertConfig(**SIZE, is_decoder=True)), "'is_decoder' makes a causal model"),
        (
            lambda: T5ForConditionalGeneration(
                T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
            ),
            "sequence-to-sequence model",
        ),
        (
            lambda: BartForConditionalGeneration(
                BartConfig(
                    vocab_size=50,
                    d_model=16,
                    encoder_layers=1,
                    decoder_layers=1,
                    encoder_ffn_dim=24,
                    decoder_ffn_dim=24,
                    encoder_attention_heads=2,
                    decoder_attention_heads=2,
                    max_position_embeddings=20,
                )
            ),
            "sequence-to-sequence model",
        ),
        (
            lambda: CLIPModel(
                CLIPConfig(
                    text_config={**SIZE, "projection_dim": 8},
                    vision_config={**SIZE, "image_size": 8, "patch_size": 4, "projection_dim": 8},
                )
            ),
            "'clip' has no masked-LM head",
        ),
    ],
    ids=["causal", "decoder", "t5", "bart", "clip"],
)
def test_models_of_other_kinds_are_refused(
    make: Callable[[], PreTrainedModel], says: str, tmp_path: Path
) -> None:
    said = refused(saved(make(), tmp_path))
    assert says in said
    assert "use an encoder such as bert or modernbert" in said


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"is_encoder_decoder": True}, "sequence-to-sequence"),
        ({"quantization_config": {"quant_method": "fp8"}}, "the weights are quantized: give the checkpoint"),
        ({"model_type": "bird"}, "transformers cannot read a 'bird' configuration"),
        ({"hidden_size": "wide"}, "transformers cannot read a 'bert' configuration"),
        ({"num_attention_heads": 3}, "cannot load given"),
        ({"vocab_size": 60}, "is 50 x 16, but 60 x 16 by config.json"),
        ({"hidden_size": 32}, "by config.json: the two are not of the same model"),
        ({"num_hidden_layers": 5}, "lacks weights of the encoder (bert.encoder.layer.2"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    assert says in refused(saved(MASKED_LMS[0], tmp_path, **changes))


# ---------------------------------------------------------------- damage


def test_folders_without_a_model_are_refused(tmp_path: Path) -> None:
    assert "no such model configuration: given/config.json" in refused(tmp_path)
    saved(MASKED_LMS[0], tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "tf_model.h5").touch()
    assert "it holds no weights (no model.safetensors or pytorch_model.bin): give a whole" in refused(
        tmp_path
    )
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "holds an adapter (adapter_config.json): merge it into its model" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"17", b"", b'{"hidden_size": 16}', b"\xff\xfe"])
def test_a_damaged_configuration_is_refused(content: bytes, tmp_path: Path) -> None:
    saved(MASKED_LMS[0], tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    assert "given/config.json" in refused(tmp_path)


@by_kind
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_weights_that_are_cut_short_are_refused(share: float, kind: str, tmp_path: Path) -> None:
    file = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}[kind]
    path = saved(MASKED_LMS[0], tmp_path, kind) / file
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert f"cannot load given: {file} is" in refused(tmp_path)


def test_a_checkpoint_that_lacks_weights_of_the_encoder_is_refused(tmp_path: Path) -> None:
    saved(MASKED_LMS[0], tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    for lost in ("bert.embeddings.word_embeddings.weight", "bert.encoder.layer.1.output.dense.bias"):
        rest = {name: value for name, value in whole.items() if name != lost}
        save_file(rest, tmp_path / "model.safetensors")
        said = refused(tmp_path)
        assert f"it lacks weights of the encoder ({lost})" in said
        assert "give a whole checkpoint of this 'bert'" in said
    save_file({f"0.{name}": value for name, value in whole.items()}, tmp_path / "model.safetensors")
    assert "more; it has others, such as 0.bert." in refused(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert "it lacks weights of the encoder" in refused(tmp_path)


class Malice:
    """Unpickling this writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("how", ["torch", "plain"])
def test_a_malicious_pickle_runs_nothing(how: str, tmp_path: Path) -> None:
    folder, mark = saved(MASKED_LMS[0], tmp_path / "model", "bin"), tmp_path / "mark"
    content = {**MASKED_LMS[0].state_dict(), "more": Malice(mark)}
    path = folder / "pytorch_model.bin"
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    assert (
        "pytorch_model.bin is damaged, or holds other things than tensors, which are never loaded"
        in refused(folder)
    )
    assert not mark.exists()
    torch.load(path, weights_only=False) if how == "torch" else pickle.loads(path.read_bytes())
    assert mark.exists()  # so it would have run


@pytest.mark.parametrize("content", [{}, [1, 2], {"state": {"a": torch.zeros(1)}}, torch.zeros(3), "text"])
def test_a_pickle_of_something_else_is_refused(content: Any, tmp_path: Path) -> None:
    folder = saved(MASKED_LMS[0], tmp_path, "bin")
    torch.save(content, folder / "pytorch_model.bin")
    assert "give the checkpoint as safetensors" in refused(folder)
