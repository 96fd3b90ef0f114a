"""Strategies that are not fmlm's own: how they are found, and what they are held to.

Three ways to bring one: the decorator `registry.register_strategy`, an entry point of an installed package in
the group `fmlm.masking`, or `package.module:object` in place of a name, looked for in the working folder too.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.masking.corruption import IGNORED
from fmlm_cli.masking.strategies import Factory, Strategy, StrategySettings
from fmlm_cli.masking.units import Need
from fmlm_cli.masking.view import Bools, Int64s, RowView, read_only

T = TypeVar("T")

ENTRY_POINTS = "fmlm.masking"

registered: dict[str, Factory] = {}  # by name, filled by `registry.register_strategy`


def names() -> list[str]:
    """Names that were registered, and those of installed packages, which are not loaded for it."""
    return sorted({*registered, *entry_points(group=ENTRY_POINTS).names})


def load(name: str, known: Sequence[str]) -> Factory:
    """What a name stands for. Raises `UserError` where there is nothing, or it cannot be loaded."""
    if name not in names() and ":" not in name:
        raise unknown_name("masking strategy", name, [*known, "package.module:object"])
    with _blamed(name, "could not be loaded"):
        if name in registered:
            return registered[name]
        if ":" in name:
            return _import(name)
        (point,) = entry_points(group=ENTRY_POINTS, name=name)
        return point.load()


def needs(name: str) -> frozenset[Need]:
    """What a plug-in says that it needs, by an attribute of its class or function.

    Nothing, where it says nothing, or cannot be loaded; why it cannot is told by whoever makes it.
    """
    try:
        its_needs: Any = getattr(load(name, ()), "needs", frozenset())
    except UserError:
        return frozenset()
    # Of a class that works its needs out for each instance there is only the property.
    return frozenset() if isinstance(its_needs, property) else frozenset(its_needs)


def plug_in(factory: Factory, settings: StrategySettings) -> "PluggedIn":
    """The strategy that a plug-in makes of these settings.

    Raises `UserError` if it fails or makes something else.
    """
    name = settings.name
    with _blamed(name, "could not be loaded"):
        strategy = factory(settings)
    if isinstance(strategy, Strategy) and not hasattr(strategy, "settings"):
        raise UserError(
            f"masking strategy '{name}' was not set up: its __init__ must call super().__init__(settings)"
        )
    if not isinstance(strategy, Strategy):
        raise UserError(
            f"masking strategy '{name}' is a {type(strategy).__name__}: it must be a subclass of "
            f"fmlm_cli.masking.Strategy, or a function from settings to an instance of one"
        )
    return PluggedIn(settings, strategy, factory)


def _import(name: str) -> Any:
    """The object that `package.module:object` names."""
    module, _, path = name.partition(":")
    working_folder = str(Path.cwd())
    sys.path.insert(0, working_folder)  # as with `python -m`: a strategy may lie beside the corpus
    try:
        target: Any = importlib.import_module(module)
    finally:
        sys.path.remove(working_folder)
    for part in path.split("."):
        target = getattr(target, part)
    return target


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


class _OfInner(Generic[T]):
    """A property that is the inner strategy's."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, plugged_in: "PluggedIn", owner: type) -> T:
        value: T = getattr(plugged_in.inner, self._name)
        return value


