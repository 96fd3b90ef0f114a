"""GLUE from the Hub, or from what `datasets` has cached of it."""

import contextlib
from collections.abc import Iterator

import datasets

from fmlm_cli import hub
from fmlm_cli.errors import OutOfSpaceError, UserError, is_out_of_space, one_line
from fmlm_cli.readers.tables import ColumnTable

REPOSITORY = "nyu-mll/glue"


def load_tables(config: str) -> dict[str, ColumnTable]:
    """The splits of a configuration by the Hub's names ("train", "validation", ...).

    Where the Hub is out of reach, the cache of `datasets` serves. Raises `UserError`.
    """
    why = hub.out_of_reach()
    try:
        with hub.quiet(), _no_bars(), _offline() if why else contextlib.nullcontext():
            splits = datasets.load_dataset(REPOSITORY, config)
    except Exception as error:  # datasets, the network and the disk raise kinds of their own
        if is_out_of_space(error):
            where = datasets.config.HF_DATASETS_CACHE
            raise OutOfSpaceError(
                f"no space left in {where} for {REPOSITORY}: make room, or set HF_HOME"
            ) from error
        cause = (
            f"not in the local cache of datasets, and {why}" if why else f"not to be had ({one_line(error)})"
        )
        raise UserError(
            f"GLUE's {config} ({REPOSITORY}) is {cause}: give a folder with GLUE's files"
        ) from error
    return {
        name: ColumnTable(f"{REPOSITORY} {config} {name}", dict(split.with_format(None).to_dict()))
        for name, split in splits.items()
    }


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Send `datasets` to its cache at once: on its own it would try the Hub for most of a minute."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
