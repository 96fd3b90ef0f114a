"""Loading checkpoints: what is taken as it is, the heads that are made, and what is left over."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    DistilBertModel,
    ElectraConfig,
    ElectraForPreTraining,
    ElectraModel,
    EsmConfig,
    EsmModel,
    EuroBertConfig,
    EuroBertModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    RemBertConfig,
    RemBertModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
)

from fmlm_cli.errors import UserError
from fmlm_cli.model.build import save_model
from fmlm_cli.model.checkpoints.pretrained import load_model
from tests.model.checkpoints import (
    BERT,
    DISTILBERT,
    MASKED_LMS,
    ROBERTA,
    SIZE,
    TOKENS,
    assert_holds,
    by_kind,
    family,
    load,
    refused,
    saved,
)

ELECTRA = ElectraConfig(**SIZE, embedding_size=12)
MODERNBERT = ModernBertConfig(
    **SIZE, pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3
)
ESM = EsmConfig(**SIZE, mask_token_id=4, pad_token_id=0)
ENCODERS = [
    BertModel(BERT),
    RobertaModel(ROBERTA),
    ElectraModel(ELECTRA),
    DistilBertModel(DISTILBERT),
    ModernBertModel(MODERNBERT),
    EsmModel(ESM),
]

# ---------------------------------------------------------------- whole checkpoints


@by_kind
@pytest.mark.parametrize("model", MASKED_LMS, ids=family)
def test_a_whole_checkpoint_is_loaded_as_it_is(model: PreTrainedModel, kind: str, tmp_path: Path) -> None:
    loaded = load(saved(model, tmp_path, kind))
    assert (loaded.new, loaded.unused, loaded.code, loaded.tied_anew) == ((), (), (), False)
    assert type(loaded.model) is type(model)
    assert not loaded.model.training
    assert loaded.model.state_dict().keys() == model.state_dict().keys()
    assert_holds(loaded.model, model.state_dict())
    assert torch.equal(loaded.model(TOKENS).logits, model.eval()(TOKENS).logits)
    assert load_model(tmp_path, name="given").state_dict().keys() == model.state_dict().keys()


def test_safetensors_come_first(tmp_path: Path) -> None:
    saved(MASKED_LMS[0], tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    assert_holds(load(tmp_path).model, MASKED_LMS[0].state_dict())


@by_kind
def test_a_checkpoint_in_parts(kind: str, tmp_path: Path) -> None:
    saved(MASKED_LMS[0], tmp_path, kind)
    if kind == "safetensors":
        weights = load_file(tmp_path / "model.safetensors")
        (tmp_path / "model.safetensors").unlink()
    else:
        weights = torch.load(tmp_path / "pytorch_model.bin")
        (tmp_path / "pytorch_model.bin").unlink()
    stem = "model" if kind == "safetensors" else "pytorch_model"
    names, parts = sorted(weights), [f"{stem}-0000{i}-of-00002.{kind}" for i in (1, 2)]
    place = {name: parts[i % 2] for i, name in enumerate(names)}
    for part in parts:
        content = {name: weights[name].clone() for name in names if place[name] == part}
        save_file(content, tmp_path / part) if kind == "safetensors" else torch.save(content, tmp_path / part)
    index = tmp_path / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": place}))
    assert_holds(load(tmp_path).model, MASKED_LMS[0].state_dict())
    (tmp_path / parts[1]).unlink()
    assert f"{parts[1]} is missing" in refused(tmp_path)
    for damage in ('{"weight_map": {"a": "../model.safetensors"}}', '{"weight_map": 3}', "{", "{}", "[]"):
        index.write_text(damage)
        assert f"{index.name} is damaged" in refused(tmp_path)


@by_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_are_float32_whatever_they_were_saved_in(
    dtype: torch.dtype, kind: str, tmp_path: Path
) -> None:
    model = BertForMaskedLM(BERT).to(dtype)
    loaded = load(saved(model, tmp_path, kind, dtype=str(dtype).removeprefix("torch."))).model
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    assert loaded.config.dtype == torch.float32
    assert_holds(loaded, {name: value.float() for name, value in model.state_dict().items()})


@by_kind
def test_the_model_outlives_its_files(kind: str, tmp_path: Path) -> None:
    """Its memory is its own: writing over a mapped file would change it, or end the process."""
    loaded = load(saved(MASKED_LMS[0], tmp_path, kind)).model
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    assert_holds(loaded, MASKED_LMS[0].state_dict())


def test_old_names_of_layer_norms_are_known(tmp_path: Path) -> None:
    """BERT's first checkpoints say gamma and beta."""
    saved(MASKED_LMS[0], tmp_path)
    old = load_file(tmp_path / "model.safetensors")
    renames = ("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")
    for new_name, old_name in renames:
        old = {name.replace(new_name, old_name): value for name, value in old.items()}
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = load(tmp_path)
    assert (loaded.new, loaded.unused) == ((), ())
    assert_holds(loaded.model, MASKED_LMS[0].state_dict())


