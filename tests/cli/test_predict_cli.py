"""`fmlm predict` as it is typed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    ElectraConfig,
    ElectraForPreTraining,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from fmlm_cli import storage
from fmlm_cli.cli.app import app
from fmlm_cli.corpus.tokenizer.loading import save_tokenizer
from tests.cli.refusals import assert_refused

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
FACTS = {"labels": ["no", "yes"], "max_length": 16, "score": 0.75}


def predict(checkpoint: Any, *words: Any, stdin: bytes | None = None) -> Result:
    given = ["predict", "--from", str(checkpoint), *map(str, words), "--set", "device=cpu"]
    return CliRunner().invoke(app, given, input=stdin)


def shown(checkpoint: Any, *words: Any, stdin: bytes | None = None) -> str:
    """Standard output, of a call that ends well and has nothing to say on the standard error."""
    result = predict(checkpoint, *words, stdin=stdin)
    assert result.exit_code == 0, result.output
    assert not result.stderr
    return result.stdout


def objects(checkpoint: Any, *words: Any, stdin: bytes | None = None) -> list[Any]:
    return [json.loads(line) for line in shown(checkpoint, *words, "--json", stdin=stdin).split("\n")[:-1]]


@pytest.fixture(scope="module")
def run(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Not to be written to."""
    folder = tmp_path_factory.mktemp("predicting")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **SMALL}))
    words = ["--data", tiny_store, "--model", folder / "config.json", "--steps", 2, "--out", folder / "run"]
    small = ["batch.size=4", "evaluation.max_rows=6", "sequence_length=16"]
    result = CliRunner().invoke(
        app, ["pretrain", *map(str, words), *(w for s in small for w in ("--set", s))]
    )
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.fixture
def save(wordpiece_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Any:
    """`save(model class, folder, **facts)`: a small model as a Hugging Face folder; `facts` as of a
    fine-tuned one.
    """

    def make(kind: type[PreTrainedModel], name: str, **facts: Any) -> Path:
        folder = tmp_path / name
        config = BertConfig(vocab_size=len(wordpiece_tokenizer), id2label={0: "no", 1: "yes"}, **SMALL)
        torch.manual_seed(1)
        kind(config).save_pretrained(folder)
        save_tokenizer(wordpiece_tokenizer, folder)
        if facts:
            storage.write_sealed(folder / "finetuned.json", {**FACTS, **facts})
        return folder

    return make


@pytest.fixture
def tuned(save: Any, tmp_path: Path) -> Path:
    """What `fmlm finetune` leaves of two tasks, as far as it matters here: sst2, and mrpc, which is of pairs."""
    save(BertForSequenceClassification, "tuned/models/sst2", task="sst2", pair=False)
    save(BertForSequenceClassification, "tuned/models/mrpc", task="mrpc", pair=True)
    (tmp_path / "tuned" / "cells").mkdir()
    (tmp_path / "tuned" / "config.yaml").write_text("checkpoint: run\ntasks:\n  names: [sst2, mrpc]\n")
    return tmp_path / "tuned"


# ---------------------------------------------------------------- what is shown


def test_masks_for_a_reader(run: Path) -> None:
    out = shown(run, "The [MASK] is a [MASK].", "Only <mask>", "--top", 3)
    lines = [line.rstrip() for line in out.splitlines() if line]
    assert [line.split("  ")[0] for line in lines] == [
        "The [MASK] is a [MASK].", "mask 1", "mask 2", "Only <mask>", "mask",
    ]  # fmt: skip
    assert lines[1].count("%") == 3


def test_runs_and_their_checkpoints(run: Path) -> None:
    found = [objects(name, "a [MASK]") for name in (run, f"{run}@step-2", run / "final")]
    assert found[0] == found[1] == found[2]
    result = predict(run, "a [MASK]" + " river" * 12, "--json")
    assert "1 of 1 texts longer than the 16 tokens that the model was trained on" in result.stderr
    assert len(result.stdout.splitlines()) == 1


def test_json_of_masks(run: Path) -> None:
    texts = ['Ä [MASK]\u2028 "quoted"', "the [MASK] [MASK]"]
    found = objects(run, *texts, "--top", 2)
    assert [each["text"] for each in found] == texts
    assert [list(each) for each in found] == [["text", "pair", "predictions"]] * 2
    assert [[len(guesses) for guesses in each["predictions"]] for each in found] == [[2], [2, 2]]
    assert set(found[0]["predictions"][0][0]) == {"token", "id", "probability"}


def test_labels_of_a_task(tuned: Path) -> None:
    (found,) = objects(tuned, "--task", "mrpc", "The river", "--pair", "A river")
    assert (found["text"], found["pair"]) == ("The river", "A river")
    assert sum(guess["probability"] for guess in found["predictions"]) == pytest.approx(1)
    assert found == objects(tuned / "models" / "mrpc", "The river", "--pair", "A river")[0]
    best = found["predictions"][0]
    out = shown(tuned, "--task", "mrpc", "The river", "--pair", "A river")
    assert "task mrpc, development score 0.750" in out
    assert "The river  |  A river" in out
    assert f"{best['probability']:.1%}" in next(line for line in out.splitlines() if best["label"] in line)
    shutil.rmtree(tuned / "models" / "mrpc")
    assert objects(tuned, "The river")[0]["predictions"]  # the only one left


def test_labels_beyond_the_top_are_told_of(tuned: Path) -> None:
    out = shown(tuned, "--task", "sst2", "The river " * 40 + "\x1b[31m", "--top", 1)
    assert "1 labels more" not in out
    assert "1 more label" in out
    assert "\x1b" not in out
    assert "..." in out


def test_files(tuned: Path, tmp_path: Path) -> None:
    lines = ["The river\tA river", "Ein Fluß\u0085 ist\tlang", "b\tc"]
    (tmp_path / "pairs.tsv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    found = objects(tuned, "--task", "mrpc", "--file", tmp_path / "pairs.tsv")
    assert [f"{each['text']}\t{each['pair']}" for each in found] == lines
    again = objects(tuned, "--task", "mrpc", "--file", "-", stdin="\n".join([*lines, ""]).encode())
    assert again == found


# ---------------------------------------------------------------- what is refused


def test_checkpoints_without_a_head(save: Any, tmp_path: Path, run: Path) -> None:
    bare = save(BertModel, "bare")
    assert_refused(
        predict(bare, "a [MASK]"), "neither a masked-LM head", "BertModel", "fmlm finetune", "fmlm continue"
    )
    torch.manual_seed(0)
    size = {"embedding_size": 16, "vocab_size": 160, **SMALL}
    ElectraForPreTraining(ElectraConfig(**size)).save_pretrained(tmp_path / "electra")
    for file in bare.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "electra")
    assert_refused(predict(tmp_path / "electra", "a [MASK]"), "lacks weights of a masked LM")
    GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=1)).save_pretrained(
        tmp_path / "gpt2"
    )
    assert_refused(predict(tmp_path / "gpt2", "a [MASK]"), "causal model")
    assert_refused(predict(tmp_path / "nowhere", "a [MASK]"), "no such checkpoint")
    assert_refused(predict(f"{run}@step-9", "a [MASK]"), "no checkpoint step-9")


