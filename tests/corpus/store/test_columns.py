"""Columns are those that Arrow itself makes of the same arrays, and come back as they were."""

import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fmlm_cli.corpus.store.columns import array, column, lists
from tests.environment import python_path

DTYPES = st.sampled_from([np.bool_, np.uint8, np.uint16, np.uint32, np.int64, np.uint64])
ARRAYS = hnp.arrays(DTYPES, st.integers(0, 40))


@given(ARRAYS, st.integers(0, 12), st.integers(1, 3))
def test_a_column_is_arrows_and_comes_back(values: npt.NDArray, first: int, step: int) -> None:
    made = column(values[::step])
    made.validate(full=True)
    assert made.equals(pa.array(values[::step]))
    assert array(made).tolist() == values[::step].tolist()
    assert array(made.slice(first)).tolist() == values[::step][first:].tolist()


@given(st.lists(st.lists(st.integers(0, 255), max_size=3), max_size=12))
def test_lists_are_arrows(expected: list[list[int]]) -> None:
    flat = np.array([item for items in expected for item in items], np.uint8)
    made = lists(flat, np.array(list(map(len, expected)), np.int64))
    made.validate(full=True)
    assert made.equals(pa.array(expected, pa.list_(pa.uint8())))


def test_pandas_stays_out() -> None:
    code = (
        "import sys, numpy as np; from fmlm_cli.corpus.store.columns import array, column, lists; "
        "two = np.array([1, 2]); array(column(two)), array(column(two > 1)), array(lists(two, two[:1]).offsets); "
        "print('pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": python_path()},
    )
    assert done.stdout.strip() == "False"
