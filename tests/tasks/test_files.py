"""Labelled sets of one's own: which fields and labels are found, and what each error says."""

import dataclasses
import hashlib
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from fmlm_cli.readers.tables import ColumnTable
from fmlm_cli.tasks import TaskData, compute_metrics, load_files, predictions_of
from fmlm_cli.tasks.columns import are_scores, in_order, is_unlabelled, label_names
from fmlm_cli.tasks.files import LABELS, PAIRS, SINGLES, find_fields
from tests.tasks import writing
from tests.tasks.writing import write, write_rows

DOMAIN = {
    "ag_news": ("jsonl.gz", 9001, 1000, 7600, ["Business", "Sci/Tech", "Sports", "World"]),
    "chemprot": ("jsonl", 4169, 2427, 3469, None),
    "citation_intent": ("jsonl", 1688, 114, 139, None),
    "imdb": ("jsonl.gz", 5000, 1000, 2000, ["neg", "pos"]),
}


def lines(*rows: tuple[Any, ...], fields: tuple[str, ...] = ("text", "label")) -> str:
    return "".join(json.dumps(dict(zip(fields, row, strict=True))) + "\n" for row in rows)


USUAL = lines(("good", "pos"), ("bad", "neg"))


def load(
    folder: Path, train: str = USUAL, dev: str = USUAL, test: str | None = None, **settings: Any
) -> TaskData:
    """Write splits of JSON lines and load them."""
    paths = [write(folder / f"{name}.jsonl", text) for name, text in (("train", train), ("dev", dev))]
    return load_files(*paths, None if test is None else write(folder / "test.jsonl", test), **settings)


def refused(folder: Path, *splits: Any, **settings: Any) -> str:
    return writing.refused(load, folder, *splits, **settings).replace(f"{folder}/", "")


# --- what is found ---


def test_a_set_of_sentences(tmp_path: Path) -> None:
    data = load(tmp_path / "reviews", lines(("good", "pos"), ("bad", "neg"), (" ugly ", "neg")), test=USUAL)
    assert (data.task.name, data.task.labels, data.task.pair) == ("reviews", ("neg", "pos"), False)
    assert (data.task.metrics, data.task.score) == (("accuracy", "macro_f1", "micro_f1"), ("macro_f1",))
    assert data.train.first == ["good", "bad", " ugly "]
    assert data.train.second is None
    assert data.train.labels is not None
    assert data.train.labels.dtype == np.int64
    assert data.train.labels.tolist() == [1, 0, 0]
    assert data.train.ids == ["0", "1", "2"]
    assert data.train.source == str(tmp_path / "reviews" / "train.jsonl")
    assert (list(data.dev), list(data.test)) == (["dev"], ["test"])


@given(st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_rows_that_are_in_train_too_are_counted(in_dev: int, in_test: int, pairs: bool) -> None:
    fields = ("text1", "text2", "label") if pairs else ("text1", "label")

    def rows(*texts: str) -> str:
        labels = ("neg", "pos")
        return lines(
            *((text, *(["same"] * pairs), label) for text, label in zip(texts, labels * 3, strict=False)),
            fields=fields if pairs else ("text", "label"),
        )

    train = ("a", "b", "c", "d")
    with tempfile.TemporaryDirectory() as folder:
        splits = [rows(*train[:shared], "x", "y") for shared in (in_dev, in_test)]
        notes = load(Path(folder), rows(*train), splits[0], splits[1]).notes
        assert notes == tuple(
            f"{folder}/{name}.jsonl: {shared} of {shared + 2} rows have texts that {folder}/train.jsonl has too"
            for name, shared in (("dev", in_dev), ("test", in_test))
            if shared
        )


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "csv", "csv.gz", "tsv", "tsv.gz", "parquet"])
def test_every_form_gives_the_same(tmp_path: Path, form: str) -> None:
    columns = {
        "ID": ["a", "b"],
        "idx": [7, 8],
        "Premise": ["one", "two"],
        "hypothesis": ["x", "y"],
        "label": [1, 0],
    }
    if form.startswith("csv"):
        text = "ID,idx,Premise,hypothesis,label\na,7,one,x,1\nb,8,two,y,0\n"
        path = write(tmp_path / f"x.{form}", text)
    elif form.endswith(".gz"):
        plain = write_rows(tmp_path / f"x.{form.removesuffix('.gz')}", columns)
        path = write(tmp_path / f"x.{form}", plain.read_bytes())
    else:
        path = write_rows(tmp_path / f"x.{form}", columns)
    train = load_files(path, path, name="mine").train
    assert (train.first, train.second, train.ids) == (["one", "two"], ["x", "y"], ["7", "8"])
    assert train.labels is not None
    assert train.labels.tolist() == [1, 0]
    small = json.dumps([["one", "two"], ["x", "y"], [1, 0], ["7", "8"]], separators=(",", ":"))
    assert train.fingerprint == hashlib.sha256(small.encode()).hexdigest()


