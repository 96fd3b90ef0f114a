"""What a dry run of fine-tuning says, against the cells themselves; and that it leaves nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from fmlm_cli.config import FinetuneSettings, build, nested
from fmlm_cli.corpus.rows.buckets import LengthBuckets
from fmlm_cli.corpus.rows.sequences import Sequences, encode
from fmlm_cli.corpus.tokenizer.loading import load_tokenizer
from fmlm_cli.errors import Interrupted
from fmlm_cli.events import Event, Facts, Note, Scoreboard
from fmlm_cli.objectives.classification import SequenceClassification
from fmlm_cli.recipes import finetuning
from fmlm_cli.recipes.finetuning.estimating import probing
from fmlm_cli.recipes.finetuning.estimating.run import estimate_finetuning
from fmlm_cli.recipes.finetuning.estimating.samples import SampledSplit, shape_of
from fmlm_cli.tasks import Examples
from tests.recipes.finetuning.test_finetune import sentences, write_jsonl

Tune = Callable[..., FinetuneSettings]


@pytest.fixture
def tune(small_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tune:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    monkeypatch.setattr(
        "fmlm_cli.recipes.finetuning.report.draw_scores", lambda scores, folder: folder / "x.png"
    )
    rows = {"train": 90, "dev": 40, "test": 30}
    files = {
        name: write_jsonl(tmp_path / "rivers" / f"{name}.jsonl", sentences(n, 1)) for name, n in rows.items()
    }

    def make(**changed: Any) -> FinetuneSettings:
        fixed = {
            "checkpoint": str(small_encoder),
            "out": str(tmp_path / "tuned"),
            "seeds": 2,
            "training.epochs": 2,
            "training.batch_size": 16,
            **{f"tasks.{name}": str(path) for name, path in files.items()},
        }
        return build(FinetuneSettings, nested({**fixed, **changed}))

    return make


def rows_of(told: list[Event]) -> dict[str, str]:
    [rows] = [event.rows for event in told if isinstance(event, Facts) and "would take" in event.title]
    return dict(rows)


def test_what_is_estimated_is_what_is_trained(tune: Tune, tmp_path: Path) -> None:
    told: list[Event] = []
    settings = tune()
    estimate = estimate_finetuning(settings, price_per_hour=7.2, emit=told.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rivers"]
    assert list(estimate.parts) == ["start", "training", "evaluation", "saving"]
    assert all(took > 0 for took in estimate.parts.values())
    assert estimate.price == pytest.approx(estimate.seconds / 500)
    finetuning.finetune(settings)
    root = Path(settings.out or "")
    cells = [json.loads(path.read_text()) for path in root.glob("cells/**/result.json")]
    assert estimate.steps == sum(cell["steps"] for cell in cells) == 2 * 2 * 6
    logs = [path.read_text().splitlines() for path in root.glob("cells/**/metrics.jsonl")]
    tokens = [max(json.loads(line).get("tokens", 0) for line in lines) for lines in logs]
    assert estimate.tokens == sum(tokens)
    written = sum(path.stat().st_size for path in (root / "models").rglob("*.safetensors"))
    assert written <= estimate.disk <= 4 * written
    assert rows_of(told)["cells"].startswith("2 cells, ")
    assert "nothing was written" in [event.text for event in told if isinstance(event, Note)][-1]


def test_what_is_done_is_not_counted(tune: Tune) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Scoreboard) and event.done == 1:
            raise Interrupted("", 1)

    settings = tune()
    with pytest.raises(Interrupted):
        finetuning.finetune(settings, emit=stop)
    told: list[Event] = []
    half = estimate_finetuning(settings, resume=True, emit=told.append)
    assert half.steps == 12 and any(
        event.text == "1 of 2 cells are done" for event in told if isinstance(event, Note)
    )
    finetuning.finetune(settings, resume=True)
    none = estimate_finetuning(settings, resume=True, emit=told.append)
    assert none.steps == 0 and none.parts["training"] == 0


def test_several_checkpoints_and_batch_sizes_are_all_counted(
    tune: Tune, small_encoder: Path, tmp_path: Path
) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text("batch_size: [8, 32]\nepochs: [1, 3]\n")
    both = [f"a={small_encoder}", f"b={small_encoder}"]
    estimate = estimate_finetuning(tune(checkpoint=both, grid=str(grid), **{"training.epochs": None}))
    assert estimate.steps == 2 * 2 * (1 + 3) * (12 + 3)


@pytest.fixture(scope="module")
def objective() -> SequenceClassification:
    return SequenceClassification(regression=False, pad=0)


def test_a_sample_has_the_batches_of_the_whole(
    wordpiece_folder: Path, objective: SequenceClassification
) -> None:
    """Tokens, positions with their padding, and micro-batches of a pass, by a tenth of its texts."""
    tokenizer, texts = load_tokenizer(str(wordpiece_folder)), [text for text, _ in sentences(6000, 3)]
    random = np.random.default_rng(0)
    texts = [
        " ".join([text] * int(times)) for text, times in zip(texts, random.integers(1, 4, 6000), strict=True)
    ]
    examples = Examples(texts, None, None, list(map(str, range(6000))), "made")
    sample = SampledSplit.of(examples, tokenizer, 64, batch_size=8)
    assert len(sample.sequences) == 512 and sample.examples == 6000
    whole = SampledSplit(encode(tokenizer, texts, None, 64), 6000)
    assert sample.tokens == pytest.approx(whole.tokens, rel=0.01)
    means = [
        np.array([shape_of(step()) for step in split.steps(objective, 8, None)]).mean(axis=0)
        for split in (sample, whole)
    ]
    assert means[0] == pytest.approx(means[1], rel=0.02)


@given(st.lists(st.floats(1e-4, 1.0), min_size=4, max_size=4), st.integers(0, 99))
def test_costs_are_found_again(costs: list[float], seed: int) -> None:
    random = np.random.default_rng(seed)
    positions = random.integers(64, 4096, 12)
    shapes = np.stack(
        [np.ones(12), random.integers(1, 5, 12), positions, positions * random.integers(8, 128, 12)], axis=1
    ).astype(float)
    truth = np.array(costs) / np.array([1, 1, 1e3, 1e5])
    found = probing._fitted(shapes, shapes @ truth)
    assert (found >= 0).all()
    assert shapes @ found == pytest.approx(shapes @ truth, rel=1e-6)


def test_steps_that_a_gpu_is_given_together_are_looked_at_together() -> None:
    shapes, seconds = np.arange(40.0).reshape(10, 4), 2.0 ** np.arange(10)
    for first, together, begins in ((2, 1, range(2, 10)), (2, 4, [4]), (0, 4, [0, 4]), (1, 3, [3, 6])):
        grouped = probing._in_groups(shapes, seconds, first, together)
        assert grouped[1].tolist() == [seconds[begin : begin + together].sum() for begin in begins]
        assert grouped[0].tolist() == [
            shapes[begin : begin + together].sum(axis=0).tolist() for begin in begins
        ]
    few = probing._in_groups(shapes[:3], seconds[:3], 1, 4)
    assert few[1].tolist() == [6.0] and few[0].tolist() == [shapes[1:3].sum(axis=0).tolist()]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_steps_of_all_sizes_are_timed(lengths: list[int]) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    sequences = Sequences(np.zeros(offsets[-1], np.int32), None, offsets, 0)
    objective = SequenceClassification(regression=False, pad=0)
    buckets = LengthBuckets(sequences.lengths, 4, seed=0)
    steps = [objective.prepare(sequences, buckets.at(number), None, 4) for number in range(buckets.batches)]
    chosen = probing._spread([lambda step=step: step for step in steps])  # type: ignore[misc]
    ordered = probing._far_apart(chosen)
    sizes = [shape_of(step)[2] for step in chosen]
    assert sizes == sorted(sizes) and sizes[-1] == max(shape_of(step)[2] for step in steps)
    assert len(chosen) == min(len(steps), probing.SIZES)
    assert sorted(shape_of(step)[2] for step in ordered) == sizes and shape_of(ordered[0])[2] == sizes[-1]
    if len(sizes) > 1:
        assert shape_of(ordered[1])[2] == sizes[0]


def test_it_is_a_flag(tune: Tune, tmp_path: Path) -> None:
    tasks = tune().tasks
    words = ["finetune", "--from", *tune().checkpoint, "--train", tasks.train, "--dev", tasks.dev]
    words += ["--epochs", "1", "--out", str(tmp_path / "dry"), "--dry-run", "--price-per-hour", "3"]
    result = CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for part in ("5 cells", "tokens/s", "in all", "at most", "cost", "nothing was written"):
        assert part in result.stdout, part
    assert not (tmp_path / "dry").exists()
