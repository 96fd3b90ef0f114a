"""Row plans of large splits, computed once and then mapped into memory.

A plan is a file in the store's cache, called by what decides it (the split's contents, packing, length,
special tokens, the way of planning) and by the hash of its own contents:

    plan-KEY-HASH.arrow    an Arrow file of the plan's rows: list<struct of `RowPlan`'s arrays>

One that is damaged or missing is made anew. Small plans take less time to make than to look for.
"""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fmlm_cli import storage
from fmlm_cli.corpus.rows.packing import PLANNING, STRETCHES, Frame, Packing, RowPlan, plan_rows
from fmlm_cli.corpus.store.columns import array, column
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.corpus.store.split import Split

_WORTH_KEEPING = 1 << 18  # stretches: a tenth of a second, and 4 MB
_MOST = 8  # plans that are kept of a store
_FACTS = ("packing", "sequence_length", "tokens", "used", "cut")


def plan_of(
    store: TokenStore, name: str, split: Split, packing: Packing, sequence_length: int, frame: Frame
) -> RowPlan:
    """How the documents of a store's split stand in rows. `split`: that of the name, opened."""
    counts = store.manifest["splits"][name]
    if counts["documents"] + counts["tokens"] // (sequence_length - frame.size) < _WORTH_KEEPING:
        return plan_rows(split.lengths, packing, sequence_length, frame)
    decides = [PLANNING, store.contents(name), packing, sequence_length, asdict(frame)]
    key = storage.sha256_of_json(decides)[:32]
    kept = _mapped(store.cache.find("plan", key))
    if kept is not None:
        return kept
    plan = plan_rows(split.lengths, packing, sequence_length, frame)
    if not store.is_known_whole(name):  # what is damaged is not to be planned under the name of the whole
        return plan
    return _mapped(store.cache.keep("plan", key, ".arrow", partial(write_plan, plan), most=_MOST)) or plan


def _mapped(path: Path | None) -> RowPlan | None:
    """The plan that is kept there, if it is there still: another process may have made room for its own."""
    try:
        return None if path is None else map_plan(path)
    except FileNotFoundError:
        return None


def write_plan(plan: RowPlan, path: Path) -> None:
    """Write a plan as one Arrow file."""
    arrays = [
        getattr(plan, name).view(np.uint8) if name == "closed" else getattr(plan, name) for name in STRETCHES
    ]
    stretches = pa.StructArray.from_arrays(list(map(column, arrays)), STRETCHES)
    rows = pa.LargeListArray.from_arrays(column(plan.first.astype(np.int64)), stretches)
    facts = json.dumps({name: getattr(plan, name) for name in _FACTS})
    schema = pa.schema({"rows": rows.type}, {"plan": facts})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch([rows], schema=schema))


def map_plan(path: Path) -> RowPlan:
    """A plan that `write_plan` wrote, its arrays in the file's memory."""
    with pa.ipc.open_file(pa.memory_map(str(path))) as file:
        rows = file.get_batch(0).column(0)
        facts = json.loads(file.schema.metadata[b"plan"])
    arrays: dict[str, Any] = {name: array(rows.values.field(name)) for name in STRETCHES}
    arrays["closed"] = arrays["closed"].view(np.bool_)
    return RowPlan(**facts, **arrays, first=array(rows.offsets))
