"""Going on from a checkpoint: what is kept, what is said, and that it is the same road."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertForMaskedLM, BertModel

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event, Facts, Note, ignore
from fmlm_cli.recipes import pretraining
from fmlm_cli.recipes.pretraining.live_run import LiveRun
from fmlm_cli.recipes.pretraining.planning.changes import make_schedule
from fmlm_cli.recipes.pretraining.planning.plan import plan_run
from fmlm_cli.recipes.pretraining.report import gains
from fmlm_cli.recipes.pretraining.report.describe import cautions
from tests.conftest import MakeStore
from tests.recipes.runs import RHYTHM, TINY, Settings, assert_same, at_step, raise_error, timeless

pytestmark = pytest.mark.usefixtures("quick")

Continue = Callable[..., PretrainSettings]


@pytest.fixture(autouse=True)
def few_words_are_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made text has but a few words, each of which is a large share of it."""
    monkeypatch.setattr(gains, "COMMON", 0.1)


@pytest.fixture
def encoder(tiny_store: Path, tmp_path: Path) -> Path:
    """A sentence encoder's kind of checkpoint: no head, a pooler, the store's tokenizer."""
    folder = tmp_path / "encoder"
    shape = {k: v for k, v in TINY.items() if k != "model_type"}
    torch.manual_seed(3)
    BertModel(BertConfig(**shape, vocab_size=TokenStore.open(tiny_store).vocabulary)).save_pretrained(folder)
    _add_tokenizer(folder, tiny_store)
    return folder


def _add_tokenizer(folder: Path, store: Path) -> None:
    for file in (store / "tokenizer").iterdir():
        shutil.copy(file, folder / file.name)


@pytest.fixture
def going_on(tiny_store: Path, encoder: Path, tmp_path: Path) -> Continue:
    """`going_on(out, **dotted names)`: a tiny run from the encoder on the tiny store."""

    def make(out: str = "run", **changed: Any) -> PretrainSettings:
        fixed = {
            "data.stores": [str(tiny_store)],
            "model.checkpoint": str(encoder),
            "out": str(tmp_path / out),
            "budget.steps": 8,
        }
        return build(PretrainSettings, nested({**fixed, **RHYTHM, **changed}))

    return make


def said(settings: PretrainSettings, **how: Any) -> tuple[Any, str]:
    """A run's result, and all that it said, in one text."""
    events: list[Event] = []
    result = pretraining.pretrain(settings, emit=events.append, **how)
    lines = [e.text for e in events if isinstance(e, Note | Caution)]
    lines += [f"{e.title} {k} {v}" for e in events if isinstance(e, Facts) for k, v in e.rows.items()]
    return result, "\n".join(lines)


# ---------------------------------------------------------------- what the checkpoint lacks and has too much


def test_a_missing_head_and_an_unused_pooler_are_said(going_on: Continue) -> None:
    result, text = said(going_on())
    assert "has no masked-LM head" in text
    assert "--head-warmup" in text
    assert "pooler.dense.weight of the checkpoint (dropped" in text
    card = (result.run.final / "README.md").read_text()
    assert "new, tied to the embeddings" in card
    assert not any("pooler" in name for name in load_file(result.run.final / "model.safetensors"))


def test_a_pooler_is_kept_where_a_fine_tune_finds_it(going_on: Continue, encoder: Path) -> None:
    result = pretraining.pretrain(going_on(**{"model.keep_unused": True}))
    later, report = AutoModelForSequenceClassification.from_pretrained(
        result.run.final, output_loading_info=True
    )
    assert {name for name in report["missing_keys"] if "pooler" in name} == set()
    wanted = load_file(encoder / "model.safetensors")["pooler.dense.weight"]
    assert torch.equal(later.bert.pooler.dense.weight, wanted)


def test_a_new_head_begins_at_word_frequencies(going_on: Continue) -> None:
    first = pretraining.pretrain(going_on()).records[0]
    assert first["eval_loss"] == pytest.approx(first["unigram_loss"], abs=0.5)


def test_the_head_is_trained_alone_first(going_on: Continue, encoder: Path) -> None:
    """While it is, the encoder stays as it came; afterwards it does not."""
    chosen = {"optimizer.head_warmup_steps": 3, "budget.steps": 4, "checkpoint.every_steps": 3}
    result = pretraining.pretrain(going_on(**chosen))
    before = load_file(encoder / "model.safetensors")
    resting, after = (
        load_file(result.run.checkpoints / f"step-{step}" / "model.safetensors") for step in (3, 4)
    )
    encoder_names = [name for name in before if "pooler" not in name]
    assert all(torch.equal(resting[f"bert.{name}"], before[name]) for name in encoder_names)
    assert sum(not torch.equal(after[f"bert.{name}"], before[name]) for name in encoder_names) > 5
    head = "cls.predictions.transform.dense.weight"
    assert not torch.equal(resting[head], after[head])


