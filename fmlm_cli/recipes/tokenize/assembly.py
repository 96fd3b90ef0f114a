"""A store from its shards: what becomes of each document is decided, and all is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from fmlm_cli.corpus.store.making.assembling import columns_of, tokens_of, write_documents
from fmlm_cli.corpus.store.making.parts import Columns
from fmlm_cli.corpus.store.making.shards import Shard
from fmlm_cli.corpus.store.writing import StoreWriter
from fmlm_cli.events import Emit, Facts, Progress, counted
from fmlm_cli.recipes.tokenize.deciding import Decided, check_not_empty, decide


@dataclass(frozen=True)
class Assembly:
    """Shards of which it is decided what becomes of each document."""

    shards: Sequence[Shard]
    columns: Mapping[str, Columns]
    decided: Decided

    @classmethod
    def decide(cls, shards: Sequence[Shard]) -> "Assembly":
        """By what all of them hold. Raises `UserError` for a damaged part, and where a split has no text."""
        for shard in shards:
            shard.check()
        plan, read = shards[0].plan, shards[0].read
        assert read is not None, "a shard that is not finished"
        columns = {corpus: columns_of(shards, corpus) for corpus in plan.sources}
        decided = decide(plan.request, columns)
        check_not_empty(decided, plan.request, plan.texts, read)
        return cls(shards, columns, decided)

    def write(self, folder: Path, tokenizer: PreTrainedTokenizerFast, emit: Emit) -> dict[str, Any]:
        """Fill a folder with the store; the manifest. `tokenizer`: the shards'."""
        writer = StoreWriter(folder, tokenizer)
        total, written = tokens_of(self.columns), 0
        for corpus, columns in self.columns.items():
            destinations = self.decided.destinations[corpus]
            for tokens in write_documents(writer, self.shards, corpus, columns, destinations):
                written += tokens
                emit(Progress("writing", written, total, "tokens"))
        return writer.finish(self.shards[0].plan.request, self._facts())

    def _facts(self) -> dict[str, int]:
        """Of documents that are not as they were read, or not there."""
        read, left_out = self.shards[0].read, self.decided.left_out
        assert read is not None
        return {
            "empty_documents": read["empty"] + left_out["empty"],
            "bad_text_documents": read["bad_text"],
            "long_documents": read["long"],
            "under_min_documents": read["under_min"],
            "over_max_documents": read["over_max"],
            "held_out_documents": left_out["held_out"],
            "duplicate_documents": left_out["duplicate"],
            "near_duplicate_documents": left_out["near_duplicate"],
        }


def summary(out: Path, manifest: Mapping[str, Any]) -> Facts:
    """The table of what a store holds."""
    rows = {}
    for name, split in manifest["splits"].items():
        if split["documents"]:
            rows[name] = (
                f"{split['documents']:,} documents, {split['words']:,} words, {split['tokens']:,} tokens"
            )
        else:
            rows[name] = "none"
    train = manifest["splits"]["train"]
    unknown = float(manifest["facts"]["unknown_tokens"] / max(train["tokens"], 1))
    rows["text"] = f"{sum(s['text_bytes'] for s in manifest['splits'].values()) / 1e6:,.1f} MB"
    rows["tokens per word"] = f"{train['tokens'] / max(train['words'], 1):.2f}"
    rows["vocabulary"] = f"{manifest['tokenizer']['vocabulary']:,} ({manifest['dtype']})"
    rows["unknown tokens"] = f"{unknown:.2%}"
    rows |= _left_out(manifest["facts"], manifest["request"])
    rows["fingerprint"] = manifest["fingerprint"][:16]
    return Facts(f"token store {out}", rows)


def _left_out(facts: Mapping[str, int], request: Mapping[str, Any]) -> dict[str, str]:
    """Rows on documents that are not as they were read, or not there."""
    rows = {"left out": f"{facts['empty_documents']:,} empty documents"}
    if facts["held_out_documents"]:
        held = counted(facts["held_out_documents"], "document")
        rows["held out"] = f"{held} of the training text left out: the validation text holds the same"
    if request["dedup"]:
        rows["duplicates"] = f"{counted(facts['duplicate_documents'], 'document')} left out"
    if request["dedup"] == "near":
        rows["near-duplicates"] = f"{counted(facts['near_duplicate_documents'], 'document')} left out"
    if facts["bad_text_documents"]:
        word = "repaired" if request["on_bad_text"] == "replace" else "left out"
        rows["invalid UTF-8"] = f"{facts['bad_text_documents']:,} documents {word}"
    if facts["long_documents"]:
        word = "cut" if request["on_long_document"] == "cut" else "left out"
        rows["too long"] = f"{counted(facts['long_documents'], 'document')} {word}"
    for fact, setting in (("under_min_documents", "min_chars"), ("over_max_documents", "max_chars")):
        if facts[fact]:
            word = "fewer" if setting == "min_chars" else "more"
            bound = f"{request[setting]:,} characters"
            rows[f"{word} than {bound}"] = f"{counted(facts[fact], 'document')} left out"
    return rows
