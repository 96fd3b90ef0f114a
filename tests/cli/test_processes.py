"""Commands as processes: their standard streams, signals while modules are loaded, and where those come from."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmlm_cli.cli.console import Console
from fmlm_cli.errors import Interrupted
from fmlm_cli.events import Caution, Note
from tests.environment import python_path

TRAIN = [
    "--steps",
    "2",
    "--set",
    "batch.size=4",
    "--set",
    "sequence_length=16",
    "--set",
    "evaluation.max_rows=2",
]


@pytest.fixture
def train(small_encoder: Path, tiny_store: Path, tmp_path: Path) -> list[str]:
    """The words of a short run."""
    return [
        "continue",
        "--from",
        str(small_encoder),
        "--data",
        str(tiny_store),
        "--out",
        str(tmp_path / "run"),
        *TRAIN,
    ]


def shell(
    redirection: str, *words: str, cwd: Path | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run `fmlm` with these words by way of a shell, with its streams redirected there."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", sys.executable, "-m", "fmlm_cli", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**os.environ, "PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1", **environment},
    )


# ---------------------------------------------------------------- standard streams

GONE, FULL, CLOSED = "| true; exit ${PIPESTATUS[0]}", ">/dev/full", ">&-"
ALL_FULL, ALL_CLOSED = ">/dev/full 2>/dev/full", "<&- >&- 2>&-"
slow = pytest.mark.slow


@pytest.mark.parametrize(
    "redirection", [ALL_FULL, *(pytest.param(r, marks=slow) for r in (GONE, ALL_CLOSED))]
)
def test_a_run_needs_no_reader(train: list[str], tmp_path: Path, redirection: str) -> None:
    done = shell(redirection, *train)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "run/final/config.json").is_file()
    records = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(record)["step"] for record in records] == [0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (GONE, 128 + signal.SIGPIPE, ""),
        (FULL, 2, "error: nothing can be written to the standard output: no space left on device\n"),
        (CLOSED, 2, "error: nothing can be written to the standard output: it is closed\n"),
        (ALL_FULL, 2, ""),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "pretrain --settings",
        *(pytest.param(c, marks=slow) for c in ("predict", "masks --json", "evaluate")),
    ],
)
def test_what_is_for_a_reader_ends_without_one(
    small_encoder: Path, tiny_store: Path, command: str, redirection: str, code: int, said: str
) -> None:
    name, *flags = command.split()
    words = {
        "predict": ["--from", str(small_encoder), "the [MASK]."],
        "masks": [str(tiny_store)],
        "evaluate": ["--from", str(small_encoder), "--data", str(tiny_store), "--set", "max_rows=2"],
    }
    if command == "--help" and redirection == CLOSED:
        code, said = 0, ""  # Typer writes to nowhere itself
    done = shell(redirection, name, *words.get(name, []), *flags)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


def test_the_line_that_a_job_ends_with_has_a_time_in_its_log(tmp_path: Path) -> None:
    """Where both streams go into the log; alone, the standard error is as programs read it."""
    log = tmp_path / "job.log"
    words = ["pretrain", "--data", "nowhere", "--steps", "1", "--out", "run"]
    done = shell(f">{log} 2>&1", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout + done.stderr) == (2, "")
    assert re.search(
        r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d error: no such store: nowhere", log.read_text(), re.MULTILINE
    )
    assert shell(f">{log}", *words, cwd=tmp_path).stderr.startswith("error: no such store: nowhere")


@pytest.mark.parametrize("needs_reader", [False, True])
def test_a_console_without_a_reader(monkeypatch: pytest.MonkeyPatch, needs_reader: bool) -> None:
    """It goes quiet, or ends the command; later writes of anybody fail no more."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        console = Console(needs_reader=needs_reader)
        raises = pytest.raises(Interrupted) if needs_reader else contextlib.nullcontext()
        with raises as caught:
            console.emit(Note("text"))
        print("text", file=stream, flush=True)
    if caught is not None:
        assert (str(caught.value), caught.value.exit_code) == ("", 128 + signal.SIGPIPE)


