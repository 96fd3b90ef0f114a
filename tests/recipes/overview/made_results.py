"""Folders as comparisons and fine-tunings leave them, without a model."""

import json
from pathlib import Path
from typing import Any

from fmlm_cli.analysis.results.finetuning import (
    CellResult,
    CheckpointScores,
    ExampleCounts,
    PointScores,
    TaskScores,
)
from fmlm_cli.analysis.results.plain import as_json
from fmlm_cli.recipes.finetuning.summary import statistics
from tests.recipes.overview.made_runs import make_run

TRAINING = {"learning_rate": 2e-5}


def write_results(root: Path, kind: str, results: Any) -> Path:
    make_run(root, None, finished=False, kind=kind)
    (root / "results.json").write_text(json.dumps(as_json(results)))
    return root


def made_tuning(name: str, scores: list[float | None]) -> CheckpointScores:
    """One task, and a cell for each score that got better from epoch to epoch; None for one that diverged."""
    finite = [score for score in scores if score is not None]
    spread = statistics(finite)
    point = PointScores(
        **vars(spread), scores=dict(enumerate(scores)), diverged=len(scores) - len(finite), training=TRAINING
    )
    cells = tuple(
        CellResult(
            task="rivers",
            point="usual",
            seed=seed,
            score=score,
            epoch=2,
            epochs=2,
            steps=20,
            dev={},
            test={},
            train_seconds=1.0,
            examples_per_second=1.0,
            padding=0.0,
            training=TRAINING,
            identity="",
            failed=None if score else "nan",
            history=[{"epoch": n, "score": score - 0.1 * (2 - n)} for n in (1, 2)] if score else [],
        )
        for seed, score in enumerate(scores)
    )
    task = TaskScores(
        **{k: v for k, v in vars(spread).items() if k != "values"},
        point="usual",
        training=TRAINING,
        begun_from_mnli=False,
        measures=("macro_f1",),
        diverged=point.diverged,
        dev={},
        test={},
        baseline=None,
        not_above_baseline=0,
        examples=ExampleCounts(10, {"dev": 5}),
        examples_per_second=1.0,
        padding=0.0,
        cut={},
        points={"usual": point},
    )
    return CheckpointScores(name, f"path/{name}", None, "bert", {"rivers": task}, None, None, cells)
