import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmlm_cli import keys
from fmlm_cli.errors import UserError
from fmlm_cli.masking import (
    Corruption,
    RowView,
    Strategy,
    StrategySettings,
    Tokens,
    Unit,
    check_pure,
    full_exploration,
    get_strategy,
    plugins,
    random_exploration,
    register_strategy,
    strategy_names,
    strategy_needs,
)
from fmlm_cli.masking.plugins import PluggedIn
from fmlm_cli.masking.registry import BUILT_IN, at_rate
from fmlm_cli.masking.strategies import FullExploration
from tests.masking.laws import COLLOCATIONS, Rows, alike, said_by, strategy_of, words_of

ROWS = alike([0, *words_of([1, 2, 3]), 0, *words_of([2, 1])], 6)


@pytest.fixture(autouse=True)
def _registered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "registered", {})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; modules imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    path = list(sys.path)
    yield tmp_path
    assert sys.path == path, "an import left the working folder on the path"
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


class EveryThird(Strategy):
    """A strategy of one's own: the columns that the row's identity, the epoch and the seed come to, modulo
    3."""

    def masks(self, view: RowView, epoch: Any = 0, seed: int = 0) -> Any:
        turn = (view.row_ids + epoch + seed) % 3
        masks = view.maskable & (np.arange(view.shape[1]) % 3 == turn[:, None])
        return np.repeat(masks[:, None], self.masks_per_sequence, axis=1)


def plug_in(masks: Callable[..., Any], **given: Any) -> Strategy:
    """A plug-in with this function of maskable and row_ids as its masks()."""

    def its_masks(self: Strategy, view: RowView, *rest: Any) -> Any:
        return masks(view.maskable, view.row_ids)

    register_strategy("mine")(type("Mine", (Strategy,), {"masks": its_masks}))
    return get_strategy("mine", **given)


def refused(ask: Callable[[], Any], *words: str) -> UserError:
    with pytest.raises(UserError) as caught:
        ask()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    return caught.value


MODULE = """
from fmlm_cli.masking import Strategy, Unit, random_exploration

class Evens(Strategy):
    needs = frozenset({"input_ids"})

    def masks(self, view, epoch=0, seed=0):
        masks = view.maskable.copy()
        masks[:, 1::2] = False
        return masks[:, None]

class Holder:
    inside = Evens

class EachToken(Unit):
    def __call__(self, view, key):
        return view.maskable

def make(settings):
    return random_exploration(EachToken())(settings)

not_callable = 3
no_strategy = len
def none(settings):
    pass
"""


