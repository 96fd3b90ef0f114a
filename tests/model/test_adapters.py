"""Adapters that peft saved: merged, they are what peft itself makes of them; none that does not fit is taken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    DistilBertForMaskedLM,
    PreTrainedModel,
    RobertaForMaskedLM,
)

from fmlm_cli.errors import UserError
from fmlm_cli.hub import quiet
from fmlm_cli.model.build import weights_hash
from fmlm_cli.model.checkpoints.adapters import adapter_settings
from fmlm_cli.model.checkpoints.pretrained import load_model, load_pretrained
from fmlm_cli.model.classifier import EncoderCheckpoint
from tests.model.checkpoints import BERT, DISTILBERT, ROBERTA, SIZE, TOKENS

peft = pytest.importorskip("peft")

QUERY_VALUE: dict[str, Any] = {"target_modules": ["query", "value"]}
CASES: dict[str, tuple[Callable[[], PreTrainedModel], dict[str, Any]]] = {
    "attention": (lambda: BertForMaskedLM(BERT), QUERY_VALUE),
    "roberta": (lambda: RobertaForMaskedLM(ROBERTA), QUERY_VALUE),
    "distilbert": (lambda: DistilBertForMaskedLM(DISTILBERT), {"target_modules": ["q_lin", "lin1"]}),
    "all linear, scaled otherwise": (
        lambda: BertForMaskedLM(BERT),
        {"target_modules": "all-linear", "use_rslora": True, "lora_alpha": 3},
    ),
    "magnitudes": (lambda: BertForMaskedLM(BERT), {**QUERY_VALUE, "use_dora": True}),
    "ranks that differ": (lambda: BertForMaskedLM(BERT), {**QUERY_VALUE, "rank_pattern": {"query": 4}}),
    "embeddings apart from the decoder": (
        lambda: BertForMaskedLM(BertConfig(**SIZE, tie_word_embeddings=False)),
        {"target_modules": ["query", "word_embeddings"]},
    ),
    "a part trained whole": (
        lambda: BertForMaskedLM(BERT),
        {**QUERY_VALUE, "modules_to_save": ["transform"]},
    ),
}


def train(model: PreTrainedModel, folder: Path, *, seed: int = 0, **settings: Any) -> Any:
    """Save a model in `folder`/base and an adapter of it, as if trained, in `folder`/adapter; peft's model."""
    with quiet():
        model.save_pretrained(folder / "base")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, **settings)).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in wrapped.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) / 10)
        wrapped.save_pretrained(folder / "adapter")
    return wrapped


@torch.no_grad()
def logits(model: Any) -> Tensor:
    found: Tensor = model.eval()(TOKENS).logits
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_merged_adapter_gives_what_peft_gives(case: str, tmp_path: Path) -> None:
    make, settings = CASES[case]
    wanted = logits(train(make(), tmp_path, **settings))
    with quiet():
        alone = logits(AutoModelForMaskedLM.from_pretrained(tmp_path / "base"))
    loaded = load_pretrained(tmp_path / "base", name="given", adapter=tmp_path / "adapter")
    torch.testing.assert_close(logits(loaded.model), wanted, rtol=0, atol=1e-5)
    assert (wanted - alone).abs().max() > 1e-4
    assert (loaded.new, loaded.unused) == ((), ())


def test_an_adapter_of_a_classifier_brings_its_head(tmp_path: Path) -> None:
    pretrained, tuned = (
        BertForPreTraining(BERT),
        BertForSequenceClassification(BertConfig(**SIZE, num_labels=3)),
    )
    tuned.bert.load_state_dict(pretrained.bert.state_dict())
    wrapped = train(tuned, tmp_path, **QUERY_VALUE, task_type="SEQ_CLS")
    pretrained.save_pretrained(tmp_path / "base")  # which knows nothing of the labels
    read = EncoderCheckpoint.read(tmp_path / "base", name="given", adapter=tmp_path / "adapter")
    assert read.config.num_labels == 3
    labels = [read.config.id2label[number] for number in range(3)]
    made = read.classifier(labels, seed=0)
    assert made.new == ()
    torch.testing.assert_close(logits(made.model), logits(wrapped), rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", [BertModel, BertForSequenceClassification])
def test_an_adapter_of_another_head_changes_the_encoder(make: Any, tmp_path: Path) -> None:
    wrapped = train(make(BERT), tmp_path, **QUERY_VALUE)
    loaded = load_pretrained(tmp_path / "base", name="given", adapter=tmp_path / "adapter")
    assert loaded.new
    with torch.no_grad():
        wanted = wrapped(TOKENS, output_hidden_states=True).hidden_states[-1]
        got = loaded.model.base_model(TOKENS).last_hidden_state
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="lacks weights of a masked LM"):  # a head drawn afresh is none
        load_model(tmp_path / "base", name="given", adapter=tmp_path / "adapter")


