"""Folders as runs leave them, without a model."""

import json
import math
from pathlib import Path
from typing import Any

from fmlm_cli.config import PretrainSettings, build, nested, to_yaml


def records(steps: int, *, level: float = 3.0, every: int = 10) -> list[dict[str, Any]]:
    """Of a loss that falls to `level`, evaluated every so many steps."""
    made: list[dict[str, Any]] = []
    for step in range(steps + 1):
        loss = level + 5 * math.exp(-step / 20)
        if step:
            rate = {"learning_rate": 1e-3, "tokens": step * 1000, "seconds": step * 36.0}
            made.append({"step": step, "loss": loss, "grad_norm": 1.0, **rate})
        if step % every == 0:
            held_out = {"eval_loss": loss + 0.125, "eval_accuracy": 0.5, "unigram_loss": 6.0}
            made.append({"step": step, "evaluation": "domain", **held_out})
    return made


def make_run(
    root: Path,
    written: list[dict[str, Any]] | None,
    *,
    finished: bool = True,
    kind: str = "run",
    **settings: Any,
) -> Path:
    root.mkdir(parents=True)
    (root / ".fmlm.json").write_text(json.dumps({"kind": kind, "version": 1, "made_by": "fmlm"}))
    (root / "config.yaml").write_text(
        to_yaml(build(PretrainSettings, nested({"out": str(root), **settings})))
    )
    if written is not None:
        (root / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in written))
    if finished:
        (root / "final").mkdir()
    return root
