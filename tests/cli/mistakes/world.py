"""What somebody's folder may hold: a store, a run, models that are whole, and much that is not."""

import gzip
import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from click.testing import Result
from typer.testing import CliRunner

from fmlm_cli import storage
from fmlm_cli.cli.app import app
from fmlm_cli.corpus.store.reading import SHARD
from tests.conftest import MakeStore
from tests.recipes.runs import TINY

QUICK = "--set batch.size=4 --set data.max_rows=8 --set evaluation.max_rows=4 --set device=cpu"
EXPLORED = "--set run.data.max_rows=8 --set run.evaluation.max_rows=4 --set run.sequence_length=32"


def fmlm(words: str) -> Result:
    """A command as it is typed."""
    return CliRunner().invoke(app, shlex.split(words))


def furnish(documents: list[str], make_store: MakeStore, encoder: Path, bpe: Any) -> None:
    """Fill the working folder; paths in it are short, as messages about them are then."""
    shutil.copytree(encoder, "encoder")
    make_store(Path("bpe-store"), documents[30:60], documents[:30], bpe)
    make_store(Path("blind-store"), documents[:5])
    _texts(documents)
    _tables()
    _settings()
    _labelled()
    _by_commands()
    _damaged_stores()
    _damaged_models(bpe)
    Path("thesis").mkdir()
    Path("thesis/thesis.tex").write_text("precious")
    Path("nothing").mkdir()


def _texts(documents: list[str]) -> None:
    Path("text.txt").write_text("\n".join(documents[:40]))
    Path("empty.txt").write_bytes(b"")
    Path("blank.txt").write_bytes(b" \n\n\t\n")
    Path("utf16.txt").write_text("the water and the river\n" * 9, encoding="utf-16")
    Path("latin.txt").write_bytes(b"one line\n" * 7 + b"caf\xe9\n")
    Path("binary.txt").write_bytes(bytes(range(256)) * 40)
    Path("packed.txt").write_bytes(gzip.compress(b"the water " * 99))
    Path("plain.txt.gz").write_bytes(b"the water " * 99)
    Path("cut.txt.gz").write_bytes(gzip.compress(" ".join(documents).encode())[:-9])
    Path("paper.pdf").write_bytes(b"%PDF-1.4")
    Path("words.txt").write_text("neutralino\ndark matter\n")


def _tables() -> None:
    Path("broken.jsonl").write_text('{"text": "a b"}\n' * 2 + '{"text": \n')
    Path("title.jsonl").write_text('{"title": "a", "body": "b"}\n')
    Path("number.jsonl").write_text('{"text": 5}\n')
    Path("ragged.csv").write_text("text,label\na,b\nc,d,e\n")
    pq.write_table(pa.table({"title": ["a b c"]}), "title.parquet")
    Path("broken.parquet").write_bytes(b"PAR1 and no more")