def table(*names: str) -> ColumnTable:
    return ColumnTable("x.csv", {name: [] for name in names})


@pytest.mark.parametrize("single", SINGLES)
@pytest.mark.parametrize("label", LABELS)
def test_usual_names_are_found(single: str, label: str) -> None:
    found = find_fields(table("id", label, "other", single.title()), None, None, None)
    assert (found.first, found.second, found.label) == (single.title(), None, label)


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_usual_pairs_are_found(one: str, two: str) -> None:
    found = find_fields(table(two, "label", one), None, None, None)
    assert (found.first, found.second, found.label) == (one, two, "label")


def test_named_fields_win() -> None:
    wide = table("premise", "hypothesis", "text", "label", "score")
    assert find_fields(wide, "text", None, "score").texts == ["text"]
    assert find_fields(wide, "hypothesis", "premise", "label").texts == ["hypothesis", "premise"]
    assert find_fields(table("text", "mine", "label"), None, "mine", None).texts == ["text", "mine"]
    assert find_fields(table("label", "target"), "label", None, None).label == "target"


@pytest.mark.parametrize(
    ("names", "given_fields", "said"),
    [
        (["body", "label"], {}, "which field holds the text? no field has a usual name; fields are 'body', 'label'; choose with --text-field"),
        (["text", "content", "label"], {}, "which field holds the text? 'text', 'content' could each hold it"),
        (["premise", "hypothesis", "text", "label"], {}, "'premise', 'hypothesis', 'text' could each hold it"),
        (["text", "label", "score"], {}, "which field holds the label? 'label', 'score' could each hold it"),
        (["text", "gold"], {}, "which field holds the label? no field has a usual name; fields are 'text', 'gold'; choose with --label-field"),
        (["text", "label"], {"text": "texts"}, "no field 'texts': did you mean 'text'? fields are 'text', 'label'; choose with --text-field"),
        (["text", "label"], {"pair": "b"}, "no field 'b': fields are 'text', 'label'; choose with --text-pair-field"),
        (["text", "label"], {"label": "gold"}, "no field 'gold': fields are 'text', 'label'; choose with --label-field"),
        (["text", "label"], {"text": "text", "pair": "text"}, "must name different fields"),
        (["text", "label"], {"label": "text", "text": "text"}, "must name different fields"),
    ],
)  # fmt: skip
def test_fields_in_doubt(names: list[str], given_fields: dict[str, str], said: str) -> None:
    wanted = [given_fields.get(name) for name in ("text", "pair", "label")]
    message = writing.refused(find_fields, table(*names), *wanted)
    assert message.startswith("x.csv: ")
    assert said in message


@given(st.lists(st.integers(-999, 999), min_size=1))
def test_whole_numbers_are_classes_in_order_of_value(values: list[int]) -> None:
    assert not are_scores(values)
    assert in_order(map(str, values)) == tuple(str(value) for value in sorted(set(values)))


@given(st.lists(st.text(min_size=1), min_size=1))
def test_names_are_in_alphabetical_order(values: list[str]) -> None:
    assert in_order([*values, "a"]) == tuple(sorted({*values, "a"}))


def test_labels_of_every_kind(tmp_path: Path) -> None:
    for values, names in [
        ((10, 9), ("9", "10")),
        ((1.0, 0.0), ("0", "1")),
        ((True, False), ("false", "true")),
        ((" yes", "no "), ("no", "yes")),
        (("1", "a"), ("1", "a")),
    ]:
        rows = lines(("x", values[0]), ("y", values[1]))
        assert load(tmp_path, rows, rows).task.labels == names


