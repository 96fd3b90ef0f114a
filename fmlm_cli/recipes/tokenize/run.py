"""`fmlm tokenize`: text becomes tokens on disk, once."""

from pathlib import Path
from typing import Any

from fmlm_cli import storage
from fmlm_cli.config import TokenizeSettings
from fmlm_cli.corpus.store.fit import misfit
from fmlm_cli.corpus.store.reading import STORE, STORE_OF_RUN, TokenStore
from fmlm_cli.events import Caution, Emit, Facts, Note, counted, ignore, starting_anew
from fmlm_cli.recipes.tokenize.asked import Asked, check_same, is_the_same
from fmlm_cli.recipes.tokenize.collocations import with_collocations
from fmlm_cli.recipes.tokenize.filling import write
from fmlm_cli.recipes.tokenize.vocabulary import extend, learn

HARDLY_KNOWN = "hardly-known"  # the code of the caution about a tokenizer that was made for other text


def make_store(
    settings: TokenizeSettings,
    *,
    overwrite: bool = False,
    resume: bool = False,
    renew: bool = False,
    tell_misfit: bool = True,
    emit: Emit = ignore,
) -> Path:
    """Make the token store `settings.out`; its path. With `resume` a finished store of the same is kept.

    `renew`: so it is with this, and a store of anything else is replaced. `tell_misfit`: caution where the
    tokenizer was made for other text.

    Raises `UserError` for anything wrong with the settings, the text or the tokenizer; then nothing is
    written.
    """
    out = Path(settings.out)
    if not settings.sources:
        return with_collocations(out, settings, emit, again=overwrite)
    kind, keeps = STORE_OF_RUN if renew else STORE, resume or renew
    storage.check_claim(out, kind, overwrite=overwrite, resume=keeps)
    storage.clear_left_overs(out)
    asked = Asked.resolve(settings, emit) if keeps and (out / storage.MANIFEST).is_file() else None
    if asked is not None:
        if resume:
            check_same(out, asked.request)
        if is_the_same(out, asked.request):
            return _kept(out, settings, emit, outcome="reused" if renew else "nothing to do")
    elif resume:
        emit(starting_anew(out))
    place = out if out.name else out.absolute()  # "." will be a folder that is no longer there
    with storage.replaced_folder(out, kind, overwrite=overwrite, resume=keeps) as folder:
        manifest = _make(folder, settings, asked or Asked.resolve(settings, emit), emit)
    emit(Facts(f"token store {out}", _summary(manifest)))
    if tell_misfit and (text := misfit(TokenStore.open(place, verify=()))):
        emit(Caution(text, HARDLY_KNOWN))
    # The store is complete now: whatever becomes of the collocations, the work on it is not lost.
    return with_collocations(place, settings, emit) if settings.pmi else out


def _kept(out: Path, settings: TokenizeSettings, emit: Emit, *, outcome: str) -> Path:
    """A finished store, with collocations if they are asked for."""
    if settings.pmi:
        return with_collocations(out, settings, emit)
    emit(Note(f"{out} is complete and was made from the same text and settings: {outcome}"))
    return out


def _make(folder: Path, settings: TokenizeSettings, asked: Asked, emit: Emit) -> dict[str, Any]:
    """Fill a folder with the store; its manifest."""
    asked.corpora.describe(emit)
    held_out = asked.corpora.held_out()
    if asked.loaded is None:
        tokenizer = learn(settings, asked.corpora.train, held_out, emit)
    else:
        tokenizer = extend(settings, asked.loaded, asked.corpora.train, held_out, emit)
    return write(folder, settings, asked, held_out, tokenizer, emit)


def _unknown_share(manifest: dict[str, Any]) -> float:
    """Share of the training tokens that the tokenizer did not know."""
    return float(manifest["facts"]["unknown_tokens"] / max(manifest["splits"]["train"]["tokens"], 1))


def _summary(manifest: dict[str, Any]) -> dict[str, str]:
    """The summary table's rows."""
    rows = {}
    for name, split in manifest["splits"].items():
        if split["documents"]:
            rows[name] = (
                f"{split['documents']:,} documents, {split['words']:,} words, {split['tokens']:,} tokens"
            )
        else:
            rows[name] = "none"
    train = manifest["splits"]["train"]
    facts = manifest["facts"]
    rows["text"] = f"{sum(s['text_bytes'] for s in manifest['splits'].values()) / 1e6:,.1f} MB"
    rows["tokens per word"] = f"{train['tokens'] / max(train['words'], 1):.2f}"
    rows["vocabulary"] = f"{manifest['tokenizer']['vocabulary']:,} ({manifest['dtype']})"
    rows["unknown tokens"] = f"{_unknown_share(manifest):.2%}"
    rows["left out"] = f"{facts['empty_documents']:,} empty documents"
    if facts["held_out_documents"]:
        held = counted(facts["held_out_documents"], "document")
        rows["held out"] = f"{held} of the training text left out: the validation text holds the same"
    if facts["bad_text_documents"]:
        word = "repaired" if manifest["request"]["on_bad_text"] == "replace" else "left out"
        rows["invalid UTF-8"] = f"{facts['bad_text_documents']:,} documents {word}"
    if facts["long_documents"]:
        word = "cut" if manifest["request"]["on_long_document"] == "cut" else "left out"
        rows["too long"] = f"{counted(facts['long_documents'], 'document')} {word}"
    for fact, setting in (("under_min_documents", "min_chars"), ("over_max_documents", "max_chars")):
        if facts.get(fact):
            bound = f"{manifest['request'][setting]:,} characters"
            word = "fewer" if setting == "min_chars" else "more"
            rows[f"{word} than {bound}"] = f"{counted(facts[fact], 'document')} left out"
    rows["fingerprint"] = manifest["fingerprint"][:16]
    return rows
