"""What a step adds to a run's state, and what there is to be remarked of it."""

from collections.abc import Iterator
from dataclasses import replace

from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.engine.numerics.spikes import RECENT, spike
from fmlm_cli.engine.step import DivergedError, StepResult, StepTaken
from fmlm_cli.events import Remarked

MOST_SKIPPED = 25  # steps in a row
_LEAST = {"loss": 1.2, "grad_norm": 4.0}  # times the usual one: norms of gradients vary much more
_SHOWN = 100  # rows in a record


def take_up(state: TrainState, taken: StepTaken, result: StepResult, *, settled: bool) -> TrainState:
    """The state after a step. `settled`: whether it belongs to the course by which spikes are told.

    Raises `DivergedError` where too many steps in a row were skipped.
    """
    state = replace(
        state,
        step=taken.step,
        tokens=state.tokens + taken.tokens,
        loss_scale=result.scale,
        good_steps=result.good_steps,
    )
    if result.outcome == "overflowed":
        return state
    if result.outcome == "skipped":
        if state.skipped_in_a_row + 1 == MOST_SKIPPED:
            raise DivergedError(
                f"{MOST_SKIPPED} steps in a row were skipped, the last as {taken.describe(result)}. Lower "
                "optimizer.learning_rate"
            )
        return replace(state, skipped=state.skipped + 1, skipped_in_a_row=state.skipped_in_a_row + 1)
    if settled:
        state = replace(
            state,
            recent_losses=(*state.recent_losses, result.loss)[-RECENT:],
            recent_norms=(*state.recent_norms, result.grad_norm)[-RECENT:],
        )
    return replace(
        state,
        window_loss=state.window_loss + result.loss_sum,
        window_count=state.window_count + result.count,
        window_norm=state.window_norm + result.grad_norm,
        window_steps=state.window_steps + 1,
        skipped_in_a_row=0,
    )


def remarks(before: TrainState, taken: StepTaken, result: StepResult) -> Iterator[Remarked]:
    """What is to be told of a step, by the state before it: of skipped ones the first, tenth and so on."""
    if result.outcome == "skipped":
        number = before.skipped + 1
        if number in (10**power for power in range(10)):
            told = f"{taken.describe(result)}: skipped, the {_ordinal(number)} (optimizer.on_nonfinite)"
            fields = {"step": taken.step, "remark": "skipped", "skipped": number}
            yield Remarked({**fields, "rows": taken.all_rows[:_SHOWN]}, told)
    elif result.outcome == "taken":
        courses = {
            "loss": (before.recent_losses, result.loss),
            "grad_norm": (before.recent_norms, result.grad_norm),
        }
        for name, (recent, value) in courses.items():
            usual = spike(recent, value, _LEAST[name])
            if usual is not None:
                record = {"step": taken.step, "remark": f"{name} spike", "value": value, "usual": usual}
                what = "loss" if name == "loss" else "gradient norm"
                told = (
                    f"the {what} of step {taken.step} is {value:.3g}, where {usual:.3g} was usual, in rows "
                    f"{taken.rows_listed}"
                )
                yield Remarked({**record, "rows": taken.all_rows[:_SHOWN]}, told)


def _ordinal(number: int) -> str:
    return "first" if number == 1 else f"{number:,}th"