@given(st.integers(-(2**53) + 1, 2**53 - 1))
def test_equal_whole_numbers_are_one_label_however_they_are_written(number: int) -> None:
    """What JSON's own parser calls equal is one label, as a value and as text."""
    written = [str(number), f"{number}.0", f"{number}.000", f"{number}e0", f"{number}E+00"]
    assert all(json.loads(text) == number for text in written)
    values = [number, float(number), f" {number} ", *written]
    assert set(label_names(ColumnTable("x.csv", {"label": values}), "label")) == {str(number)}


def test_numbers_that_floats_cannot_tell_apart_stay_apart() -> None:
    values = [10**17, 10**17 + 1, str(10**17 + 1), "1e400", "9" * 5000]
    assert label_names(ColumnTable("x.csv", {"label": values}), "label") == list(map(str, values))


@given(st.from_regex(r"[-+ 0-9eE._٣]{1,12}", fullmatch=True))
def test_texts_that_are_no_whole_numbers_of_json_stay(text: str) -> None:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    names = label_names(ColumnTable("x.csv", {"label": [text + "x", text]}), "label") if text.strip() else []
    for name in names[1:]:
        whole = value is not None and float(value).is_integer() and abs(value) < 2**53
        assert name == (str(int(value)) if whole else text.strip())


@pytest.mark.parametrize("form", ["jsonl", "tsv", "parquet"])
@pytest.mark.parametrize("other", ["jsonl", "tsv", "parquet"])
@pytest.mark.parametrize(
    ("train", "dev", "labels"),
    [
        ([1.0, 2.0, 0.0], [2, 1, 0], ("0", "1", "2")),
        ([1, 2, 0], [2.0, 1.0, -0.0], ("0", "1", "2")),
        (["1", "2", "0"], [2.0, 1.0, 0.0], ("0", "1", "2")),
        ([True, False, True], ["True", "FALSE", "true"], None),
        (["True", "False", "maybe"], ["true", "maybe", "false"], ("False", "True", "maybe")),
        (["02", "2", "1"], ["2", "02", "1"], ("1", "02", "2")),
    ],
)
def test_train_and_dev_of_other_kinds(
    tmp_path: Path, form: str, other: str, train: list[Any], dev: list[Any], labels: Any
) -> None:
    paths = [
        write_rows(tmp_path / f"{name}.{kind}", {"text": ["a", "b", "c"], "label": values})
        for name, kind, values in (("train", form, train), ("dev", other, dev))
    ]
    data = load_files(*paths)
    assert labels in (None, data.task.labels)
    assert len(data.task.labels) == len(set(train))
    assert data.train.labels is not None and data.dev["dev"].labels is not None
    names = [data.task.labels[index].lower() for index in data.dev["dev"].labels]
    assert names == [
        f"{value:g}".lstrip("-") if isinstance(value, float) else str(value).lower() for value in dev
    ]


def test_two_spellings_in_the_training_set_are_noted(tmp_path: Path) -> None:
    rows = lines(("x", "250"), ("y", "250.0"), ("z", "a"))
    data = load(tmp_path, rows, lines(("other texts", "a"), ("than in training", "250")))
    assert data.task.labels == ("250", "a")
    assert data.notes == (f"{tmp_path}/train.jsonl: '250' and '250.0' are taken for one label",)
    assert not any("one label" in note for note in load(tmp_path, USUAL, USUAL).notes)


@pytest.mark.parametrize("label", ["NaN", "Infinity"])
def test_a_number_that_is_none_is_no_label(tmp_path: Path, label: str) -> None:
    bad = f'{{"text": "x", "label": {label}}}\n'
    said = f":3: label field 'label' is {float(label)}; mend the row"
    assert said in refused(tmp_path, USUAL + bad)
    assert said in refused(tmp_path, USUAL, USUAL + bad)


def test_names_are_ordered_the_same_whatever_their_order_was() -> None:
    """A text that Python's float reads as not a number has no place among numbers."""
    for names in itertools.permutations(["nan", "2", "10"]):
        assert in_order(names) == ("10", "2", "nan")


