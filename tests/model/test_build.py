"""Building, loading and measuring models."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.errors import UserError
from fmlm_cli.model.build import (
    VocabularyFacts,
    build_model,
    longest_sequence,
    parameter_counts,
    position_offset,
    preset_for,
    read_config,
    set_output_bias,
)
from fmlm_cli.model.presets import PRESETS, nearest_preset
from fmlm_cli.recipes.pretraining.planning.start import vocabulary_of

BERT_VOCABULARY = VocabularyFacts(30522, 0, 101, 102)
SMALL = VocabularyFacts(50, 0, 2, 3)
TINY: dict[str, Any] = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}


def write_config(folder: Path, **settings: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**TINY, **settings}), encoding="utf-8")
    return str(folder / "config.json")


def saved_tiny(folder: Path) -> PreTrainedModel:
    """A tiny masked LM, also on disk."""
    model = build_model(write_config(folder), SMALL, dropout=0.0, seed=3)
    model.save_pretrained(folder)
    return model


# Turc et al. 2019 (README of google-research/bert): 4.4, 11.3, 29.1, 41.7 and 110.1 M parameters, with a
# pooler of hidden^2 that masked LMs have not; a masked LM's head adds hidden^2 + 3 hidden + vocabulary in its
# place.
@pytest.mark.parametrize(
    ("name", "layers", "hidden", "heads", "published"),
    [
        ("bert-tiny", 2, 128, 2, 4_385_920),
        ("bert-mini", 4, 256, 4, 11_170_560),
        ("bert-small", 4, 512, 8, 28_763_648),
        ("bert-medium", 8, 512, 8, 41_373_184),
        ("bert-base", 12, 768, 12, 109_482_240),
        ("bert-large", 24, 1024, 16, 335_141_888),
    ],
)
def test_presets_have_the_published_sizes(
    name: str, layers: int, hidden: int, heads: int, published: int
) -> None:
    with torch.device("meta"):
        model = build_model(name, BERT_VOCABULARY, dropout=0.1, seed=0)
    total = parameter_counts(model)["total"]
    assert total == published + 2 * hidden + 30522  # the head's transform is the pooler's size
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (
        layers,
        hidden,
        heads,
    )
    assert config.intermediate_size == 4 * hidden
    embeddings = (30522 + 512 + 2) * hidden
    assert parameter_counts(model)["without_embeddings"] == total - embeddings


def test_presets_are_their_own_nearest() -> None:
    for preset in PRESETS.values():
        nearest = nearest_preset(preset.layers, preset.hidden)
        assert (nearest.layers, nearest.hidden) == (preset.layers, preset.hidden)
        assert nearest is preset or nearest.family == "bert"
    assert nearest_preset(6, 384) is PRESETS["bert-small"]
    assert nearest_preset(48, 4096) is PRESETS["bert-large"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "roberta", "hidden_size": 256, "num_hidden_layers": 4}, "bert-mini"),
        ({"model_type": "distilbert", "dim": 768, "n_layers": 6}, "distilbert-base"),
        ({"model_type": "modernbert", "hidden_size": 768, "num_hidden_layers": 22}, "modernbert-base"),
    ],
)
def test_other_models_take_the_settings_of_the_preset_of_their_size(
    tmp_path: Path, config: dict[str, Any], expected: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert preset_for(str(tmp_path)) is PRESETS[expected]
    assert preset_for("bert-tiny") is PRESETS["bert-tiny"]


@pytest.mark.parametrize(
    "model_type", ["roberta", "albert", "electra", "modernbert", "xlm-roberta", "mpnet", "deberta-v2"]
)
def test_families_are_built_from_a_config_json(tmp_path: Path, model_type: str) -> None:
    for name in (write_config(tmp_path, model_type=model_type), str(tmp_path)):
        model = build_model(name, SMALL, dropout=0.0, seed=0)
        assert model.config.model_type == model_type
        assert model.get_input_embeddings().num_embeddings == 50
        assert model.get_output_embeddings().out_features == 50


def test_vocabulary_and_special_ids_are_the_stores(tiny_store: Path, tmp_path: Path) -> None:
    store = TokenStore.open(tiny_store)
    facts = vocabulary_of(store)
    tokenizer = store.tokenizer
    assert facts == VocabularyFacts(
        len(tokenizer), tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id
    )
    ids = {"vocab_size": 9, "pad_token_id": 7, "bos_token_id": 8, "eos_token_id": 6}
    for model_type in ("bert", "roberta", "modernbert"):
        config = build_model(
            write_config(tmp_path, model_type=model_type, **ids), facts, dropout=0, seed=0
        ).config
        assert config.vocab_size == store.vocabulary
        assert config.pad_token_id == facts.pad
        assert (config.bos_token_id, config.eos_token_id) == (facts.cls, facts.sep)
    assert (config.cls_token_id, config.sep_token_id) == (facts.cls, facts.sep)  # ModernBERT has these too


def test_byte_level_special_ids_are_the_stores(tiny_bpe_store: Path) -> None:
    store = TokenStore.open(tiny_bpe_store)
    facts, tokenizer = vocabulary_of(store), store.tokenizer
    assert facts.cls == tokenizer.convert_tokens_to_ids("<s>")
    assert facts.sep == tokenizer.convert_tokens_to_ids("</s>")


def test_dropout_sets_all_rates_that_pre_training_runs(tmp_path: Path) -> None:
    bert = build_model(write_config(tmp_path), SMALL, dropout=0.25, seed=0)
    rates = [module.p for module in bert.modules() if isinstance(module, torch.nn.Dropout)]
    assert rates
    assert set(rates) == {0.25}
    modern = build_model(write_config(tmp_path, model_type="modernbert"), SMALL, dropout=0.25, seed=0).config
    assert (modern.attention_dropout, modern.mlp_dropout, modern.embedding_dropout) == (0.25, 0.25, 0.25)
    assert modern.classifier_dropout == 0
    roberta = build_model(
        write_config(tmp_path, model_type="roberta", classifier_dropout=0.4), SMALL, dropout=0, seed=0
    )
    assert (roberta.config.hidden_dropout_prob, roberta.config.classifier_dropout) == (0.0, 0.4)


@pytest.mark.parametrize(
    ("model_type", "name", "value"),
    [
        ("distilbert", "seq_classif_dropout", 0.2),
        ("distilbert", "qa_dropout", 0.1),
        ("electra", "summary_last_dropout", 0.1),
        ("albert", "classifier_dropout_prob", 0.1),
    ],
)
def test_dropout_of_heads_for_fine_tuning_is_left_alone(
    tmp_path: Path, model_type: str, name: str, value: float
) -> None:
    path = write_config(tmp_path, model_type=model_type, dim=16, n_layers=1, n_heads=2, hidden_dim=24)
    config = build_model(path, SMALL, dropout=0.0, seed=0).config
    assert getattr(config, name) == value


def test_weights_are_a_function_of_the_seed_and_nothing_else(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    first = build_model(path, SMALL, dropout=0.0, seed=5).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(100)
    second = build_model(path, SMALL, dropout=0.3, seed=5).state_dict()
    other = build_model(path, SMALL, dropout=0.0, seed=6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(
        first["bert.embeddings.word_embeddings.weight"], other["bert.embeddings.word_embeddings.weight"]
    )


@pytest.mark.parametrize(
    ("settings", "offset", "longest"),
    [
        ({"model_type": "bert"}, 0, 20),
        ({"model_type": "roberta"}, 2, 18),
        ({"model_type": "mpnet"}, 2, 18),
        ({"model_type": "modernbert"}, 0, 20),
        ({"model_type": "distilbert", "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24}, 0, 20),
    ],
)
def test_positions(tmp_path: Path, settings: dict[str, Any], offset: int, longest: int) -> None:
    """The longest sequence runs; one more position does not, where positions are embedded."""
    facts = VocabularyFacts(50, 1, 2, 3)
    model = build_model(write_config(tmp_path, **settings), facts, dropout=0.0, seed=0)
    assert position_offset(model) == offset
    assert longest_sequence(model) == longest
    assert model(torch.full((1, longest), 5)).logits.shape == (1, longest, 50)
    if settings["model_type"] not in ("modernbert",):
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, longest + 1), 5))


def test_output_bias_starts_the_model_at_the_unigram_distribution(tmp_path: Path) -> None:
    model = build_model(write_config(tmp_path), SMALL, dropout=0.0, seed=0)
    frequencies = torch.arange(1.0, 51.0)
    wanted = (frequencies / frequencies.sum()).log()
    assert set_output_bias(model, wanted)
    assert torch.equal(model.get_output_embeddings().bias, wanted)
    logits = model.eval()(torch.arange(5, 20)[None]).logits
    torch.testing.assert_close(logits.log_softmax(-1), wanted.expand(1, 15, 50), atol=0.5, rtol=0)
    assert set_output_bias(
        model, wanted[:-1]
    )  # a vocabulary that is padded: what is beyond is as rare as the rarest
    assert torch.equal(model.get_output_embeddings().bias, torch.cat([wanted[:-1], wanted[:1]]))
    assert not set_output_bias(model, torch.zeros(51))


# ---------------------------------------------------------------- errors


def test_an_unknown_preset_lists_the_known() -> None:
    with pytest.raises(UserError, match="unknown model 'bert-minni': did you mean 'bert-mini'") as caught:
        read_config("bert-minni")
    assert all(name in str(caught.value) for name in PRESETS)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b'{\n"model_type": "bert",\n', r"config\.json:3: not valid JSON"),
        (b'{"hidden_size": 16}', "has no 'model_type'"),
        (b'["bert"]', "has no 'model_type'"),
        (b"17", "has no 'model_type'"),
        (b"", r"config\.json:1: not valid JSON"),
        (b"\xff\xfe{}", "is not a Hugging Face model configuration"),
        (b'{"model_type": "gpt2"}', "'gpt2' has no masked-LM head"),
        (b'{"model_type": "bird"}', "transformers cannot read a 'bird' configuration"),
        (b'{"model_type": 3}', "transformers cannot read a '3' configuration"),
        (b'{"model_type": null}', "config"),
        (b'{"model_type": "bert", "hidden_size": "wide"}', "config"),
        (b'{"model_type": "clip"}', "'clip' has no masked-LM head"),
    ],
)
def test_bad_configurations(tmp_path: Path, contents: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(contents)
    for name in (str(path), str(tmp_path)):
        with pytest.raises(UserError, match=message) as caught:
            build_model(name, SMALL, dropout=0.0, seed=0)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_missing_configuration(tmp_path: Path) -> None:
    for name in (tmp_path / "config.json", tmp_path, tmp_path / "nowhere", Path("other.json")):
        with pytest.raises(UserError, match="no such model configuration"):
            read_config(str(name))


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_attention_heads": 3},
        {"num_attention_heads": 0},
        {"hidden_act": "bird"},
        {"hidden_size": -16},
        {"num_hidden_layers": "many"},
    ],
)
def test_a_configuration_that_cannot_be_built(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        build_model(write_config(tmp_path, **wrong), SMALL, dropout=0.0, seed=0)
    assert "\n" not in str(caught.value)
