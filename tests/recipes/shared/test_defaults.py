"""Defaults that a setting leaves to the code, and describes, are those of the code."""

import pytest

from fmlm_cli.config import (
    FinetuneSettings,
    MaskingSettings,
    MasksSettings,
    PretrainSettings,
    Section,
    setting_field,
)
from fmlm_cli.config.schema import CorruptionSettings
from fmlm_cli.masking import DEFAULT_SEGMENTS, Corruption, Spans
from fmlm_cli.recipes.pretraining.micro_size import POSITIONS_ON_CPU
from fmlm_cli.recipes.pretraining.planning.plan import REWARMUP, WARMUP
from fmlm_cli.recipes.shared.limits import DEFAULT_LENGTH


@pytest.mark.parametrize(
    ("section", "setting", "said"),
    [
        (MaskingSettings, "segments", f"default {DEFAULT_SEGMENTS}"),
        (MaskingSettings, "options", f"span: p ({Spans.p}) and longest ({Spans.longest})"),
        (PretrainSettings, "sequence_length", f"default {DEFAULT_LENGTH}"),
        (PretrainSettings, "batch.micro_size", f"on a CPU {POSITIONS_ON_CPU} positions"),
        (PretrainSettings, "optimizer.warmup_share", f"default {WARMUP} from scratch, else {REWARMUP}"),
        (FinetuneSettings, "max_length", f"default {DEFAULT_LENGTH}"),
    ],
)
def test_what_a_description_says_of_a_default_is_so(section: type[Section], setting: str, said: str) -> None:
    assert said in (setting_field(section, setting).description or "")


def test_defaults_that_stand_in_two_rooms_are_the_same() -> None:
    assert Corruption(**CorruptionSettings().model_dump()) == Corruption()
    assert MasksSettings(store="x").sequence_length == DEFAULT_LENGTH
