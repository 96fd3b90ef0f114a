"""Each command ends with the next one, as a line that can be copied: from text to a fine-tuning, by these lines."""

import re
import shlex
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from fmlm_cli.config import FinetuneSettings, PretrainSettings
from tests.command_lines import read_back

NAME = "Zoë's text"  # to be quoted
DRY_RUN = "fmlm_cli.recipes.pretraining.dry_run.estimate_run"


def run(*words: Any) -> list[str]:
    """The lines that a command names at its end."""
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "40"})
    assert result.exit_code == 0, result.output
    return re.findall(r"\nnext: .+:\n  (fmlm .+)", result.output)


def go_on(line: str, *more: str) -> list[str]:
    return run(*shlex.split(line)[1:], *more)


def planned(line: str) -> PretrainSettings:
    """What a line with --dry-run would have estimated."""
    found: list[PretrainSettings] = []
    with patch(DRY_RUN, lambda settings, **_: found.append(settings)):
        assert go_on(line) == []
    return found[0]


def test_from_text_to_a_fine_tuning(
    documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(NAME).mkdir()
    (Path(NAME) / "a.txt").write_text("\n".join([*documents, "short"]))
    [tokenize] = run("inspect", NAME, "--documents", "line", "--min-chars", 6)
    inspect, plan = go_on(tokenize, "--vocab-size", "300")
    assert planned(plan).data.stores == ("store",)
    store = Path("store").rename(f"{NAME} as tokens")
    [masks] = go_on(inspect.replace("store", shlex.quote(str(store))))
    [train] = go_on(masks, "--rows", "1")
    assert planned(train) == planned(plan.replace("store", shlex.quote(str(store))))
    settings = ("masking.segments=4", "masking.corruption.mask=1", "masking.corruption.random=0")
    settings += ("masking.corruption.keep=0", "sequence_length=64", "packing=concat")
    [train] = go_on(masks, "--rows", "1", *(word for setting in settings for word in ("--set", setting)))
    wanted = planned(train)
    assert wanted.data.stores == (str(store),) and wanted.masking.strategy == "fully-explored"
    assert (wanted.masking.segments, wanted.masking.corruption.mask) == (4, 1)
    assert (wanted.sequence_length, wanted.data.packing, wanted.budget.epochs) == (64, "concat", 7)
    small = ("batch.size=2", "evaluation.max_rows=2", "model.name=bert-tiny")
    line = train.replace(" --dry-run", "").replace(" --budget 7-epochs", " --budget 2-steps")
    [longer] = go_on(line, *(word for setting in small for word in ("--set", setting)))
    again = planned(f"{longer} --dry-run")  # two steps teach nothing
    assert (again.budget.steps, again.budget.epochs, again.out) == (10, None, "run-longer")
    assert again.model.name == "bert-tiny" and again.data.stores == (str(store),)
    with patch("fmlm_cli.recipes.pretraining.finish.has_learnt", lambda _: True):
        [finetune] = go_on(line, "--overwrite", *(word for setting in small for word in ("--set", setting)))
    command, tuning, _ = read_back(finetune)
    assert command == "finetune" and isinstance(tuning, FinetuneSettings)
    assert tuning.checkpoint == ("run",) and tuning.out == "run-tuned"


def test_of_many_sources_none_is_named(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.txt" for number in range(6)]
    for file in files:
        file.write_text("Some words.")
    [line] = run("inspect", *files)
    assert line == "fmlm tokenize SOURCE... --train-tokenizer wordpiece --out store"
    [line] = run("inspect", *files[:5])
    assert shlex.split(line)[2:7] == [str(file) for file in files[:5]]


def test_a_tokenizers_checkpoint_is_gone_on_with(
    documents: list[str], small_encoder: Path, wordpiece_folder: Path, tmp_path: Path
) -> None:
    """If there is one, which has all tokens of the store; in a store of shards it is not known any more."""
    text = tmp_path / "a.txt"
    text.write_text("\n\n".join(documents))
    (tmp_path / "words.txt").write_text("walkedness\n")
    with_checkpoint = run("tokenize", text, "--tokenizer", small_encoder, "--out", tmp_path / "1")[1]
    assert with_checkpoint.startswith(f"fmlm continue --from {small_encoder} --data {tmp_path / '1'} ")
    assert planned(with_checkpoint).model.checkpoint == str(small_encoder)
    for number, words in enumerate(
        (
            ["--tokenizer", wordpiece_folder],
            ["--tokenizer", wordpiece_folder / "tokenizer.json"],
            ["--tokenizer", small_encoder, "--add-tokens", tmp_path / "words.txt"],
        )
    ):
        out = tmp_path / f"store-{number}"
        assert run("tokenize", text, *words, "--out", out)[1].startswith(f"fmlm pretrain --data {out} "), (
            words
        )
    shards = [tmp_path / f"shard-{number}" for number in (1, 2)]
    for number, shard in enumerate(shards, start=1):
        [merge] = run(
            "tokenize", text, "--tokenizer", small_encoder, "--shard", f"{number}/2", "--out", shard
        )
        assert merge == "fmlm merge SHARD... --out STORE"
    merged = run("merge", *shards, "--out", tmp_path / "merged")
    assert merged[1].startswith(f"fmlm pretrain --data {tmp_path / 'merged'} ")