def test_scores(tmp_path: Path) -> None:
    train, whole = lines(("x", 1), ("y", 2.5)), lines(("x", 1), ("y", 2))
    data = load(tmp_path, train, whole)
    assert (data.task.regression, data.task.score) == (True, ("pearson", "spearman"))
    assert data.dev["dev"].labels is not None
    assert data.dev["dev"].labels.dtype == np.float64
    assert data.dev["dev"].labels.tolist() == [1.0, 2.0]
    assert load(tmp_path, whole, train, regression=True).task.labels == ()
    assert load(tmp_path, whole, whole).task.labels == ("1", "2")
    assert load(tmp_path, train, train, regression=False).task.labels == ("1", "2.5")


def test_the_measure_that_counts(tmp_path: Path) -> None:
    assert load(tmp_path, metric="micro_f1").task.score == ("micro_f1",)
    task = load(tmp_path, metric="f1").task
    assert (task.metrics, task.score) == (("accuracy", "macro_f1", "micro_f1", "f1"), ("f1",))
    scores = lines(("x", 0.5), ("y", 1))
    assert load(tmp_path, scores, scores, metric="spearman").task.score == ("spearman",)
    assert "unknown metric 'f2'" in refused(tmp_path, metric="f2")
    assert "metric 'pearson' is not for classes: use accuracy, macro_f1" in refused(
        tmp_path, metric="pearson"
    )
    assert "not for scores: use pearson, spearman" in refused(tmp_path, scores, scores, metric="accuracy")
    three = lines(("x", "a"), ("y", "b"), ("z", "c"))
    assert "metric 'f1' is for two labels, and there are 3" in refused(tmp_path, three, three, metric="f1")


@pytest.mark.parametrize("labels", [(), (-1, -1), (None, None), ("", "")])
def test_a_test_set_without_labels(tmp_path: Path, labels: tuple[Any, ...]) -> None:
    rows = [("x", *labels[:1]), ("y", *labels[1:])]
    data = load(tmp_path, test=lines(*rows, fields=("text", "label")[: len(rows[0])]))
    assert data.test["test"].labels is None
    assert data.test["test"].ids == ["0", "1"]
    assert "test.jsonl: no labels in 'label', so it is predicted only" in data.notes[0]


def test_minus_one_may_be_a_label(tmp_path: Path) -> None:
    train = lines(("x", -1), ("y", 1))
    assert load(tmp_path, train, train, lines(("z", -1))).test["test"].labels.tolist() == [0]  # type: ignore[union-attr]
    assert is_unlabelled([-1, "-1", -1.0])
    assert not is_unlabelled([-1, 1])


def test_labels_that_dev_lacks_are_noted(tmp_path: Path) -> None:
    data = load(tmp_path, dev=lines(("x", "neg")))
    assert data.notes[-1] == f"{tmp_path}/dev.jsonl: label 'pos' is only in the training set"


def test_labels_that_the_training_set_lacks_follow_on_its_own(tmp_path: Path) -> None:
    """Whatever a model says there is wrong; spellings of one label are one."""
    dev = lines(("x", "pos"), ("y", "True"), ("z", "neg"), ("u", "true"), ("v", "mixed"))
    data = load(tmp_path, dev=dev)
    split = data.dev["dev"]
    assert split.labels is not None and split.labels.tolist() == [1, 2, 0, 2, 3]
    names = split.label_names(data.task)
    assert names == ["pos", "true", "neg", "true", "mixed"]
    outputs = np.eye(2, dtype=np.float32)[[1, 1, 0, 0, 1]]
    measured = compute_metrics(data.task, split.labels, outputs)
    assert measured["accuracy"] == 2 / 5
    predicted = predictions_of(data.task, outputs)
    assert measured["macro_f1"] == f1_score(names, predicted, average="macro", zero_division=0)
    of_two = dataclasses.replace(data.task, metrics=("f1",), score=("f1",))
    assert compute_metrics(of_two, split.labels, outputs)["f1"] == 0.5  # 1 right, 2 wrong of what is said
    (note,) = [note for note in data.notes if "count as wrong" in note]
    assert note.startswith(
        f"{tmp_path}/dev.jsonl: labels 'true', 'mixed' are not in {tmp_path}/train.jsonl: 3 of 5"
    )