class TestWaysToBringOne:
    def test_decorated_class(self) -> None:
        assert register_strategy("thirds")(EveryThird) is EveryThird
        strategy = get_strategy("thirds", rate=0.3)
        assert strategy_names() == [*BUILT_IN, "thirds"]
        assert (strategy.name, strategy.rate, strategy.cycle) == ("thirds", 0.3, 1)
        assert np.array_equal(ROWS.masks(strategy, 2, 1), ROWS.masks(EveryThird(strategy.settings), 2, 1))
        assert get_strategy("thirds", masks_per_sequence=2).masks_per_sequence == 2

    def test_decorated_function_is_given_the_settings(self) -> None:
        seen = []

        @register_strategy("function")
        def function(settings: StrategySettings) -> Strategy:
            seen.append(settings)
            return random_exploration(Tokens())(settings)

        corruption = Corruption(0.5, 0.5, 0)
        strategy = get_strategy(
            "function", segments=4, count="bernoulli", corruption=corruption, answer=42, p=0.1
        )
        wanted = StrategySettings(
            "function", 1 / 4, count="bernoulli", corruption=corruption, options={"answer": 42, "p": 0.1}
        )
        assert seen == [wanted]
        assert strategy.settings == wanted
        assert np.array_equal(
            ROWS.masks(strategy, 5, 6),
            ROWS.masks(get_strategy("random", segments=4, count="bernoulli"), 5, 6),
        )

    @pytest.mark.parametrize("path", ["Evens", "Holder.inside", "make"])
    def test_module_in_the_working_folder(self, folder: Path, path: str) -> None:
        (folder / "strategies_beside_me.py").write_text(MODULE)
        strategy = get_strategy(f"strategies_beside_me:{path}", rate=0.4)
        assert strategy.name == f"strategies_beside_me:{path}"
        masks = ROWS.masks(strategy)
        if path == "make":
            assert np.array_equal(masks, ROWS.masks(get_strategy("random", rate=0.4)))
        else:
            assert np.array_equal(masks[:, 0, ::2], ROWS.maskable[:, ::2])
            assert not masks[:, 0, 1::2].any()
        assert strategy_names() == list(BUILT_IN)  # it is known by that name alone
        needs = {"input_ids"} if path != "make" else set()
        assert strategy_needs(f"strategies_beside_me:{path}") == needs

    def test_module_in_a_package(self, folder: Path) -> None:
        (folder / "a_package_of_mine" / "inner").mkdir(parents=True)
        (folder / "a_package_of_mine" / "inner" / "deep.py").write_text(MODULE)
        assert ROWS.masks(get_strategy("a_package_of_mine.inner.deep:Evens")).any()

    def test_entry_point_of_an_installed_package(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "installed_elsewhere.py").write_text(MODULE)
        monkeypatch.syspath_prepend(folder)
        points = [
            importlib.metadata.EntryPoint("evens", "installed_elsewhere:Evens", "fmlm.masking"),
            importlib.metadata.EntryPoint("broken", "installed_elsewhere:nothing", "fmlm.masking"),
            importlib.metadata.EntryPoint("random", "installed_elsewhere:Evens", "fmlm.masking"),
            importlib.metadata.EntryPoint("of-others", "installed_elsewhere:Evens", "fmlm.something"),
        ]
        every = importlib.metadata.EntryPoints(points)
        monkeypatch.setattr(plugins, "entry_points", every.select)
        assert strategy_names() == [*BUILT_IN, "broken", "evens"]
        assert "installed_elsewhere" not in sys.modules  # listing names loads nothing
        strategy = get_strategy("evens")
        assert np.array_equal(ROWS.masks(strategy)[:, 0, ::2], ROWS.maskable[:, ::2])
        refused(
            lambda: get_strategy("broken"), "masking strategy 'broken' could not be loaded: AttributeError"
        )
        assert not isinstance(get_strategy("random"), PluggedIn)
        refused(lambda: get_strategy("evns"), "did you mean 'evens'?")
        sys.path.remove(str(folder))

    def test_an_unknown_name_may_be_nearest_to_a_plug_in(self) -> None:
        register_strategy("thirds")(EveryThird)
        refused(
            lambda: get_strategy("third"),
            "unknown masking strategy 'third': did you mean 'thirds'?",
            "random",
        )

    def test_it_speaks_for_itself(self) -> None:
        of_settings = {"name", "corruption"}
        properties = {name for name, value in vars(Strategy).items() if isinstance(value, property)}
        assert properties - vars(PluggedIn).keys() == of_settings


