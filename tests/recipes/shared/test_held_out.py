"""The evaluation's masks must never change: losses of runs years apart are compared by them."""

from hashlib import sha256

import numpy as np

from fmlm_cli.masking import RowView, get_strategy
from fmlm_cli.recipes.shared.held_out import EVALUATION_RATE, EVALUATION_SEED


def test_the_masks_are_what_they_always_were() -> None:
    """If this fails, whoever compares two models' held-out losses compares different targets: mend the masks."""
    strategy = get_strategy("random", rate=EVALUATION_RATE)
    row_ids, maskable = np.arange(-3, 5), np.ones((8, 64), np.bool_)
    maskable[:, 60:] = False
    ids = np.arange(8 * 64).reshape(8, 64) + 1000
    view = RowView(maskable, None, row_ids, ids)
    masks = strategy.masks(view, 0, EVALUATION_SEED)
    seen, labels = strategy.corrupt(
        view, masks, 0, EVALUATION_SEED, mask_id=3, ordinary_ids=np.arange(10, 900)
    )
    assert [sha256(array.tobytes()).hexdigest()[:16] for array in (masks, seen, labels)] == HASHES


HASHES = ["8c0907495723b3be", "ebf842f3b883f658", "3152ea17609d9c0c"]
