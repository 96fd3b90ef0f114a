"""A finished model opens in what others use, and is the same there: transformers, sentence-transformers, optimum."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    pipeline,
)

from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.hub import quiet
from fmlm_cli.recipes.pretraining.run import pretrain
from tests.recipes.runs import RHYTHM, TINY, without_pictures

TEXTS = ["the river is wide", "a long text of some more words than the first one has"]


@pytest.fixture(scope="module", params=["bert", "roberta"])
def final(
    request: pytest.FixtureRequest,
    tiny_store: Path,
    tiny_bpe_store: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The model of a finished run. Not to be written to."""
    root = tmp_path_factory.mktemp(request.param)
    shape = (
        TINY if request.param == "bert" else {**TINY, "model_type": "roberta", "max_position_embeddings": 34}
    )
    (root / "config.json").write_text(json.dumps(shape))
    store = tiny_store if request.param == "bert" else tiny_bpe_store
    chosen = {"data.stores": [str(store)], "model.name": str(root / "config.json"), "out": str(root / "run")}
    with without_pictures():
        run = pretrain(build(PretrainSettings, nested({**chosen, **RHYTHM, "budget.steps": 4}))).run
    return run.final


def opened(kind: type, folder: Path) -> PreTrainedModel:
    with quiet():
        return kind.from_pretrained(folder).eval()


def encoded(folder: Path, texts: list[str]) -> tuple[PreTrainedTokenizerBase, dict[str, torch.Tensor]]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer, tokenizer(texts, padding=True, truncation=True, return_tensors="pt")


@torch.no_grad()
def test_fill_mask_gives_the_models_own_probabilities(final: Path) -> None:
    with quiet():
        ask = pipeline("fill-mask", str(final))
    text = f"the river {ask.tokenizer.mask_token} wide"
    guesses = ask(text)
    tokenizer, inputs = encoded(final, [text])
    logits = opened(AutoModelForMaskedLM, final)(**inputs).logits[0]
    [place] = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()
    likeliest = logits[place].softmax(-1).topk(5)
    assert [guess["token"] for guess in guesses] == likeliest.indices[0].tolist()
    assert [guess["score"] for guess in guesses] == pytest.approx(likeliest.values[0].tolist(), rel=1e-5)


@pytest.mark.parametrize(
    "kind", [AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoModel]
)
def test_other_heads_begin_from_the_encoder_as_it_was_trained(final: Path, kind: type) -> None:
    saved = load_file(final / "model.safetensors")
    model = opened(kind, final)
    prefix = model.base_model_prefix
    own = {name.removeprefix(f"{prefix}."): values for name, values in model.state_dict().items()}
    of_encoder = {
        name.removeprefix(f"{prefix}."): v for name, v in saved.items() if name.startswith(f"{prefix}.")
    }
    assert len(of_encoder) > 10
    for name, values in of_encoder.items():
        assert torch.equal(own[name], values), name


def mean_pooled(folder: Path, texts: list[str]) -> np.ndarray:
    """The mean of the last hidden states over a text's tokens, padding left out."""
    _, inputs = encoded(folder, texts)
    with torch.no_grad():
        hidden = opened(AutoModel, folder)(**inputs).last_hidden_state
    weights = inputs["attention_mask"][..., None].float()
    return ((hidden * weights).sum(1) / weights.sum(1)).numpy()


def test_sentence_transformers_pools_what_the_encoder_says(final: Path) -> None:
    package = pytest.importorskip("sentence_transformers")
    with quiet():
        model = package.SentenceTransformer(str(final), device="cpu")
    np.testing.assert_allclose(model.encode(TEXTS), mean_pooled(final, TEXTS), atol=1e-5)


def test_optimum_exports_the_same_model(final: Path, tmp_path: Path) -> None:
    try:
        importlib.import_module("optimum.exporters.onnx.__main__")
    except ImportError as error:  # or it is there, for another transformers
        pytest.skip(f"could not import optimum's exporter: {error}")
    runtime = pytest.importorskip("onnxruntime")
    line = [sys.executable, "-m", "optimum.exporters.onnx", "--task", "fill-mask"]
    subprocess.run([*line, "--model", str(final), str(tmp_path)], check=True, capture_output=True)
    _, inputs = encoded(final, TEXTS)
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    wanted = {known.name for known in session.get_inputs()}
    [logits] = session.run(["logits"], {name: ids.numpy() for name, ids in inputs.items() if name in wanted})
    with torch.no_grad():
        np.testing.assert_allclose(logits, opened(AutoModelForMaskedLM, final)(**inputs).logits, atol=1e-3)