class TestWhatCannotBeLoaded:
    @pytest.mark.parametrize(
        ("name", "cause", "words"),
        [
            ("no_such_module_at_all:Evens", ModuleNotFoundError, "No module named 'no_such_module_at_all'"),
            ("mine_in_a_file:Nothing", AttributeError, "Nothing"),
            ("mine_in_a_file:Holder.other", AttributeError, "other"),
            ("mine_in_a_file:", AttributeError, ""),
            (":Evens", ValueError, ""),
            ("mine_in_a_file:not_callable", TypeError, "not callable"),
            ("mine_in_a_file:no_strategy", TypeError, ""),
            ("broken_file:x", SyntaxError, ""),
            ("raising_file:x", ZeroDivisionError, "division by zero"),
        ],
    )
    def test_is_told_with_the_plug_ins_own_error(
        self, folder: Path, name: str, cause: type[Exception], words: str
    ) -> None:
        (folder / "mine_in_a_file.py").write_text(MODULE)
        (folder / "broken_file.py").write_text("def")
        (folder / "raising_file.py").write_text("1 / 0")
        error = refused(
            lambda: get_strategy(name),
            f"masking strategy '{name}' could not be loaded: {cause.__name__}",
            words,
            "--debug",
        )
        assert isinstance(error.__cause__, cause)

    def test_what_is_no_strategy(self, folder: Path) -> None:
        (folder / "mine_in_a_file.py").write_text(MODULE)
        refused(
            lambda: get_strategy("mine_in_a_file:none"),
            "'mine_in_a_file:none' is a NoneType",
            "must be a subclass",
        )
        register_strategy("dict")(lambda settings: {})  # type: ignore[arg-type, return-value]
        refused(lambda: get_strategy("dict"), "masking strategy 'dict' is a dict")

    def test_its_own_refusals_pass_unchanged(self) -> None:
        @register_strategy("refuses")
        def refuses(settings: StrategySettings) -> Strategy:
            raise UserError("masking.options.depth must be even")

        assert str(refused(lambda: get_strategy("refuses"))) == "masking.options.depth must be even"

    def test_a_strategy_that_does_not_set_itself_up_is_refused(self) -> None:
        register_strategy("forgetful")(
            type("Forgetful", (EveryThird,), {"__init__": lambda self, settings: None})
        )
        refused(lambda: get_strategy("forgetful"), "masking strategy 'forgetful'")

    @pytest.mark.parametrize("given", [{"scope": "batch"}, {"scope": "epoch"}, {"count": "bernoulli"}])
    def test_settings_that_it_does_not_understand_are_refused(self, given: dict[str, Any]) -> None:
        ((setting, value),) = given.items()
        register_strategy("thirds")(EveryThird)
        refused(lambda: get_strategy("thirds", **given), f"masking.{setting} {value} does not go with thirds")
        both = {"masks": EveryThird.masks, "understands": frozenset({"scope", "count"})}
        register_strategy("thirds")(type("Both", (EveryThird,), both))
        assert getattr(get_strategy("thirds", **given).settings, setting) == value


