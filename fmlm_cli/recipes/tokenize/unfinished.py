"""Work on a store that an earlier call has not finished: what of it can be gone on with."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from fmlm_cli import storage
from fmlm_cli.config import differing
from fmlm_cli.corpus.store.making.shards import Plan, Shard
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Note, counted

SPOOL = "spool"  # holds what can be read only once
_TEXTS = ("sources", "valid")  # of a request: identities


def begun_shard(work: storage.OwnedFolder) -> Shard | None:
    """The shard in a folder; None where it had not yet begun."""
    try:
        return Shard.open(work.root)
    except UserError:
        return None


def earlier_work(work: storage.OwnedFolder, out: Path, *, keeps: bool, overwrite: bool) -> Shard | None:
    """What an earlier call has left in a folder; what cannot be gone on with is removed.

    Raises `UserError`, and removes nothing, where there are finished parts that this call neither `keeps` nor
    is to `overwrite`.
    """
    shard = begun_shard(work)
    if shard is not None and keeps:
        return shard
    if shard is not None and shard.entries and not overwrite:
        raise UserError(
            f"{out} is not finished, and {counted(shard.documents, 'document')} of it are tokenized: pass "
            "--resume to go on, --overwrite to start anew, or choose another --out"
        )
    work.clear(but=SPOOL if keeps else "")
    return None


def taken_up(shard: Shard, plan: Plan, emit: Emit) -> bool:
    """Keep of a shard what is still right now that it is to be made by this plan; whether that is anything.

    Parts stay up to the first that holds text of a source that has changed, or that is damaged. Where other
    settings were asked for, or the tokenizer depends on text that has changed, nothing is.
    """
    changed = differing(shard.plan.request, plan.request)
    if set(changed) - set(_TEXTS) or (shard.plan.number, shard.plan.of) != (plan.number, plan.of):
        return False
    if changed and plan.learnt:
        emit(Note("the text has changed, and the tokenizer depends on it: starting anew"))
        return False
    kept = _of_same_text(shard, plan)
    if kept < len(shard.entries) or changed:
        emit(Note(f"some of the text has changed: {_kept(shard, kept)} before it"))
    shard.keep(kept)
    whole = shard.undamaged()
    if whole < kept:
        emit(Caution(f"a finished part is damaged: {_kept(shard, whole)} before it"))
    shard.keep(whole)
    if changed:
        shard.read = None
        shard.keep(whole)
    shard.plan = replace(plan, replaces=shard.plan.replaces)
    shard.write_plan()
    if shard.entries:
        emit(Note(f"going on after {counted(shard.documents, 'document')} that are tokenized"))
    return True


def other_settings(shard: Shard, plan: Plan) -> list[str]:
    """In what a shard was not made as a plan has it, the text aside."""
    return [
        *(name for name in differing(shard.plan.request, plan.request) if name not in _TEXTS),
        *(["shard"] if (shard.plan.number, shard.plan.of) != (plan.number, plan.of) else []),
    ]


def _kept(shard: Shard, parts: int) -> str:
    documents = sum(entry["part"]["documents"] for entry in shard.entries[:parts])
    return f"going on after the {counted(documents, 'tokenized document')}"


def _of_same_text(shard: Shard, plan: Plan) -> int:
    """How many parts, from the first on, hold text that is the same in both plans."""
    same = {
        corpus: _common(shard.plan.sources.get(corpus, ()), plan.sources.get(corpus, ()))
        for corpus in plan.sources
    }
    for number, entry in enumerate(shard.entries):
        if entry["place"]["source"] >= same.get(entry["place"]["corpus"], 0):
            return number
        # What is numbered and counted after training text that has changed is not the same any more.
        if entry["place"]["corpus"] != "train" and same["train"] < _longer(shard.plan, plan):
            return number
    return len(shard.entries)


def _longer(*plans: Plan) -> int:
    return max(len(plan.sources["train"]) for plan in plans)


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items, from the first on, are equal."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
