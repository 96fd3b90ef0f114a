"""A model that was let go is gone with its last name, and not when Python looks for circles."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from fmlm_cli.model.attention import BY_NAME
from fmlm_cli.model.checkpoints.pretrained import load_pretrained
from fmlm_cli.model.classification.sequence_classifier import SequenceClassifier
from fmlm_cli.model.classifier import EncoderCheckpoint
from fmlm_cli.model.ending import let_go
from fmlm_cli.model.masked_lm import MaskedLM


def classifier(folder: Path) -> nn.Module:
    encoder = EncoderCheckpoint.read(folder, name="it")
    return SequenceClassifier(encoder.classifier(["a", "b"], seed=0).model, BY_NAME["mask"])


def masked_lm(folder: Path) -> nn.Module:
    return MaskedLM(load_pretrained(folder, name="it", seed=0).model)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("make", [classifier, masked_lm])
def test_its_memory_is_free_at_once(make: Callable[[Path], Any], small_encoder: Path) -> None:
    model = make(small_encoder)
    weight = weakref.ref(next(iter(model.parameters())))
    let_go(model)
    assert weight() is not None
    del model
    assert weight() is None