class TestWhatItAnswers:
    def test_wrong_type_or_shape(self) -> None:
        answers = {
            "int64[6, 1, 11]": lambda masks: masks.astype(int),
            "uint8[6, 1, 11]": lambda masks: masks.astype(np.uint8),
            "bool[6, 11]": lambda masks: masks[:, 0],
            "bool[1, 6, 11]": lambda masks: masks.swapaxes(0, 1),
            "bool[6, 2, 11]": lambda masks: masks.repeat(2, axis=1),
            "bool[6, 1, 10]": lambda masks: masks[:, :, :-1],
            "bool[1, 1, 11]": lambda masks: masks[:1],
            "list": lambda masks: masks.tolist(),
            "NoneType": lambda masks: None,
        }
        for found, answer in answers.items():
            strategy = plug_in(lambda maskable, row_ids, answer=answer: answer(maskable[:, None]))
            told = f"masking strategy 'mine': masks() returned {found}"
            refused(lambda s=strategy: ROWS.masks(s), told, "not bool[6, 1, 11] = [rows, masks, length]")

    def test_masks_of_what_is_not_maskable(self) -> None:
        def masks(maskable: np.ndarray, row_ids: np.ndarray) -> np.ndarray:
            answer = maskable.copy()
            answer[4, 7] = True
            return answer[:, None]

        strategy = plug_in(masks)
        refused(lambda: ROWS.masks(strategy), "masked column 7 of row 4, which is not maskable")
        assert ROWS.of(slice(4)).masks(plug_in(lambda maskable, row_ids: maskable[:, None])).any()

    def test_changing_what_may_be_masked_is_refused(self) -> None:
        def masks(maskable: np.ndarray, row_ids: np.ndarray) -> np.ndarray:
            maskable[:] = True
            return maskable[:, None].copy()

        strategy, rows = plug_in(masks), ROWS.of([0, 1])
        refused(lambda: rows.masks(strategy), "masking strategy 'mine'")
        assert np.array_equal(rows.maskable, ROWS.maskable[:2])

    @pytest.mark.parametrize(
        "error", [ZeroDivisionError("by what?\nsecond line"), KeyError("x"), AssertionError()]
    )
    def test_errors_are_told_with_their_cause(self, error: Exception) -> None:
        def masks(maskable: Any, row_ids: Any) -> Any:
            raise error

        strategy = plug_in(masks)
        told = refused(
            lambda: ROWS.masks(strategy),
            f"masking strategy 'mine' failed in masks(): {type(error).__name__}",
            "--debug shows where",
        )
        assert told.__cause__ is error
        assert "second" not in str(told)

    def test_a_strategy_without_masks(self) -> None:
        register_strategy("empty")(Strategy)
        refused(lambda: ROWS.masks(get_strategy("empty")), "'empty' failed in masks(): NotImplementedError")

    def test_corruption_of_its_own(self) -> None:
        def corrupt(self: Any, view: Any, masks: Any, *rest: Any, mask_id: int, **given: Any) -> Any:
            if mask_id < 0:
                raise IndexError("no such id")
            return np.full(masks.shape, mask_id), np.where(masks, view.input_ids[:, None], -100)

        register_strategy("own")(type("Own", (EveryThird,), {"corrupt": corrupt}))
        strategy = get_strategy("own")
        masks = ROWS.masks(strategy)
        ids, labels = strategy.corrupt(ROWS.view, masks, mask_id=7, ordinary_ids=np.arange(3))
        assert (ids == 7).all()
        assert np.array_equal(labels, np.where(ROWS.masks(strategy), ROWS.input_ids[:, None], -100))
        told = refused(
            lambda: strategy.corrupt(ROWS.view, ROWS.masks(strategy), mask_id=-1, ordinary_ids=np.arange(3)),
            "'own' failed in corrupt(): IndexError: no such id",
        )  # fmt: skip
        assert isinstance(told.__cause__, IndexError)

    @pytest.mark.parametrize(
        ("answer", "parts"),
        [
            (
                lambda ids, masks: (ids, np.where(masks, ids[:, None], -100)),
                ("input ids", "[rows, masks, length]"),
            ),
            (
                lambda ids, masks: (np.zeros(masks.shape), np.full(masks.shape, -100)),
                ("float64", "input ids"),
            ),
            (lambda ids, masks: (np.zeros(masks.shape, int), masks), ("bool", "labels")),
            (
                lambda ids, masks: (np.zeros(masks.shape, int), np.full(masks.shape, -100)),
                ("not the original ids",),
            ),
            (lambda ids, masks: ids.__setitem__(0, 7), ("failed in corrupt()", "read-only")),
        ],
    )
    def test_corruption_that_cannot_be(self, answer: Any, parts: tuple[str, ...]) -> None:
        def corrupt(self: Any, view: Any, masks: Any, *rest: Any, **given: Any) -> Any:
            return answer(view.input_ids, masks)

        register_strategy("own")(type("Own", (EveryThird,), {"corrupt": corrupt}))
        strategy = get_strategy("own")
        before = ROWS.input_ids.copy()
        refused(
            lambda: strategy.corrupt(ROWS.view, ROWS.masks(strategy), mask_id=7, ordinary_ids=np.arange(3)),
            "masking strategy 'own'", *parts,
        )  # fmt: skip
        assert np.array_equal(ROWS.input_ids, before)

    def test_epochs_that_differ_between_rows_are_tried(self) -> None:
        """Else a strategy for which `epoch` is one number would fail hours later, where a step has rows of
        two passes."""

        def masks(self: Any, view: Any, epoch: Any = 0, seed: int = 0) -> Any:
            return (view.maskable if epoch % 2 else ~view.maskable & view.maskable)[:, None]

        register_strategy("one-number")(type("OneNumber", (EveryThird,), {"masks": masks}))
        strategy = get_strategy("one-number")
        refused(lambda: check_pure(strategy, ROWS.view), "'one-number' failed in masks()")

    def test_names_of_fmlms_own_cannot_be_taken(self) -> None:
        refused(lambda: register_strategy("random"), "'random' is fmlm's own")

    def test_is_corrupted_as_set_otherwise(self) -> None:
        register_strategy("thirds")(EveryThird)
        strategy = get_strategy("thirds", corruption=Corruption(1, 0, 0))
        masks = ROWS.masks(strategy)
        ids, labels = strategy.corrupt(ROWS.view, masks, mask_id=77, ordinary_ids=np.arange(3))
        assert np.array_equal(ids == 77, masks)
        assert np.array_equal(labels != -100, masks)

    def test_what_it_says_of_itself_is_passed_on(self) -> None:
        its_own = {
            "masks": EveryThird.masks,
            "cycle": 3,
            "description": "every third",
            "masks_per_sequence": 2,
            "rate": 1 / 3,
        }
        register_strategy("thirds")(type("Thirds", (Strategy,), its_own))
        strategy = get_strategy("thirds")
        assert [strategy.cycle, strategy.description, strategy.masks_per_sequence, strategy.rate] == [
            3,
            "every third",
            2,
            1 / 3,
        ]
        assert ROWS.masks(strategy).shape == (6, 2, 11)

    def test_defaults_of_what_others_decide_by(self) -> None:
        register_strategy("thirds")(EveryThird)
        strategy = get_strategy("thirds", rate=0.3)
        assert said_by(strategy) == (3, "other", None, set(), False)
        assert strategy.units(ROWS.view) is None
        assert strategy_needs("thirds") == frozenset()

    def test_what_others_decide_by_is_passed_on(self) -> None:
        its_own: dict[str, Any] = {
            "masks": EveryThird.masks,
            "units": lambda self, view, epoch=0, seed=0: view.maskable[:, None],
            "segments": 3,
            "exploration": "full",
            "scope": "epoch",
            "needs": frozenset({"input_ids"}),
            "joins_words": True,
        }
        register_strategy("thirds")(type("Thirds", (Strategy,), its_own))
        strategy = get_strategy("thirds")
        assert said_by(strategy) == (3, "full", "epoch", {"input_ids"}, True)
        assert strategy_needs("thirds") == {"input_ids"}
        assert np.array_equal(strategy.units(ROWS.view), ROWS.maskable[:, None])

    @pytest.mark.parametrize("name", list(BUILT_IN))
    def test_the_programs_own_are_the_same_when_plugged_in(self, name: str) -> None:
        own = strategy_of(name)
        register_strategy("again")(lambda settings: strategy_of(name))
        again = get_strategy("again")
        assert said_by(again) == said_by(own)
        assert np.array_equal(again.units(ROWS.view, 3, 4), own.units(ROWS.view, 3, 4))

    def test_units_that_cannot_be(self) -> None:
        def units(self: Strategy, view: RowView, epoch: Any = 0, seed: int = 0) -> Any:
            return view.maskable[0, 0] / 0 if seed else view.maskable

        register_strategy("own")(type("Own", (EveryThird,), {"units": units}))
        strategy = get_strategy("own")
        refused(lambda: strategy.units(ROWS.view), "'own': units() returned bool[6, 11], not bool[6, 1, 11]")
        with np.errstate(all="raise"):
            refused(lambda: strategy.units(ROWS.view, 0, 1), "'own' failed in units()")

    def test_collocations_are_there_for_those_who_need_them(self) -> None:
        class OfItsUnits(Strategy):
            needs = frozenset({"collocations", "word_starts", "input_ids"})  # type: ignore[assignment]

            def masks(self, view: RowView, epoch: Any = 0, seed: int = 0) -> Any:
                unit = self.settings.required_collocations
                return random_exploration(unit)(self.settings).masks(view, epoch, seed)

        register_strategy("own")(OfItsUnits)
        assert "collocations" in strategy_needs("own")
        masks = get_strategy("own", collocations=COLLOCATIONS).masks(ROWS.view)
        assert np.array_equal(masks, strategy_of("pmi").masks(ROWS.view))
        refused(lambda: get_strategy("own").masks(ROWS.view), "own needs the store's collocations", "--pmi")

    def test_needs_of_a_function(self) -> None:
        def make(settings: StrategySettings) -> Strategy:
            return random_exploration(settings.required_collocations)(settings)

        make.needs = frozenset({"collocations"})  # type: ignore[attr-defined]
        register_strategy("made")(make)
        assert strategy_needs("made") == {"collocations"}


