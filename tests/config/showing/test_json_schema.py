"""The JSON schema of settings accepts what the settings accept and refuses what they refuse.

Read here by a small validator of our own, of the words that pydantic uses.
"""

import json
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from fmlm_cli.config import CompareSettings, PretrainSettings, Section
from fmlm_cli.config.showing.json_schema import schema_of
from tests.test_config import quick, some

ROOT = Path(__file__).resolve().parents[3]
SECTIONS: Mapping[str, type[Section]] = {"pretrain": PretrainSettings, "compare-masks": CompareSettings}
TYPES: Mapping[str, Any] = {
    "string": str, "boolean": bool, "null": type(None), "object": dict, "array": list,
    "integer": int, "number": (int, float),
}  # fmt: skip
BOUNDS: Mapping[str, Any] = {
    "minimum": operator.ge, "maximum": operator.le, "exclusiveMinimum": operator.gt, "exclusiveMaximum": operator.lt,
}  # fmt: skip
SAID_ONLY = {"$schema", "$defs", "title", "description", "default", "examples"}


SCHEMA = schema_of(PretrainSettings, "pretrain")


def conforms(value: Any, schema: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    """Whether a value is as a schema says; AssertionError for a word that is not known here."""
    rest = {word: said for word, said in schema.items() if word not in SAID_ONLY}
    results = []
    for word, said in rest.items():
        if word == "$ref":
            results.append(conforms(value, whole["$defs"][said.removeprefix("#/$defs/")], whole))
        elif word == "anyOf":
            results.append(any(conforms(value, part, whole) for part in said))
        elif word == "type":
            results.append(
                isinstance(value, TYPES[said]) and (said == "boolean" or not isinstance(value, bool))
            )
        elif word in ("enum", "const"):
            results.append(value in (said if word == "enum" else [said]))
        elif word in BOUNDS:
            results.append(isinstance(value, (int, float)) and BOUNDS[word](value, said))
        elif word == "properties":
            results.append(
                isinstance(value, dict)
                and all(conforms(v, said[k], whole) for k, v in value.items() if k in said)
            )
        elif word == "additionalProperties":
            others = (
                [v for k, v in value.items() if k not in rest.get("properties", {})]
                if isinstance(value, dict)
                else []
            )
            results.append(
                not others if said is False else said is True or all(conforms(v, said, whole) for v in others)
            )
        elif word in ("items", "prefixItems"):
            parts = said if word == "prefixItems" else [said] * len(value) if isinstance(value, list) else []
            results.append(
                isinstance(value, list)
                and all(conforms(v, part, whole) for v, part in zip(value, parts, strict=False))
            )
        elif word in ("minItems", "maxItems"):
            results.append(
                isinstance(value, list) and (len(value) >= said if word == "minItems" else len(value) <= said)
            )
        else:
            raise AssertionError(f"{word}: {said}")
    return all(results)


@settings(quick, max_examples=15)
@given(some(PretrainSettings))
def test_all_that_is_valid_conforms(valid: PretrainSettings) -> None:
    assert conforms(json.loads(valid.model_dump_json()), SCHEMA, SCHEMA)


@pytest.mark.parametrize("text", [
    "sed: 1", "seed: -1", "seed: many", "masking: {segments: 0}", "masking: {scope: row}", "batch: {size: 1.5}",
    "batch: {micro_size: all}", "optimizer: {betas: [0.9]}", "optimizer: {betas: [0.9, 2]}", "data: 3",
    "speed: {compile: maybe}", "model: {lora: {rnk: 3}}", "evaluation: {stores: {a: 1}}",
])  # fmt: skip
def test_what_is_not_valid_does_not(text: str) -> None:
    tree = yaml.safe_load(text)
    assert not conforms(tree, SCHEMA, SCHEMA)
    with pytest.raises(ValueError, match="validation error"):
        PretrainSettings.model_validate(tree)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configurations_conform(path: Path) -> None:
    command = "compare-masks" if path.parent.name == "paper" else "pretrain"
    schema = schema_of(SECTIONS[command], command)
    assert conforms(yaml.safe_load(path.read_text(encoding="utf-8")), schema, schema)


def test_every_setting_is_described() -> None:
    schema = schema_of(PretrainSettings, "pretrain")
    assert "required" not in schema

    def described(part: Mapping[str, Any]) -> int:
        count = 0
        for inner in part["properties"].values():
            if "$ref" in inner:
                count += described(schema["$defs"][inner["$ref"].rpartition("/")[2]])
            else:
                assert inner["description"] and "default" in inner
                count += 1
        return count

    assert described(schema) > 80
