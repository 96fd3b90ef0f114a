"""Several checkpoints in one call: each as if it were alone, and all of them paired by seed."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from transformers import BertForMaskedLM

from fmlm_cli.analysis.results.plain import as_json
from fmlm_cli.analysis.statistics import holm
from fmlm_cli.config import FinetuneSettings, build, nested
from fmlm_cli.errors import UserError
from fmlm_cli.events import Event, Facts, Grid, NextStep, Note
from fmlm_cli.model.build import weights_hash
from fmlm_cli.model.classifier import EncoderCheckpoint
from fmlm_cli.recipes import finetuning
from fmlm_cli.recipes.finetuning.candidates import Given, name_checkpoints
from fmlm_cli.recipes.shared.checkpoints import finetuned_models
from tests.command_lines import read_back
from tests.recipes.finetuning.test_finetune import sentences

SEEDS = 3


@pytest.fixture(scope="module")
def checkpoints(small_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs' models, the second one of another random start."""
    root = tmp_path_factory.mktemp("runs")
    folders = [root / name / "final" for name in ("original", "adapted")]
    for folder in folders:
        shutil.copytree(small_encoder, folder)
    model = BertForMaskedLM.from_pretrained(folders[1])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.normal_(0, 0.05)
    model.save_pretrained(folders[1])
    return folders


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores to be predicted: their correlations differ by seed, however little was learnt."""
    folder = tmp_path_factory.mktemp("data") / "rivers"
    folder.mkdir()
    for name, number, seed in (("train", 48, 1), ("dev", 30, 2), ("test", 40, 3)):
        noise = np.random.default_rng(seed).normal(size=number).tolist()
        rows = [
            {"text": text, "label": ("water" in text) + 0.3 * more}
            for (text, _), more in zip(sentences(number, seed), noise, strict=True)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)


def settings_for(data: Path, out: Path, *checkpoints: Any, **changed: Any) -> FinetuneSettings:
    fixed = {
        "checkpoint": list(map(str, checkpoints)),
        "out": str(out),
        "seeds": SEEDS,
        "training.epochs": 3,
        "training.batch_size": 16,
        "training.learning_rate": 1e-2,
        **{f"tasks.{name}": str(data / f"{name}.jsonl") for name in ("train", "dev", "test")},
    }
    return build(FinetuneSettings, nested({**fixed, **changed}))


def tuned(settings: FinetuneSettings, **how: Any) -> tuple[Any, list[Event]]:
    events: list[Event] = []
    report = finetuning.finetune(settings, emit=events.append, **how)
    return None if report is None else report.results, events


@pytest.fixture(scope="module")
def compared(
    checkpoints: list[Path], data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any, list[Event]]:
    """What comes of both. Not to be written to."""
    out = tmp_path_factory.mktemp("out") / "tuned"
    return out, *tuned(settings_for(data, out, *checkpoints))


def timeless(cells: Any) -> list[dict[str, Any]]:
    timing = ("seconds", "train_seconds", "examples_per_second")
    return [{k: v for k, v in as_json(cell).items() if k not in timing} for cell in cells]


def test_each_is_fine_tuned_as_if_it_were_alone(
    compared: tuple[Path, Any, list[Event]], checkpoints: list[Path], data: Path, tmp_path: Path
) -> None:
    out, results, _ = compared
    assert [own.name for own in results.checkpoints] == [
        "original",
        "adapted",
    ] and results.baseline == "original"
    for own, folder in zip(results.checkpoints, checkpoints, strict=True):
        alone, _ = tuned(settings_for(data, tmp_path / own.name, folder))
        assert timeless(own.cells) == timeless(alone.cells)
        kept = [
            root / "rivers/model.safetensors"
            for root in (out / f"models/{own.name}", tmp_path / own.name / "models")
        ]
        assert kept[0].read_bytes() == kept[1].read_bytes()


def test_the_table_says_what_scipy_finds_in_the_predictions(compared: tuple[Path, Any, list[Event]]) -> None:
    out, results, events = compared
    scores = {}
    for name in ("original", "adapted"):
        scores[name] = []
        for seed in range(SEEDS):
            lines = (out / f"cells/{name}/rivers/default/seed-{seed}/predictions/test.jsonl").read_text()
            rows = [json.loads(line) for line in lines.splitlines()]
            pairs = [r["label"] for r in rows], [r["prediction"] for r in rows]
            found = stats.pearsonr(*pairs).statistic, stats.spearmanr(*pairs).statistic
            scores[name].append(float(np.mean(found)))
    test = stats.ttest_rel(scores["adapted"], scores["original"])
    low, high = test.confidence_interval(0.95)
    task = results.compared["rivers"]
    pair = task.arms["adapted"].paired
    assert (task.split, task.measure) == ("test", "pearson and spearman")
    assert list(task.arms["adapted"].values.values()) == pytest.approx(scores["adapted"])
    values = (pair.mean, pair.low, pair.high, pair.p_value, pair.p_adjusted)
    wanted = (np.mean(scores["adapted"]) - np.mean(scores["original"]), low, high, test.pvalue, test.pvalue)
    assert values == pytest.approx(wanted)
    (sentence,) = results.sentences
    assert sentence.startswith("adapted minus original: ") and f"{SEEDS} seeds" in sentence
    *_, said, step = events  # it ends in that, and in what to do about it
    assert isinstance(said, Note) and said.text == sentence and isinstance(step, NextStep)
    command, settings, options = read_back(step.command)
    better = results.compared["rivers"].arms["adapted"].paired.better
    if command == "predict":
        assert settings.checkpoint == str(out / "models" / better / "rivers")
        assert (Path(settings.checkpoint) / "config.json").is_file()
    else:
        assert better is None and options["resume"] and settings.seeds > SEEDS and settings.out == str(out)
    (grid,) = [event for event in events if isinstance(event, Grid)]
    assert [row[:2] for row in grid.rows] == [("rivers (test)", "original"), ("rivers (test)", "adapted")]
    head = (out / "results.md").read_text().partition("## ")[0]
    assert (
        "**adapted minus original: " in head
        and "Next: " in head
        and "```sh\nfmlm " in head
        and "| rivers (test) | adapted |" in head
    )
    assert json.loads((out / "results.json").read_text())["sentences"] == [sentence]


def test_the_same_checkpoint_is_no_better_than_itself(
    checkpoints: list[Path], data: Path, tmp_path: Path
) -> None:
    """Seeds are paired: head, order and dropout of a seed are the same for all."""
    twice = (f"a={checkpoints[0]}", f"b={checkpoints[0]}")
    results, _ = tuned(settings_for(data, tmp_path / "x", *twice, **{"training.dropout": 0.2, "seeds": 2}))
    assert timeless(results.checkpoints[0].cells) == timeless(results.checkpoints[1].cells)
    assert results.sentences[0].startswith(
        "b minus a: +0.0, not tested: the baseline's own result with every seed"
    )
    one, _ = tuned(settings_for(data, tmp_path / "y", *twice, seeds=1))
    assert "not tested: one seed has no spread to test by" in one.sentences[0]
    assert "--resume --seeds 5" in (tmp_path / "y/results.md").read_text()


def test_shares_and_a_resumed_call_make_the_same_report(
    compared: tuple[Path, Any, list[Event]], checkpoints: list[Path], data: Path, tmp_path: Path
) -> None:
    settings = settings_for(data, tmp_path / "parts", *checkpoints)
    for share in ("2/3", "1/3"):
        assert tuned(settings, cell=share)[0] is None
    results, _ = tuned(settings, resume=True)
    assert results.compared == compared[1].compared
    again = build(FinetuneSettings, json.loads(json.dumps(settings.model_dump(mode="json"))))
    stamp = (tmp_path / "parts/cells/adapted/rivers/default/seed-2/result.json").stat().st_mtime_ns
    more, _ = tuned(again.model_copy(update={"seeds": SEEDS + 1}), resume=True)
    assert (tmp_path / "parts/cells/adapted/rivers/default/seed-2/result.json").stat().st_mtime_ns == stamp
    assert more.compared["rivers"].arms["adapted"].paired.n == SEEDS + 1


def test_each_has_its_own_point_of_a_grid(checkpoints: list[Path], data: Path, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text("learning_rate: [1e-30, 3e-3]\n")
    changed = {
        "grid": str(tmp_path / "grid.yaml"),
        "training.learning_rate": None,
        "training.epochs": 1,
        "seeds": 2,
    }
    results, events = tuned(settings_for(data, tmp_path / "x", *checkpoints, **changed))
    for own in results.checkpoints:
        task = own.tasks["rivers"]
        assert set(task.points) == {"learning_rate=1e-30", "learning_rate=0.003"}
        assert task.points[task.point].median == max(point.median for point in task.points.values())
        chosen = [cell.test["test"]["score"] for cell in own.cells if cell.point == task.point]
        assert list(results.compared["rivers"].arms[own.name].values.values()) == chosen
    assert "chosen for each checkpoint by itself" in (tmp_path / "x/results.md").read_text()
    (facts,) = [event for event in events if isinstance(event, Facts) and event.title == "fine-tuning"]
    assert facts.rows["cells"] == "2 checkpoints x 1 task x 2 points of the grid x 2 seeds"
    assert "each checkpoint by its own best point" in facts.rows["training"]


def test_several_tasks_have_a_mean_and_each_checkpoint_its_own_mnli(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    glue, kinds = tmp_path / "glue", ["entailment", "neutral", "contradiction"]
    for folder in ("MRPC", "MNLI"):
        (glue / folder).mkdir(parents=True)
    for split, number in (("train", 24), ("dev", 12)):
        texts = [text for text, _ in sentences(number, len(split))]
        rows = [f"{'water' in text:d}\t1\t2\t{text}\t{text}\n" for text in texts]
        head = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        (glue / "MRPC" / f"{split}.tsv").write_text(head + "".join(rows))
        rows = [f"{i}\t{text}\t{text}\t{kinds[i % 3]}\n" for i, text in enumerate(texts)]
        name = {"train": "train", "dev": "dev_matched"}[split]
        (glue / "MNLI" / f"{name}.tsv").write_text(
            "index\tsentence1\tsentence2\tgold_label\n" + "".join(rows)
        )
    given = {
        "checkpoint": [str(folder) for folder in checkpoints],
        "out": str(tmp_path / "x"),
        "tasks.names": ["mrpc", "mnli"],
        "tasks.folder": str(glue),
        "from_mnli": True,
        "seeds": 2,
        "training.epochs": 1,
        "training.batch_size": 8,
        "training.learning_rate": 3e-3,
        "select": "last",
    }
    results, _ = tuned(build(FinetuneSettings, nested(given)))
    assert list(results.compared) == ["mnli", "mrpc", "mean of 2 tasks"]
    for name in ("original", "adapted"):
        tasks = [list(task.arms[name].values.values()) for task in results.compared.values()]
        assert tasks[2] == pytest.approx(np.mean(tasks[:2], axis=0))
        begun = {
            json.loads((tmp_path / f"x/cells/{name}/{task}/default/seed-0/cell.json").read_text())["weights"]
            for task in ("mrpc", "mnli")
        }
        folder, encoder = tmp_path / f"x/models/{name}/mnli", checkpoints[name == "adapted"]
        wanted = {
            weights_hash(EncoderCheckpoint.read(place, name="x").tensors) for place in (folder, encoder)
        }
        assert begun == wanted and len(wanted) == 2
    pairs = [task.arms["adapted"].paired for task in results.compared.values()]
    tested = [pair for pair in pairs if pair.tested]
    adjusted = holm([pair.p_value for pair in tested]).tolist()
    assert [pair.p_adjusted for pair in tested] == pytest.approx(adjusted)
    assert "(mean of 2 tasks, dev score)" in results.sentences[0]


def test_where_it_lies(compared: tuple[Path, Any, list[Event]], checkpoints: list[Path], data: Path) -> None:
    """The models are found by checkpoint and task; one checkpoint alone does not go on there."""
    out, *_ = compared
    models = finetuned_models(out)
    assert models is not None and list(models) == ["adapted/rivers", "original/rivers"]
    with pytest.raises(UserError, match="has the cells of several checkpoints: choose another --out"):
        tuned(settings_for(data, out, checkpoints[0]), resume=True)
    with pytest.raises(UserError, match=r"adapted/.* was made from another checkpoint"):
        swapped = f"original={checkpoints[0]}", f"adapted={checkpoints[0]}"
        tuned(settings_for(data, out, *swapped), resume=True)


def test_one_that_diverges_is_shown_and_not_compared(
    checkpoints: list[Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings_for(data, tmp_path / "x", *checkpoints, **{"training.learning_rate": 1e30, "seeds": 2})
    with pytest.raises(Exception, match=r"no run of .*original.*, .*adapted.* has a score"):
        tuned(given.model_copy(update={"training": given.training.model_copy(update={"clip": None})}))
    assert (
        "adapted minus original: not tested: diverged with seeds" in (tmp_path / "x/results.md").read_text()
    )


# ---------------------------------------------------------------- what checkpoints are called


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["roberta-base", "run"], ["roberta-base", "run"]),
        (["FacebookAI/roberta-base", "runs/adapted"], ["roberta-base", "adapted"]),
        (["runs/original/final", "runs/adapted/final"], ["original", "adapted"]),
        (["/x/a/seed-1/final", "/x/b/seed-1/final"], ["a", "b"]),
        (["run@step-10", "run@step-20"], ["run@step-10", "run@step-20"]),
        (["a/x/1", "b/x/2", "a/x/2"], ["a-x-1", "b-x-2", "a-x-2"]),
        (["runs/adapted", "runs/adapted/checkpoints/step-5"], ["adapted", "step-5"]),
        (["base=hub/name@main", "runs/lr=1/final"], ["base", "lr-1"]),
    ],
)
def test_names_are_what_differs_in_the_paths(texts: list[str], names: list[str]) -> None:
    assert list(name_checkpoints([Given.parse(text) for text in texts])) == names


PARTS = st.text("abc=@-", min_size=1, max_size=3)


@given(st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), min_size=2, max_size=4, unique=True))
def test_names_are_told_apart_or_asked_for(paths: list[str]) -> None:
    try:
        named = name_checkpoints([Given(path) for path in paths])
    except UserError as error:
        assert "--from name=checkpoint" in str(error)
    else:
        assert [own.path for own in named.values()] == paths
        assert all("/" not in name for name in named)
        for name, own in named.items():  # as config.yaml has it
            if "@" not in own.path:
                assert Given.parse(f"{name}={own.path}") == Given(own.path, name)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a", Given("a")),
        ("x=a/b", Given("a/b", "x")),
        ("runs/x=1", Given("runs/x=1")),
        ("x=runs/y=1", Given("runs/y=1", "x")),
        ("hub/name@v1", Given("hub/name", None, "v1")),
        ("x=name@refs/pr/1", Given("name", "x", "refs/pr/1")),
        ("run@step-100", Given("run@step-100")),
        ("a@", Given("a@")),
    ],
)
def test_what_is_given(text: str, parsed: Given) -> None:
    assert Given.parse(text) == parsed


def test_a_folder_may_be_called_like_a_name_with_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x=y@z").mkdir()
    assert Given.parse("x=y@z") == Given("x=y@z")
    assert Given.parse("n=x=y@z") == Given("x=y@z", "n")


@pytest.mark.parametrize(
    ("given_as", "message"),
    [
        (["{0}", "{0}"], "two checkpoints are called 'original'"),
        (["a={0}", "a={1}"], "two checkpoints are called 'a'"),
        (["{0}", ".x={1}"], "cannot be called '.x'"),
        (["{0}", "={1}"], "write it as --from name=checkpoint"),
        (["{0}", "b="], "write it as --from name=checkpoint"),
        (["{0}", "b=nowhere/at/all"], "no such checkpoint: nowhere/at/all"),
    ],
)
def test_refusals_leave_nothing(
    checkpoints: list[Path], data: Path, tmp_path: Path, given_as: list[str], message: str
) -> None:
    texts = [text.format(*checkpoints) for text in given_as]
    with pytest.raises(UserError, match=message):
        tuned(settings_for(data, tmp_path / "x", *texts))
    with pytest.raises(UserError, match="--revision main is for one checkpoint"):
        tuned(settings_for(data, tmp_path / "x", *checkpoints, revision="main"))
    assert not (tmp_path / "x").exists()