class TestFullExplorationOfOnesOwnUnits:
    class ItsUnits(Unit):
        def __call__(self, view: RowView, key: Any) -> Any:
            return view.maskable

    @pytest.fixture(autouse=True)
    def _register(self) -> None:
        register_strategy("own-full")(full_exploration(self.ItsUnits()))

    def test_is_explored_fully(self) -> None:
        strategy = get_strategy("own-full", segments=3, scope="batch")
        assert (strategy.masks_per_sequence, strategy.cycle) == (3, 1)
        assert np.array_equal(ROWS.masks(strategy).sum(axis=1), ROWS.maskable.astype(int))
        assert isinstance(strategy.inner, FullExploration)  # type: ignore[attr-defined]
        assert get_strategy("own-full", segments=3).cycle == 3

    @pytest.mark.parametrize("given", [{}, {"scope": "batch"}, {"scope": "batch", "masks_per_sequence": 2}])
    def test_goes_to_the_nearest_rate(self, given: dict[str, Any]) -> None:
        """As a built-in one does: what a schedule asks for is hardly ever 1/K."""
        own, built_in = (get_strategy(name, segments=2, **given) for name in ("own-full", "fully-explored"))
        for rate in (0.4, 0.29, 0.15):
            assert at_rate(built_in, rate).rate == at_rate(own, rate).rate
            assert at_rate(built_in, rate).masks_per_sequence == at_rate(own, rate).masks_per_sequence


