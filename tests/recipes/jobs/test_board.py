from fmlm_cli.events import Caution, Event, Progress, Scoreboard, Trained
from fmlm_cli.recipes.jobs.board import Board, Outcome
from fmlm_cli.recipes.jobs.ledger import Job
from fmlm_cli.recipes.jobs.records import Kept
from tests.recipes.jobs.in_memory import Disk, job, ledger_of

A = job("a", seed=3, pace="run")
B = job("b", seed=4, pace="run", cost=2.0)
C = job("c", seed=3, pace="other", tabled=False)


class Done(Disk):
    """Where jobs are finished by whoever it is."""

    def __setitem__(self, name: str, outcome: Outcome) -> None:
        self.kept[name] = Kept({"name": name}, outcome)


def board(processes: int = 1) -> tuple[Board[Job, Outcome], list[Scoreboard], Done]:
    done = Done()
    done["a"] = Outcome("1.5", "loss 1.5", 10.0)
    told: list[Scoreboard] = []

    def emit(event: Event) -> None:
        assert isinstance(event, Scoreboard)
        told.append(event)

    ledger = ledger_of(done, [[A], [B, C]])
    return Board("losses", ledger, lambda _, found: found, emit, processes), told, done


def test_it_fills_in() -> None:
    own, told, done = board()
    own.begin(B)
    own.hear(Trained({"step": 25, "loss": 2.0}, 100, 0.0))
    assert told[-1].latest == "b at work: step 25/100, loss 2.000" and told[-1].running
    assert (told[-1].columns, told[-1].rows) == (["seed 3", "seed 4"], {"arm": ["1.5", ""]})
    assert told[-1].seconds_left == 15.0  # a cost of 2, of which a quarter is done; nothing is known of c
    done["b"] = Outcome("1.25", "loss 1.25", 30.0)
    own.end(B)
    assert (told[-1].latest, told[-1].running) == ("b at work: loss 1.25", False)
    assert (told[-1].done, told[-1].total, told[-1].seconds_left) == (2, 3, None)
    assert told[-1].rows == {"arm": ["1.5", "1.25"]}


def test_it_tells_once_of_what_others_do() -> None:
    own, told, done = board(processes=2)
    own.look()
    own.look()
    assert [event.latest for event in told] == [
        "processes at work, which tell of their steps in the folder logs"
    ]
    assert told[-1].seconds_left == 10.0
    done["b"] = Outcome("1.25", "loss 1.25", 30.0)
    own.look()
    own.look()
    assert [event.latest for event in told[1:]] == ["b at work: loss 1.25"]
    assert [left.name for left in own.unfinished] == ["c"]


def test_cautions_are_told_apart_by_their_codes() -> None:
    told: list[Event] = []
    own = Board("losses", ledger_of(Disk(), [[A], [B]]), lambda _, found: found, told.append, said=("known",))
    for at_work in (A, B):
        own.begin(at_work)
        own.hear(Caution("the same words", "known"))
        own.hear(Caution("the same words"))
        own.hear(Caution("other words", "new"))
    assert told == [Caution("arm: the same words"), Caution("arm: other words", "new")]


def test_what_is_measured_or_made_of_jobs_is_shown_too() -> None:
    own, told, _ = board()
    own.begin(C)
    own.hear(Progress("rows", 3, 4, "rows"))
    assert (told[-1].latest, own.share) == ("c at work: 3/4 rows", 0.75)
    own.hear(Scoreboard("inner", [], {}, "cell 2 of 5", True, 1, 5, None))
    assert (told[-1].latest, own.share) == ("c at work: cell 2 of 5", 0.75)
