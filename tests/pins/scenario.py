"""The commands whose results are compared, run in this folder with whatever fmlm is on the path.

Everything is tiny and relative to the working folder. Timings are set to fixed numbers before a report is
written, so that the report too is the same whenever what it was made from is.
"""

import contextlib
import gzip
import io
import json
import random
import shlex
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TINY = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
TIMED = {"seconds": 60.0, "train_seconds": 60.0, "tokens_per_second": 1000.0, "examples_per_second": 10.0}
RUN = "--set sequence_length=32 --set batch.size=12 --set batch.micro_size=5 --set logging.every_steps=2"
SMALL = f"{RUN} --set evaluation.max_rows=12 --set checkpoint.every_steps=5"
RACE = (
    "--set run.sequence_length=32 --set run.data.max_rows=24 --set run.batch.size=12 --set "
    "run.evaluation.max_rows=12 "
    "--set variance.sequences=10 --set variance.random=2 --set run.masking.segments=3 --set "
    "run.logging.every_steps=1"
)
COMMANDS = (
    "tokenize text.txt --train-tokenizer wordpiece --vocab-size 200 --lowercase --out store --pmi",
    "tokenize more.jsonl.gz --train-tokenizer bpe --vocab-size 300 --valid text.txt --out bpe",
    "tokenize more.jsonl.gz --tokenizer store/tokenizer --valid-fraction 0.1 --extend-vocab 5 --out extended",
    "tokenize more.jsonl.gz --tokenizer store/tokenizer --out other",
    "masks store --masking fully-explored-span --rows 2 --json",
    "masks store --masking fully-explored-pmi --rows 2",
    "masks store --masking random --set masking.count=bernoulli --rows 1",
    f"pretrain --data store --model tiny --masking fully-explored --steps 12 --out run {SMALL}",
    f"pretrain --data store --model tiny --masking fully-explored-word --epochs 1.5 --out words {SMALL} "
    "--set model.dropout=0.1",
    "pretrain --data store:2 --data other:1 --eval more=other --model tiny --masking span --tokens 5000 "
    f"--out mixed {SMALL}",
    "pretrain --data store --replay other:0.25 --model tiny --masking fully-explored --steps 10 --out "
    f"rates {SMALL} "
    "--set masking.schedule.shape=linear --set masking.schedule.final_rate=0.5 --set masking.segments=4",
    f"pretrain --data store --model tiny --masking fully-explored-pmi --steps 6 --out pmi {SMALL} "
    "--schedule wsd",
    "evaluate --from run --data store",
    "evaluate --from run@step-10 --data other --set max_rows=20",
    f"continue --from run --data more.jsonl.gz --masking fully-explored --steps 8 --out on {SMALL}",
    f"continue --from run@step-10 --decay-only --data store --steps 6 --out decayed {SMALL}",
    f"continue --from run --data store --lora 2 --steps 6 --out lora {SMALL}",
    f"continue --from run --data store --head-warmup 2 --steps 6 --out headed {SMALL}",
    f"continue --from run --data extended --freeze embeddings --steps 6 --out frozen {SMALL}",
    f"continue --from run --data store --max-positions 128 --steps 6 --masking random --out longer {SMALL}",
    "predict --from run --json 'the [MASK] of'",
    "finetune --from run --train train.jsonl --dev dev.jsonl --test dev.jsonl --seeds 2 --grid grid.yaml "
    "--out tuned",
    "finetune --from on --train train.jsonl --dev dev.jsonl --seeds 2 --epochs 2 --out plain --set "
    "select=last",
    "predict --from tuned --json 'the river'",
    "compare-masks --data store --model tiny --strategies "
    "random,random:masks_per_sequence=3,fully-explored,fully-explored:scope=batch "
    f"--seeds 2 --budget 12-steps --tasks labelled --out compared {RACE} --set 'sweep.segments=[3,4]' --set "
    "downstream.training.epochs=1",
    "compare-masks --data store --from run --strategies random,fully-explored-word --seeds 2 --budget "
    f"6-epochs --only coverage,race --out raced {RACE}",
)  # fmt: skip
REPORTS = ("finetune tuned/config.yaml", "finetune plain/config.yaml", "compare-masks --out compared",
           "compare-masks --out raced")  # fmt: skip


def write_inputs() -> None:
    """Text, labelled sets, a grid and a configuration."""
    draw = random.Random(5)
    endings = ("e", "ing", "er", "ed", "ly", "ion", "s", "a", "it")
    words = [a + b for a in ("th", "an", "in", "re", "on", "at", "en", "st", "or", "te") for b in endings]
    weights = [1 / (1 + place) for place in range(len(words))]

    def sentence(n: int) -> str:
        chosen = draw.choices(words, weights, k=n)
        chosen[1:3] = [["stion", "rely"], ["tea", "nding"], chosen[1:3]][draw.randrange(3)]
        return " ".join(chosen).capitalize() + "."

    texts = [" ".join(sentence(8) for _ in range(draw.randint(1, 12))) for _ in range(240)]
    Path("text.txt").write_text("\n\n".join(texts[:160]))
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts[160:])
    Path("more.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    Path("labelled").mkdir()
    for name, number in (("train", 60), ("dev", 30)):
        rows = [
            json.dumps({"text": own, "label": "ab"["stion" in own]}) + "\n"
            for own in map(sentence, [6] * number)
        ]
        for path in (Path(f"{name}.jsonl"), Path("labelled") / f"{name}.jsonl"):
            path.write_text("".join(rows))
    Path("grid.yaml").write_text("learning_rate: [0.001, 0.01]\nepochs: [2]\n")
    Path("tiny").mkdir()
    Path("tiny/config.json").write_text(json.dumps(TINY))


def run(line: str) -> str:
    """What a command prints, and how it ends."""
    from fmlm_cli.__main__ import main

    said, sys.argv = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True), ["fmlm", *shlex.split(line)]
    code: object = 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            code = "raised"
    return f"$ fmlm {line}\n{said.buffer.getvalue().decode()}-> {code}\n"  # type: ignore[attr-defined]


def timeless(value: Any) -> Any:
    """A value of JSON with fixed numbers where something was timed."""
    if isinstance(value, dict):
        return {
            k: TIMED[k] if k in TIMED and isinstance(v, float | int) else timeless(v)
            for k, v in value.items()
        }
    return [timeless(each) for each in value] if isinstance(value, list) else value


def fix_timings() -> None:
    """Set what was timed in the records that reports are made from."""
    for root in ("tuned", "plain", "compared", "raced"):
        for path in sorted(Path(root).rglob("cells/**/*.json")):
            path.write_text(json.dumps(timeless(json.loads(path.read_text())), indent=2) + "\n")


def outputs() -> Iterator[str]:
    """Run everything; what each command said."""
    write_inputs()
    for line in COMMANDS:
        yield run(line)
    fix_timings()
    for line in REPORTS:
        yield run(f"{line} --report-only")


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    with Path("said.txt").open("w") as log:
        for said in outputs():
            log.write(said)
            log.flush()
