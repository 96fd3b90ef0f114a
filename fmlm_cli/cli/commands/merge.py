"""`fmlm merge`."""

from fmlm_cli.cli.flags import Flag
from fmlm_cli.cli.options import Overwrite, with_options
from fmlm_cli.config import MergeSettings
from fmlm_cli.events import Emit


@with_options(
    MergeSettings,
    Flag("SHARD...", "shards"),
    Flag("--out", "out", metavar="STORE"),
    assignable=False,  # each of its settings has a flag
    by_one=True,
)
def command(settings: MergeSettings, emit: Emit, overwrite: Overwrite = False) -> None:
    """Join the shards of a token store that several machines have made.

    Each was made by `fmlm tokenize --shard I/N`; all are needed.

    Example: fmlm merge shard-1 shard-2 --out store

    - The shards have the same text, settings and tokenizer, and the store the bytes that one call would have
    made: the split and --dedup are decided here. A shard by itself is refused wherever a store is wanted. It
    keeps its folder.
    """
    from fmlm_cli.recipes.tokenize import merge

    merge(settings, overwrite=overwrite, emit=emit)