def test_choices_of_a_configuration_that_do_not_reach_the_model(tmp_path: Path) -> None:
    """Attention from the Hub is foreign code; other outputs than the usual could be neither trained on nor
    saved.
    """
    outputs = {"output_attentions": True, "output_hidden_states": True, "return_dict": False, "num_beams": 4}
    attentions = [{"attn_implementation": name} for name in ("flash_attention_2", "someone/kernel")]
    for number, choices in enumerate([outputs, *attentions]):
        loaded = load(saved(MASKED_LMS[0], tmp_path / f"{number}", **choices)).model
        assert loaded.config._attn_implementation == "sdpa"
        output = loaded(TOKENS)
        assert output.hidden_states is output.attentions is None
        save_model(loaded, tmp_path / "saved", {})
        assert_holds(load(tmp_path / "saved").model, MASKED_LMS[0].state_dict())


# ---------------------------------------------------------------- new heads


@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("encoder", ENCODERS, ids=family)
def test_a_checkpoint_without_a_head_gets_one(encoder: PreTrainedModel, untied: bool, tmp_path: Path) -> None:
    saved(encoder, tmp_path, tie_word_embeddings=not untied)
    before = torch.random.get_rng_state()
    first, again, other = load(tmp_path), load(tmp_path), load(tmp_path, seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)

    model, prefix = first.model, f"{first.model.base_model_prefix}."
    parameters = {name for name, _ in model.named_parameters()}
    assert set(first.new) == {name for name in parameters if not name.startswith(prefix)}
    assert list(first.new) == sorted(first.new)
    assert first.tied_anew is untied
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config.tie_word_embeddings
    assert_holds(first.model, again.model.state_dict())
    drawn = [name for name in first.new if model.get_parameter(name).std() > 0]
    assert drawn
    assert not any(torch.equal(model.get_parameter(name), other.model.get_parameter(name)) for name in drawn)

    inside = {
        name.removeprefix(prefix): value
        for name, value in model.state_dict().items()
        if name.startswith(prefix)
    }
    wanted = encoder.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in inside.items())
    assert set(first.unused) == wanted.keys() - inside.keys()

    save_model(model, tmp_path / "saved", {})
    reloaded = AutoModelForMaskedLM.from_pretrained(tmp_path / "saved").eval()
    assert reloaded.get_output_embeddings().weight is reloaded.get_input_embeddings().weight
    assert torch.equal(reloaded(TOKENS).logits, model(TOKENS).logits)


def test_a_new_head_owes_nothing_to_the_generator(tmp_path: Path) -> None:
    saved(BertModel(BERT), tmp_path)

    @settings(max_examples=8, deadline=None)
    @given(st.integers(0, 2**31), st.integers(0, 2**31))
    def check(generator: int, seed: int) -> None:
        torch.manual_seed(generator)
        expected = torch.rand(3)
        torch.manual_seed(generator)
        head = load(tmp_path, seed=seed).model.cls.predictions.transform.dense.weight
        assert torch.equal(torch.rand(3), expected)
        assert torch.equal(head, load(tmp_path, seed=seed).model.cls.predictions.transform.dense.weight)

    check()


def test_a_head_that_is_only_a_decoder(tmp_path: Path) -> None:
    """Tied to the embeddings nothing of it is new, and yet the checkpoint has no head."""
    config = EuroBertConfig(**SIZE, num_key_value_heads=2, pad_token_id=0, bos_token_id=2, eos_token_id=3)
    loaded = load(saved(EuroBertModel(config), tmp_path))
    assert (loaded.new, loaded.tied_anew) == ((), True)
    assert loaded.model.get_output_embeddings().weight is loaded.model.get_input_embeddings().weight
    with pytest.raises(UserError, match="lacks weights of a masked LM: its decoder's"):
        load_model(tmp_path, name="given")