class TestCheckPure:
    @staticmethod
    def check(strategy: Strategy, rows: Rows = ROWS, *, words: bool = True) -> None:
        check_pure(strategy, rows.view if words else replace(rows.view, word_starts=None))

    def test_passes_one_that_is(self) -> None:
        register_strategy("thirds")(EveryThird)
        for words in (True, False):
            self.check(get_strategy("thirds"), words=words)
        self.check(get_strategy("thirds"), ROWS.of(slice(0, 0)))
        self.check(get_strategy("thirds", masks_per_sequence=2), ROWS.of([3]))

    @pytest.mark.parametrize("name", [name for name in BUILT_IN if "pmi" not in name])
    def test_passes_the_programs_own_when_plugged_in(self, name: str) -> None:
        register_strategy("again")(lambda settings: get_strategy(name, rate=settings.rate))
        self.check(get_strategy("again", segments=3))

    @pytest.mark.parametrize("rows", [1, 2, 6])
    def test_catches_state(self, rows: int) -> None:
        generator = np.random.default_rng(0)
        drawn = plug_in(lambda m, row_ids: (m & (generator.random(m.shape) < 0.5))[:, None])
        calls: list[int] = []

        def counted(maskable: np.ndarray, row_ids: np.ndarray) -> np.ndarray:
            calls.append(1)
            return (maskable & (np.arange(maskable.shape[1]) % 2 == len(calls) % 2))[:, None]

        for strategy in (drawn, plug_in(counted)):
            refused(
                lambda strategy=strategy: self.check(strategy, ROWS.of(slice(rows))),
                "'mine' gave one row different masks",
                "fmlm_cli.keys",
            )

    @pytest.mark.parametrize(
        "masks",
        [
            lambda m, row_ids: (m & (np.arange(len(m)) % 2 == 0)[:, None])[:, None],  # its place
            lambda m, row_ids: (m & (len(m) > 1))[:, None],  # how many there are
            lambda m, row_ids: (m & (keys.uniform(keys.bits(3, np.arange(m.size))).reshape(m.shape) < 0.5))[:, None],
            lambda m, row_ids: (m & (row_ids == row_ids[0])[:, None])[:, None],  # its neighbours
        ],
        ids=["place", "size", "stream", "neighbours"],
    )  # fmt: skip
    def test_catches_what_depends_on_the_batch(self, masks: Any) -> None:
        refused(lambda: self.check(plug_in(masks)), "'mine' gave one row different masks in different calls")

    def test_wrong_answers_are_told_as_such(self) -> None:
        refused(lambda: self.check(plug_in(lambda m, row_ids: m)), "returned bool[6, 11]")
