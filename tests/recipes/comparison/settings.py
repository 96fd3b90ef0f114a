"""Settings of small comparisons."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fmlm_cli.config import CompareSettings, build, nested
from tests.recipes.runs import TINY

Compare = Callable[..., CompareSettings]

SMALL = {
    "strategies": ["random", "fully-explored"],
    "seeds": 2,
    "budget": "12-steps",
    "run.data.max_rows": 24,
    "run.sequence_length": 32,
    "run.batch.size": 8,
    "run.masking.segments": 4,
    "run.evaluation.max_rows": 6,
    "variance.sequences": 10,
    "variance.distances": [0.0, 1.0],
}
# Then there is something to learn from the first step on.
LEARNING = {"run.optimizer.learning_rate": 0.01, "run.model.unigram_bias": False}


def compare_in(root: Path, store: Path | str, **fixed: Any) -> Compare:
    """`compare(out, **dotted names)`: settings of a comparison of tiny runs on a store, below `root`."""
    (root / "config.json").write_text(json.dumps(TINY))
    own = {"run.model.name": str(root / "config.json"), "run.data.stores": [str(store)]}

    def make(out: str, **changed: Any) -> CompareSettings:
        return build(CompareSettings, nested({**SMALL, **own, "out": str(root / out), **fixed, **changed}))

    return make