# --- what is refused ---


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"train": lines(("x", "a"), ("y", "a"))}, "train.jsonl: all examples have the same label, so there is nothing to learn"),
        ({"train": lines(("x", 0.5), ("y", 0.5))}, "train.jsonl: all scores are the same"),
        ({"train": lines(("x", "a"), ("\n \u00a0", "b"), ("", "b"))}, "train.jsonl:2: field 'text' is empty (and 1 more); fill it"),
        ({"dev": lines(("x", "pos"), (3, "neg"))}, "dev.jsonl:2: field 'text' is a number, not a string"),
        ({"dev": lines((None, "pos"))}, "dev.jsonl:1: field 'text' is nothing, not a string"),
        ({"train": lines(("a\ud800b", "pos"))}, "train.jsonl:1: field 'text' has half a character"),
        ({"test": lines(("x", "other"))}, "test.jsonl: label 'other' is not in train.jsonl, nor is any other label there: give splits"),
        ({"test": lines(("x", "pos"), ("y", None))}, "test.jsonl:2: label field 'label' is empty; mend the row"),
        ({"train": lines(("x", "pos"), ("y", ["neg"]))}, "train.jsonl:2: label field 'label' is a list"),
        ({"train": lines(("x", "pos"), ("y", " "))}, "train.jsonl:2: label field 'label' is empty"),
        ({"dev": lines(("x", "pos"), fields=("text", "labels"))}, "dev.jsonl: no field 'label': did you mean 'labels'? fields are 'text', 'labels'; choose with --label-field"),
        ({"dev": lines(("x", "pos"), fields=("texts", "label"))}, "dev.jsonl: no field 'text': did you mean 'texts'?"),
        ({"train": lines(("x", 0.5), ("y", 1), ("z", "2,5"), ("u", 1.5), ("v", 1.5))}, "train.jsonl:3: score '2,5' is not a number; mend the row"),
        ({"train": lines(("x", 0.5), ("y", float("nan")))}, "train.jsonl:2: score nan is not finite; mend the row"),
        ({"train": lines(("x", 0.5), ("y", 1)), "dev": lines(("x", None))}, "dev.jsonl:1: score None is not a number"),
        ({"train": lines(("x", True), ("y", 1)), "regression": True}, "train.jsonl:1: score True is not a number"),
        ({"train": lines(("x", "pos", "p"), ("y", "neg", " "), fields=("text", "label", "text_pair"))}, "train.jsonl:2: field 'text_pair' is empty; fill it"),
        ({"train": lines(("x", "pos", "p"), ("y", "neg", "q"), fields=("text", "label", "text_pair"))}, "dev.jsonl: no field 'text_pair'"),
        ({"dev": ""}, "dev.jsonl: the file holds no rows"),
        ({"test": "{"}, "test.jsonl:1: not valid JSON"),
    ],
)  # fmt: skip
def test_bad_input(tmp_path: Path, splits: dict[str, Any], said: str) -> None:
    assert refused(tmp_path, **splits).startswith(said)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", USUAL)
    assert f"{tmp_path}/dev.jsonl: no such file" in writing.refused(load_files, train, tmp_path / "dev.jsonl")


# --- real data ---


@pytest.mark.parametrize("name", DOMAIN)
def test_real_sets(shared_data: Path, name: str) -> None:
    form, train, dev, test, labels = DOMAIN[name]
    data = load_files(
        *(shared_data / "domain" / name / f"{split}.{form}" for split in ("train", "dev", "test"))
    )
    assert data.task.name == name
    assert (len(data.train), len(data.dev["dev"]), len(data.test["test"])) == (train, dev, test)
    assert labels is None or list(data.task.labels) == labels
    counts = {"chemprot": 13, "citation_intent": 6}
    assert len(data.task.labels) == counts.get(name, len(data.task.labels))
    lacking = [note for note in data.notes if "only in the training set" in note]
    assert len(lacking) == (name == "chemprot")
    (shared,) = [note for note in data.notes if "citation_intent/test" in note] or [""]
    assert ("52 of 139 rows have texts that" in shared) == (name == "citation_intent")
