"""`python -m tests.benchmarks --only startup`: how long a run takes from a store's name to its first batch.

Stores of three sizes, the larger ones the smallest one's documents again and again. Each is opened and checked,
its rows are planned, and 256 of them are read, in a process of its own: once as a new store is, then as one is
that was used before. `python -m tests.benchmarks.startup STORE` is such a process.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from fmlm_cli import storage
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.reading import TokenStore
from tests.benchmarks.commands import run_command
from tests.benchmarks.material import log_normal_lengths, make_store, make_tokenizer

TOKENS = 4_500_000  # of the smallest store: 10 MB
TIMES, QUICK = (1, 20, 500), (1, 4)  # 10 MB, 200 MB, 5 GB
FILE_BATCHES = 64  # in a file, of the smallest store's size
LENGTH, ROWS = 512, 256
SETTLED = 3.0  # seconds after which a file counts as one that is not being written
LIMIT = 600.0  # seconds for one start
STEPS = ("open", "tokenizer", "rows", "batch")


def repeated(source: Path, folder: Path, times: int) -> Path:
    """A store whose training split is that of another, many times over."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.arrow", storage.CACHE))
    shutil.copytree(source / "validation", folder / "validation", dirs_exist_ok=True)
    manifest: dict[str, Any] = dict(TokenStore.open(source).manifest)
    train = dict(manifest["splits"]["train"])
    batches = [
        batch
        for file in train["files"]
        for batch in pa.ipc.open_stream(pa.memory_map(str(source / "train" / file["name"])))
    ]
    files = []
    for begin in range(0, times, FILE_BATCHES):
        path = folder / "train" / f"repeated-{begin:05d}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, batches[0].schema) as writer:
            for batch in batches * min(FILE_BATCHES, times - begin):
                writer.write_batch(batch)
        sha256, size = storage.sha256_of_file(path), path.stat().st_size
        files.append({"name": path.name, "bytes": size, "sha256": sha256})
    counts = {name: train[name] * times for name in ("documents", "tokens", "words")}
    splits = {**manifest["splits"], "train": {**train, **counts, "files": files}}
    storage.write_sealed(folder / storage.MANIFEST, {**manifest, "splits": splits})
    return folder


def start(store: Path) -> dict[str, float]:
    """Seconds from one step to the next, and the bytes of memory that the process then has to itself."""
    before, at = _own_memory(), [time.perf_counter()]
    opened = TokenStore.open(store)
    at.append(time.perf_counter())
    _ = opened.special
    at.append(time.perf_counter())
    reader = RowReader(opened, "train", packing="documents", sequence_length=LENGTH)
    at.append(time.perf_counter())
    rows = reader.read(np.linspace(0, len(reader) - 1, ROWS).astype(np.int64))
    at.append(time.perf_counter())
    assert (rows.segments.max(axis=1) > 0).all()
    seconds = dict(zip(STEPS, np.diff(at).tolist(), strict=True))
    return {
        **seconds,
        "all": at[-1] - at[0],
        "memory": _own_memory() - before,
        "padding": reader.plan.padding,
    }


def _own_memory() -> int:
    """Resident bytes of this process that are not files', as Linux says it; 0 elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def measure(store: Path, starts: int) -> list[dict[str, float]]:
    """What each of some starts in turn took."""
    found = []
    for _ in range(starts):
        time.sleep(SETTLED)
        said = run_command(
            [sys.executable, "-m", "tests.benchmarks.startup", str(store)], store.parent, LIMIT
        ).said
        found.append(json.loads(said.splitlines()[-1]))
    return found


def table_of(figures: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each store."""
    headings = ("store", "tokens", "first start", *STEPS, "all", "own memory", "kept")
    table = Table(*headings, title="seconds to the first batch: of the first start, and of the next, by step")
    for line in figures:
        again = line["again"]
        table.add_row(
            f"{line['bytes'] / 1e6:,.0f} MB",
            f"{line['tokens'] / 1e6:,.0f} M",
            f"{line['first']['all']:.2f}",
            *(f"{again[step]:.3f}" for step in (*STEPS, "all")),
            f"{again['memory'] / 1e6:,.0f} MB",
            f"{line['kept'] / 1e6:,.1f} MB",
        )
    return table


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(console: Console, *, rounds: int = 3, quick: bool = False) -> None:
    """Measure and print: the first start of each store, and the fastest of `rounds` after it."""
    figures = []
    with tempfile.TemporaryDirectory(prefix="fmlm-bench-") as name:
        folder = Path(name)
        small, tokenizer = folder / "small", make_tokenizer(folder / "vocabulary")
        make_store(small, tokenizer, log_normal_lengths(300, 1.0, 4000, TOKENS // (10 if quick else 1)))
        for times in QUICK if quick else TIMES:
            store = repeated(small, folder / f"times-{times}", times)
            size = _size(store)
            first, *later = measure(store, 1 + (1 if quick else rounds))
            again = min(later, key=lambda one: one["all"])
            tokens = TokenStore.open(store, verify=()).manifest["splits"]["train"]["tokens"]
            cache = store / storage.CACHE
            figures.append(
                {"bytes": size, "tokens": tokens, "first": first, "again": again, "kept": _size(cache)}
            )
            shutil.rmtree(store)
    console.print(table_of(figures))


if __name__ == "__main__":
    # What any start of Python with these libraries pays is not the store's.
    print(json.dumps(start(Path(sys.argv[1]))))
