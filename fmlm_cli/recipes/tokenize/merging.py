"""`fmlm merge`: a store of all its shards."""

from pathlib import Path

from fmlm_cli import storage
from fmlm_cli.config import MergeSettings
from fmlm_cli.corpus.store.making.shards import Shard, check_together
from fmlm_cli.corpus.store.reading import STORE
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, ignore
from fmlm_cli.recipes.tokenize.assembly import Assembly, summary
from fmlm_cli.recipes.tokenize.next_steps import tell_what_next


def merge(settings: MergeSettings, *, overwrite: bool = False, emit: Emit = ignore) -> Path:
    """Make the token store `settings.out` of all its shards; its path. It is what one call would have made.

    Raises `UserError` for what is no finished shard, and for shards that are not all of one store; then
    nothing is written.
    """
    out = Path(settings.out)
    storage.check_claim(out, STORE, overwrite=overwrite, resume=False)
    roots = [Path(name) for name in settings.shards]
    storage.check_outside(out, dict.fromkeys(roots, "shard"))
    shards = check_together([_opened(root) for root in roots])
    assembly = Assembly.decide(shards)
    tokenizer = tokenizers.load_tokenizer(str(shards[0].tokenizer))
    with storage.replaced_folder(out, STORE, overwrite=overwrite) as folder:
        manifest = assembly.write(folder, tokenizer, emit)
    emit(summary(out, manifest))
    tell_what_next(out, emit)
    return out


def _opened(root: Path) -> Shard:
    if storage.kind_of(root) == STORE.name:
        raise UserError(
            f"{root} is a finished store, and merge joins shards of one store: train on several stores with "
            "--data for each"
        )
    shard = Shard.open(root)
    if shard.read is None:
        raise UserError(f"{root} is not finished: go on with `fmlm tokenize ... --resume`")
    return shard
