"""How far a comparison has come: held-out losses as runs finish, and how long the rest will take."""

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from fmlm_cli.events import Caution, Emit, Event, Progress, Scoreboard, Trained
from fmlm_cli.recipes.compare_plan import Item, Plan

_KNOWN = "the budget makes"  # a run's caution about its passes: said of all arms when the comparison began


class Board:
    """Tells of the items of a plan. `jobs`: processes that share them."""

    def __init__(self, plan: Plan, emit: Emit, jobs: int = 1) -> None:
        self.plan, self.emit, self.jobs = plan, emit, jobs
        self.items = plan.items
        self.finished: set[str] = set()
        self.texts: dict[tuple[str, int], str] = {}
        self.seconds: dict[str, list[float]] = defaultdict(list)  # of finished items, by kind
        self.item: Item | None = None
        self.begun, self.share = time.monotonic(), 0.0
        self._cautions: set[str] = set()
        for item in self.items:
            self._take(item, plan.result(item))

    def _take(self, item: Item, result: Mapping[str, Any] | None) -> bool:
        """Note a finished item's result; whether it is new."""
        if result is None or item.name in self.finished:
            return False
        self.finished.add(item.name)
        self.seconds[self._kind(item)].append(float(result["seconds"]))
        if item.kind in ("race", "sweep"):
            self.texts[item.arm.name, item.seed] = _loss_text(result)
        return True

    def _kind(self, item: Item) -> str:
        return "race" if item.kind == "sweep" else f"{item.kind} {item.what * (item.kind == 'downstream')}"

    def begin(self, item: Item) -> None:
        """An item is at work."""
        self.item, self.begun, self.share = item, time.monotonic(), 0.0

    def hear(self, event: Event) -> None:
        """What the item at work says: how far it has come is shown, cautions are passed on once."""
        assert self.item is not None
        if isinstance(event, Caution):
            self._caution(event.text, self.item)
        elif isinstance(event, Trained):
            step = int(event.record["step"])
            self.share = step / event.total_steps
            self._tell(
                f"{_title(self.item)}: step {step:,}/{event.total_steps:,}, loss {event.record['loss']:.3f}",
                True,
            )
        elif isinstance(event, Progress):
            self.share = event.done / event.total
            self._tell(f"{_title(self.item)}: {event.done:,.0f}/{event.total:,.0f} {event.unit}", True)
        elif isinstance(event, Scoreboard):
            self._tell(f"{_title(self.item)}: {event.latest}", True)

    def _caution(self, text: str, item: Item) -> None:
        if text not in self._cautions and not text.startswith(_KNOWN):
            self._cautions.add(text)
            self.emit(Caution(f"{_label(item)}: {text}"))

    def end(self, item: Item, result: Mapping[str, Any]) -> None:
        """An item is finished."""
        self.item = None
        if self._take(item, result):
            self._tell(f"{_title(item)}: {_in_words(item, result)}", False)

    def look(self) -> None:
        """Tell of what other processes have finished since the last look."""
        for item in self.items:
            if item.name not in self.finished:
                result = self.plan.result(item)
                if result is not None:
                    self.end(item, result)

    def seconds_left(self) -> float | None:
        """By the mean of finished items of each kind; items of kinds of which none is finished are not counted."""
        known = {kind: sum(values) / len(values) for kind, values in self.seconds.items() if values}
        if self.item is not None and self.share and self._kind(self.item) not in known:
            known[self._kind(self.item)] = (time.monotonic() - self.begun) / self.share
        open_items = [item for item in self.items if item.name not in self.finished]
        times = [known.get(self._kind(item)) for item in open_items]
        if open_items and all(seconds is None for seconds in times):
            return None
        left = sum(seconds or 0.0 for seconds in times)
        if self.item is not None:
            left -= self.share * known.get(self._kind(self.item), 0.0)
        return max(left, 0.0) / self.jobs

    def _tell(self, latest: str, running: bool) -> None:
        seeds = self.plan.seeds
        arms = list(dict.fromkeys(i.arm.name for i in self.items if i.kind in ("race", "sweep")))
        labels = {item.arm.name: _label(item) for item in self.items}
        rows = {labels[arm]: [self.texts.get((arm, seed), "") for seed in seeds] for arm in arms}
        self.emit(
            Scoreboard(
                "held-out loss at the end",
                [f"seed {seed}" for seed in seeds],
                rows,
                latest,
                running,
                len(self.finished),
                len(self.items),
                self.seconds_left(),
            )
        )


def _label(item: Item) -> str:
    return f"sweep {item.arm.name}" if item.kind == "sweep" else item.arm.label


def _title(item: Item) -> str:
    if item.kind == "coverage":
        return f"coverage of {item.arm.label}"
    if item.kind == "variance":
        return f"gradient variance, {item.what}, {item.corruption}"
    task = f"{item.what} from " if item.kind == "downstream" else ""
    return f"{task}{_label(item)} seed {item.seed}"


def _loss_text(result: Mapping[str, Any]) -> str:
    return "diverged" if result["loss"] is None else f"{result['loss']:.4f}"


def _in_words(item: Item, result: Mapping[str, Any]) -> str:
    if item.kind == "coverage":
        return f"{result['never_masked']:.1%} of the tokens never masked in {result['epochs']} passes"
    if item.kind == "variance":
        return f"{result['sequences']} rows measured"
    if item.kind == "downstream":
        return "diverged" if result["score"] is None else f"score {result['score']:.1%}"
    return f"held-out loss {_loss_text(result)}"