def test_lower_layers_learn_more_slowly_with_layer_decay(going_on: Continue, encoder: Path) -> None:
    result = pretraining.pretrain(going_on(**{"optimizer.layer_decay": 1e-4, "budget.steps": 3}))
    before = load_file(encoder / "model.safetensors")
    after = load_file(result.run.final / "model.safetensors")

    def moved(name: str) -> float:
        return float((after[f"bert.{name}"] - before[name]).abs().max())

    layer = moved("encoder.layer.0.output.dense.weight")
    assert 0 < moved("embeddings.position_embeddings.weight") < layer / 100


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"optimizer.head_warmup_steps": 4},
        {"model.keep_unused": True, "optimizer.layer_decay": 0.8},
        {"model.freeze": ["embeddings"]},
        {"model.dropout": 0.3, "optimizer.schedule": "wsd"},
        {"model.lora": {"rank": 2}, "optimizer.head_warmup_steps": 5},
        {"model.max_positions": 48, "sequence_length": 48},
    ],
)
def test_an_interrupted_run_ends_as_if_it_never_was(going_on: Continue, kind: dict[str, Any]) -> None:
    whole = pretraining.pretrain(going_on("whole", **kind))
    parts = going_on("parts", **kind)
    with pytest.raises(RuntimeError):
        pretraining.pretrain(parts, emit=at_step(4, raise_error))
    resumed, text = said(parts, resume=True)
    assert "resuming after step 3 of 8" in text
    assert_same(resumed, whole)
    improved = "tokens whose prediction improved most"
    assert (improved in text) == (improved in (whole.run.final / "README.md").read_text().lower())


def test_a_run_killed_before_its_last_words_still_says_them(going_on: Continue) -> None:
    """After the last checkpoint no evaluation is due any more; the table of improved tokens needs one."""
    settings = going_on(**{"evaluation.max_rows": None, "optimizer.learning_rate": 1e-2})
    run = pretraining.pretrain(settings).run
    card = (run.final / "README.md").read_text()
    assert "tokens whose prediction improved most" in card.lower()
    shutil.rmtree(run.final)
    _, text = said(settings, resume=True)
    assert "tokens whose prediction improved most" in text
    assert (run.final / "README.md").read_text() == card


@pytest.mark.parametrize("content", [None, b"", b"damaged", "a byte"])
def test_first_scores_that_are_damaged_cost_no_more_than_a_table(going_on: Continue, content: Any) -> None:
    settings = going_on(**{"evaluation.max_rows": None, "optimizer.learning_rate": 1e-2})
    run, text = said(settings)
    assert "tokens whose prediction improved most" in text
    path, model = run.run.first_scores, (run.run.final / "model.safetensors").read_bytes()
    shutil.rmtree(run.run.final)
    if content is None:
        path.unlink()
    elif content == "a byte":
        path.write_bytes(path.read_bytes()[:-1] + b"\x41")
    else:
        path.write_bytes(content)
    again, text = said(settings, resume=True)
    assert "there is no table of the tokens that improved most" in text and path.name in text
    assert (again.run.final / "model.safetensors").read_bytes() == model


def test_a_damaged_optimizer_is_not_carried_over(going_on: Continue, settings: Settings) -> None:
    """Said before anything is written."""
    first = pretraining.pretrain(settings("first", **{"budget.steps": 3})).run
    path = first.checkpoints / "step-3" / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    asked = going_on("second", **{"model.checkpoint": str(first.root), "optimizer.carry_over": True})
    with pytest.raises(
        UserError, match=r"optimizer\.safetensors has changed .*: set optimizer\.carry_over=false"
    ):
        pretraining.pretrain(asked)
    assert not Path(str(asked.out)).exists()


def test_other_weights_under_the_same_name_are_not_resumed(going_on: Continue, encoder: Path) -> None:
    with pytest.raises(RuntimeError):
        pretraining.pretrain(going_on(), emit=at_step(4, raise_error))
    torch.manual_seed(4)
    BertModel(BertConfig.from_pretrained(encoder)).save_pretrained(encoder)
    with pytest.raises(UserError, match="belongs to another run"):
        pretraining.pretrain(going_on(), resume=True)


