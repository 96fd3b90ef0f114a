"""`fmlm finetune` as it is typed."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from fmlm_cli.cli.console import Console
from fmlm_cli.events import Scoreboard
from fmlm_cli.recipes.finetuning.tables import tex
from tests.cli.refusals import assert_refused
from tests.command_lines import read_back

Finetune = Callable[..., Result]


@pytest.fixture(scope="module")
def checkpoint(small_encoder: Path) -> Path:
    return small_encoder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set whose folder is called like a task of GLUE, with an unlabelled test split. Not to be written to."""
    folder = tmp_path_factory.mktemp("data") / "mrpc"
    folder.mkdir()
    for name, number in (("train", 32), ("dev", 12), ("test", 5)):
        rows = [{"text": f"the {'river' if i % 2 else 'water'} is {i}"} for i in range(number)]
        if name != "test":
            rows = [{**row, "label": f"yes|no_{i % 2}"} for i, row in enumerate(rows)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def words(checkpoint: Path, data: Path) -> list[str]:
    """What a call of the command says, but for the output folder."""
    return [
        *("finetune", "--from", str(checkpoint), "--set", "device=cpu", "--epochs", "1", "--seeds", "2"),
        *(word for name in ("train", "dev", "test") for word in (f"--{name}", str(data / f"{name}.jsonl"))),
    ]


@pytest.fixture
def finetune(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Finetune:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    return lambda *more: CliRunner().invoke(app, [*words, *map(str, more)])


def lines_of(result: Result) -> str:
    assert result.exit_code == 0, result.output
    assert not result.stderr
    return result.stdout


def test_what_is_said_and_left(finetune: Finetune, words: list[str], tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    text = lines_of(finetune("--out", out))
    assert "1 task x 2 seeds" in text
    assert "mrpc seed 1: accuracy" in text and "(2 of 2 done)" in text
    assert f'fmlm predict --from {out / "models/mrpc"} "a text"' in text
    assert (
        "GLUE" not in text and not (out / "submission.zip").exists()
    )  # a set of one's own, whatever its name
    assert len((out / "predictions/test.jsonl").read_text().splitlines()) == 5
    report = (out / "results.md").read_text()
    assert "2 seeds" in report
    first_screen = report.partition("| task |")[0]
    next_step = text.rstrip().splitlines()[-1].strip()  # what it ends with, to be copied
    assert f"```sh\n{next_step}\n```" in first_screen
    command, settings, _ = read_back(next_step)
    assert command == "finetune" and Path(settings.out).parent == tmp_path
    assert (out / "models/mrpc/README.md").is_file()
    again = CliRunner().invoke(app, ["finetune", str(out / "config.yaml"), "--resume"])
    assert "seed 0: " not in lines_of(again)
    said = CliRunner().invoke(app, ["predict", "--from", str(out), "the water", "--set", "device=cpu"])
    assert "yes|no_0" in lines_of(said)


def test_names_are_escaped(finetune: Finetune, tmp_path: Path) -> None:
    name = r"a|b_c%\d<img onerror>"
    lines_of(finetune("--out", tmp_path / "tuned", "--set", f"tasks.name='{name}'", "--seeds", 1))
    latex = (tmp_path / "tuned/results.tex").read_text(encoding="utf-8")
    assert r"a\textbar{}b\_c\%\textbackslash{}d\textless{}img onerror\textgreater{} & dev" in latex
    results = (
        MarkdownIt("commonmark").enable("table").parse((tmp_path / "tuned/results.md").read_text("utf-8"))
    )
    assert not [
        token for block in results for token in (block, *(block.children or ())) if "html" in token.type
    ]
    shown = ["".join(token.content for token in block.children or ()) for block in results]
    assert name in shown


@given(st.text())
def test_tex_gives_the_text_back(text: str) -> None:
    """An independent reader of the commands and escapes that LaTeX has for characters."""
    commands = {
        "backslash": "\\",
        "asciitilde": "~",
        "asciicircum": "^",
        "less": "<",
        "greater": ">",
        "bar": "|",
    }
    found = re.compile(r"\\text([a-z]+)\{\}|\\([&%$#_{}])|([^\\&%$#_{}~^<>|])")
    written, place, read = tex(text), 0, ""
    while place < len(written):
        match = found.match(written, place)
        assert match, written[place:]
        read += commands[match[1]] if match[1] else match[2] or match[3]
        place = match.end()
    assert read == " ".join(text.split())


def test_a_file_of_some_settings(finetune: Finetune, tmp_path: Path) -> None:
    """What a file leaves out may come from flags, the checkpoint too."""
    (tmp_path / "some.yaml").write_text("first_seed: 7\n")
    lines_of(finetune(tmp_path / "some.yaml", "--out", tmp_path / "tuned", "--seeds", 1))
    assert yaml.safe_load((tmp_path / "tuned/config.yaml").read_text())["first_seed"] == 7
    assert (tmp_path / "tuned/cells/mrpc/default/seed-7/result.json").is_file()


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--name", "a/b"], ["cannot be called 'a/b'", "--name"]),
        (["--name", ".."], ["cannot be called '..'"]),
        (["--name", "x" * 101], ["cannot be called"]),
        (["--task", "cola"], ["GLUE tasks and a set of your own (train) exclude each other"]),
        (["--data-dir", "x"], ["--data-dir is for GLUE tasks"]),
        (["--from-mnli"], ["from_mnli is for GLUE tasks"]),
        (["--seeds", "0"], ["'seeds' (from --seeds)", "give 1 or more, not 0"]),
        (["--learning-rate", "-1"], ["training.learning_rate"]),
        (["--jobs", "0"], ["--jobs 0: give 1 or more"]),
        (["--jobs", "2", "--cell", "1/2"], ["leave out --cell"]),
        (["--cell", "1/2", "--overwrite"], ["leave out --overwrite"]),
        (["--report-only"], ["no finished cells to report on"]),
        (["--set", "max_length=2"], ["max_length 2 leaves no room for text", "3 or more"]),
        (["--set", "training.reinit_layers=2"], ["training.reinit_layers 2"]),
        (["--from", ""], ["the checkpoint's name is empty"]),
    ],
)
def test_refusals_leave_nothing(
    finetune: Finetune, tmp_path: Path, more: list[str], parts: list[str]
) -> None:
    assert_refused(finetune("--out", tmp_path / "tuned", *more), *parts)
    assert not (tmp_path / "tuned").exists()


def test_what_is_missing(checkpoint: Path, tmp_path: Path) -> None:
    bare = ["finetune", "--from", str(checkpoint)]
    assert_refused(CliRunner().invoke(app, [*bare, "--out", str(tmp_path / "x")]), "no task: give --task")
    assert_refused(CliRunner().invoke(app, ["finetune"]), "no checkpoint: give --from [NAME=]CHECKPOINT")
    mnli = [*bare, "--task", "cola", "--from-mnli", "--data-dir", str(tmp_path), "--out", str(tmp_path / "x")]
    assert_refused(CliRunner().invoke(app, mnli), "only rte, mrpc, stsb can begin as the MNLI model")


def test_what_it_is_made_from_is_not_overwritten(finetune: Finetune, tmp_path: Path) -> None:
    """And what it left is no checkpoint, but holds some."""
    out = tmp_path / "tuned"
    lines_of(finetune("--out", out, "--seeds", 1))
    assert_refused(finetune("--from", out, "--out", tmp_path / "x"), "such as", str(out / "models/mrpc"))
    again = finetune("--from", out / "models/mrpc", "--out", out, "--overwrite")
    assert_refused(again, "the checkpoint", "lies inside")
    (out / "logs").mkdir()
    (out / "logs/dev.jsonl").write_text('{"text": "a", "label": "yes|no_0"}\n')
    again = finetune("--dev", out / "logs/dev.jsonl", "--out", out, "--overwrite")
    assert_refused(again, "the data", "lies inside")
    assert (out / "models/mrpc/finetuned.json").is_file()
    other = finetune("--out", out, "--resume", "--epochs", 2)
    assert_refused(other, "was made with training.epochs 1, not 2")
    assert yaml.safe_load((out / "config.yaml").read_text())["training"]["epochs"] == 1


@pytest.mark.parametrize("name", ["result.json", "cell.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"'])
def test_damaged_cells(finetune: Finetune, tmp_path: Path, name: str, content: str, tuned: Path) -> None:
    path = tuned / "cells/mrpc/default/seed-0" / name
    before = path.read_text()
    path.write_text(content)
    assert_refused(finetune("--out", tuned, "--resume", "--seeds", 1), str(path), "is damaged: remove")
    path.write_text(before)


@pytest.fixture(scope="module")
def tuned(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a call with one seed left; put right again by whoever damages it."""
    out = tmp_path_factory.mktemp("out") / "tuned"
    given = ["--from", checkpoint, "--out", out, "--set", "device=cpu", "--epochs", 1, "--seeds", 1]
    given += [word for n in ("train", "dev", "test") for word in (f"--{n}", data / f"{n}.jsonl")]
    lines_of(CliRunner().invoke(app, ["finetune", *map(str, given)]))
    return out


def test_other_damage_is_mended(finetune: Finetune, tmp_path: Path) -> None:
    """Of a cell that is to be done again nothing old is needed."""
    out = tmp_path / "tuned"
    lines_of(finetune("--out", out, "--seeds", 1))
    cell = out / "cells/mrpc/default/seed-0"
    (cell / "result.json").unlink()
    (cell / "metrics.jsonl").write_text("garbage\nx")
    (out / "models/mrpc/finetuned.json").write_text("{")
    for path in (out / "tokenized").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    lines_of(finetune("--out", out, "--seeds", 1, "--resume"))
    assert json.loads((out / "models/mrpc/finetuned.json").read_text())["task"] == "mrpc"


def test_all_diverged(finetune: Finetune, tmp_path: Path) -> None:
    result = finetune("--out", tmp_path / "x", "--learning-rate", "1e30", "--set", "training.clip=null")
    assert result.exit_code == 2
    assert "has a score: " in result.stderr and "not finite" in result.stderr
    text = result.output
    assert "2 of 2 seeds diverged" in text and "lower the learning rate" in text
    assert "fmlm predict" not in text  # there is no model


def test_the_table_stays_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it works only rows that are open are shown where there are too many; in the end all of them."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("LINES", "12")
    monkeypatch.setenv("COLUMNS", "80")
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    rows = {f"task-{i}": ["50.0"] for i in range(20)}
    with Console() as console:
        console.emit(
            Scoreboard("scores", ["seed 0"], {**rows, "task-19": [""]}, "working", True, 19, 20, 61.0)
        )
        console.emit(Scoreboard("scores", ["seed 0"], rows, "finished", False, 20, 20, 0.0))
    final = screen.getvalue().rpartition("20 of 20 done")[2]
    assert "left" not in final.splitlines()[0]
    assert all(f"task-{i} " in final for i in range(20))


# ---------------------------------------------------------------- processes


def start(words: list[str], *more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fmlm_cli", *words, *map(str, more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_cells_in_two_processes(words: list[str], tmp_path: Path) -> None:
    process = start(words, "--jobs", 5, "--out", tmp_path / "tuned")  # more than there are cells
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "mrpc seed 0: accuracy" in out and "mrpc seed 1: accuracy" in out
    assert (tmp_path / "tuned/results.md").is_file()
    logs = sorted((tmp_path / "tuned/logs").iterdir())
    assert len(logs) == 2
    assert not any("results.md" in log.read_text() for log in logs)  # there is one report


@pytest.mark.slow
@pytest.mark.parametrize(
    ("jobs", "number"), [(1, signal.SIGTERM), (2, signal.SIGTERM), (2, signal.SIGHUP), (2, signal.SIGKILL)]
)
def test_a_stop_keeps_checkpoints_and_ends_all_processes(
    words: list[str], tmp_path: Path, jobs: int, number: signal.Signals
) -> None:
    out = tmp_path / "tuned"
    process = start(words, "--jobs", jobs, "--epochs", 5000, "--out", out)
    cells = [out / f"cells/mrpc/default/seed-{seed}" for seed in range(jobs)]
    wait_for(
        lambda: all((c / "metrics.jsonl").is_file() and (c / "metrics.jsonl").stat().st_size for c in cells),
        process,
    )
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    if number == signal.SIGKILL:
        wait_for(lambda: all((cell / "checkpoints").is_dir() for cell in cells))
        shutil.rmtree(
            out / "logs"
        )  # the next call begins new ones, beside processes that may be still ending
        again = start(words, "--jobs", jobs, "--epochs", 5000, "--out", out, "--resume")
        logs = [out / f"logs/job-{i + 1}.log" for i in range(jobs)]
        wait_for(lambda: all(log.is_file() and "fine-tuning" in log.read_text() for log in logs), again)
        again.send_signal(signal.SIGTERM)
        _, err = again.communicate(timeout=300)
        assert again.returncode == 128 + signal.SIGTERM, err
    else:
        assert process.returncode == 128 + number
    assert "with --resume" in err and len(err.splitlines()) == 1
    for cell in cells:
        assert len(list((cell / "checkpoints").glob("step-*"))) == 1
        assert not (cell / ".lock").exists()  # whoever was at work there has ended


def wait_for(met: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Wait until this is so, while the process runs; a busy machine may take its time."""
    deadline = time.monotonic() + 300
    while not met():
        assert (process is None or process.poll() is None) and time.monotonic() < deadline
        time.sleep(0.1)
