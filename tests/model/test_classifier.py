"""An encoder under a head for whole sequences: what is kept, what is new, what is shared with nobody."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertForPreTraining

from fmlm_cli.errors import UserError
from fmlm_cli.hub import quiet
from fmlm_cli.model.classifier import EncoderCheckpoint
from tests.model.families import BERT, FAMILIES, LENGTH, VOCABULARY, small_model

LABELS = ("no", "yes", "perhaps")


def saved(family: str, folder: Path) -> Path:
    with quiet():
        small_model(FAMILIES[family]()).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_masked_lm_becomes_a_classifier(family: str, tmp_path: Path) -> None:
    """Its encoder's weights are the checkpoint's, its head is new, and it saves to a folder that loads as
    stock.
    """
    folder = saved(family, tmp_path / "mlm")
    encoder = EncoderCheckpoint.read(folder, name=family)
    made = encoder.classifier(LABELS, seed=3)
    with quiet():
        stock = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    wanted = dict(stock.named_parameters())
    kept = [name for name in wanted if name not in made.new]
    assert len(kept) > 8
    assert all(torch.equal(p, wanted[n]) for n, p in made.model.named_parameters() if n in kept)
    assert made.new
    inside = {id(p) for p in made.model.base_model.parameters()}
    assert all("pooler" in n for n, p in made.model.named_parameters() if n in made.new and id(p) in inside)
    with quiet():
        made.model.eval().save_pretrained(tmp_path / "out")
        stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert stock.config.id2label == dict(enumerate(LABELS))
    ids = torch.randint(5, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(made.model(input_ids=ids).logits, stock(input_ids=ids).logits)


@pytest.fixture
def encoder(tmp_path: Path) -> EncoderCheckpoint:
    return EncoderCheckpoint.read(saved("bert", tmp_path / "mlm"), name="bert")


def test_heads_are_a_function_of_the_seed(encoder: EncoderCheckpoint) -> None:
    first, again, other = (encoder.classifier(LABELS, seed=seed).model.state_dict() for seed in (1, 1, 2))
    differ = {name for name in first if not torch.equal(first[name], other[name])}
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert differ == {"classifier.weight", "bert.pooler.dense.weight"}


def test_training_one_model_leaves_the_next_as_it_was(encoder: EncoderCheckpoint) -> None:
    """All are made of the same tensors, which must be nobody's parameters."""
    first = encoder.classifier(LABELS, seed=0)
    before = {name: value.clone() for name, value in first.model.state_dict().items()}
    with torch.no_grad():
        for parameter in first.model.parameters():
            parameter.add_(1.0)
    after = encoder.classifier(LABELS, seed=0).model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_pooler_of_the_checkpoint_is_used(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with quiet():
        model = BertForPreTraining(BertConfig(**BERT))
        model.save_pretrained(tmp_path)
    made = EncoderCheckpoint.read(tmp_path, name="bert").classifier(LABELS, seed=0)
    assert made.new == ("classifier.bias", "classifier.weight")
    assert torch.equal(made.model.bert.pooler.dense.weight, model.bert.pooler.dense.weight)
    assert "cls.seq_relationship.weight" in made.unused


def test_a_head_stays_for_the_same_labels_alone(encoder: EncoderCheckpoint, tmp_path: Path) -> None:
    with quiet():
        encoder.classifier(LABELS, seed=5).model.save_pretrained(tmp_path / "tuned")
        encoder.classifier((), seed=5).model.save_pretrained(tmp_path / "score")
    tuned = EncoderCheckpoint.read(tmp_path / "tuned", name="tuned")
    assert tuned.classifier(LABELS, seed=9).new == ()
    for labels in (("no", "yes"), LABELS[::-1], ()):
        made = tuned.classifier(labels, seed=9)
        assert made.new == ("classifier.bias", "classifier.weight")
        assert made.model.config.num_labels == max(1, len(labels))
    assert EncoderCheckpoint.read(tmp_path / "score", name="score").classifier((), seed=9).new == ()


def test_the_top_is_drawn_afresh(encoder: EncoderCheckpoint) -> None:
    plain, fresh = (
        encoder.classifier(LABELS, seed=1, reinit_layers=layers).model.state_dict() for layers in (0, 1)
    )
    differ = {name for name in plain if not torch.equal(plain[name], fresh[name])}
    assert differ
    assert all(".layer.1." in name or ".pooler." in name for name in differ)
    assert any(name.endswith("layer.1.attention.self.query.weight") for name in differ)
    again = encoder.classifier(LABELS, seed=1, reinit_layers=1).model.state_dict()
    assert all(torch.equal(fresh[name], again[name]) for name in fresh)


def test_too_many_layers_to_draw_afresh(encoder: EncoderCheckpoint) -> None:
    with pytest.raises(UserError, match="reinit_layers 2: the model has 2 layers"):
        encoder.classifier(LABELS, seed=1, reinit_layers=2)


def test_dropout_reaches_the_modules(encoder: EncoderCheckpoint) -> None:
    model = encoder.classifier(LABELS, seed=1, dropout=0.4).model
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.4}


def test_what_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights"):
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        EncoderCheckpoint.read(tmp_path, name="empty")
