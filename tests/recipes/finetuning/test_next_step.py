"""Whatever fine-tuning found, its tables say one thing to do next, with a command that is taken."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fmlm_cli.analysis.paired import Contest, compare_on_tasks
from fmlm_cli.analysis.report.checkpoints import verdicts
from fmlm_cli.config import LEAST_STEPS, FinetuneSettings, build, to_yaml
from fmlm_cli.recipes.finetuning.plan import FinetunePlan
from fmlm_cli.recipes.finetuning.tables import Findings, latex, markdown, next_of, notes_of
from tests.command_lines import read_back
from tests.recipes.overview.made_results import made_tuning

ROOT = Path("it's tuned")
NAMES = ("original", "adapted", "other")


def found(
    scores: list[list[float | None]], *, grid: str = "none", unlearnt: int = 0, steps: int = 600
) -> Findings:
    """Of one checkpoint, or of several against the first, with these scores by seed."""
    names = NAMES[: len(scores)] if len(scores) > 1 else ("",)
    given = {"checkpoint": list(names), "out": str(ROOT), "seeds": len(scores[0]), "grid": grid}
    data: Any = {"rivers": SimpleNamespace(task=SimpleNamespace(pair=False))}
    candidates: Any = dict.fromkeys(names)
    plan = FinetunePlan(build(FinetuneSettings, given), ROOT, candidates, data, (), None)  # type: ignore[arg-type]
    made = []
    for name, own in zip(names, scores, strict=True):
        tuned = made_tuning(name, own)
        task = replace(tuned.tasks["rivers"], not_above_baseline=min(unlearnt, tuned.tasks["rivers"].n))
        cells = tuple(replace(cell, steps=steps) for cell in tuned.cells)
        made.append(replace(tuned, tasks={"rivers": task}, cells=cells))
    by_arm = {name: dict(enumerate(own)) for name, own in zip(names, scores, strict=True)}
    compared = (
        compare_on_tasks(Contest(names[0], frozenset()), {"rivers": by_arm}, {"rivers": ("macro-f1", "dev")})
        if plan.compares
        else {}
    )
    return Findings(plan, made, compared, verdicts(compared, names[0]) if compared else ())


@pytest.fixture(scope="module", autouse=True)
def _config(tmp_path_factory: pytest.TempPathFactory) -> None:
    own = {"checkpoint": ["original", "adapted"], "out": "x", "tasks": {"names": ["rte"]}}
    for grid in ("none", "paper"):
        CONFIGS[grid] = tmp_path_factory.mktemp(grid) / "config.yaml"
        CONFIGS[grid].write_text(to_yaml(build(FinetuneSettings, own | {"grid": grid})))


CONFIGS: dict[str, Path] = {}
SCORES = st.floats(0.25, 1).map(lambda score: round(score, 3)) | st.none()
TABLES = st.tuples(st.integers(1, 3), st.integers(1, 6)).flatmap(
    lambda sizes: st.lists(
        st.lists(SCORES, min_size=sizes[1], max_size=sizes[1]), min_size=sizes[0], max_size=sizes[0]
    )
)


@settings(max_examples=25)
@given(TABLES, st.sampled_from(["none", "paper"]), st.integers(0, 6), st.sampled_from([13, 600]))
@example([[None, None]], "paper", 0, 13)
@example([[0.5, 0.5], [0.5, 0.5]], "none", 0, 600)
@example([[0.5] * 6, [0.5] * 6], "none", 0, 600)
def test_there_is_one_next_step_and_its_command_is_taken(
    scores: list[list[float | None]], grid: str, unlearnt: int, steps: int
) -> None:
    findings = found(scores, grid=grid, unlearnt=unlearnt, steps=steps)
    step = next_of(findings)
    text = markdown(findings, notes_of(findings))
    assert not re.search(
        r"\b(nan|inf|None)\b", text.partition("## All settings")[0] + latex(findings) + step.text
    )
    assert text.count("```sh") == 1 and step.command in text.partition("| ")[0]
    command, got, options = read_back(step.command, CONFIGS[grid])
    if command == "predict":
        assert Path(got.checkpoint).is_relative_to(ROOT / "models") and step.text.split()[0] in (
            "use",
            "keep",
            "take",
        )
        return
    assert command == "finetune" and "config.yaml" in step.command
    if "seeds" in step.text.partition(":")[0] or "visible" in step.text:
        assert options["resume"] and got.seeds > len(scores[0])
    else:
        assert not options["resume"] and got.out.startswith(f"{ROOT}-")
    if step.text.startswith("lower the learning rate"):
        assert got.training.learning_rate < 2e-5 and got.grid == "none"
    if step.text.startswith("train for longer"):
        assert got.training.min_steps > min(steps, LEAST_STEPS - 1)


def test_one_checkpoint_that_learnt_is_used() -> None:
    step = next_of(found([[0.7, 0.71, 0.72]]))
    assert step.text == "use it"
    assert shlex.split(step.command) == ["fmlm", "predict", "--from", str(ROOT / "models/rivers"), "a text"]


@pytest.mark.parametrize(("steps", "grid", "begins"), [
    (13, "none", "train for longer: hardly anything was learnt of rivers in 13 steps"),
    (600, "none", "try other learning rates: hardly anything"),
    (600, "paper", "train for longer: hardly anything"),
])  # fmt: skip
def test_what_learnt_nothing_is_trained_for_longer_or_otherwise(steps: int, grid: str, begins: str) -> None:
    step = next_of(found([[0.7, 0.71, 0.72]], unlearnt=2, steps=steps, grid=grid))
    assert step.text.startswith(begins)