def _settings() -> None:
    files = {
        "twice.yaml": "seed: 1\nbatch: {size: 4}\nseed: 2\n",
        "tabs.yaml": "batch:\n\tsize: 4\n",
        "list.yaml": "- seed: 1\n",
        "map.yaml": "batch: [4]\n",
        "text.yaml": "seed\n",
        "dotted.yaml": "batch.size: 4\n",
        "typo.yaml": "seed: 1\noptimizer:\n  lerning_rate: 1\n",
        "type.yaml": "batch:\n  size: many\n",
        "tuning.yaml": "tasks: {names: [mrpc]}\nseeds: 3\n",
        "future.yaml": "seed: 1\nhologram:\n  depth: 3\n",
        "budgets.yaml": "budget: {steps: 3, epochs: 2}\n",
        "grid.yaml": "learning_rat: [1e-5]\n",
        "empty-grid.yaml": "learning_rate: []\n",
    }
    for name, content in files.items():
        Path(name).write_text(content)
    Path("utf16.yaml").write_text("seed: 1\n", encoding="utf-16")
    Path("config.json").write_text(json.dumps(TINY))
    Path("gpt2.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1}))
    Path("odd-heads.json").write_text(json.dumps(TINY | {"num_attention_heads": 3}))
    Path("no-type.json").write_text(json.dumps({"hidden_size": 8}))
    Path("broken.json").write_text("{")


def _labelled() -> None:
    def write(name: str, rows: list[dict[str, Any]]) -> None:
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    rows = [{"text": f"the {'river' if i % 2 else 'water'} is {i}", "label": f"l{i % 2}"} for i in range(32)]
    write("train.jsonl", rows)
    write("dev.jsonl", rows[:12])
    write("one-class.jsonl", [{**row, "label": "l0"} for row in rows])
    write("unlabelled.jsonl", [{"text": row["text"]} for row in rows])
    write("half.jsonl", [*rows[:6], {"text": "the water"}, *rows[7:]])
    write("null.jsonl", [*rows[:6], {"text": "the water", "label": None}, *rows[7:]])
    write("odd-columns.jsonl", [{"phrase": row["text"], "class": row["label"], "x": 1} for row in rows])
    write("scores.jsonl", [{"text": row["text"], "label": i / 7} for i, row in enumerate(rows)])
    lines = Path("train.jsonl").read_text().splitlines()
    Path("broken-train.jsonl").write_text("\n".join([*lines[:4], lines[4][:-5], *lines[5:]]))
    Path("glue").mkdir()


def _by_commands() -> None:
    quick = f"--data store --model config.json --steps 2 {QUICK}"
    explored = f"--data store --model config.json --only coverage {EXPLORED}"
    for words in (
        "tokenize text.txt --tokenizer encoder --valid-fraction 0.2 --out store",
        f"pretrain {quick} --out run",
        "finetune --from encoder --train train.jsonl --dev dev.jsonl --epochs 1 --seeds 1 --set device=cpu "
        "--set training.min_steps=1 --name own --out tuned",
        f"compare-masks {explored} --strategies random,fully-explored --out compared",
        "tokenize text.txt --tokenizer encoder --shard 1/2 --out shard",
    ):
        done = fmlm(words)
        assert done.exit_code == 0, done.output


def _damaged_stores() -> None:
    shutil.copytree("store", "damaged-store")
    [arrow] = Path("damaged-store/train").glob("*.arrow")
    content = bytearray(arrow.read_bytes())
    content[len(content) // 2] ^= 1
    arrow.write_bytes(content)
    shutil.copytree("store", "headless-store")
    Path("headless-store/manifest.json").unlink()
    shutil.copytree("store", "future-store")
    manifest = json.loads(Path("store/manifest.json").read_text())
    Path("future-store/manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    shutil.copytree("run", "future-run")
    marker = json.loads(Path("run/.fmlm.json").read_text())
    Path("future-run/.fmlm.json").write_text(json.dumps(marker | {"version": 99}))
    with storage.unfinished_folder(Path("late-store"), SHARD) as folder:
        (folder.root / "spool").mkdir()


def _damaged_models(bpe: Any) -> None:
    for name in ("cut-model", "no-weights", "lost-shard", "pickled", "no-tokenizer", "coded", "other-tokens"):
        shutil.copytree("encoder", name)
    weights = Path("cut-model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-50])
    for name in ("no-weights", "lost-shard", "pickled"):
        Path(name, "model.safetensors").unlink()
    index = {
        "metadata": {},
        "weight_map": {"bert.embeddings.word_embeddings.weight": "model-1-of-2.safetensors"},
    }
    Path("lost-shard/model.safetensors.index.json").write_text(json.dumps(index))
    torch.save({"weight": Unwelcome()}, "pickled/pytorch_model.bin")
    for path in Path("no-tokenizer").glob("*token*"):
        path.unlink()
    config = json.loads(Path("coded/config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Config", "AutoModelForMaskedLM": "mine.Model"},
    }
    Path("coded/config.json").write_text(json.dumps(config))
    Path("coded/mine.py").write_text("raise SystemExit('it was run')\n")
    bpe.save_pretrained("other-tokens")
    shutil.copytree("run", "damaged-run")
    for path in Path("damaged-run/checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    shutil.rmtree("damaged-run/final")
    shutil.copytree("run", "young-run")
    shutil.rmtree("young-run/final")
    shutil.rmtree("young-run/checkpoints", ignore_errors=True)


class Unwelcome:
    """What runs a command where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch it-was-run",)
