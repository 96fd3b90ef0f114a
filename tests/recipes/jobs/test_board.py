from fmlm_cli.events import Event, Scoreboard, Trained
from fmlm_cli.recipes.jobs.board import Outcome, Piece, WorkBoard

done: dict[str, Outcome] = {}


def piece(name: str, seed: int, kind: str, cost: float = 1.0, row: str = "arm") -> Piece:
    return Piece(name, f"{name} at work", row, seed, lambda: done.get(name), kind, cost)


def board(jobs: int = 1) -> tuple[WorkBoard, list[Scoreboard]]:
    done.clear()
    done["a"] = Outcome("1.5", "loss 1.5", 10.0)
    told: list[Scoreboard] = []

    def emit(event: Event) -> None:
        assert isinstance(event, Scoreboard)
        told.append(event)

    pieces = [piece("a", 3, "run"), piece("b", 4, "run", 2.0), piece("c", 3, "other", row="")]
    return WorkBoard("losses", pieces, emit, jobs), told


def test_it_fills_in() -> None:
    own, told = board()
    own.begin("b")
    own.hear(Trained({"step": 25, "loss": 2.0}, 100, 0.0))
    assert told[-1].latest == "b at work: step 25/100, loss 2.000" and told[-1].running
    assert (told[-1].columns, told[-1].rows) == (["seed 3", "seed 4"], {"arm": ["1.5", ""]})
    assert told[-1].seconds_left == 15.0  # a cost of 2, of which a quarter is done; nothing is known of c
    done["b"] = Outcome("1.25", "loss 1.25", 30.0)
    own.end("b")
    assert (told[-1].latest, told[-1].running) == ("b at work: loss 1.25", False)
    assert (told[-1].done, told[-1].total, told[-1].seconds_left) == (2, 3, None)
    assert told[-1].rows == {"arm": ["1.5", "1.25"]}


def test_it_tells_once_of_what_others_do() -> None:
    own, told = board(jobs=2)
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
