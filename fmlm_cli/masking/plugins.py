"""Strategies that are not fmlm's own: how they are found, and what they are held to.

Three ways to bring one: the decorator `registry.register_strategy`, an entry point of an installed package in the group
`fmlm.masking`, or `package.module:object` in place of a name, looked for in the working folder too.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.masking.corruption import IGNORED
from fmlm_cli.masking.strategies import Factory, Strategy, StrategySettings
from fmlm_cli.masking.units import Bools, Int64s

ENTRY_POINTS = "fmlm.masking"

T = TypeVar("T", bound=np.generic)

_registered: dict[str, Factory] = {}  # filled by registry.register_strategy


def names() -> list[str]:
    """Names that were registered, and those of installed packages, which are not loaded for it."""
    return sorted({*_registered, *entry_points(group=ENTRY_POINTS).names})


def load(name: str, known: Sequence[str]) -> Factory:
    """What a name stands for. Raises `UserError` where there is nothing, or it cannot be loaded."""
    if name not in names() and ":" not in name:
        raise unknown_name("masking strategy", name, [*known, "package.module:object"])
    with _blamed(name, "could not be loaded"):
        if name in _registered:
            return _registered[name]
        if ":" in name:
            return _import(name)
        (point,) = entry_points(group=ENTRY_POINTS, name=name)
        return point.load()


def plug_in(factory: Factory, settings: StrategySettings) -> "PluggedIn":
    """The strategy that a plug-in makes of these settings. Raises `UserError` if it fails or makes something else."""
    name = settings.name
    with _blamed(name, "could not be loaded"):
        strategy = factory(settings)
    if isinstance(strategy, Strategy) and not hasattr(strategy, "settings"):
        raise UserError(
            f"masking strategy '{name}' was not set up: its __init__ must call super().__init__(settings)"
        )
    if not isinstance(strategy, Strategy):
        raise UserError(
            f"masking strategy '{name}' is a {type(strategy).__name__}: it must be a subclass of fmlm_cli.masking.Strategy, "
            f"or a function from settings to an instance of one"
        )
    return PluggedIn(settings, strategy, factory)


def _import(name: str) -> Any:
    """The object that `package.module:object` names."""
    module, _, path = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)  # as with `python -m`: a strategy may lie beside the corpus
    try:
        found: Any = importlib.import_module(module)
    finally:
        sys.path.remove(here)
    for part in path.split("."):
        found = getattr(found, part)
    return found


@contextlib.contextmanager
def _blamed(name: str, what: str) -> Iterator[None]:
    """Whatever a plug-in raises, as one line with the plug-in's name; `--debug` shows where it came from."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"masking strategy '{name}' {what}: {type(error).__name__}{f': {reason}' if reason else ''} "
            f"(--debug shows where)"
        ) from error


def _described(array: Any) -> str:
    return f"{getattr(array, 'dtype', type(array).__name__)}{list(getattr(array, 'shape', []))}"


def _read_only(array: npt.NDArray[T]) -> npt.NDArray[T]:
    """The same array, which cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True)
class PluggedIn(Strategy):
    """A strategy of someone else's, whose answers are checked before they are used."""

    inner: Strategy
    factory: Factory

    @property
    def inside(self) -> Strategy:
        """The plug-in's own strategy."""
        return self.inner

    @property
    def understands(self) -> frozenset[str]:
        """Of the strategy inside."""
        return self.inner.understands

    @property
    def rate(self) -> float:
        """Of the strategy inside."""
        return self.inner.rate

    @property
    def masks_per_sequence(self) -> int:
        """Of the strategy inside."""
        return self.inner.masks_per_sequence

    @property
    def cycle(self) -> int:
        """Of the strategy inside."""
        return self.inner.cycle

    @property
    def description(self) -> str:
        """Of the strategy inside."""
        return self.inner.description

    def masks(
        self,
        maskable: Bools,
        word_starts: Bools | None,
        row_ids: Int64s,
        epoch: int | Int64s = 0,
        seed: int = 0,
        input_ids: Int64s | None = None,
    ) -> Bools:
        """The inner strategy's masks. Raises `UserError` if it fails or they cannot be."""
        with _blamed(self.name, "failed in masks()"):
            starts = None if word_starts is None else _read_only(word_starts)
            ids = None if input_ids is None else _read_only(input_ids)
            masks = self.inner.masks(_read_only(maskable), starts, _read_only(row_ids), epoch, seed, ids)
        wanted = (len(maskable), self.masks_per_sequence, maskable.shape[1])
        if not isinstance(masks, np.ndarray) or masks.dtype != np.bool_ or masks.shape != wanted:
            raise UserError(
                f"masking strategy '{self.name}': masks() returned {_described(masks)}, not bool{list(wanted)} = [rows, masks, length]"
            )
        if (masks & ~maskable[:, None]).any():
            row, _, column = np.argwhere(masks & ~maskable[:, None])[0].tolist()
            raise UserError(
                f"masking strategy '{self.name}': masks() masked column {column} of row {row}, which is not maskable (a special "
                f"or unknown token, or padding): combine its masks with `maskable`"
            )
        return masks

    def corrupt(
        self,
        input_ids: Int64s,
        masks: Bools,
        row_ids: Int64s,
        epoch: int | Int64s = 0,
        seed: int = 0,
        *,
        mask_id: int,
        ordinary_ids: Int64s,
    ) -> tuple[Int64s, Int64s]:
        """The inner strategy's corruption, which may be one of its own. Raises `UserError` if it cannot be."""
        given = (_read_only(input_ids), _read_only(masks), _read_only(row_ids))
        with _blamed(self.name, "failed in corrupt()"):
            corrupted, labels = self.inner.corrupt(
                *given, epoch, seed, mask_id=mask_id, ordinary_ids=ordinary_ids
            )
        for what, array in (("input ids", corrupted), ("labels", labels)):
            if not isinstance(array, np.ndarray) or array.dtype != np.int64 or array.shape != masks.shape:
                raise UserError(
                    f"masking strategy '{self.name}': corrupt() returned {_described(array)} as {what}, not int64{list(masks.shape)} "
                    f"= [rows, masks, length]"
                )
        if not np.array_equal(labels, np.where(masks, input_ids[:, None], IGNORED)):
            raise UserError(
                f"masking strategy '{self.name}': corrupt() returned labels that are not the original ids at the masked positions "
                f"and {IGNORED} elsewhere"
            )
        return corrupted, labels


def check_pure(
    strategy: Strategy, maskable: Bools, word_starts: Bools | None, row_ids: Int64s, input_ids: Int64s
) -> None:
    """Try a plug-in on some rows. `UserError` if a row's masks are not the same in every call and every batch."""
    if not isinstance(strategy, PluggedIn):
        return

    def masks(chosen: slice, epoch: int | Int64s = 1) -> Bools:
        starts = None if word_starts is None else word_starts[chosen]
        return strategy.masks(maskable[chosen], starts, row_ids[chosen], epoch, 0, input_ids[chosen])

    together, reversed_, alone = masks(slice(None)), masks(slice(None, None, -1)), masks(slice(-1, None))
    of_two_passes = masks(slice(None), np.arange(len(row_ids)) % 2)  # as in a step at the end of a pass
    if not (
        np.array_equal(together, reversed_[::-1])
        and np.array_equal(together[-1:], alone)
        and np.array_equal(together[1::2], of_two_passes[1::2])
    ):
        raise UserError(
            f"masking strategy '{strategy.name}' gave one row different masks in different calls: masks() must depend on its "
            f"arguments alone, row by row, or a resumed run would be another one; draw with fmlm_cli.keys"
        )
