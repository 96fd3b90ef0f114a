"""Strategies that are not fmlm's own: how they are found, and what they are held to.

Three ways to bring one: the decorator `register_strategy`, an entry point of an installed package in the group
`fmlm.masking`, or `package.module:object` in place of a name, looked for in the working folder too.
"""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.masking.strategies import Factory, Strategy, StrategySettings
from fmlm_cli.masking.units import Bools, Int64s

ENTRY_POINTS = "fmlm.masking"

T = TypeVar("T", bound=np.generic)
F = TypeVar("F", bound=Callable[[StrategySettings], Strategy])

_registered: dict[str, Factory] = {}


def register_strategy(name: str) -> Callable[[F], F]:
    """Decorator: make a `Strategy` subclass, or a function from settings to a strategy, known by `name`.

    fmlm's own names cannot be taken.
    """

    def register(factory: F) -> F:
        _registered[name] = factory
        return factory

    return register


def names() -> list[str]:
    """Names that were registered, and those of installed packages, which are not loaded for it."""
    return sorted({*_registered, *entry_points(group=ENTRY_POINTS).names})


def load(settings: StrategySettings, known: Sequence[str]) -> Strategy:
    """The strategy that `settings.name` stands for. Raises `UserError` where there is none, or it fails."""
    name = settings.name
    if name not in names() and ":" not in name:
        raise unknown_name("masking strategy", name, [*known, "package.module:object"])
    with _blamed(name, "could not be loaded"):
        if name in _registered:
            factory: Any = _registered[name]
        elif ":" in name:
            factory = _import(name)
        else:
            (point,) = entry_points(group=ENTRY_POINTS, name=name)
            factory = point.load()
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
    return strategy


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


def _read_only(array: npt.NDArray[T]) -> npt.NDArray[T]:
    """The same array, which cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True)
class PluggedIn(Strategy):
    """A strategy of someone else's, whose answers are checked before they are used."""

    inner: Strategy

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
        found = f"{getattr(masks, 'dtype', type(masks).__name__)}{list(getattr(masks, 'shape', []))}"
        if not isinstance(masks, np.ndarray) or masks.dtype != np.bool_ or masks.shape != wanted:
            raise UserError(
                f"masking strategy '{self.name}': masks() returned {found}, not bool{list(wanted)} = [rows, masks, length]"
            )
        if (masks & ~maskable[:, None]).any():
            row, _, column = np.argwhere(masks & ~maskable[:, None])[0].tolist()
            raise UserError(
                f"masking strategy '{self.name}': masks() masked column {column} of row {row}, which is not maskable (a special "
                f"or unknown token, or padding): combine its masks with `maskable`"
            )
        return masks

    def corrupt(self, *args: Any, **kwargs: Any) -> tuple[Int64s, Int64s]:
        """The inner strategy's corruption, which may be one of its own."""
        with _blamed(self.name, "failed in corrupt()"):
            return self.inner.corrupt(*args, **kwargs)


def check_pure(
    strategy: Strategy, maskable: Bools, word_starts: Bools | None, row_ids: Int64s, input_ids: Int64s
) -> None:
    """Try a plug-in on some rows. `UserError` if a row's masks are not the same in every call and every batch."""
    if not isinstance(strategy, PluggedIn):
        return

    def masks(chosen: slice) -> Bools:
        starts = None if word_starts is None else word_starts[chosen]
        return strategy.masks(maskable[chosen], starts, row_ids[chosen], 1, 0, input_ids[chosen])

    together, reversed_, alone = masks(slice(None)), masks(slice(None, None, -1)), masks(slice(-1, None))
    if not (np.array_equal(together, reversed_[::-1]) and np.array_equal(together[-1:], alone)):
        raise UserError(
            f"masking strategy '{strategy.name}' gave one row different masks in different calls: masks() must depend on its "
            f"arguments alone, row by row, or a resumed run would be another one; draw with fmlm_cli.keys"
        )
