"""Small checkpoints on the disk, and what it means for one to be refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from fmlm_cli.errors import UserError
from fmlm_cli.model.checkpoints.pretrained import Loaded, load_pretrained

SIZE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
BERT = BertConfig(**SIZE)
ROBERTA = RobertaConfig(**SIZE)
DISTILBERT = DistilBertConfig(
    vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=20
)
MASKED_LMS = [BertForMaskedLM(BERT), RobertaForMaskedLM(ROBERTA), DistilBertForMaskedLM(DISTILBERT)]
TOKENS = torch.arange(5, 17).view(2, 6)
by_kind = pytest.mark.parametrize("kind", ["safetensors", "bin"])


def family(model: PreTrainedModel) -> str:
    return type(model).__name__


def saved(model: PreTrainedModel, folder: Path, kind: str = "safetensors", **changes: Any) -> Path:
    """A checkpoint of this model, in one of the two formats; `changes` to its config.json."""
    model.save_pretrained(folder)
    if kind == "bin":
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    change_config(folder, **changes)
    return folder


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def load(folder: Path, **settings_: Any) -> Loaded:
    return load_pretrained(folder, **{"name": "given", "trust_remote_code": False, "seed": 1, **settings_})


def refused(folder: Path, **settings_: Any) -> str:
    """The one line with which a checkpoint is refused; it names the checkpoint, and the generator is left
    alone.
    """
    before = torch.random.get_rng_state()
    with pytest.raises(UserError) as caught:
        load(folder, **settings_)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("given") >= 1
    assert torch.equal(torch.random.get_rng_state(), before)
    return str(caught.value)


def assert_holds(model: PreTrainedModel, weights: dict[str, torch.Tensor]) -> None:
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in weights.items())
