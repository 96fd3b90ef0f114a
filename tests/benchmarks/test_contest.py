"""The order of runs, and the budget, by a clock that only runs when something is run."""

from dataclasses import dataclass, field, replace

from tests.benchmarks.contest import LEAST, Budget, Contestant, Measured, NotRunError, Pace, Stock, race
from tests.benchmarks.made import line, measured


@dataclass
class World:
    """What runs takes `seconds`, is stopped when its time is up, and is written down."""

    seconds: float
    now: float = 100.0
    ran: list[Contestant] = field(default_factory=list)
    failing: tuple[Contestant, ...] = ()

    def budget(self, seconds: float | None) -> Budget:
        return Budget(seconds, clock=lambda: self.now)

    def measure(self, contestant: Contestant, limit: float) -> Measured:
        self.ran.append(contestant)
        self.now += min(self.seconds, limit)
        if contestant in self.failing:
            raise NotRunError("failed: of its own fault")
        if limit < self.seconds:
            raise NotRunError("no time left")
        return measured(1000.0, process=self.seconds)


A, B = line("a"), line("b", "bert-mini")
# Of the same stock runs as A.
A_DROPOUT = replace(A, name="a-dropout", ours=replace(A.ours, settings=("model.dropout=0.1",)))


def test_both_sides_take_turns_and_every_line_runs_before_any_runs_again() -> None:
    world = World(20.0)
    race([A, B], 2, world.measure, world.budget(None))
    assert world.ran == 2 * [A.ours, A.theirs, B.ours, B.theirs]


def test_who_stands_in_two_lines_runs_once_a_round() -> None:
    world = World(20.0)
    outcome = race([A, A_DROPOUT], 2, world.measure, world.budget(None))
    assert world.ran == 2 * [A.ours, A.theirs, A_DROPOUT.ours]
    assert [len(outcome.rounds(each)) for each in (A, A_DROPOUT)] == [2, 2]


def test_the_budget_is_kept_and_what_did_not_fit_is_named() -> None:
    lines = [line(name, name) for name in "abcdef"]
    for budget in (30.0, 75.0, 100.0, 165.0, 400.0):
        world = World(20.0)
        outcome = race(lines, 3, world.measure, world.budget(budget))
        assert world.now <= 100.0 + budget
        done = {each.name for each in lines if outcome.rounds(each)}
        assert done == {each.name for each in lines[: int(budget // 40)]}, "the most important ones, whole"
        assert set(outcome.not_run) == {each.name for each in lines} - done


def test_nothing_is_begun_that_took_longer_than_what_is_left() -> None:
    world = World(40.0)
    outcome = race([A], 9, world.measure, world.budget(3 * 40 + LEAST + 1))
    assert world.ran == [A.ours, A.theirs, A.ours]
    assert len(outcome.rounds(A)) == 1
    assert not outcome.not_run


def test_what_fails_is_not_tried_again_and_the_others_go_on() -> None:
    world = World(20.0, failing=(A.theirs,))
    outcome = race([A, A_DROPOUT, B], 2, world.measure, world.budget(None))
    reason = "failed: of its own fault"
    assert outcome.not_run == {"a": reason, "a-dropout": reason}
    assert len(outcome.rounds(B)) == 2
    assert world.ran.count(A.theirs) == 1


def test_marks_of_a_pace_end_with_its_last_step() -> None:
    pace = Pace(warm_up=4, windows=3, steps=5)
    assert list(pace.marks) == [4, 9, 14, 19] and pace.total == 19


def test_contestants_are_told_apart_by_all_that_they_are() -> None:
    compiled = Stock(A.theirs.workload, A.theirs.pace, compiled=True)
    assert len({A.ours, A.theirs, A_DROPOUT.ours, A_DROPOUT.theirs, compiled}) == 4


def test_a_line_has_the_rounds_that_both_sides_finished() -> None:
    world = World(20.0)
    outcome = race([A], 2, world.measure, world.budget(70.0))
    assert len(outcome.runs[A.ours]) == 2
    assert len(outcome.rounds(A)) == 1