def test_the_adapter_has_a_part_in_the_hash(tmp_path: Path) -> None:
    """And merging gives the same bits each time."""
    hashes = []
    for seed in (0, 0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            train(BertForMaskedLM(BERT), tmp_path / str(seed), seed=seed, **QUERY_VALUE)
        folder = tmp_path / str(seed)
        read = EncoderCheckpoint.read(folder / "base", name="given", adapter=folder / "adapter")
        hashes.append(weights_hash(read.tensors))
    assert hashes[0] == hashes[1] != hashes[2]


def test_weights_in_a_pickle(tmp_path: Path) -> None:
    wanted = logits(train(BertForMaskedLM(BERT), tmp_path, **QUERY_VALUE))
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    loaded = load_pretrained(tmp_path / "base", name="given", adapter=tmp_path / "adapter")
    torch.testing.assert_close(logits(loaded.model), wanted, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- what is refused


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_pretrained(folder / "base", name="given", adapter=folder / "adapter")
    assert "\n" not in str(caught.value) and "given" in str(caught.value)
    return str(caught.value)


def test_damaged_weights(tmp_path: Path) -> None:
    train(BertForMaskedLM(BERT), tmp_path, **QUERY_VALUE)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    whole = load_file(path)
    first = min(whole)
    for changed, says in (
        ({**whole, first: whole[first] * float("nan")}, f"{first.removeprefix('base_model.model.')}"),
        ({key: value for key, value in whole.items() if key != first}, "it lacks"),
        ({first.replace("layer.0", "layer.7"): whole[first]}, "has its bert.encoder.layer.7"),
        ({**whole, first: whole[first][:, :3].contiguous()}, "cannot merge the adapter"),
        ({"a": torch.zeros(1)}, "holds no low-rank weights"),
    ):
        save_file(changed, path)
        assert says in refused(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert "adapter_model.safetensors is cut short or damaged" in refused(tmp_path)
    path.unlink()
    assert "it holds no adapter_model.safetensors" in refused(tmp_path)


def test_embeddings_of_another_size(tmp_path: Path) -> None:
    train(BertForMaskedLM(BERT), tmp_path, **QUERY_VALUE)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    grown = {"base_model.model.bert.embeddings.word_embeddings.weight": torch.zeros(60, 16)}
    save_file({**load_file(path), **grown}, path)
    assert "word_embeddings.weight is 60 x 16, that of its model 50 x 16" in refused(tmp_path)


def test_embeddings_that_the_decoder_shares(tmp_path: Path) -> None:
    train(BertForMaskedLM(BERT), tmp_path, target_modules=["word_embeddings"])
    assert "it changes bert.embeddings.word_embeddings, whose weights the decoder shares" in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not valid JSON"),
        ('{"peft_type": "LORA", "base_model_name_or_path": " "}', "names no base_model_name_or_path"),
        ("[]", "names no base_model_name_or_path"),
        ('{"peft_type": "LORA"}', "names no base_model_name_or_path"),
        ('{"peft_type": "IA3", "base_model_name_or_path": "x"}', "kind 'IA3': merge it with peft"),
        ('{"base_model_name_or_path": "x"}', "kind 'None'"),
        (
            '{"peft_type": "LORA", "base_model_name_or_path": "x", "trainable_token_indices": [3]}',
            "kind 'trainable_token_indices'",
        ),
    ],
)
def test_configurations_of_other_kinds(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(UserError, match=says):
        adapter_settings(tmp_path, "given")


def test_without_peft_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(BertForMaskedLM(BERT), tmp_path, **QUERY_VALUE)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    assert "given holds an adapter, which needs the package peft: pip install 'fmlm[lora]'" in refused(
        tmp_path
    )


def test_a_classifier_that_is_fine_tuned_further(tmp_path: Path) -> None:
    """The stock class finds in what is saved what was merged."""
    wrapped = train(BertForSequenceClassification(BERT), tmp_path, **QUERY_VALUE, task_type="SEQ_CLS")
    read = EncoderCheckpoint.read(tmp_path / "base", name="given", adapter=tmp_path / "adapter")
    made = read.classifier(["LABEL_0", "LABEL_1"], seed=0)
    with quiet():
        made.model.save_pretrained(tmp_path / "saved")
        stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(logits(stock), logits(wrapped), rtol=0, atol=1e-5)
