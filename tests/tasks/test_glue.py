"""GLUE in each of its forms: official files with their quirks, the Hub's, and the Hub itself."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli import hub
from fmlm_cli.tasks import GLUE, Examples, TaskData, available, glue_average, load_glue
from tests.tasks import writing
from tests.tasks.writing import write, write_rows

# The counts of the README beside the data: train, dev, test; None where there is no such file.
REAL: Mapping[str, tuple[int, int, int | None]] = {
    "cola": (8551, 1043, 1063),
    "sst2": (67349, 872, 1821),
    "mrpc": (3668, 408, 1725),
    "stsb": (5749, 1500, 1379),
    "qqp": (20000, 3497, None),
    "mnli": (9999, 9815, None),
    "qnli": (9999, 5463, None),
    "wnli": (635, 71, 146),
}
# A row of the official files for each task: header (none for CoLA) and cells, with "LABEL" for the label.
OFFICIAL = {
    "cola": ([], ["gj04", "LABEL", "", "A sentence ."]),
    "sst2": (["sentence", "label"], ["a sentence . ", "LABEL"]),
    "mrpc": (["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"], ["LABEL", "7", "8", 'The " one', "Two"]),
    "stsb": (["index", "genre", "sentence1", "sentence2", "score"], ["0", "g", "One", "Two", "LABEL"]),
    "qqp": (["id", "qid1", "qid2", "question1", "question2", "is_duplicate"], ["5", "1", "2", "Q?", "R?", "LABEL"]),
    "mnli": (
        ["index", "sentence1_parse", "sentence1", "sentence2", "label1", "gold_label"],
        ["0", "(A)", "A", "B", "neutral", "LABEL"],
    ),
    "qnli": (["index", "question", "sentence", "label"], ["0", "Q?", "S.", "LABEL"]),
    "rte": (["index", "sentence1", "sentence2", "label"], ["0", "One", "Two", "LABEL"]),
    "wnli": (["index", "sentence1", "sentence2", "label"], ["0", "One", "Two", "LABEL"]),
}  # fmt: skip
# The texts in it, where they are not "One" and "Two".
TEXTS = {
    "cola": ("A sentence .", None),
    "sst2": ("a sentence . ", None),
    "mrpc": ('The " one', "Two"),
    "qqp": ("Q?", "R?"),
    "mnli": ("A", "B"),
    "qnli": ("Q?", "S."),
}
# The columns of texts on the Hub, where they are not sentence1 and sentence2.
HUB = {
    "cola": ["sentence"],
    "sst2": ["sentence"],
    "mnli": ["premise", "hypothesis"],
    "qnli": ["question", "sentence"],
    "qqp": ["question1", "question2"],
}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The Hub is asked only where a test means to; nobody's cache is looked into."""
    monkeypatch.setattr(hub, "out_of_reach", lambda: pytest.fail("the Hub was asked"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def official_labels(name: str) -> list[str]:
    glue = GLUE[name]
    if glue.task.regression:
        return ["0.000", "2.500", "5"]
    return [str(index) for index in range(2)] if glue.numbered else list(glue.task.labels)


def official(name: str, labels: Sequence[str] | None = None) -> str:
    """A file in the official form, a row for each label."""
    header, cells = OFFICIAL[name]
    rows = [
        [label if cell == "LABEL" else cell for cell in cells] for label in labels or official_labels(name)
    ]
    return "".join("\t".join(row) + "\n" for row in [header, *rows] if row)


def make(root: Path, name: str, train: str | None = None, dev: str | None = None) -> Path:
    """A folder of GLUE with one task in official form."""
    glue = GLUE[name]
    write(root / glue.folder / "train.tsv", official(name) if train is None else train)
    write(
        root / glue.folder / f"{next(iter(glue.dev.values()))[0]}.tsv", official(name) if dev is None else dev
    )
    return root


def refused(name: str, root: Path | None) -> str:
    return writing.refused(load_glue, name, root).replace(f"{root}/", "")


def same(one: Examples, other: Examples) -> bool:
    """Whether texts and labels are the same; ids differ where the Hub numbers what the official files do not."""
    labels = [None if split.labels is None else split.labels.tolist() for split in (one, other)]
    return (list(one.first), one.second, labels[0]) == (list(other.first), other.second, labels[1])


# --- the table ---


def test_what_counts() -> None:
    scores = {name: "+".join(glue.task.score) for name, glue in GLUE.items()}
    assert scores == dict.fromkeys(GLUE, "accuracy") | {
        "cola": "matthews",
        "mrpc": "accuracy+f1",
        "qqp": "accuracy+f1",
        "stsb": "pearson+spearman",
    }
    assert [name for name, glue in GLUE.items() if not glue.task.pair] == ["cola", "sst2"]
    assert [name for name, glue in GLUE.items() if glue.task.regression] == ["stsb"]


@given(st.lists(st.floats(0, 100), min_size=10, max_size=10))
def test_the_average(values: list[float]) -> None:
    names = ["cola", "sst2", "mrpc", "stsb", "qqp", "qnli", "rte"]
    scores = dict(zip(names, values, strict=False))
    assert glue_average(scores) is None
    matched, mismatched, wnli = values[7:]
    with_mnli = {**scores, "mnli": matched, "wnli": wnli}
    assert glue_average(with_mnli) == pytest.approx(math.fsum([*values[:7], matched]) / 8)
    for key in ("mnli", "mnli_matched"):
        both = {**scores, key: matched, "mnli_mismatched": mismatched}
        expected = math.fsum([*values[:7], (matched + mismatched) / 2]) / 8
        assert glue_average(both) == pytest.approx(expected)
        assert all(glue_average({k: v for k, v in both.items() if k != name}) is None for name in names)
    assert glue_average({**scores, "mnli_mismatched": mismatched}) is None


# --- official files ---


@pytest.mark.parametrize("name", GLUE)
def test_official_files(tmp_path: Path, name: str) -> None:
    data = load_glue(name, make(tmp_path, name))
    assert data.task == GLUE[name].task
    first, second = TEXTS.get(name, ("One", "Two"))
    assert set(data.train.first) == {first}
    assert data.train.second is None if second is None else set(data.train.second or ()) == {second}
    assert (data.train.second is not None) == data.task.pair
    assert data.train.labels is not None
    wanted = [0.0, 2.5, 5.0] if data.task.regression else list(range(len(data.task.labels)))
    assert data.train.labels.tolist() == wanted
    assert data.train.labels.dtype == (np.float64 if data.task.regression else np.int64)
    assert list(data.dev) == (["matched"] if name == "mnli" else ["dev"])
    assert data.test == {}
    assert any("no file" in note for note in data.notes)
    assert ("WNLI" in data.notes[0]) == (name == "wnli")


def test_every_split_of_mnli(tmp_path: Path) -> None:
    root = make(tmp_path, "mnli")
    write(root / "MNLI/dev_mismatched.tsv", official("mnli"))
    unlabelled = "index\tsentence1\tsentence2\n9\tA\tB\n"
    for split in ("matched", "mismatched"):
        write(root / f"MNLI/test_{split}.tsv", unlabelled)
    write(root / "diagnostic/diagnostic.tsv", unlabelled[:-1])
    data = load_glue("mnli", root)
    assert (list(data.dev), list(data.test)) == (["matched", "mismatched"], ["matched", "mismatched", "ax"])
    assert data.notes == ()
    assert all((split.labels, split.ids) == (None, ["9"]) for split in data.test.values())


def test_cola_has_a_header_in_its_test_alone(tmp_path: Path) -> None:
    root = make(tmp_path, "cola")
    write(root / "CoLA/test.tsv", "index\tsentence\n3\tOne.\n")
    data = load_glue("cola", root)
    assert (len(data.train), data.test["test"].first, data.test["test"].ids) == (2, ["One."], ["3"])


def test_quirks(tmp_path: Path) -> None:
    lines = official("mrpc").replace("\n", "\r\n").replace("Two", 'T\u2028w\u0085o"').removesuffix("\r\n")
    data = load_glue("mrpc", make(tmp_path, "mrpc", train="\ufeff" + lines))
    assert data.train.first == ['The " one'] * 2
    assert data.train.second == ['T\u2028w\u0085o"'] * 2
    assert data.train.ids == ["0", "1"]


def test_rows_without_consensus_are_left_out(tmp_path: Path) -> None:
    train = official("mnli", ["-", "neutral", "-", "entailment", "contradiction"])
    data = load_glue("mnli", make(tmp_path, "mnli", train=train))
    assert data.train.labels is not None
    assert data.train.labels.tolist() == [1, 0, 2]
    assert f"{tmp_path}/MNLI/train.tsv: 2 rows without a gold label ('-') left out" in data.notes


def test_broken_rows_of_qqp_are_left_out(tmp_path: Path) -> None:
    data = load_glue("qqp", make(tmp_path, "qqp", train=official("qqp") + "6\t3\t4\tcut off?\n"))
    assert len(data.train) == 2
    assert f"{tmp_path}/QQP/train.tsv: 1 rows with other columns than the header left out" in data.notes


def test_empty_texts_are_kept_and_counted(tmp_path: Path) -> None:
    data = load_glue("qnli", make(tmp_path, "qnli", train=official("qnli").replace("S.", " ")))
    assert data.train.second == [" ", " "]
    assert any("2 empty texts in 'sentence' kept, the first at" in note for note in data.notes)


@pytest.mark.parametrize("folder", ["cola", "COLA", "CoLA"])
def test_folders_in_any_case(tmp_path: Path, folder: str) -> None:
    for split in ("train", "dev"):
        write(tmp_path / folder / f"{split}.tsv", official("cola"))
    assert len(load_glue("cola", tmp_path).train) == 2


def test_what_lies_in_a_folder(tmp_path: Path) -> None:
    assert available(tmp_path) == []
    for name in ("wnli", "cola", "mnli"):
        make(tmp_path, name)
    write(tmp_path / "SST-2/train.tsv", official("sst2"))
    write(tmp_path / "RTE", "a file")
    assert available(tmp_path) == ["cola", "mnli", "wnli"]
    assert "no such folder, seen from" in writing.refused(available, tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "train", "said"),
    [
        ("rte", "index\tsentence1\tsentence2\tlabel\n0\tA\tB\n", "RTE/train.tsv:2: 3 columns, not 4 as above"),
        ("rte", official("rte", ["entailment", "yes"]), "RTE/train.tsv:3: label 'yes' is not one of entailment, not_entailment; mend the row"),
        ("rte", official("rte", ["0", "1"]), "RTE/train.tsv:2: label '0' is not one of entailment"),
        ("rte", official("rte", ["entailment", "-"]), "RTE/train.tsv:3: label '-' is not one of entailment"),
        ("cola", official("cola", ["0", "2"]), "CoLA/train.tsv:2: label '2' is not one of 0, 1; mend the row"),
        ("cola", official("cola", ["1", "1"]), "CoLA/train.tsv: all examples have the same label"),
        ("cola", official("cola", ["0", "-1"]), "CoLA/train.tsv:2: label '-1' is not one of 0, 1"),
        ("stsb", official("stsb", ["1", "high"]), "STS-B/train.tsv:3: score 'high' is not a number"),
        ("stsb", official("stsb", ["1", "inf"]), "STS-B/train.tsv:3: score 'inf' is not finite"),
        ("sst2", "text\tlabel\nx\t1\n", "SST-2/train.tsv: no column 'sentence': give the file as GLUE"),
        ("mrpc", "Quality\t#1 String\n1\tx\n", "MRPC/train.tsv: no column '#2 String' or 'sentence2'"),
        ("qnli", "a\tb\nx\ty\n", "QNLI/train.tsv: no column 'question'"),
        ("sst2", "sentence\nx\n", "SST-2/train.tsv: no column 'label'"),
        ("wnli", "", "WNLI/train.tsv: the file holds no rows"),
        ("mnli", official("mnli", ["entailment", "neutral"]), "MNLI/dev_matched.tsv: label 'contradiction' is not in "),
    ],
)  # fmt: skip
def test_bad_files(tmp_path: Path, name: str, train: str, said: str) -> None:
    assert refused(name, make(tmp_path, name, train=train)).startswith(said)


def test_invalid_utf8(tmp_path: Path) -> None:
    root = make(tmp_path, "sst2")
    write(root / "SST-2/train.tsv", b"sentence\tlabel\nf\xfcnf\t1\n")
    assert refused("sst2", root).startswith("SST-2/train.tsv:2: not UTF-8 (byte 0xfc)")


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "unknown GLUE task 'mnly': did you mean 'mnli'?" in refused("mnly", tmp_path)
    assert "no such folder" in refused("cola", tmp_path / "none")
    make(tmp_path, "rte")
    assert ": no folder CoLA or cola in it, but rte; choose another folder" in refused("cola", tmp_path)
    (tmp_path / "RTE/dev.tsv").unlink()
    assert "RTE: no dev file (tsv, jsonl, jsonl.gz or parquet): put it there" in refused("rte", tmp_path)
    write(tmp_path / "MNLI/train.tsv", official("mnli"))
    write(tmp_path / "MNLI/dev_mismatched.tsv", official("mnli"))
    assert "MNLI: no dev_matched file" in refused("mnli", tmp_path)


def test_two_files_of_one_split(tmp_path: Path) -> None:
    root = make(tmp_path, "rte")
    write(root / "RTE/train.jsonl", "{}")
    assert "RTE: train.jsonl and train.tsv are the same split: keep one of them" in refused("rte", root)
    (root / "RTE/train.jsonl").rename(root / "RTE/TRAIN.tsv")
    assert "RTE: TRAIN.tsv and train.tsv are the same split" in refused("rte", root)
    (root / "RTE/TRAIN.tsv").rename(root / "RTE/train-00000-of-00001.tsv")
    assert "RTE: train-00000-of-00001.tsv and train.tsv are the same split" in refused("rte", root)


# --- the Hub's files ---


def as_hub(name: str, data: TaskData) -> dict[str, dict[str, Sequence[Any]]]:
    """The splits with the Hub's names, columns and marks for what is not labelled."""
    splits = {"train": data.train}
    for role, there in (("validation", data.dev), ("test", data.test)):
        splits |= {
            f"{role}_{key}" if name == "mnli" else role: split for key, split in there.items() if key != "ax"
        }
    return {split: hub_columns(name, examples) for split, examples in splits.items()}


def hub_columns(name: str, examples: Examples) -> dict[str, Sequence[Any]]:
    texts = [examples.first] if examples.second is None else [examples.first, examples.second]
    nothing = -1.0 if GLUE[name].task.regression else -1
    labels = [nothing] * len(examples) if examples.labels is None else examples.labels.tolist()
    columns = dict(zip(HUB.get(name, ["sentence1", "sentence2"]), texts, strict=True))
    return {**columns, "label": labels, "idx": list(range(len(examples)))}


@pytest.mark.parametrize("form", ["train.parquet", "train-00000-of-00001.parquet", "train.jsonl"])
@pytest.mark.parametrize("name", GLUE)
def test_the_forms_of_the_hub_give_the_same(tmp_path: Path, name: str, form: str) -> None:
    root = make(tmp_path / "official", name)
    header, cells = OFFICIAL[name]
    test = next(iter(GLUE[name].test.values()))[0]
    kept = [n for n, cell in enumerate(cells) if cell != "LABEL"]
    if name == "cola":
        write(root / "CoLA/test.tsv", "index\tsentence\n0\tA sentence .\n")
    else:
        rows = ["\t".join(row[n] for n in kept) for row in (header, cells)]
        write(root / GLUE[name].folder / f"{test}.tsv", "\n".join(rows))
    one = load_glue(name, root)
    for split, columns in as_hub(name, one).items():
        write_rows(tmp_path / "hub" / name / form.replace("train", split), columns)
    other = load_glue(name, tmp_path / "hub")
    assert available(tmp_path / "hub") == [name]
    assert list(one.dev) == list(other.dev)
    assert list(one.test) == list(other.test) != []
    for here, there in zip(all_splits(one), all_splits(other), strict=True):
        assert same(here, there)
    assert other.test[next(iter(other.test))].labels is None


def all_splits(data: TaskData) -> list[Examples]:
    return [data.train, *data.dev.values(), *data.test.values()]


def test_a_split_in_parts_and_the_diagnostic_set(tmp_path: Path) -> None:
    columns = {"premise": ["A"] * 3, "hypothesis": ["B"] * 3, "label": [0, 1, 2], "idx": [0, 1, 2]}
    for part in ("00000", "00001"):
        write_rows(tmp_path / f"mnli/train-{part}-of-00002.parquet", columns)
    write_rows(tmp_path / "mnli/validation_matched-00000-of-00001.parquet", columns)
    write_rows(tmp_path / "ax/test-00000-of-00001.parquet", {**columns, "label": [-1] * 3})
    data = load_glue("mnli", tmp_path)
    assert (len(data.train), len(data.test["ax"])) == (6, 3)
    assert data.test["ax"].labels is None
    (tmp_path / "mnli/train-00001-of-00002.parquet").unlink()
    said = "mnli: 1 of 2 parts as train-00000-of-00002.parquet are there; fetch the others"
    assert refused("mnli", tmp_path) == said


def test_bad_labels_in_the_forms_of_the_hub(tmp_path: Path) -> None:
    good = {"sentence1": ["A", "B"], "sentence2": ["C", "D"], "label": [0, 1]}
    for bad, said in [
        (-1, "label -1 is not one of"),
        (7, "label 7 is not one of"),
        (["x"], "label ['x'] is not one"),
    ]:
        write_rows(tmp_path / "rte/train.jsonl", {**good, "label": [0, bad]})
        write_rows(tmp_path / "rte/validation.jsonl", good)
        assert refused("rte", tmp_path).startswith(f"rte/train.jsonl:2: {said}")


# --- the Hub ---


def fill_cache(cache: Path, config: str, splits: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
    """What `datasets` leaves in its cache after it has loaded a configuration: arrow files and their
    description.
    """
    files = {
        split: str(write_rows(cache.parent / f"made/{split}.parquet", columns))
        for split, columns in splits.items()
    }
    datasets.load_dataset("parquet", data_files=files, cache_dir=str(cache.parent / "other"))
    (made,) = (cache.parent / "other/parquet").glob("*/*/*/")
    target = cache / "nyu-mll___glue" / config / "0.0.0" / "abc"
    target.mkdir(parents=True)
    for file in made.glob("*.arrow"):
        file.rename(target / file.name.replace("parquet-", "glue-"))
    info = json.loads((made / "dataset_info.json").read_text()) | {
        "config_name": config,
        "dataset_name": "glue",
    }
    (target / "dataset_info.json").write_text(json.dumps(info))


def test_a_cache_serves_where_the_hub_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    local = load_glue("mnli", make(tmp_path, "mnli"))
    splits = as_hub("mnli", local)
    fill_cache(tmp_path / "cache", "mnli", splits)
    capfd.readouterr()
    monkeypatch.setattr(hub, "out_of_reach", lambda: "the moon is in the way")
    offline = datasets.config.HF_HUB_OFFLINE
    data = load_glue("mnli", None)
    assert offline == datasets.config.HF_HUB_OFFLINE
    assert capfd.readouterr() == ("", "")
    assert same(local.train, data.train)
    assert same(local.dev["matched"], data.dev["matched"])
    assert data.train.source == "nyu-mll/glue mnli train"
    assert any("GLUE's ax (nyu-mll/glue) is not in the local cache" in note for note in data.notes)
    assert "GLUE's rte (nyu-mll/glue) is not in the local cache of datasets, and the moon" in refused(
        "rte", None
    )


def test_the_hub_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = as_hub("rte", load_glue("rte", make(tmp_path, "rte")))
    asked = []

    def load_dataset(*names: str) -> datasets.DatasetDict:
        asked.append((*names, datasets.are_progress_bars_disabled(), datasets.config.HF_HUB_OFFLINE))
        if names[1] == "cola":
            raise ConnectionError("it broke:\nhalfway")
        if names[1] == "qnli":
            raise OSError(28, "No space left on device")
        return datasets.DatasetDict(
            {split: datasets.Dataset.from_dict(dict(rows)) for split, rows in splits.items()}
        )

    monkeypatch.setattr(hub, "out_of_reach", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    before, offline = datasets.are_progress_bars_disabled(), datasets.config.HF_HUB_OFFLINE
    assert len(load_glue("rte", None).train) == 2
    assert asked == [("nyu-mll/glue", "rte", True, offline)]
    assert datasets.are_progress_bars_disabled() == before
    assert "GLUE's cola (nyu-mll/glue) is not to be had (it broke: halfway): give a folder" in refused(
        "cola", None
    )
    assert "no space left in" in refused("qnli", None)
    splits["train"]["label"] = [0, 5]
    assert refused("rte", None).startswith("nyu-mll/glue rte train, row 2: label 5 is not one of")


# --- real data ---


@pytest.mark.parametrize("name", REAL)
def test_real_tasks(shared_data: Path, name: str) -> None:
    data = load_glue(name, shared_data / "glue")
    train, dev, test = REAL[name]
    assert len(data.train) == train
    assert [len(split) for split in data.dev.values()] == [dev]
    expected = {} if test is None else {"test": test}
    assert {key: len(split) for key, split in data.test.items()} == (
        expected if name != "mnli" else {"ax": 1104}
    )
    for split in all_splits(data):
        assert all(split.first)
        assert split.second is None or all(split.second)
    assert not any("empty" in note or "left out" in note for note in data.notes if name != "wnli")


def test_what_lies_in_the_real_folder(shared_data: Path) -> None:
    assert available(shared_data / "glue") == list(REAL)


def test_real_counts_of_labels(shared_data: Path) -> None:
    found = {name: load_glue(name, shared_data / "glue") for name in ("mnli", "qnli")}
    dev, train = found["mnli"].dev["matched"].labels, found["qnli"].train.labels
    assert dev is not None
    assert train is not None
    assert np.bincount(dev).tolist() == [3479, 3123, 3213]  # entailment, neutral, contradiction
    assert np.bincount(train).tolist() == [5027, 4972]


def test_real_official_rows_of_mnli(shared_data: Path, tmp_path: Path) -> None:
    rows = (shared_data / "glue/MNLI/official_rows.tsv").read_bytes()
    root = make(tmp_path, "mnli")
    write(root / "MNLI/train.tsv", rows)
    train = load_glue("mnli", root).train
    assert len(train) == 480
    assert train.ids[0] == rows.split(b"\n")[1].split(b"\t")[0].decode()


@pytest.mark.parametrize("name", ["cola", "mrpc", "stsb", "qnli"])
def test_real_tasks_in_the_form_of_the_hub(shared_data: Path, tmp_path: Path, name: str) -> None:
    one = load_glue(name, shared_data / "glue")
    for split, columns in as_hub(name, one).items():
        write_rows(tmp_path / name / f"{split}.parquet", columns)
    for here, there in zip(all_splits(one), all_splits(load_glue(name, tmp_path)), strict=True):
        assert same(here, there)
        assert here.ids == there.ids
