"""`fmlm tokenize`: text becomes tokens on disk, once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from fmlm_cli import storage
from fmlm_cli.config import TokenizeSettings
from fmlm_cli.corpus.store.fit import misfit
from fmlm_cli.corpus.store.making.shards import Shard
from fmlm_cli.corpus.store.reading import SHARD, STORE, STORE_OF_RUN, TOKENIZER, TokenStore, token_dtype
from fmlm_cli.corpus.text.spool import is_stream
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.corpus.tokenizer.encoding import pipeline_of
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Facts, NextStep, Note, counted, ignore, starting_anew
from fmlm_cli.recipes.tokenize.asked import Asked, check_same, is_finished, is_the_same
from fmlm_cli.recipes.tokenize.assembly import Assembly, summary
from fmlm_cli.recipes.tokenize.collocations import with_collocations
from fmlm_cli.recipes.tokenize.deciding import NoTextError
from fmlm_cli.recipes.tokenize.encoding import encode
from fmlm_cli.recipes.tokenize.next_steps import tell_what_next
from fmlm_cli.recipes.tokenize.unfinished import SPOOL, begun_shard, earlier_work, other_settings, taken_up
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
    """Make the token store `settings.out`, or a shard of it; its path.

    With `resume` a finished store of the same is kept, and an unfinished one gone on with. `renew`: so it is
    with this, and a store of anything else is replaced. `tell_misfit`: caution where the tokenizer was made
    for other text.

    Raises `UserError` for anything wrong with the settings, the text or the tokenizer. Whatever ends it, no
    store is there that is not complete, and the parts that were finished wait beside it for `resume`.
    """
    out = Path(settings.out)
    if not settings.sources:
        return with_collocations(out, settings, emit, again=overwrite)
    kind, keeps = SHARD if settings.shard else STORE_OF_RUN if renew else STORE, resume or renew
    storage.check_claim(out, kind, overwrite=overwrite, resume=keeps)
    storage.clear_left_overs(out)
    place = out if out.name else out.absolute()  # "." will be a folder that is no longer there
    asked = _asked_of_finished(out, settings, emit, replaces=overwrite) if keeps else None
    if asked is not None and is_the_same(out, asked.plan):
        return _kept(out, settings, emit, outcome="reused" if renew else "nothing to do")
    with storage.unfinished_folder(out, SHARD, tell=lambda text: emit(Note(text))) as work:
        earlier = earlier_work(work, out, keeps=keeps, overwrite=overwrite)
        finished = keeps and is_finished(out)
        if resume and not finished and earlier is None:
            emit(starting_anew(out))
        with _nothing_useless_left(work):
            if asked is None:
                asked = Asked.resolve(settings, work.root / SPOOL, emit, replaces=overwrite)
            if finished and is_the_same(out, asked.plan):
                work.clear()
                return _kept(out, settings, emit, outcome="reused" if renew else "nothing to do")
            if resume and finished and not (earlier and earlier.plan.replaces):
                check_same(out, asked.plan)
            shard = _begun(work, settings, asked, earlier, out, emit, must_go_on=resume)
            # As it was saved, and as a later call finds it.
            tokenizer = tokenizers.load_tokenizer(str(shard.tokenizer))
            _encode(shard, settings, asked, tokenizer, emit)
        if settings.shard:
            storage.put_forward(work, out, overwrite=overwrite, resume=keeps)
            emit(_summary_of_shard(out, shard))
            emit(NextStep(f"once all {shard.plan.of} shards are there", "fmlm merge SHARD... --out STORE"))
            return out
        try:
            assembly = Assembly.decide([shard])
        except NoTextError:  # with more text it will be another store
            work.clear()
            raise
        with storage.replaced_folder(out, kind, overwrite=overwrite, resume=keeps) as folder:
            manifest = assembly.write(folder, tokenizer, emit)
        work.clear()
    emit(summary(out, manifest))
    if tell_misfit and (text := misfit(TokenStore.open(place, verify=()), tokenizer.backend_tokenizer)):
        emit(Caution(text, HARDLY_KNOWN))
    if settings.pmi:
        # The store is complete now: whatever becomes of the collocations, the work on it is not lost.
        return with_collocations(place, settings, emit)
    if not renew:
        tell_what_next(out, emit, _checkpoint(settings))
    return out


def _asked_of_finished(out: Path, settings: TokenizeSettings, emit: Emit, *, replaces: bool) -> Asked | None:
    """What is asked for, where there is a finished store to compare it with and no unfinished work.

    For that nothing need be written. None too where text can be read only once, and is to be taken in first.
    """
    if not is_finished(out) or storage.unfinished(out).exists():
        return None
    if any(map(is_stream, (*settings.sources, *settings.valid))):
        return None
    return Asked.resolve(settings, out, emit, replaces=replaces)


def _kept(out: Path, settings: TokenizeSettings, emit: Emit, *, outcome: str) -> Path:
    """A finished store, with collocations if they are asked for."""
    if settings.pmi:
        return with_collocations(out, settings, emit)
    emit(Note(f"{out} is complete and was made from the same text and settings: {outcome}"))
    return out


def _checkpoint(settings: TokenizeSettings) -> str | None:
    """The checkpoint that a tokenizer comes with, which takes its stores as they are; a file is none."""
    given = settings.tokenizer
    if given is None or settings.add_tokens or settings.extend_vocab:
        return None
    return given if not Path(given).exists() or (Path(given) / "config.json").is_file() else None


@contextmanager
def _nothing_useless_left(work: storage.OwnedFolder) -> Iterator[None]:
    """Of work that is ended early leave the finished parts, and nothing else, nor anything without any."""
    try:
        yield
    except BaseException:
        shard = begun_shard(work)
        if shard is None or not shard.entries:
            work.clear()
        else:
            shard.keep(len(shard.entries))
        raise


def _begun(
    work: storage.OwnedFolder,
    settings: TokenizeSettings,
    asked: Asked,
    earlier: Shard | None,
    out: Path,
    emit: Emit,
    *,
    must_go_on: bool,
) -> Shard:
    """The shard that is to be filled: an `earlier` one, or one that has its tokenizer and no more."""
    asked.corpora.describe(emit)
    if earlier is not None:
        if taken_up(earlier, asked.plan, emit):
            return earlier
        different = other_settings(earlier, asked.plan)
        if different and must_go_on:
            raise UserError(
                f"{out} is not finished, and was begun with other {' and '.join(different)}: go back to "
                "that, choose another --out, or pass --overwrite to start anew"
            )
        work.clear(but=SPOOL)
    if asked.loaded is None:
        tokenizer = learn(settings, asked.corpora, emit)
    else:
        tokenizer = extend(settings, asked.loaded, asked.corpora, emit)
    tokenizers.save_tokenizer(tokenizer, work.root / TOKENIZER)
    return Shard.begin(work.root, asked.plan)


def _encode(
    shard: Shard, settings: TokenizeSettings, asked: Asked, tokenizer: PreTrainedTokenizerFast, emit: Emit
) -> None:
    """Encode what a shard lacks."""
    if shard.read is not None:
        return
    pipeline, dtype = pipeline_of(tokenizer), token_dtype(len(tokenizer)).name
    try:
        encode(shard, asked.corpora, pipeline, dtype, settings.workers, emit)
    except Exception:
        if shard.entries:
            emit(Note(f"{counted(shard.documents, 'document')} are tokenized: --resume goes on after them"))
        raise


def _summary_of_shard(out: Path, shard: Shard) -> Facts:
    rows = {
        "shard": f"{shard.plan.number} of {shard.plan.of}",
        "documents": f"{shard.documents:,}",
        "tokens": f"{sum(entry['part']['tokens'] for entry in shard.entries):,}",
    }
    return Facts(f"shard {out}", rows)
