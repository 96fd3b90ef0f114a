"""A rate that changes over training: what it is when, and that full exploration stays full."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmlm_cli.errors import UserError
from fmlm_cli.masking import RowView, get_strategy
from fmlm_cli.masking.schedule import RateSchedule, Timetable

quick = settings(derandomize=True, deadline=None, max_examples=40)
rates = st.floats(0.02, 0.5)
shapes = st.sampled_from(["linear", "cosine", "step"])


@st.composite
def schedules(draw: st.DrawFn) -> RateSchedule:
    return RateSchedule(draw(shapes), draw(rates), draw(rates), draw(st.integers(2, 6)))


class TestRate:
    @quick
    @given(schedules(), st.lists(st.floats(0, 1), min_size=2, max_size=20))
    def test_goes_from_one_end_to_the_other_without_turning_back(
        self, schedule: RateSchedule, progress: list[float]
    ) -> None:
        values = [schedule.at(p) for p in sorted(progress)]
        direction = 1 if schedule.final >= schedule.initial else -1
        assert (direction * np.diff(values) >= -1e-12).all()
        assert schedule.at(0) == pytest.approx(schedule.initial)
        assert schedule.at(1) == pytest.approx(schedule.final)
        assert schedule.at(-0.5) == schedule.at(0)
        assert schedule.at(1.5) == schedule.at(1)

    def test_shapes(self) -> None:
        at = {
            shape: RateSchedule(shape, 0.3, 0.1, 2).at for shape in ("linear", "cosine", "step", "constant")
        }  # type: ignore[arg-type]
        assert at["linear"](0.25) == pytest.approx(0.25)
        assert at["cosine"](0.5) == pytest.approx(0.2)
        assert at["cosine"](0.25) > at["linear"](0.25)
        assert [at["step"](p) for p in (0.0, 0.49, 0.51, 1.0)] == pytest.approx([0.3, 0.3, 0.1, 0.1])
        assert {at["constant"](p) for p in (0.0, 0.5, 1.0)} == {0.3}

    @given(st.integers(2, 6))
    @quick
    def test_plateaus_are_equally_long(self, plateaus: int) -> None:
        schedule = RateSchedule("step", 0.1, 0.4, plateaus)
        values = [round(schedule.at((i + 0.5) / 600), 9) for i in range(600)]
        lengths = [values.count(value) for value in sorted(set(values))]
        assert lengths == [600 // plateaus] * plateaus


def masks_of_pass(
    timetable: Timetable, maskable: np.ndarray, epoch: int, progress: float = 0.0
) -> np.ndarray:
    """The masks of all rows in one pass: bool[rows, masks, length]."""
    ids = np.arange(len(maskable))
    parts = list(timetable.at(progress, np.full(len(ids), epoch)))
    assert sorted(np.concatenate([chosen for chosen, _, _ in parts]).tolist()) == ids.tolist()
    ((chosen, strategy, epochs),) = parts
    return strategy.masks(RowView(maskable[chosen], None, ids[chosen]), epochs, 5)


class TestFullExploration:
    @quick
    @given(schedules(), st.integers(3, 60))
    def test_every_token_is_predicted_once_in_each_cycle(self, schedule: RateSchedule, passes: int) -> None:
        strategy = get_strategy("fully-explored", segments=round(1 / schedule.initial))
        final = 1 / max(2, round(1 / schedule.final))
        timetable = Timetable(strategy, RateSchedule(schedule.shape, strategy.rate, final), passes)
        maskable = np.ones((3, 37), np.bool_)
        begin, seen = 0, []
        while begin < passes:
            ((_, now, _),) = timetable.at(0.0, np.array([begin]))
            seen.append(now.cycle)
            masks = np.concatenate(
                [masks_of_pass(timetable, maskable, begin + turn) for turn in range(now.cycle)], axis=1
            )
            assert (masks.sum(axis=1) == 1).all()  # and so K is the same in all of the cycle's passes
            begin += now.cycle
        assert seen[0] == strategy.cycle
        direction = np.sign(round(1 / schedule.final) - seen[0])
        assert (direction * np.diff(seen) >= 0).all()

    def test_the_last_cycles_have_the_final_number_of_segments(self) -> None:
        timetable = Timetable(
            get_strategy("fully-explored", segments=7), RateSchedule("linear", 1 / 7, 1 / 2), 200
        )
        cycles = [strategy.cycle for strategy in timetable._cycles[1]]
        assert cycles[0] == 7
        assert cycles[-1] == 2
        assert set(cycles) == {2, 3, 4, 5, 6, 7}

    def test_rows_of_different_cycles_in_one_step(self) -> None:
        """A step at the end of a pass holds rows of two passes, which may have different K."""
        timetable = Timetable(
            get_strategy("fully-explored", segments=4), RateSchedule("step", 1 / 4, 1 / 2), 8
        )
        maskable, ids, epoch = np.ones((6, 20), np.bool_), np.arange(6), np.array([3, 4, 3, 4, 5, 3])
        groups = list(timetable.at(0.5, epoch))
        assert [strategy.cycle for _, strategy, _ in groups] == [4, 2]
        for chosen, strategy, epochs in groups:
            masks = strategy.masks(RowView(maskable[chosen], None, ids[chosen]), epochs, 5)
            for row, mask in zip(chosen.tolist(), masks, strict=True):
                alone = masks_of_pass(timetable, maskable, int(epoch[row]))
                assert (alone[row] == mask).all()

    def test_no_two_passes_of_a_row_share_what_their_corruption_depends_on(self) -> None:
        """The epochs that a strategy is asked for can repeat between cycles of different K: its masks do
        not."""
        timetable = Timetable(get_strategy("fully-explored"), RateSchedule("linear", 1 / 7, 1 / 2), 30)
        seen = []
        for epoch in range(30):
            ((_, strategy, asked),) = timetable.at(0.0, np.array([epoch]))
            cycle = int(asked[0]) // strategy.cycle
            seen.append((cycle, int(asked[0]) % strategy.cycle))
        assert len(set(seen)) == 30
        assert sorted({cycle for cycle, _ in seen}) == list(range(seen[-1][0] + 1))

    def test_does_not_go_with_scope_batch(self) -> None:
        strategy = get_strategy("fully-explored", segments=4, scope="batch")
        with pytest.raises(UserError, match=r"masking\.schedule does not go with scope batch"):
            Timetable(strategy, RateSchedule("linear", 1 / 4, 1 / 2), 3)

    def test_a_final_rate_that_is_no_one_over_k(self) -> None:
        with pytest.raises(UserError, match=r"masking\.schedule\.final_rate 0\.7 is impossible.*0\.5"):
            Timetable(get_strategy("fully-explored"), RateSchedule("linear", 1 / 7, 0.7), 3)

    def test_without_a_schedule_nothing_changes(self) -> None:
        strategy = get_strategy("fully-explored")
        epoch = np.array([0, 3, 9])
        ((chosen, same, epochs),) = Timetable(strategy, None, 20).at(0.7, epoch)
        assert same is strategy
        assert (epochs.tolist(), chosen.tolist()) == (epoch.tolist(), [0, 1, 2])

    def test_a_schedule_that_stays_is_no_schedule(self) -> None:
        strategy = get_strategy("fully-explored", segments=5)
        timetable = Timetable(strategy, RateSchedule("linear", 1 / 5, 1 / 5), 20)
        maskable = np.ones((4, 23), np.bool_)
        for epoch in range(12):
            plain = strategy.masks(RowView(maskable, None, np.arange(4)), epoch, 5)
            assert (masks_of_pass(timetable, maskable, epoch) == plain).all()


class TestRandomExploration:
    @pytest.mark.parametrize("options", [{}, {"count": "bernoulli"}, {"masks_per_sequence": 3}])
    def test_takes_the_rate_of_the_step(self, options: Any) -> None:
        strategy = get_strategy("random", rate=0.1, **options)
        timetable = Timetable(strategy, RateSchedule("linear", 0.1, 0.5), 1)
        maskable = np.ones((200, 50), np.bool_)
        for progress, rate in ((0.0, 0.1), (0.5, 0.3), (1.0, 0.5)):
            masks = masks_of_pass(timetable, maskable, 0, progress)
            assert masks.shape[1] == strategy.masks_per_sequence
            assert masks.mean() == pytest.approx(rate, abs=0.02)

    def test_settings_are_kept(self) -> None:
        strategy = get_strategy("span", rate=0.1, p=0.5, longest=3)
        ((_, later, _),) = Timetable(strategy, RateSchedule("linear", 0.1, 0.4), 1).at(
            1.0, np.zeros(2, np.int64)
        )
        assert later.settings.options == {"p": 0.5, "longest": 3}
        assert later.rate == 0.4


def test_the_last_strategy_is_the_one_in_force_at_the_end() -> None:
    schedule = RateSchedule("linear", 1 / 7, 0.5)
    assert Timetable(get_strategy("fully-explored"), None, 9).last == get_strategy("fully-explored")
    assert Timetable(get_strategy("random"), schedule, 0.1).last.rate == 0.5
    for passes, rate in ((3.0, 1 / 7), (200.0, 0.5)):
        timetable = Timetable(get_strategy("fully-explored"), schedule, passes)
        assert timetable.last.rate == rate
        ((_, last, _),) = timetable.at(1.0, np.array([int(passes) - 1]))
        assert last == timetable.last


def test_the_description_says_where_it_goes() -> None:
    timetable = Timetable(get_strategy("fully-explored"), RateSchedule("step", 1 / 7, 0.5, 3))
    assert "7 segments" in timetable.description
    assert "50.0% (in 3 steps)" in timetable.description


def test_a_final_rate_that_cannot_be() -> None:
    with pytest.raises(UserError, match=r"final_rate must lie between 0 and 1, not 1\.5"):
        Timetable(get_strategy("random"), RateSchedule("linear", 0.1, 1.5))
