"""Standard input and pipes become files: text is read more than once, and they can be read only once."""

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO

from fmlm_cli.corpus.text.documents import Kind
from fmlm_cli.corpus.text.files.passed_over import printable
from fmlm_cli.corpus.text.files.paths import STDIN, kind_of
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Note, data_size
from fmlm_cli.readers.bytes import readable
from fmlm_cli.readers.compression import codec_of

_BLOCK = 1 << 20


def is_stream(name: str) -> bool:
    """Whether a source is standard input, or a pipe or device (as the shell's `<(command)` is)."""
    if name == STDIN:
        return True
    try:
        mode = Path(name).stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def spooled(names: Iterable[str], folder: Path, form: Kind | None, emit: Emit) -> dict[str, str]:
    """Take in what the streams among `names` give, into files in `folder`: name -> path.

    `form`: what is in them, where their names do not say it. A compressed stream stays so, and is known by
    its first bytes. What is there complete from an interrupted run is not read again. Raises `UserError`.
    """
    streams = [name for name in dict.fromkeys(names) if is_stream(name)]
    return {name: str(_taken(name, folder, number, form, emit)) for number, name in enumerate(streams)}


def _taken(name: str, folder: Path, number: int, form: Kind | None, emit: Emit) -> Path:
    called = "standard input" if name == STDIN else printable(name)
    kind = (None if name == STDIN else kind_of(name)) or form
    if kind is None:
        raise UserError(f"{called}: say what it is with --format txt|jsonl|json|csv|tsv|parquet|arrow")
    stem = f"{'stdin' if name == STDIN else f'pipe-{number}'}.{kind}"
    done = next((path for path in sorted(folder.glob(f"{stem}*")) if path.suffix != ".unfinished"), None)
    if done is not None:
        emit(Note(f"{called}: taken in before ({data_size(done.stat().st_size)})"))
        return done
    begun = folder / f"{stem}.unfinished"
    with _opened(name) as stream:
        first = stream.read(_BLOCK)
        if not first:
            raise UserError(f"{called} gave nothing: see whether the command before it ran")
        blocks = chain([first], iter(lambda: stream.read(_BLOCK), b""))
        _write(begun, blocks)
    codec = codec_of(first)
    path = folder / (stem + (codec.ending if codec else ""))
    begun.replace(path)
    emit(Note(f"{called}: {data_size(path.stat().st_size)} taken in"))
    return path


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    if name != STDIN:
        with readable(name):
            stream = Path(name).open("rb")  # noqa: SIM115, what the disk says while writing is no matter of it
        with stream:
            yield stream
    elif sys.stdin is None or sys.stdin.isatty():
        raise UserError("standard input is a terminal: pipe text into it, as in zcat x.gz | fmlm tokenize -")
    else:
        yield sys.stdin.buffer


def _write(path: Path, blocks: Iterable[bytes]) -> None:
    """To the disk itself, before it gets the name of something complete."""
    with path.open("wb") as file:
        for block in blocks:
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