# ---------------------------------------------------------------- defaults


def test_defaults_are_gentler_than_from_scratch(going_on: Continue, settings: Settings) -> None:
    scratch = plan_run(settings("scratch", **{"budget.steps": 1000}), ignore).settings.optimizer
    new_head = plan_run(going_on(), ignore).settings
    assert new_head.optimizer.learning_rate == scratch.learning_rate
    run = pretraining.pretrain(settings("whole", **{"budget.steps": 1})).run
    went_on = plan_run(going_on(**{"model.checkpoint": str(run.root), "budget.steps": 1000}), ignore).settings
    assert went_on.optimizer.learning_rate == scratch.learning_rate / 2
    assert went_on.optimizer.warmup_share < scratch.warmup_share
    assert went_on.masking.scope == "epoch"


def test_what_a_sentence_encoder_loses_is_said(going_on: Continue, encoder: Path) -> None:
    assert "sentence-encoder" not in {caution.code for caution in cautions(plan_run(going_on(), ignore))}
    modules = [{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Normalize"}]
    (encoder / "modules.json").write_text(json.dumps(modules))
    [said] = [each.text for each in cautions(plan_run(going_on(), ignore)) if each.code == "sentence-encoder"]
    assert "(1_Pooling, 2_Normalize) is no part of a masked LM" in said


def test_dropout_is_the_checkpoints_own_or_what_is_asked(going_on: Continue) -> None:
    def rates(chosen: PretrainSettings) -> set[float]:
        modules = plan_run(chosen, ignore).model.modules()
        return {m.p for m in modules if isinstance(m, torch.nn.Dropout)}

    assert rates(going_on()) == {0.1}
    assert rates(going_on(**{"model.dropout": 0.0})) == {0.0}


def test_frozen_parts_stay(going_on: Continue, encoder: Path) -> None:
    result = pretraining.pretrain(going_on(**{"model.freeze": ["embeddings"]}))
    before, after = (
        load_file(encoder / "model.safetensors"),
        load_file(result.run.final / "model.safetensors"),
    )
    for name, value in before.items():
        if name.startswith("embeddings."):
            assert torch.equal(after[f"bert.{name}"], value), name
    assert not torch.equal(
        after["bert.encoder.layer.0.output.dense.weight"], before["encoder.layer.0.output.dense.weight"]
    )


# ---------------------------------------------------------------- going on from a run


def stable_run(settings: Settings) -> Any:
    chosen = {
        "budget.steps": 6,
        "optimizer.schedule": "wsd",
        "optimizer.decay_share": 0.0,
        "optimizer.warmup_share": 0.0,
        "checkpoint.keep": 9,
    }
    return pretraining.pretrain(settings("stable", **chosen))


def test_a_run_continued_in_its_stable_part_is_the_longer_run(settings: Settings, going_on: Continue) -> None:
    """With the optimizer's state, and the stream of rows going on, two runs in a row are one."""
    stable = {"optimizer.schedule": "wsd", "optimizer.decay_share": 0.0, "optimizer.warmup_share": 0.0}
    longer = pretraining.pretrain(
        settings("longer", **stable, **{"budget.steps": 6, "optimizer.learning_rate": 1e-3})
    )
    first = pretraining.pretrain(
        settings("first", **stable, **{"budget.steps": 3, "optimizer.learning_rate": 1e-3})
    )
    then = going_on(
        "then",
        **stable,
        **{"model.checkpoint": str(first.run.root), "budget.steps": 3, "optimizer.carry_over": True},
    )
    made = plan_run(then, ignore)
    assert made.settings.optimizer.learning_rate == 1e-3
    assert made.settings.data.first_row == 3 * 8
    result = pretraining.pretrain(then)
    got, wanted = (load_file(r.run.final / "model.safetensors") for r in (result, longer))
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, rtol=0, atol=1e-7)


def test_decay_only_falls_from_where_the_run_stood(settings: Settings, going_on: Continue) -> None:
    stable = stable_run(settings)
    chosen = going_on(
        "decay",
        **{
            "model.checkpoint": f"{stable.run.root}@step-3",
            "optimizer.schedule": "wsd",
            "optimizer.warmup_share": 0.0,
            "optimizer.decay_share": 1.0,
            "optimizer.carry_over": True,
        },
    )
    made = plan_run(chosen, ignore)
    schedule = make_schedule(made)
    peak = 1e-3
    assert [schedule.at(step) / peak for step in (1, 8)] == pytest.approx([8 / 9, 1 / 9])
    assert made.settings.data.first_row == 3 * 8
    assert pretraining.pretrain(chosen).run.is_finished


def test_a_rate_that_came_down_is_not_carried_on(settings: Settings, going_on: Continue) -> None:
    linear = pretraining.pretrain(settings("linear", **{"budget.steps": 200, "logging.every_steps": 1}))
    with pytest.raises(UserError, match=r"has come down to .*schedule wsd"):
        plan_run(going_on(**{"model.checkpoint": str(linear.run.root), "optimizer.carry_over": True}), ignore)


def test_other_data_begin_at_their_beginning(
    settings: Settings, going_on: Continue, make_store: MakeStore, documents: list[str], tmp_path: Path
) -> None:
    stable = stable_run(settings)
    other = make_store(tmp_path / "other", documents[100:200], documents[:30])
    chosen = {"model.checkpoint": str(stable.run.root), "data.stores": [str(other)]}
    assert plan_run(going_on(**chosen), ignore).stream.first == 0


def test_a_step_that_is_not_kept(settings: Settings, going_on: Continue) -> None:
    stable = stable_run(settings)
    with pytest.raises(UserError, match=r"no checkpoint step-4; it keeps step-3, step-6"):
        plan_run(going_on(**{"model.checkpoint": f"{stable.run.root}@step-4"}), ignore)


# ---------------------------------------------------------------- text, mixtures, held-out texts


def test_text_is_tokenized_once_beside_the_run(
    going_on: Continue, documents: list[str], tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(documents[:200]))
    given = {"data.stores": [], "text.sources": [str(text)], "text.documents": "line", "budget.steps": 1}
    pretraining.pretrain(going_on("first", **given))
    store = tmp_path / "first.store"
    stamp = (store / "manifest.json").stat().st_mtime_ns
    _, again = said(going_on("first", **given), overwrite=True)
    assert "same text and settings: reused" in again
    assert (store / "manifest.json").stat().st_mtime_ns == stamp
    text.write_text("\n".join(documents[:150]))
    pretraining.pretrain(going_on("first", **given), overwrite=True)
    assert TokenStore.open(store).manifest["splits"]["train"]["documents"] < 150


def test_replay_and_held_out_texts(
    going_on: Continue, make_store: MakeStore, documents: list[str], tmp_path: Path
) -> None:
    general = make_store(tmp_path / "general", documents[100:200], documents[200:230])
    news = make_store(tmp_path / "news", documents[:50], documents[230:260])
    given = {"data.replay": [f"{general}:0.25"], "evaluation.stores": {"news": str(news)}, "budget.steps": 4}
    made = plan_run(going_on(**given), ignore)
    drawn = np.concatenate(
        [
            np.full(len(index), number)
            for step in range(4)
            for number, index, _ in made.stream.at(step * 8 + np.arange(8))
        ]
    )
    assert np.bincount(drawn).tolist() == [24, 8]
    result, text = said(going_on(**given))
    names = {record["evaluation"] for record in result.records if "eval_loss" in record}
    assert names == {"domain", "news", "general"}
    assert all(f"held-out loss before and after {name} " in text for name in names)


def test_epochs_count_the_data_and_not_the_replay(
    going_on: Continue, make_store: MakeStore, documents: list[str], tmp_path: Path
) -> None:
    general = make_store(tmp_path / "general", documents[100:200], documents[200:230])
    given = {"data.replay": [f"{general}:0.5"], "budget.steps": None, "budget.epochs": 2}
    made = plan_run(going_on(**given), ignore)
    assert made.total_steps == 12  # 24 rows twice, as many again of the other, 8 a step
    assert made.stream.passes(96)[0] == pytest.approx(2, abs=1 / 24)


def test_rows_of_several_stores_are_masked_as_each_alone(
    going_on: Continue, make_store: MakeStore, documents: list[str], tmp_path: Path
) -> None:
    """A row's mask depends on its store, its number and how often it was drawn, not on what it is mixed with."""
    general = make_store(tmp_path / "general", documents[100:200])
    job = _job(going_on("alone", **{"budget.steps": 12}))
    mixed = _job(going_on("mixed", **{"budget.steps": 12, "data.replay": [f"{general}:0.5"]}))

    def rows(of: Any) -> list[tuple[Any, ...]]:
        found = []
        for step in range(1, 13):
            for batch in of.prepare(step):
                found += [tuple(row) for row in batch.inputs["input_ids"].tolist()]
        return found

    alone, together = rows(job), rows(mixed)
    assert set(together) & set(alone) == set(alone[: len(together) // 2])


def _job(settings: PretrainSettings) -> LiveRun:
    run = storage.RunDirectory(Path("unused"))
    return LiveRun(plan_run(settings, ignore), run, Runtime.resolve("cpu"), ignore)


def test_stores_are_weighted_by_their_rows_or_as_asked(
    settings: Settings, make_store: MakeStore, documents: list[str], tmp_path: Path
) -> None:
    small, large = (
        make_store(tmp_path / "small", documents[:40]),
        make_store(tmp_path / "large", documents[40:]),
    )

    def shares(*stores: str) -> list[float]:
        chosen = {"data.stores": list(stores), "data.max_rows": None, "budget.epochs": 1}
        stream = plan_run(settings(**chosen), ignore).stream
        return [source.share * stream.rows / len(source.reader) for source in stream.sources]

    assert shares(str(small), str(large)) == pytest.approx([1, 1])
    asked = plan_run(
        settings(**{"data.stores": [f"{small}:3", f"{large}:1"], "budget.steps": 1}), ignore
    ).stream
    assert [source.share for source in asked.sources] == pytest.approx([0.75, 0.25])


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model.checkpoint": "./nowhere"}, "no such checkpoint: ./nowhere"),
        ({"model.freeze": ["0-9"]}, "the model has layers 0 to 0"),
        ({"model.freeze": ["embedding"]}, "did you mean 'embeddings'"),
        ({"optimizer.carry_over": True}, "no state of an optimizer"),
        ({"optimizer.head_warmup_steps": 8}, "leaves nothing of the run's 8 steps"),
        ({"data.replay": ["x"]}, "write STORE:SHARE"),
        ({"data.stores": []}, "no data: give --data"),
        ({"sequence_length": 64}, "beyond the 32 positions"),
    ],
)
def test_refusals(going_on: Continue, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        pretraining.pretrain(going_on(**changed))
    assert "\n" not in str(caught.value)


def test_a_store_of_another_tokenizer(going_on: Continue, tiny_bpe_store: Path) -> None:
    with pytest.raises(
        UserError, match=r"made with another tokenizer than .*encoder's: tokenize the text with"
    ):
        pretraining.pretrain(going_on(**{"data.stores": [str(tiny_bpe_store)]}))


def test_a_tokenizer_with_more_tokens_than_the_model(going_on: Continue, encoder: Path) -> None:
    config = BertConfig.from_pretrained(encoder)
    config.vocab_size -= 3
    BertModel(config).save_pretrained(encoder)
    with pytest.raises(UserError, match=r"embeddings for \d+ tokens, and its tokenizer has"):
        pretraining.pretrain(going_on())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt2"}, "'gpt2' has no masked-LM head|causal"),
        ({"model_type": "bart"}, "sequence-to-sequence"),
        ({**TINY, "is_decoder": True}, "causal"),
    ],
)
def test_models_of_other_kinds(
    going_on: Continue, encoder: Path, config: dict[str, Any], message: str
) -> None:
    (encoder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        pretraining.pretrain(going_on())


def test_continuing_a_whole_masked_lm_needs_no_head(going_on: Continue, encoder: Path) -> None:
    torch.manual_seed(5)
    BertForMaskedLM(BertConfig.from_pretrained(encoder)).save_pretrained(encoder)
    result, text = said(going_on())
    assert "head" not in text.split("done model")[0].replace("[head]", "")
    assert timeless(result)[0]["evaluation"] == "domain"


# ---------------------------------------------------------------- new tokens


def new_words(documents: list[str]) -> list[str]:
    return [document + " Watermill gardenias, gardenias; watermill." for document in documents]


def test_new_words_become_tokens_and_begin_as_their_pieces(
    going_on: Continue, documents: list[str], tiny_store: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(new_words(documents[:150])))
    given = {"data.stores": [], "text.sources": [str(text)], "text.documents": "line", "text.extend_vocab": 2}
    replay = {"data.replay": [f"{tiny_store}:0.25"]}  # a store of the tokenizer as it was
    chosen = going_on(**given, **replay)
    events: list[Event] = []
    made = plan_run(chosen, events.append)
    listed = next(e for e in events if isinstance(e, Facts) and "become tokens" in e.title)
    assert "watermill" in listed.rows
    base = TokenStore.open(tiny_store).vocabulary
    assert made.store.vocabulary == base + 2
    assert made.store.tokenizer.convert_tokens_to_ids("watermill") >= base
    embeddings = made.model.pretrained.get_input_embeddings().weight
    old = TokenStore.open(tiny_store).tokenizer
    pieces = old("watermill", add_special_tokens=False).input_ids
    new = made.store.tokenizer.convert_tokens_to_ids("watermill")
    torch.testing.assert_close(embeddings[new], embeddings[pieces].mean(0))
    result, said_text = said(chosen)
    assert "new tokens 2, each begun as the mean" in said_text
    assert {r["evaluation"] for r in result.records if "eval_loss" in r} == {"domain", tiny_store.name}
    card = (result.run.final / "README.md").read_text()
    assert "| new tokens | 2" in card
    with pytest.raises(UserError, match="new tokens need text"):
        pretraining.pretrain(going_on("other", **{"text.extend_vocab": 2}))


def test_an_extended_run_is_resumed_and_gone_on_with(
    going_on: Continue, documents: list[str], tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(new_words(documents[:150])))
    words = tmp_path / "words.txt"
    words.write_text("watermill\n\ngardenias\n")
    given = {
        "data.stores": [],
        "text.sources": [str(text)],
        "text.documents": "line",
        "text.add_tokens": str(words),
    }
    whole = pretraining.pretrain(going_on("whole", **given))
    parts = going_on("parts", **given)
    with pytest.raises(RuntimeError):
        pretraining.pretrain(parts, emit=at_step(4, raise_error))
    assert_same(pretraining.pretrain(parts, resume=True), whole)
    further = going_on(
        "further", **{"model.checkpoint": str(whole.run.root), "data.stores": [str(tmp_path / "whole.store")]}
    )
    assert "new tokens" not in plan_run(further, ignore).start.done
    words.write_text("watermill\n")
    with pytest.raises(RuntimeError):
        pretraining.pretrain(going_on("changed", **given), emit=at_step(4, raise_error))
    words.write_text("gardenias\n")
    with pytest.raises(UserError, match="belongs to another run"):
        pretraining.pretrain(going_on("changed", **given), resume=True)


def test_a_tokenizer_that_hardly_knows_the_text(
    going_on: Continue, tmp_path: Path, make_store: MakeStore
) -> None:
    """Said once, in the console and on the card, whether the store is made now or before."""
    words = "the \u0938\u092d\u0940 \u092e\u0928\u0941\u0937\u094d\u092f\u094b\u0902 \u0915\u094b"
    (tmp_path / "text.txt").write_text("\n".join(f"{words} {number}" for number in range(40)))
    now = {"data.stores": [], "text.sources": [str(tmp_path / "text.txt")], "text.documents": "line"}
    store = make_store(tmp_path / "before", [words] * 40, [words])
    for given in (now, {"data.stores": [str(store)]}):
        result, text = said(going_on("run", **given, **{"budget.steps": 1}), overwrite=True)
        assert text.count("the tokenizer hardly knows the text of") == 1
        assert "the tokenizer hardly knows the text of" in (result.run.final / "README.md").read_text()
    assert "hardly knows" not in said(going_on("quiet", **{"budget.steps": 1}))[1]


def test_a_new_head_is_no_measure_of_adaptation(going_on: Continue) -> None:
    first, text = said(going_on())
    assert "no measure of how well the encoder is adapted" in text
    _, text = said(going_on("later", **{"model.checkpoint": str(first.run.final)}))
    assert "held-out loss before and after" in text
    assert "no measure of how well" not in text


@pytest.mark.parametrize("kind", ["tiny_store", "tiny_bpe_store"])
def test_words_that_tell_nothing_of_a_text_are_not_listed(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TokenStore.open(request.getfixturevalue(kind))
    monkeypatch.setattr(gains, "COMMON", 0.01)
    listed = gains.telling_tokens(store)
    backend, counts = store.tokenizer.backend_tokenizer, store.token_counts
    texts = [backend.decode([token]) for token in range(store.vocabulary)]
    common = counts / counts.sum() > 0.01
    assert common.any()
    assert not listed[common].any()
    assert not any(listed[token] for token, text in enumerate(texts) if not text.strip().isalnum())
    assert not any(listed[token] for token, text in enumerate(texts) if len(text.strip()) < 2)
    assert not any(
        listed[token] for token in range(store.vocabulary) if backend.id_to_token(token)[:2] == "##"
    )
    assert listed.sum() > 20
