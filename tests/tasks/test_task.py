"""Examples and splits that belong together."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.tasks import GLUE
from fmlm_cli.tasks.task import Examples, Task, assemble
from tests.tasks.writing import refused

TASK = Task("t", ("no", "maybe", "yes"), ("accuracy",), ("accuracy",), pair=False)


def examples(labels: list[int] | None, source: str = "train") -> Examples:
    count = 3 if labels is None else len(labels)
    wanted = None if labels is None else np.asarray(labels, np.int64)
    return Examples(["x"] * count, None, wanted, [str(n) for n in range(count)], source)


@given(st.lists(st.text(), min_size=2, max_size=5), st.data())
def test_the_fingerprint_is_of_all_contents_and_nothing_else(texts: list[str], data: st.DataObject) -> None:
    ids, labels = [str(n) for n in range(len(texts))], np.arange(len(texts))
    one = Examples(texts, texts, labels, ids, "here")
    assert one.fingerprint == Examples(tuple(texts), list(texts), labels.copy(), ids, "there").fingerprint
    place = data.draw(st.integers(0, len(texts) - 1))
    changed = [*texts[:place], texts[place] + "x", *texts[place + 1 :]]
    others = [
        Examples(changed, texts, labels, ids, ""),
        Examples(texts, changed, labels, ids, ""),
        Examples(texts, None, labels, ids, ""),
        Examples(texts, texts, labels + 1, ids, ""),
        Examples(texts, texts, labels + 0.5, ids, ""),
        Examples(texts, texts, None, ids, ""),
        Examples(texts, texts, labels, changed, ""),
        Examples(texts, texts, labels, ids, "", ("x",)),
    ]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1
    assert len(one) == len(texts)


def test_labels_that_only_other_splits_have() -> None:
    """They count as wrong, which is said; where there are no others nothing could be measured."""
    train, known = examples([0, 1, 1]), examples([0, 1])
    split = replace(examples([0, 4, 3, 4], "other"), unknown=("x", "y"))
    for dev, test in (({"a": split}, {}), ({"a": known}, {"b": split})):
        found = assemble(TASK, train, dev, "a", test, ())
        assert found.notes[0] == (
            "other: labels 'y', 'x' are not in train: 3 of 4 rows, which count as wrong"
        )
    by_classes = replace(TASK, metrics=("macro_f1",), score=("macro_f1",))
    (note,) = assemble(by_classes, train, {"a": known}, "a", {"b": split}, ()).notes
    assert note.endswith("which count as wrong, and in macro-F1 as classes that are never found")
    for split in (examples([0, 2], "other"), replace(examples([0, 2, 3], "other"), unknown=("x",))):
        for dev, test in (({"a": split}, {}), ({"a": known}, {"b": split})):
            assert "'yes'" in (said := refused(assemble, TASK, train, dev, "a", test, ()))
            assert said.endswith("not in train: give a training set with all labels")
    strange = replace(examples([3, 4], "other"), unknown=("x", "y"))
    said = refused(assemble, TASK, train, {"a": known}, "a", {"b": strange}, ())
    assert said == (
        "other: labels 'x', 'y' are not in train, nor is any other label there: give splits of the same labels"
    )


def test_labels_that_dev_lacks_and_splits_without_labels() -> None:
    dev = {"one": examples([0], "dev one"), "two": examples([0, 1, 2])}
    found = assemble(TASK, examples([0, 1, 2]), dev, "dev", {"test": examples(None)}, ("before",))
    assert found.notes == ("before", "dev one: labels 'maybe', 'yes' are only in the training set")
    assert (found.dev, found.train.labels is None) == (dev, False)


def test_which_split_decides_is_said_where_the_splits_are_put_together() -> None:
    dev = {"one": examples([0]), "two": examples([0, 1])}
    assert assemble(TASK, examples([0, 1, 2]), dev, "two", {}, ()).decides == "two"
    assert {name: task.decides for name, task in GLUE.items() if task.decides != "dev"} == {"mnli": "matched"}
    assert all(task.decides in task.dev for task in GLUE.values())
