"""What decides a result is said on each setting, and `deciding` asks about those alone."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fmlm_cli.config import (
    DownstreamSettings,
    FinetuneSettings,
    PretrainSettings,
    TokenizeSettings,
    VarianceSettings,
    deciding,
    differing,
    setting_names,
)
from tests.test_config import quick, values_of

DEFAULTS: list[BaseModel] = [
    PretrainSettings(),
    FinetuneSettings(checkpoint=("x",)),
    VarianceSettings(),
    DownstreamSettings(),
    TokenizeSettings(out="x", sources=("x",), train_tokenizer="bpe"),
]
# Every other setting decides: whoever adds one has to say here, too, to which of the two it belongs.
FREE: dict[type[BaseModel], set[str]] = {
    PretrainSettings: {
        *("out", "device", "data.stores", "data.replay", "data.verify", "model.checkpoint"),
        *("batch.micro_size", "evaluation.stores", "evaluation.names", "speed.attention", "speed.compile"),
        *("speed.recompute", "speed.shard", "speed.threads", "deterministic", "budget.minutes"),
        *("checkpoint.every_steps", "checkpoint.keep", "checkpoint.keep_every"),
        *("checkpoint.background", "checkpoint.on_error", "logging.every_steps"),
        *("logging.to", "logging.project"),
        *("hub.push_to", "hub.public", "hub.license", "hub.language"),
        *("text.sources", "text.documents", "text.text_field", "text.on_bad_text", "text.valid"),
        *("text.format", "text.split", "text.revision", "text.min_chars", "text.max_chars"),
        *("text.max_document_chars", "text.on_long_document"),
        *("text.valid_fraction", "text.add_tokens", "text.extend_vocab", "text.dedup", "text.workers"),
    },
    FinetuneSettings: {
        *("checkpoint", "revision", "trust_remote_code", "out", "grid", "seeds", "first_seed", "from_mnli"),
        *("micro_size", "checkpoint_every_steps", "device", "precision", "speed.attention", "speed.threads"),
        *("tasks.names", "tasks.folder", "tasks.train", "tasks.dev", "tasks.test", "tasks.name"),
        *("tasks.text_field", "tasks.text_pair_field", "tasks.label_field", "tasks.regression"),
        *("tasks.metric", "hub.push_to", "hub.public", "hub.license", "hub.language"),
    },
    VarianceSettings: {"checkpoints", "corruptions"},
    TokenizeSettings: {
        *("out", "sources", "split", "revision", "valid", "tokenizer", "add_tokens", "pmi", "pmi_size"),
        *("workers", "shard"),
    },
    DownstreamSettings: {"tasks", "folder", "text_field", "text_pair_field", "label_field", "metrics"},
}  # fmt: skip
OPTIONS = "masking.options"  # holds names of the user's own, at first none
by_section = pytest.mark.parametrize("settings", DEFAULTS, ids=lambda settings: type(settings).__name__)


def field_of(section: type[BaseModel], name: str) -> FieldInfo:
    first, _, rest = name.partition(".")
    field = section.model_fields[first]
    return field_of(field.annotation, rest) if rest else field  # type: ignore[arg-type]


def changed(settings: BaseModel, name: str, value: Any) -> BaseModel:
    first, _, rest = name.partition(".")
    inner = changed(getattr(settings, first), rest, value) if rest else value
    return settings.model_copy(update={first: inner})


@by_section
def test_every_setting_has_its_role(settings: BaseModel) -> None:
    wanted = [name for name in setting_names(type(settings)) if name not in FREE[type(settings)]]
    assert list(deciding(settings)) == [name for name in wanted if name != OPTIONS]
    assert FREE[type(settings)] < set(setting_names(type(settings)))


@by_section
def test_what_decides_is_told_apart_and_nothing_else_is(settings: BaseModel) -> None:
    section = type(settings)

    @quick
    @given(st.data())
    def check(data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(setting_names(section))))
        field = field_of(section, name)
        values = values_of(field.annotation, list(field.metadata))
        one, other = data.draw(values), data.draw(values)
        before, now = (deciding(changed(settings, name, value)) for value in (one, other))
        names = differing(before, now)
        assert bool(names) == (name not in FREE[section] and one != other)
        assert all(found == name or found.startswith(f"{name}.") for found in names)
        assert json.loads(json.dumps(now)) == now  # as it will be read again

    check()


def test_groups_settings_and_prefixes() -> None:
    settings = changed(PretrainSettings(), OPTIONS, {"p": 0.5, "more": {"deep": 1}})
    every = deciding(settings)
    assert every["masking.options.p"] == 0.5 and every["masking.options.more.deep"] == 1
    some = deciding(settings, "run.", only=("seed", "masking", "evaluation.max_rows"))
    kept = [n for n in every if n in ("seed", "evaluation.max_rows") or n.startswith("masking.")]
    assert some == {f"run.{name}": every[name] for name in kept}
    assert "data.max_rows" in every and not deciding(settings, only=("data.max",))  # whole names alone