@dataclass(frozen=True)
class PluggedIn(Strategy):
    """A strategy of someone else's, whose answers are checked before they are used."""

    inner: Strategy
    factory: Factory

    understands = _OfInner[frozenset[str]]()
    needs = _OfInner[frozenset[Need]]()
    rate = _OfInner[float]()
    segments = _OfInner[int]()
    exploration = _OfInner[Literal["random", "full", "other"]]()
    scope = _OfInner[Literal["epoch", "batch"] | None]()
    joins_words = _OfInner[bool]()
    masks_per_sequence = _OfInner[int]()
    cycle = _OfInner[int]()
    description = _OfInner[str]()

    def masks(self, view: RowView, epoch: int | Int64s = 0, seed: int = 0) -> Bools:
        """The inner strategy's masks. Raises `UserError` if it fails or they cannot be."""
        with _blamed(self.name, "failed in masks()"):
            masks = self.inner.masks(view.read_only(), epoch, seed)
        self._check_shape("masks", masks, view)
        if (masks & ~view.maskable[:, None]).any():
            row, _, column = np.argwhere(masks & ~view.maskable[:, None])[0].tolist()
            raise UserError(
                f"masking strategy '{self.name}': masks() masked column {column} of row {row}, which is not "
                f"maskable (a special or unknown token, or padding): combine its masks with `maskable`"
            )
        return masks

    def units(self, view: RowView, epoch: int | Int64s = 0, seed: int = 0) -> Bools | None:
        """The inner strategy's units, if it tells. Raises `UserError` if it fails or they cannot be."""
        with _blamed(self.name, "failed in units()"):
            starts = self.inner.units(view.read_only(), epoch, seed)
        if starts is not None:
            self._check_shape("units", starts, view)
        return starts

    def _check_shape(self, what: str, array: Any, view: RowView) -> None:
        rows, length = view.shape
        expected = (rows, self.masks_per_sequence, length)
        if not isinstance(array, np.ndarray) or array.dtype != np.bool_ or array.shape != expected:
            raise UserError(
                f"masking strategy '{self.name}': {what}() returned {_described(array)}, "
                f"not bool{list(expected)} = [rows, masks, length]"
            )

    def corrupt(
        self,
        view: RowView,
        masks: Bools,
        epoch: int | Int64s = 0,
        seed: int = 0,
        *,
        mask_id: int,
        ordinary_ids: Int64s,
    ) -> tuple[Int64s, Int64s]:
        """The inner strategy's corruption, perhaps one of its own. Raises `UserError` if it cannot be."""
        if view.input_ids is None:
            raise ValueError("there is nothing to corrupt: give the RowView its input_ids")
        with _blamed(self.name, "failed in corrupt()"):
            corrupted, labels = self.inner.corrupt(
                view.read_only(), read_only(masks), epoch, seed, mask_id=mask_id, ordinary_ids=ordinary_ids
            )
        for what, array in (("input ids", corrupted), ("labels", labels)):
            if not isinstance(array, np.ndarray) or array.dtype != np.int64 or array.shape != masks.shape:
                raise UserError(
                    f"masking strategy '{self.name}': corrupt() returned {_described(array)} as {what}, "
                    f"not int64{list(masks.shape)} = [rows, masks, length]"
                )
        if not np.array_equal(labels, np.where(masks, view.input_ids[:, None], IGNORED)):
            raise UserError(
                f"masking strategy '{self.name}': corrupt() returned labels that are not the original ids "
                f"at the masked positions and {IGNORED} elsewhere"
            )
        return corrupted, labels


def check_pure(strategy: Strategy, view: RowView) -> None:
    """Try a plug-in on some rows, with their input_ids.

    `UserError` if a row's masks are not the same in every call and every batch.
    """
    if not isinstance(strategy, PluggedIn):
        return

    def masks(rows: slice, epoch: int | Int64s = 1) -> Bools:
        return strategy.masks(view.take(rows), epoch, 0)

    in_order, backwards, alone = masks(slice(None)), masks(slice(None, None, -1)), masks(slice(-1, None))
    of_two_passes = masks(slice(None), np.arange(len(view)) % 2)  # as in a step at the end of a pass
    if not (
        np.array_equal(in_order, backwards[::-1])
        and np.array_equal(in_order[-1:], alone)
        and np.array_equal(in_order[1::2], of_two_passes[1::2])
    ):
        raise UserError(
            f"masking strategy '{strategy.name}' gave one row different masks in different calls: masks() "
            f"must depend on its arguments alone, row by row, or a resumed run would be another one; "
            f"draw with fmlm_cli.keys"
        )