def test_a_decoder_that_cannot_be_tied(tmp_path: Path) -> None:
    """RemBERT's is wider than its embeddings."""
    config = RemBertConfig(**SIZE, input_embedding_size=12, output_embedding_size=20)
    loaded = load(saved(RemBertModel(config), tmp_path))
    assert "cls.predictions.decoder.weight" in loaded.new
    assert (loaded.tied_anew, loaded.model.config.tie_word_embeddings) == (False, False)


def test_a_decoder_of_its_own_stays_apart(tmp_path: Path) -> None:
    config = BertConfig(**SIZE, tie_word_embeddings=False)
    model = BertForMaskedLM(config)
    loaded = load(saved(model, tmp_path))
    assert (loaded.new, loaded.tied_anew) == ((), False)
    assert_holds(loaded.model, model.state_dict())
    assert not torch.equal(
        loaded.model.cls.predictions.decoder.weight, loaded.model.get_input_embeddings().weight
    )


@pytest.mark.parametrize(
    "model",
    [
        BertForSequenceClassification(BERT),
        BertForTokenClassification(BERT),
        RobertaForSequenceClassification(ROBERTA),
        ElectraForPreTraining(ELECTRA),
    ],
    ids=family,
)
def test_other_heads_are_left_over(model: PreTrainedModel, tmp_path: Path) -> None:
    loaded = load(saved(model, tmp_path))
    taken = {name for name in model.state_dict() if name in loaded.model.state_dict()}
    assert set(loaded.unused) == model.state_dict().keys() - taken
    assert loaded.unused
    assert len(loaded.new) == 5  # a dense layer and a norm with biases, and the decoder's bias
    with pytest.raises(
        UserError, match=r"given lacks weights of a masked LM: .*give a checkpoint that has its head"
    ):
        load_model(tmp_path, name="given")


# ---------------------------------------------------------------- what found no place


@by_kind
@pytest.mark.parametrize("encoder", ENCODERS, ids=family)
def test_a_pooler_is_found_again(encoder: PreTrainedModel, kind: str, tmp_path: Path) -> None:
    """A bare encoder's checkpoint names its tensors without the prefix that they need beside a head."""
    loaded = load(saved(encoder, tmp_path / "before", kind))
    kept = loaded.spare
    save_model(loaded.model, tmp_path / "after", {}, kept)
    pools = any("pooler" in name for name in encoder.state_dict())
    assert bool(kept) is pools

    bare, report = AutoModel.from_pretrained(tmp_path / "after", output_loading_info=True)
    assert not report["missing_keys"]
    assert_holds(bare, encoder.state_dict())
    again = AutoModelForMaskedLM.from_pretrained(tmp_path / "after").eval()
    assert torch.equal(again(TOKENS).logits, loaded.model(TOKENS).logits)
    assert set(load(tmp_path / "after").unused) == kept.keys()
    assert load(tmp_path / "after").new == ()


@pytest.mark.parametrize(
    "model",
    [
        BertForSequenceClassification(BertConfig(**SIZE, num_labels=3)),
        RobertaForSequenceClassification(RobertaConfig(**SIZE, num_labels=3)),
    ],
    ids=family,
)
def test_a_classifier_is_found_again(model: PreTrainedModel, tmp_path: Path) -> None:
    loaded = load(saved(model.to(torch.bfloat16), tmp_path / "before"))
    kept = loaded.spare
    assert kept.keys() == set(loaded.unused)
    assert {value.dtype for value in kept.values()} == {torch.float32}
    save_model(loaded.model, tmp_path / "after", {}, kept)
    again, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "after", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert_holds(again, {name: value.float() for name, value in model.state_dict().items()})


def test_the_pooler_and_the_next_sentence_head_of_bert(tmp_path: Path) -> None:
    model = BertForPreTraining(BERT)
    loaded = load(saved(model, tmp_path / "before"))
    assert loaded.new == ()
    names = {
        f"{layer}.{kind}"
        for layer in ("bert.pooler.dense", "cls.seq_relationship")
        for kind in ("bias", "weight")
    }
    assert set(loaded.unused) == names
    kept = loaded.spare
    save_model(loaded.model, tmp_path / "after", {}, kept)
    assert_holds(BertForPreTraining.from_pretrained(tmp_path / "after"), model.state_dict())
    with safe_open(tmp_path / "after" / "model.safetensors", "pt") as file:
        assert names < set(file.keys())
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "after")
    assert torch.equal(classifier.bert.pooler.dense.weight, model.bert.pooler.dense.weight)


def test_loading_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    saved(BertForSequenceClassification(BERT), tmp_path)
    capfd.readouterr()
    load(tmp_path)
    assert capfd.readouterr() == ("", "")