@pytest.mark.parametrize("for_programs", [False, True])
def test_cautions_do_not_stand_in_what_is_for_programs(
    capsys: pytest.CaptureFixture[str], for_programs: bool
) -> None:
    console = Console(needs_reader=True, for_programs=for_programs)
    console.emit(Caution("careful"))
    console.emit(Note("text"))
    shown = ("", "note: careful\n") if for_programs else ("note: careful\ntext\n", "")
    assert capsys.readouterr() == shown


# ---------------------------------------------------------------- signals while modules are loaded

# Python runs a module of this name first: it sends a signal where a certain module is looked for.
ASKING = """
import os, signal, sys
class Asking:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            {act}
sys.meta_path.insert(0, Asking())
if {number} == signal.SIGINT:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
"""
ASK = "os.kill(os.getpid(), {number})"
# What an import may do to an exception that a handler raises in it.
ASK_AND_SWALLOW = "exec('try: os.kill(os.getpid(), {number})\\nexcept BaseException: raise ImportError')"


@pytest.mark.parametrize(
    ("number", "name", "act"),
    [
        (signal.SIGINT, "typer", ASK),
        (signal.SIGTERM, "fmlm_cli.cli.commands.masks", ASK),
        (signal.SIGINT, "numpy", ASK_AND_SWALLOW),
        pytest.param(signal.SIGINT, "torch", ASK_AND_SWALLOW, marks=slow),
    ],
)
def test_a_signal_while_modules_are_loaded(tmp_path: Path, number: int, name: str, act: str) -> None:
    asking = ASKING.format(name=name, number=int(number), act=act.format(number=int(number)))
    (tmp_path / "sitecustomize.py").write_text(asking)
    done = shell("", "masks", "store", PYTHONPATH=f"{tmp_path}{os.pathsep}{python_path()}")
    cause = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert done.stderr == f"stopped by {cause} before anything began\n"
    assert (done.returncode, done.stdout) == (128 + number, "")


# A library that does not return to Python for minutes.
DEAF = """
import hashlib
import fmlm_cli.__main__ as entry
import fmlm_cli.cli.app as app
from fmlm_cli.corpus.tokenizer.panics import failures_as_errors
def work():
    with failures_as_errors("tokenizers"):  # which keeps whatever a library prints from the user
        print("at work", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
app.main = work
entry.main()
"""


def test_a_signal_during_a_call_that_does_not_return_to_python() -> None:
    environment = {**os.environ, "PYTHONPATH": python_path()}
    with subprocess.Popen(
        [sys.executable, "-c", DEAF],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout and process.stdout.readline() == "at work\n"
        time.sleep(0.5)  # until it is
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors == "stopped by SIGTERM; the next call removes what is half-written\n"


# Asks for a stop as soon as there is something to write.
WRITES = """
import os, signal
import fmlm_cli.__main__ as entry
from fmlm_cli.cli.console import Console
Console.{method} = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
entry.main()
"""


@pytest.mark.parametrize(("method", "more"), [("write", ["--json"]), ("error", ["--set", "nothing=1"])])
def test_a_signal_while_the_result_is_written(tiny_store: Path, method: str, more: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITES.format(method=method), "masks", str(tiny_store), *more],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": python_path()},
    )
    ended = "after the work had ended" if method == "write" else "before anything began"
    assert (done.returncode, done.stderr) == (143, f"stopped by SIGTERM {ended}\n")


# ---------------------------------------------------------------- where modules come from


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=slow)])
def test_nothing_in_the_working_folder_is_run(small_encoder: Path, tmp_path: Path, jobs: int) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("numpy", "yaml", "torch", "typer", "fmlm_cli_plugin", "rich", "difflib"):
        (folder / f"{name}.py").write_text("raise SystemExit('the working folder was run')")
    pairs = "".join(f"sentence {i}\t{i % 2}\n" for i in range(8))
    (folder / "train.tsv").write_text("sentence\tlabel\n" + pairs)
    words = [
        "finetune",
        "--from",
        str(small_encoder),
        "--train",
        "train.tsv",
        "--dev",
        "train.tsv",
        "--seeds",
        "2",
    ]
    more = ["--epochs", "1", "--out", "tuned", "--jobs", str(jobs)]
    done = shell("", *words, *more, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "tuned/results.md").is_file()
