"""Every setting with its value and where that stands: the file it makes is the same settings."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from fmlm_cli.config import (
    PretrainSettings,
    build,
    parse_assignments,
    read_yaml,
    saved_settings,
    setting_names,
)
from fmlm_cli.config.showing.origins import Origins, annotated_yaml
from tests.test_config import quick, some


def test_what_is_shown_is_a_file_of_the_same_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("shown") / "settings.yaml"

    @settings(quick, max_examples=15)
    @given(some(PretrainSettings))
    def check(chosen: PretrainSettings) -> None:
        text = annotated_yaml(chosen, Origins(PretrainSettings))
        path.write_text(text, encoding="utf-8", newline="\n")
        assert saved_settings(PretrainSettings, path) == chosen
        values = [line for line in text.split("\n") if line and not line.endswith(":")]
        assert len(values) == len(list(setting_names(PretrainSettings)))
        assert all(line.endswith("  # default") for line in values)

    check()


def origins_of(text: str) -> dict[str, str]:
    """The comment of each setting, by its dotted name, as the lines' indentation has it."""
    found, path = {}, []
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, rest = line.strip().partition(":")
        path = [*path[:depth], name]
        if rest:
            found[".".join(path)] = rest.rpartition("  # ")[2]
    return found


def test_each_setting_has_its_line(tmp_path: Path) -> None:
    config = tmp_path / "a # b.yaml"
    config.write_text(
        "seed: 1\ndata:\n  packing: none\n  max_rows: null\nmasking:\n  options: {p: 0.1}\nbudget:\n  steps: 3\n"
    )
    assignments = ["seed=2", "optimizer.clip=null"]
    tree: Any = read_yaml(config, PretrainSettings)
    resolved = build(PretrainSettings, tree, parse_assignments(assignments, PretrainSettings))
    origins = Origins(PretrainSettings, config, {"checkpoint.keep": "--keep"}, assignments)
    found = origins_of(annotated_yaml(resolved, origins))
    assert {name: where for name, where in found.items() if where != "default"} == {
        "seed": "--set",
        "data.packing": f"{config}:3",
        "data.max_rows": f"{config}:4",
        "masking.options": f"{config}:6",
        "budget.steps": f"{config}:8",
        "budget.tokens": f"{config}:7",  # for the whole of the group is replaced
        "budget.epochs": f"{config}:7",
        "budget.minutes": f"{config}:7",
        "optimizer.clip": "--set",
        "checkpoint.keep": "--keep",
    }
    assert set(found) == set(setting_names(PretrainSettings))


@pytest.mark.parametrize(
    "value", ["", "#", " # x", "a: b", "null", "1", "[", "'", '"', "\u0085", "\u2028", "ä", "x" * 300, "a\nb"]
)
def test_odd_values_stay_in_one_line(value: str) -> None:
    shown = annotated_yaml(PretrainSettings(out=value), Origins(PretrainSettings))
    assert yaml.safe_load(shown)["out"] == value
    assert shown.split("\n")[1].startswith("seed: 0")
