"""Pre-training end to end: what a run is must depend on its settings and on nothing else."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from fmlm_cli import storage
from fmlm_cli.config import EvaluateSettings, PretrainSettings, build, read_yaml
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event, ignore
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes import evaluate, pretraining
from fmlm_cli.recipes.pretraining.live_run import LiveRun
from fmlm_cli.recipes.pretraining.planning.plan import RunPlan, plan_run
from fmlm_cli.recipes.pretraining.report.describe import cautions
from tests.recipes.runs import (
    KINDS,
    TINY,
    Settings,
    assert_close,
    assert_same,
    at_step,
    raise_error,
    timeless,
    weights,
)

pytestmark = pytest.mark.usefixtures("quick")


def plan(settings: PretrainSettings) -> RunPlan:
    return plan_run(settings, ignore)


# ---------------------------------------------------------------- (b) how a step is cut


@pytest.mark.parametrize("kind", ["steps", "scope batch", "several random masks"])
@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_do_not_change_results(settings: Settings, kind: str, micro: int) -> None:
    chosen = {**KINDS[kind], "model.dropout": 0.0, "optimizer.epsilon": 1e-3}
    whole = pretraining.pretrain(settings("whole", **{**chosen, "batch.micro_size": 8}))
    cut = pretraining.pretrain(settings("cut", **{**chosen, "batch.micro_size": micro}))
    assert_close(cut, whole)
    for mine, theirs in zip(timeless(cut), timeless(whole), strict=True):
        assert mine.pop("evaluation", None) == theirs.pop("evaluation", None)
        assert mine == pytest.approx(theirs, rel=1e-4)


# ---------------------------------------------------------------- (c) evaluation


def test_evaluation_depends_on_neither_strategy_nor_seed(settings: Settings) -> None:
    seen, unigram = [], []
    for number, (strategy, seed, size) in enumerate(
        [("random", 0, 8), ("fully-explored", 5, 12), ("random", 9, 3)]
    ):
        chosen = settings(
            str(number), **{"masking.strategy": strategy, "seed": seed, "batch.size": size, "budget.steps": 1}
        )
        job = LiveRun(plan(chosen), storage.RunDirectory(Path("unused")), Runtime.resolve("cpu"), ignore)
        batches = list(job.held_out[job.main_evaluation].batches())
        inputs = [batch.inputs for batch in batches]  # the size of a batch decides which rows it sorts
        targets = sorted(target for of in inputs for target in of["targets"].tolist())
        seen.append((sorted(row[row > 0].tolist() for of in inputs for row in of["input_ids"]), targets))
        records = pretraining.pretrain(chosen).records
        unigram += [record["unigram_loss"] for record in records if "eval_loss" in record]
    assert seen[0] == seen[1] == seen[2]
    assert max(unigram) == pytest.approx(min(unigram), rel=1e-6)


def evaluated(checkpoint: Any, store: Path) -> Mapping[str, float]:
    """The scores that `fmlm evaluate` finds."""
    asked = EvaluateSettings(checkpoints=(str(checkpoint),), store=str(store))
    [found] = evaluate.evaluate_checkpoints(asked)
    return found.scores


@pytest.mark.parametrize("packing", ["documents", "none", "concat"])
def test_evaluate_says_what_the_run_said(settings: Settings, tiny_store: Path, packing: str) -> None:
    result = pretraining.pretrain(settings(**KINDS["steps"], **{"data.packing": packing}))
    own = result.records[-1]
    assert own["step"] == 8
    run = result.run
    for folder in (run.root, run.final, run.checkpoints / "step-8"):
        scores = evaluated(folder, tiny_store)
        assert scores == pytest.approx({name: own[name] for name in scores}, rel=1e-5)
    older = evaluated(run.checkpoints / "step-6", tiny_store)
    assert older["unigram_loss"] == pytest.approx(own["unigram_loss"])
    assert older["eval_loss"] != own["eval_loss"]


def test_evaluate_takes_the_newest_checkpoint_of_an_unfinished_run(
    settings: Settings, tiny_store: Path
) -> None:
    parts = settings(**KINDS["steps"])
    with pytest.raises(RuntimeError):
        pretraining.pretrain(parts, emit=at_step(8, raise_error))
    newest = f"{parts.out}/checkpoints/step-6"
    assert evaluated(str(parts.out), tiny_store) == evaluated(newest, tiny_store)


# ---------------------------------------------------------------- (d, e) what a run leaves


@pytest.mark.parametrize("kind", ["steps", "dropout"])
def test_the_final_folder_is_a_hugging_face_model(settings: Settings, tiny_store: Path, kind: str) -> None:
    result = pretraining.pretrain(settings(**KINDS[kind]))
    model = AutoModelForMaskedLM.from_pretrained(result.run.final).eval()
    tokenizer = AutoTokenizer.from_pretrained(result.run.final)
    store = TokenStore.open(tiny_store)
    text = "The river was yellow in the evening."
    encoded = tokenizer(text, return_tensors="pt")
    assert encoded["input_ids"][0].tolist() == store.tokenizer(text)["input_ids"]
    assert model.config.vocab_size == len(tokenizer) == store.vocabulary
    assert model.config.pad_token_id == tokenizer.pad_token_id
    ids = encoded["input_ids"]
    place = torch.arange(ids.shape[1])
    mine = MaskedLM(model)
    with torch.no_grad():
        wanted = model(**encoded).logits[0]
        for alone in (True, False):
            segments = torch.ones_like(ids)
            got = mine(ids, place, position_ids=place[None], segments=segments, alone=alone).logits()
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)

    card = (result.run.final / "README.md").read_text()
    front = card.split("---")[1]
    assert "library_name: transformers" in front
    for fact in (store.fingerprint, "fully-explored", "7 segments", "8 of 8 rows", "2.67", torch.__version__):
        assert fact in card, fact
    last = result.records[-1]
    assert f"{last['eval_loss']:.4f}" in card
    assert (result.run.checkpoints / "step-8" / "model.safetensors").read_bytes() == weights(result.run)


def test_config_yaml_is_an_input_that_gives_the_same_run(settings: Settings, tmp_path: Path) -> None:
    for number, kind in enumerate(("epochs", "scope batch", "several random masks")):
        first = pretraining.pretrain(settings(f"first{number}", **KINDS[kind]))
        tree = read_yaml(first.run.config, PretrainSettings)
        again = pretraining.pretrain(build(PretrainSettings, tree, {"out": str(tmp_path / f"again{number}")}))
        assert_same(again, first)
        saved = read_yaml(again.run.config, PretrainSettings)
        assert {**saved, "out": tree["out"]} == tree


def test_seeds_differ_and_overwriting_starts_anew(settings: Settings) -> None:
    first = weights(pretraining.pretrain(settings(**KINDS["steps"])).run)
    second = pretraining.pretrain(settings(**KINDS["steps"], seed=1), overwrite=True)
    assert weights(second.run) != first
    assert [r["step"] for r in second.records if "loss" in r] == [2, 4, 6, 8]


# ---------------------------------------------------------------- (f, g) choices made for the user


@pytest.mark.parametrize(("segments", "size"), [(None, 35), (4, 32), (5, 30), (30, 30), (29, 29)])
def test_the_default_batch_is_a_multiple_of_the_masks(
    settings: Settings, segments: int | None, size: int
) -> None:
    chosen = {"masking.scope": "batch", "masking.segments": segments, "batch.size": None, "budget.steps": 1}
    made = plan(settings(**chosen))
    assert made.settings.batch.size == size
    assert made.settings.masking.masks_per_sequence == (segments or 7)


@pytest.mark.parametrize(
    ("size", "nearest"), [(32, "28 and 35"), (36, "35 and 42"), (3, "7 and 14"), (8, "7 and 14")]
)
def test_a_batch_that_cannot_be_names_the_nearest_two(settings: Settings, size: int, nearest: str) -> None:
    with pytest.raises(UserError, match=f"batch.size {size} must be a multiple of 7.*{nearest}"):
        plan(settings(**{"masking.scope": "batch", "batch.size": size, "budget.steps": 1}))


@pytest.mark.parametrize("epochs", [0.1, 1, 2, 3.3])
@pytest.mark.parametrize(("scope", "size"), [("epoch", 5), ("batch", 7), ("batch", 14)])
def test_a_budget_in_epochs(settings: Settings, epochs: float, scope: str, size: int) -> None:
    chosen = {"budget.epochs": epochs, "masking.scope": scope, "batch.size": size, "data.max_rows": 23}
    made = plan(settings(**chosen))
    assert made.stream.rows == 23
    assert epochs <= made.passes < epochs + made.sequences_per_step / 23


@pytest.mark.parametrize("packing", ["documents", "none", "concat"])
def test_a_budget_in_tokens(settings: Settings, packing: str) -> None:
    """Counted without padding; reached, and not passed by much more than a step."""
    result = pretraining.pretrain(
        settings(**{"budget.tokens": 6000.0, "data.packing": packing, "data.max_rows": None})
    )
    forwarded = [record["tokens"] for record in result.records if "tokens" in record][-1]
    assert forwarded == pytest.approx(6000, abs=8 * 32 + 0.05 * 6000)


@pytest.mark.parametrize(
    ("changed", "warned"),
    [
        ({"budget.epochs": 1.5}, True),
        ({"budget.epochs": 2}, False),
        ({"budget.epochs": 1, "masking.strategy": "random"}, False),
        ({"budget.epochs": 1, "masking.scope": "batch", "masking.segments": 4}, False),
    ],
)
def test_few_passes_call_for_caution(settings: Settings, changed: dict[str, Any], warned: bool) -> None:
    events: list[Event] = []
    result = pretraining.pretrain(settings(**changed), emit=events.append)
    said = [
        event.text for event in events if isinstance(event, Caution) and "passes over the data" in event.text
    ]
    assert bool(said) == warned
    assert ("> **Note:**" in (result.run.final / "README.md").read_text()) == warned


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"budget.epochs": 3}, "goes to 25.0%, not to 50.0%"),
        ({"budget.epochs": 12}, None),
        ({"budget.steps": 1, "masking.strategy": "random"}, None),
    ],
)
def test_a_final_rate_that_is_not_reached_is_said(
    settings: Settings, changed: dict[str, Any], said: str | None
) -> None:
    given = {"masking.segments": 4, "masking.schedule": {"shape": "step", "final_rate": 0.5}, **changed}
    texts = [caution.text for caution in cautions(plan(settings(**given)))]
    assert [said in text for text in texts if "not to" in text] == ([True] if said else [])


# ---------------------------------------------------------------- (h, i) it learns


def test_a_model_learns_more_than_word_frequencies(
    settings: Settings, make_store: Callable[..., Path], wordpiece_tokenizer: Any, tmp_path: Path
) -> None:
    """In this text every word's neighbours tell what it is, so the loss has far to fall below the unigrams'."""
    words = [word for word in wordpiece_tokenizer.get_vocab() if word.isalpha() and len(word) > 1]
    cycle = sorted(words)[:20]
    texts = [" ".join(cycle[(start * 7 + n) % 20] for n in range(25)) for start in range(60)]
    store = make_store(tmp_path / "cycles", texts[10:], texts[:10])
    wide = {**TINY, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    (tmp_path / "model" / "config.json").write_text(json.dumps(wide))
    chosen = {
        "data.stores": [str(store)],
        "budget.steps": 400,
        "batch.size": 16,
        "batch.micro_size": 16,
        "optimizer.learning_rate": 5e-3,
        "data.max_rows": None,
        "evaluation.max_rows": None,
        "evaluation.every_steps": 400,
        "checkpoint.every_steps": 400,
    }
    records = pretraining.pretrain(settings(**chosen)).records
    first, last = records[0], records[-1]
    assert first["eval_loss"] == pytest.approx(first["unigram_loss"], abs=0.2)
    assert last["eval_loss"] < last["unigram_loss"] - 1
    assert last["eval_accuracy"] > first["eval_accuracy"] + 0.2
    losses = [record["loss"] for record in records if "loss" in record]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 1
