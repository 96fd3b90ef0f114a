"""GLUE's submissions, read back."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fmlm_cli.tasks import GLUE, Examples, write_predictions, write_submission, zip_submissions

# The official file names, and what a prediction looks like in them.
FILES = {
    ("cola", "test"): ("CoLA", {"0", "1"}),
    ("sst2", "test"): ("SST-2", {"0", "1"}),
    ("mrpc", "test"): ("MRPC", {"0", "1"}),
    ("stsb", "test"): ("STS-B", {"0.000", "1.235", "5.000"}),
    ("qqp", "test"): ("QQP", {"0", "1"}),
    ("mnli", "matched"): ("MNLI-m", {"entailment", "neutral", "contradiction"}),
    ("mnli", "mismatched"): ("MNLI-mm", {"entailment", "neutral", "contradiction"}),
    ("mnli", "ax"): ("AX", {"entailment", "neutral", "contradiction"}),
    ("qnli", "test"): ("QNLI", {"entailment", "not_entailment"}),
    ("rte", "test"): ("RTE", {"entailment", "not_entailment"}),
    ("wnli", "test"): ("WNLI", {"0", "1"}),
}


def test_the_table_is_whole() -> None:
    assert {(name, split) for name, glue in GLUE.items() for split in glue.submissions} == set(FILES)
    assert {(name, split) for name, glue in GLUE.items() for split in glue.test} | {("mnli", "ax")} == set(
        FILES
    )


@pytest.mark.parametrize(("name", "split"), FILES)
def test_every_file(tmp_path: Path, name: str, split: str) -> None:
    task = GLUE[name].task
    outputs = np.float32([-0.4, 1.23456, 9]) if task.regression else np.eye(len(task.labels))
    ids = [str(n + 10) for n in range(len(outputs))]
    examples = Examples(["x"] * len(ids), None, None, ids, "test.tsv")
    path = write_submission(tmp_path / "new", task, split, examples, outputs)
    file, predictions = FILES[name, split]
    assert path == tmp_path / "new" / f"{file}.tsv"
    header, *rows = path.read_bytes().decode().split("\n")[:-1]
    assert header == "index\tprediction"
    assert [row.split("\t")[0] for row in rows] == ids
    assert {row.split("\t")[1] for row in rows} == predictions
    if not task.regression:
        order = [row.split("\t")[1] for row in rows]
        assert order == (["0", "1"] if predictions == {"0", "1"} else list(task.labels))


def test_predictions_of_other_tasks(tmp_path: Path) -> None:
    write_predictions(tmp_path / "a" / "p.tsv", ["7", "8"], ["pos", "neg"])
    assert (tmp_path / "a" / "p.tsv").read_text() == "index\tprediction\n7\tpos\n8\tneg\n"


def test_a_zip_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    files = [tmp_path / "RTE.tsv", tmp_path / "AX.tsv"]
    for file in files:
        file.write_text(f"index\tprediction\n0\t{file.name}\n")
    zip_submissions(files, tmp_path / "one.zip")
    os.utime(files[0], (1e9, 1e9))
    files[1].chmod(0o600)
    zip_submissions(reversed(files), tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["AX.tsv", "RTE.tsv"]
        assert archive.read("RTE.tsv") == files[0].read_bytes()
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["AX.tsv", "RTE.tsv", "one.zip", "two.zip"]
