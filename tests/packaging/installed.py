"""What somebody does who has just installed fmlm: `python installed.py FMLM`, with the command that was installed.

Every command is a process of its own, in a new folder far from any copy of the sources.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

WORDS = ("red", "green", "blue", "warm", "cold")


def journey(folder: Path) -> Iterator[tuple[list[str], str]]:
    """Commands after `fmlm`, and what the output of each has to hold."""
    text = "\n\n".join(f"The {a} house has a {b} door. It was {a} and {b}." for a in WORDS for b in WORDS)
    (folder / "text.txt").write_text(text * 8, encoding="utf-8")
    for split, words in (("train", WORDS * 4), ("dev", WORDS)):
        rows = [{"text": f"a {word} day", "label": "warm" if word in "redwarm" else "cold"} for word in words]
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    yield ["--version"], "fmlm "
    yield ["--help"], "compare-masks"
    yield ["doctor"], "torch"
    yield ["tokenize", "text.txt", "--train-tokenizer", "wordpiece", "--out", "store"], "store"
    yield ["masks", "store", "--masking", "fully-explored-word"], "7"
    pretrain = ["pretrain", "--data", "store", "--model", "bert-tiny", "--set", "evaluation.max_rows=4"]
    yield [*pretrain, "--steps", "4", "--out", "run"], "run"
    yield (
        ["pretrain", "--data", "store", "--steps", "4", "--model", "bert-tiny", "--out", "run", "--resume"],
        "",
    )
    yield ["predict", "--from", "run", "The [MASK] house"], ""
    tune = ["finetune", "--from", "run", "--train", "train.jsonl", "--dev", "dev.jsonl", "--seeds", "1"]
    yield [*tune, "--set", "training.min_steps=0", "--out", "tuned"], "tuned"
    yield ["compare-masks", "--data", "store", "--set", "only=[coverage]", "--out", "compared"], "compared"


def run(fmlm: str) -> None:
    """All of it, or SystemExit with what the first command that fails has said."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as name:
        for words, expected in journey(Path(name)):
            done = subprocess.run(
                [fmlm, *words], cwd=name, env=environment, capture_output=True, text=True, check=False
            )
            said = done.stdout + done.stderr
            if done.returncode or expected not in said or "Traceback" in said or "Warning:" in said:
                sys.exit(f"fmlm {' '.join(words)} ended with {done.returncode} and said:\n{said}")
            print(f"fmlm {' '.join(words)}: as it should be", flush=True)
        assert (Path(name) / "compared" / "report.html").read_text(encoding="utf-8").count("<style") == 1


if __name__ == "__main__":
    run(sys.argv[1])
