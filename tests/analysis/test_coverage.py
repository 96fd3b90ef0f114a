"""Coverage against plain counting."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fmlm_cli.analysis.coverage import measure_coverage

quick = settings(derandomize=True, deadline=None, max_examples=60)


@st.composite
def masked(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Rows and the masks of some passes: bool[rows, length], bool[passes, rows, masks, length]."""
    rows, length, passes, masks = (draw(st.integers(1, high)) for high in (4, 12, 4, 3))
    maskable = draw(hnp.arrays(np.bool_, (rows, length)))
    every = draw(hnp.arrays(np.bool_, (passes, rows, masks, length)))
    return maskable, every & maskable[:, None]


@quick
@given(masked())
def test_against_counting_one_by_one(given: tuple[np.ndarray, np.ndarray]) -> None:
    maskable, passes = given
    found = measure_coverage(maskable, passes)
    tokens = [(r, c) for r, row in enumerate(maskable.tolist()) for c, m in enumerate(row) if m]
    seen: Counter[tuple[int, int]] = Counter()
    for number, masks in enumerate(passes):
        for r, per_mask in enumerate(masks.tolist()):
            seen.update((r, c) for mask in per_mask for c, m in enumerate(mask) if m)
        assert found.covered[number] == pytest.approx(len(seen) / max(1, len(tokens)))
    times = Counter(seen[token] for token in tokens)
    assert len(found.times) == (max(times, default=-1) + 1)
    for k, share in enumerate(found.times):
        assert share == pytest.approx(times[k] / len(tokens))
    sizes = [sum(mask) for masks in passes.tolist() for row in masks for mask in row]
    assert (found.smallest, found.largest) == (min(sizes), max(sizes))
    assert found.mean == pytest.approx(sum(sizes) / len(sizes))
    assert found.empty == pytest.approx(sizes.count(0) / len(sizes))
    if tokens:
        masks_of_a_row = len(sizes) / len(maskable)
        assert found.rate == pytest.approx(sum(sizes) / (len(tokens) * masks_of_a_row))
    texts = [
        "".join("x" if m else " " for m in mask) for masks in passes.tolist() for row in masks for mask in row
    ]
    stretches = [len(word) for text in texts for word in text.split()]
    assert found.stretch == pytest.approx(sum(stretches) / max(1, len(stretches)))