def test_checkpoints_with_half_a_head(save: Any) -> None:
    folder = save(BertForSequenceClassification, "model")
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "classifier" not in k}, folder / "model.safetensors")
    assert_refused(predict(folder, "a"), "lacks weights of its head", "classifier.weight")
    folder = save(BertForMaskedLM, "masked")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": None}))
    assert shown(folder, "a [MASK]")  # its weights say what it is
    weights = load_file(folder / "model.safetensors")
    save_file({k: v * float("nan") for k, v in weights.items()}, folder / "model.safetensors")
    assert_refused(predict(folder, "a [MASK]"), "its weights are damaged")


def test_tasks_that_are_not_there(tuned: Path, run: Path) -> None:
    assert_refused(predict(tuned, "a"), "choose with --task, one of mrpc, sst2")
    assert_refused(predict(tuned, "--task", "sst", "a"), "did you mean 'sst2'?", "mrpc")
    assert_refused(
        predict(tuned / "models" / "sst2", "--task", "mrpc", "a"), "for the task 'sst2', not 'mrpc'"
    )
    assert_refused(
        predict(run, "--task", "mrpc", "a [MASK]"), "--task mrpc", "was not made by `fmlm finetune`"
    )
    (tuned / "models" / "sst2" / "finetuned.json").write_text("[]")
    assert_refused(predict(tuned, "--task", "sst2", "a"), "finetuned.json is damaged")
    shutil.rmtree(tuned / "models")
    assert_refused(predict(tuned, "a"), "no fine-tuned model yet", "--resume")


