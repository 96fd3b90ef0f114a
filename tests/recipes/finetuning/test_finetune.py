"""Fine-tuning: the same cells however they are run, and reports that say what the cells found."""

import importlib
import json
import os
import shutil
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from fmlm_cli.analysis.results.plain import as_json
from fmlm_cli.config import FinetuneSettings, build, nested
from fmlm_cli.engine.step import train_step
from fmlm_cli.errors import Interrupted, UserError
from fmlm_cli.events import Caution, Event, Facts, Note, Scoreboard, ignore
from fmlm_cli.recipes import finetuning
from fmlm_cli.recipes.finetuning.plan import plan_finetuning
from fmlm_cli.recipes.finetuning.summary import statistics

Tune = Callable[..., FinetuneSettings]
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "it",
    "was",
    "for",
    "on",
    "are",
    "as",
    "with",
    "his",
    "they",
    "at",
    "be",
    "this",
]


def sentences(number: int, seed: int) -> list[tuple[str, str]]:
    """Texts and a label that a bag of words can tell: whether "water" or "river" is in them."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        label = int(random.random() < 0.6)
        words = list(random.choice(WORDS, random.integers(3, 14)))
        words.insert(int(random.integers(len(words))), "water" if label else "river")
        found.append((" ".join(words), "wet" if label else "flowing"))
    return found


def write_jsonl(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows))
    return path


@pytest.fixture(scope="module")
def checkpoint(small_encoder: Path) -> Path:
    return small_encoder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "rivers"
    for name, number, seed in (("train", 150, 1), ("dev", 40, 2), ("test", 30, 3)):
        write_jsonl(folder / f"{name}.jsonl", sentences(number, seed))
    return folder


@pytest.fixture
def tune(checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tune:
    """`tune(out, **dotted names)`: settings for two seeds on the small set."""
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)

    def make(out: str = "tuned", **changed: Any) -> FinetuneSettings:
        own = {f"tasks.{name}": str(data / f"{name}.jsonl") for name in ("train", "dev", "test")}
        fixed = {
            "checkpoint": str(checkpoint),
            "out": str(tmp_path / out),
            "seeds": 2,
            "training.epochs": 3,
            "training.batch_size": 16,
            "training.learning_rate": 1e-2,
        }
        if "tasks.names" in changed:
            own = {}
        return build(FinetuneSettings, nested({**fixed, **own, **changed}))

    return make


def said(settings: FinetuneSettings, **how: Any) -> tuple[Any, str]:
    events: list[Event] = []
    report = finetuning.finetune(settings, emit=events.append, **how)
    texts = [e.text for e in events if isinstance(e, Note | Caution)]
    texts += [f"{e.title} {dict(e.rows)}" for e in events if isinstance(e, Facts)]
    return report, "\n".join(texts)


def timeless(report: Any) -> Any:
    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            timing = ("seconds", "train_seconds", "examples_per_second")
            of_place = ("out", "submission", "next_step")
            return {k: strip(v) for k, v in value.items() if k not in (*timing, *of_place)}
        return [strip(v) for v in value] if isinstance(value, list | tuple) else value

    return strip(as_json(report.results))


def test_the_report_says_what_scikit_learn_finds_in_the_predictions(tune: Tune, tmp_path: Path) -> None:
    report, _ = said(tune(**{"training.learning_rate": 3e-3, "training.epochs": 8}))
    task = report.results.tasks["rivers"]
    for split in ("dev", "test"):
        found: dict[str, list[float]] = {"accuracy": [], "macro_f1": [], "micro_f1": []}
        for seed in (0, 1):
            path = tmp_path / f"tuned/cells/rivers/default/seed-{seed}/predictions/{split}.jsonl"
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            y, p = [r["label"] for r in rows], [r["prediction"] for r in rows]
            assert p == [max(r["logits"], key=r["logits"].get) for r in rows]
            found["accuracy"].append(accuracy_score(y, p))
            found["macro_f1"].append(f1_score(y, p, average="macro"))
            found["micro_f1"].append(f1_score(y, p, average="micro"))
        for name, values in found.items():
            over_seeds = getattr(task, split)[split][name]
            assert over_seeds.values == pytest.approx(values)
            assert over_seeds.mean == pytest.approx(np.mean(values))
            assert over_seeds.sd == pytest.approx(np.std(values, ddof=1))
    assert task.median == pytest.approx(np.median(task.dev["dev"]["macro_f1"].values))
    assert task.median > 0.9  # it can be learnt
    assert task.baseline["accuracy"] < 0.75


def test_the_model_that_is_left_is_the_best_cell(tune: Tune, data: Path, tmp_path: Path) -> None:
    """Loaded as a stranger would, it predicts what that cell's predictions say, with label names."""
    report, _ = said(tune(**{"training.learning_rate": 1e-3}))
    folder = tmp_path / "tuned/models/rivers"
    best = max(report.results.cells, key=lambda cell: (cell.score, -cell.seed))
    kept = json.loads((folder / "finetuned.json").read_text())
    assert kept["cell"] == f"rivers/default/seed-{best.seed}"
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    path = tmp_path / "tuned/cells" / kept["cell"] / "predictions/dev.jsonl"
    wanted = [json.loads(line)["logits"] for line in path.read_text().splitlines()]
    texts = [json.loads(line)["text"] for line in (data / "dev.jsonl").read_text().splitlines()]
    for text, own in zip(texts, wanted, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
        named = {model.config.id2label[i]: value for i, value in enumerate(logits.tolist())}
        assert named == pytest.approx(own, abs=1e-4)


def stop_at(cell: int, step: int) -> Callable[[Event], None]:
    """An `emit` that fails in the middle of a cell."""

    def emit(event: Event) -> None:
        at_work = isinstance(event, Scoreboard) and event.running and event.done == cell
        if at_work and f"step {step}/" in event.latest:
            raise RuntimeError("the power went out")

    return emit


@pytest.mark.parametrize("kind", [{}, {"select": "last"}, {"patience": 1, "training.epochs": 5}])
def test_an_interrupted_grid_ends_as_if_it_never_was(
    tune: Tune, tmp_path: Path, kind: dict[str, Any]
) -> None:
    kind = {**kind, "checkpoint_every_steps": 3, "training.dropout": 0.2, "training.learning_rate": 2e-3}
    whole, _ = said(tune("whole", **kind))
    parts = tune("parts", **kind)
    with pytest.raises(RuntimeError):
        finetuning.finetune(parts, emit=stop_at(1, 14))
    first = tmp_path / "parts/cells/rivers/default/seed-0/result.json"
    stamp = first.stat().st_mtime_ns
    assert (tmp_path / "parts/cells/rivers/default/seed-1/checkpoints/step-12").is_dir()
    resumed, _ = said(parts, resume=True)
    assert first.stat().st_mtime_ns == stamp  # finished cells are skipped
    assert timeless(resumed) == timeless(whole)
    for seed in (0, 1):
        name = f"cells/rivers/default/seed-{seed}/predictions/dev.jsonl"
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()
        assert not (tmp_path / f"parts/cells/rivers/default/seed-{seed}/checkpoints").exists()
    weights = [(tmp_path / r / "models/rivers/model.safetensors").read_bytes() for r in ("whole", "parts")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("at", ["keep_predictions", "write_sealed"])
def test_a_stop_while_a_cell_is_measured_loses_no_training(
    tune: Tune, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its training was too short for a checkpoint, and while its model is being kept."""
    whole, _ = said(tune("whole"))
    place = "fmlm_cli.recipes.finetuning.cells" if at == "keep_predictions" else "fmlm_cli.storage"
    real, stopped = getattr(importlib.import_module(place), at), []

    def stop(path: Path, *arguments: Any) -> None:
        if not stopped and path.name != "cell.json":
            stopped.append(path)
            os.kill(os.getpid(), signal.SIGTERM)
        real(path, *arguments)

    monkeypatch.setattr(f"{place}.{at}", stop)
    with pytest.raises(Interrupted, match=r"after training, before all was measured; saved in .*step-30$"):
        finetuning.finetune(tune("parts"))
    seeds: set[int] = set()

    def noted(*arguments: Any, **named: Any) -> Any:
        seeds.add(named["seed"])
        return train_step(*arguments, **named)

    monkeypatch.setattr("fmlm_cli.engine.loop.train_step", noted)
    report, _ = said(tune("parts"), resume=True)
    assert seeds == {1}
    assert timeless(report) == timeless(whole)


def test_cells_spread_over_processes_make_the_same_report(tune: Tune, tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text("learning_rate: [1e-2, 1e-4]\nbatch_size: [16]\n")
    changed = {"grid": str(grid), "training.learning_rate": None, "training.epochs": 1}
    whole, _ = said(tune("whole", **changed))
    spread = tune("spread", **changed)
    for i in (2, 1, 3):
        report, text = said(spread, cell=f"{i}/3")
    assert report is not None and "cells are done" not in text
    assert timeless(report) == timeless(whole)
    points = whole.results.tasks["rivers"].points
    assert set(points) == {"learning_rate=0.01", "learning_rate=0.0001"}
    assert whole.results.tasks["rivers"].point == "learning_rate=0.01"
    assert r"| rivers | learning_rate=0.01 (chosen) | 2 |" in (tmp_path / "whole/results.md").read_text()


def test_a_report_comes_once_all_cells_are_done(tune: Tune) -> None:
    settings = tune(**{"training.epochs": 1})
    report, text = said(settings, cell="1/2")
    assert report is None
    assert "1 of 2 cells are done" in text
    report, _ = said(settings, report_only=True)
    assert report is None
    said(settings, cell="2/2")
    report, _ = said(settings, report_only=True)
    assert report.results.tasks["rivers"].n == 2


def test_more_seeds_are_added_to_those_that_are_there(tune: Tune, tmp_path: Path) -> None:
    said(tune(**{"training.epochs": 1}))
    stamp = (tmp_path / "tuned/cells/rivers/default/seed-0/result.json").stat().st_mtime_ns
    report, _ = said(tune(**{"training.epochs": 1, "seeds": 3}), resume=True)
    assert (tmp_path / "tuned/cells/rivers/default/seed-0/result.json").stat().st_mtime_ns == stamp
    assert report.results.tasks["rivers"].n == 3


def test_other_settings_or_data_in_the_same_folder(tune: Tune, tmp_path: Path, data: Path) -> None:
    said(tune(**{"training.epochs": 1}))
    with pytest.raises(UserError, match=r"was made with training.epochs 1, not 2: go back to that"):
        said(tune(**{"training.epochs": 2}), resume=True)
    other = tmp_path / "rivers"
    shutil.copytree(data, other)
    write_jsonl(other / "dev.jsonl", sentences(41, 9))
    changed = {
        "training.epochs": 1,
        **{f"tasks.{n}": str(other / f"{n}.jsonl") for n in ("train", "dev", "test")},
    }
    with pytest.raises(UserError, match="was made with other development data"):
        said(tune(**changed), resume=True)
    with pytest.raises(UserError, match="is not empty"):
        said(tune(**{"training.epochs": 1}))
    report, _ = said(tune(**changed), overwrite=True)
    assert report.results.tasks["rivers"].examples.dev == {"dev": 41}


def test_one_that_diverges_does_not_stop_the_others(tune: Tune, tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text("learning_rate: [1e-2, 1e30]\n")
    report, _ = said(tune(grid=str(grid), **{"training.learning_rate": None, "training.clip": None}))
    task = report.results.tasks["rivers"]
    assert task.points["learning_rate=1e+30"].diverged == 2
    assert task.point == "learning_rate=0.01"
    path = tmp_path / "tuned/cells/rivers/learning_rate=1e+30/seed-0/result.json"
    failed = json.loads(path.read_text())
    assert failed["score"] is None and "not finite at step" in failed["failed"]


def test_a_plan_leaves_no_trace(tune: Tune) -> None:
    plan = plan_finetuning(tune("unwritten"), ignore)
    plan.ledger.check_all()
    assert len(plan.cells) == 2
    assert not plan.root.exists()


def test_early_stopping_and_small_sets(tune: Tune) -> None:
    report, _ = said(tune(patience=1, **{"training.epochs": 30, "training.min_steps": 1}))
    cell = report.results.cells[0]
    scores = [record["score"] for record in cell.history]
    assert len(scores) < 30
    assert len(scores) - 1 - int(np.argmax(scores)) == 1
    report, _ = said(tune("long", **{"training.epochs": 1, "training.min_steps": 35, "seeds": 1}))
    assert report.results.cells[0].steps == 40  # 10 steps a pass


# ---------------------------------------------------------------- GLUE


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    """A small folder in GLUE's layout: CoLA, MRPC and STS-B, and MNLI with the diagnostic set."""
    root, random = tmp_path / "glue", np.random.default_rng(0)

    def write(name: str, lines: list[list[str]]) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join("\t".join(line) + "\n" for line in lines))

    def texts(number: int) -> list[str]:
        return [text for text, _ in sentences(number, int(random.integers(99)))]

    for split, number in (("train", 60), ("dev", 24)):
        write(f"CoLA/{split}.tsv", [["x", str(i % 2), "", t] for i, t in enumerate(texts(number))])
        pairs = list(zip(texts(number), texts(number), strict=True))
        head = ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]
        write(f"MRPC/{split}.tsv", [head, *([str(i % 2), "1", "2", *p] for i, p in enumerate(pairs))])
        head = ["index", "sentence1", "sentence2", "score"]
        write(f"STS-B/{split}.tsv", [head, *([str(i), *p, f"{i % 6}.0"] for i, p in enumerate(pairs))])
        nli = ["entailment", "neutral", "contradiction"]
        rows = [[str(i), *p, nli[i % 3]] for i, p in enumerate(pairs)]
        for name in ["train"] if split == "train" else ["dev_matched", "dev_mismatched"]:
            write(f"MNLI/{name}.tsv", [["index", "sentence1", "sentence2", "gold_label"], *rows])
    write("CoLA/test.tsv", [["index", "sentence"], *([str(i), t] for i, t in enumerate(texts(7)))])
    tests = [[str(i), *p] for i, p in enumerate(zip(texts(7), texts(7), strict=True))]
    for name in ("STS-B/test", "MNLI/test_matched", "MNLI/test_mismatched", "diagnostic/diagnostic"):
        write(f"{name}.tsv", [["index", "sentence1", "sentence2"], *tests])
    write(
        "MRPC/test.tsv",
        [["index", "#1 ID", "#2 ID", "#1 String", "#2 String"], *([t[0], "1", "2", *t[1:]] for t in tests)],
    )
    return root


def test_glue_is_submitted_in_its_form(tune: Tune, glue: Path, tmp_path: Path) -> None:
    given = {"tasks.names": ["all"], "tasks.folder": str(glue), "seeds": 1, "training.epochs": 1}
    report, text = said(tune(**given))
    assert "has no sst2, qqp, qnli, rte, wnli" in text
    assert report.results.glue_average is None
    with zipfile.ZipFile(tmp_path / "tuned/submission.zip") as archive:
        names = {"CoLA.tsv", "MRPC.tsv", "STS-B.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"}
        assert set(archive.namelist()) == names
        cola = archive.read("CoLA.tsv").decode().splitlines()
        assert cola[0] == "index\tprediction" and len(cola) == 8
        assert {line.split("\t")[1] for line in cola[1:]} <= {"0", "1"}
        assert {line.split("\t")[1] for line in archive.read("AX.tsv").decode().splitlines()[1:]} <= {
            "entailment",
            "neutral",
            "contradiction",
        }
    assert set(report.results.tasks["mnli"].dev) == {"matched", "mismatched"}
    path = tmp_path / "tuned/cells/cola/default/seed-0/predictions/dev.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    wanted = matthews_corrcoef([r["label"] for r in rows], [r["prediction"] for r in rows])
    assert report.results.tasks["cola"].mean == pytest.approx(wanted)
    assert set(report.results.tasks["stsb"].dev["dev"]) == {"pearson", "spearman", "score"}


def test_beginning_from_mnli_is_shown(tune: Tune, glue: Path, tmp_path: Path) -> None:
    given = {"tasks.folder": str(glue), "seeds": 1, "training.epochs": 1}
    with pytest.raises(UserError, match="from_mnli needs the MNLI model: give --task mnli too"):
        said(tune(**given, from_mnli=True, **{"tasks.names": ["mrpc"]}))
    plain, _ = said(tune("plain", **given, **{"tasks.names": ["mrpc", "mnli"]}))
    settings = tune(**given, from_mnli=True, **{"tasks.names": ["mrpc", "mnli"]})
    report, _ = said(settings)
    assert [cell.task for cell in report.results.cells] == ["mnli", "mrpc"]
    assert "| mrpc (from MNLI) | dev |" in (tmp_path / "tuned/results.md").read_text()
    cells = [
        json.loads((tmp_path / r / "cells/mrpc/default/seed-0/cell.json").read_text())
        for r in ("plain", "tuned")
    ]
    assert cells[0]["weights"] != cells[1]["weights"]
    assert plain.results.cells[1].history != report.results.cells[1].history


def test_a_damaged_model_is_left_out_of_the_submission_and_begun_from_by_none(
    tune: Tune, glue: Path, tmp_path: Path
) -> None:
    given = {"tasks.folder": str(glue), "seeds": 1, "training.epochs": 1}
    said(tune(**given, **{"tasks.names": ["mnli", "cola"]}))
    model, cell = tmp_path / "tuned/models/mnli", tmp_path / "tuned/cells/mnli/default/seed-0"
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\1\1\1")
    _, text = said(tune(**given, **{"tasks.names": ["mnli", "cola"]}), resume=True)
    assert f"{weights} has changed since it was written: remove {cell}, and --resume makes" in text
    with zipfile.ZipFile(tmp_path / "tuned/submission.zip") as archive:
        assert archive.namelist() == ["CoLA.tsv"]
    with pytest.raises(UserError, match=rf"from_mnli: .* has changed since .*: remove {cell}, and"):
        said(tune(**given, from_mnli=True, **{"tasks.names": ["mnli", "mrpc"]}), resume=True)


def test_ax_is_predicted_by_the_mnli_model(tune: Tune, glue: Path, tmp_path: Path) -> None:
    given = {"tasks.names": ["ax"], "tasks.folder": str(glue), "seeds": 1, "training.epochs": 1}
    report, _ = said(tune(**given))
    assert list(report.results.tasks) == ["mnli"]
    assert (tmp_path / "tuned/submission/AX.tsv").is_file()


# ---------------------------------------------------------------- what is refused


def test_neither_attention_nor_micro_batches_decide_a_result(tune: Tune, tmp_path: Path) -> None:
    """At dropout 0 they are rounding, and cells that are done stay done."""
    chosen = {"training.dropout": 0.0, "training.epsilon": 1e-3, "training.epochs": 1, "seeds": 1}

    def losses(out: str) -> list[float]:
        path = tmp_path / out / "cells/rivers/default/seed-0/metrics.jsonl"
        records = [json.loads(line) for line in path.read_text().splitlines()]
        return [record["loss"] for record in records if "loss" in record]

    report, text = said(tune(**chosen))
    assert "'attention': 'mask: " in text
    flat = {"speed.attention": "documents"}
    for name, others in {"flat": flat, "cut": {"micro_size": 3}, "both": {**flat, "micro_size": 3}}.items():
        _, text = said(tune(name, **chosen, **others))
        assert ("'attention': 'documents: " in text) == ("speed.attention" in others)
        assert losses(name) == pytest.approx(losses("tuned"), rel=1e-3)
    again, _ = said(tune(**chosen, **flat), resume=True)
    assert again.results.tasks == report.results.tasks


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"speed.attention": "varlen"}, "speed.attention varlen: it needs CUDA; use auto"),
        ({"tasks.names": ["colla"]}, "unknown task 'colla': did you mean 'cola'"),
        ({"tasks.names": ["cola"], "tasks.folder": "nowhere"}, "nowhere"),
        ({"grid": "papper"}, "unknown grid 'papper': did you mean 'paper'"),
        ({"grid": "none.yaml"}, "no such grid: none.yaml"),
        ({"max_length": 4000}, "max_length 4000 is beyond the 64 positions"),
        ({"training.reinit_layers": 2}, "reinit_layers 2: the model has 2 layers"),
        ({"tasks.metric": "pearson"}, "pearson"),
        ({"checkpoint": "nowhere/at/all"}, "nowhere/at/all"),
    ],
)
def test_refusals_leave_nothing(tune: Tune, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        finetuning.finetune(tune(**changed))
    assert not (tmp_path / "tuned").exists()


@pytest.mark.parametrize("text", ["1/0", "0/3", "4/3", "a/b", "2", "1/2/3"])
def test_shares_that_are_none(tune: Tune, text: str) -> None:
    with pytest.raises(UserError, match="write it as i/n"):
        finetuning.finetune(tune(), cell=text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("learning_rate: 1e-5", "has to be a list of values"),
        ("learning_rat: [1e-5]", "did you mean 'learning_rate'"),
        ("- a", "a grid is written as"),
        ("epochs: [3, 3]", "has epochs=3 twice"),
        ("learning_rate: [1e-3, 0.001]", "has learning_rate=0.001 twice"),
        ("epochs: [0]", "epochs"),
        ("a: [", "not valid YAML"),
    ],
)
def test_grids_that_are_none(tune: Tune, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "grid.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        finetuning.finetune(tune(grid=str(tmp_path / "grid.yaml")))


def test_a_checkpoint_without_a_tokenizer(tune: Tune, checkpoint: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(checkpoint / name, bare)
    with pytest.raises(UserError, match="holds no tokenizer"):
        finetuning.finetune(tune(checkpoint=str(bare)))


def test_statistics() -> None:
    of_four = statistics([0.5, 0.75, 0.25, 0.5])
    figures = (of_four.n, of_four.mean, of_four.median, of_four.least, of_four.best)
    assert figures == (4, 0.5, 0.5, 0.25, 0.75)
    assert of_four.sd == pytest.approx(np.std([0.5, 0.75, 0.25, 0.5], ddof=1))
    assert statistics([0.5]).sd is None
    assert statistics([]).mean is None