def test_texts_that_do_not_fit_the_model(tuned: Path, run: Path, save: Any, tmp_path: Path) -> None:
    assert_refused(predict(run, "a [MASK]", "no mask"), "text 2 has no mask", "write [MASK]")
    assert_refused(
        predict(run, "a [MASK]", "--pair", "b"), "text 1 is two texts", "masked LM", "leave out --pair"
    )
    assert_refused(predict(run, "river " * 40 + "[MASK]"), "text 1: a mask lies beyond the 32 tokens")
    assert_refused(predict(tuned, "--task", "mrpc", "a"), "text 1 is a single text", "'mrpc'", "--pair")
    assert_refused(predict(tuned, "--task", "sst2", "a", "--pair", "b"), "text 1 is two texts", "'sst2'")
    (tmp_path / "texts").write_text("a\tb\na\n")
    assert_refused(
        predict(tuned, "--task", "mrpc", "--file", tmp_path / "texts"), "texts:2 is a single", "a tab"
    )
    assert_refused(
        predict(tuned, "--task", "sst2", "--file", tmp_path / "texts"), "texts:1 is two", "the tab"
    )
    unknown = save(BertForSequenceClassification, "unknown")
    assert_refused(predict(unknown, "--file", tmp_path / "texts"), "texts:2 is a single", "texts:1 is two")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no text"),
        (b" \n\n", "holds no text"),
        (b"a\n\nb\n", ":2: there is no text"),
        (b"a\t \n", ":1, second text: there is no text"),
        (b"a\nb\tc\td\n", ":2: 3 texts parted by tabs"),
        (b"a\n\xff\n", ":2: not UTF-8"),
    ],
)
def test_files_that_are_not_of_texts(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "texts").write_bytes(content)
    assert_refused(
        predict("nowhere", "--file", tmp_path / "texts"), f"texts{said}" if said[0] == ":" else said
    )
    assert_refused(predict("nowhere", "--file", "-", stdin=content), "standard input", said)


def test_words_that_cannot_be(run: Path, tmp_path: Path) -> None:
    assert_refused(predict(run), "no text: give TEXT, or --file")
    assert_refused(predict(run, "a", "--file", "-"), "both TEXT and --file")
    assert_refused(predict(run, "--file", "-", "--pair", "b"), "--pair goes with TEXT", "a tab")
    assert_refused(predict(run, "a", "b", "--pair", "c"), "1 --pair for 2 TEXT")
    assert_refused(predict(run, ""), "text 1: there is no text")
    assert_refused(predict(run, "a \udcff"), "texts", "not valid UTF-8")
    assert_refused(predict(run, "[MASK]", "--top", 0), "top")
    assert_refused(predict(run, "--file", tmp_path / "nowhere"), "nowhere: no such file")
    assert_refused(predict(run, "--file", tmp_path), "is a folder: give a file")
    assert_refused(predict(run, "[MASK]", "--set", "tpo=3"), "did you mean 'top'?")
    assert_refused(predict(run, "[MASK]", "--json", "--task", "x"), "--task x")


def test_a_tokenizer_of_another_model(save: Any, bpe_tokenizer: PreTrainedTokenizerFast) -> None:
    folder = save(BertForMaskedLM, "mixed")
    save_tokenizer(bpe_tokenizer, folder)
    assert_refused(predict(folder, "a [MASK]"), "they do not belong together")
