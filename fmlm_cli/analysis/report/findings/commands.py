"""Command lines that go on from what was found, quoted for a POSIX shell."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fmlm_cli.analysis.results.comparison import ArmResult, Measurements
from fmlm_cli.config import PretrainSettings, build, flat
from fmlm_cli.masking import DEFAULT_SEGMENTS
from fmlm_cli.storage import RUN_CONFIG

# Settings of the race's runs that are not to go on: each run's own, what made it a sample of the data, and
# what has a flag or is said by the masking.
_LEFT_OUT = (
    *("out", "seed", "budget", "masking", "text", "model.name", "model.checkpoint"),
    *("data.stores", "data.replay", "data.verify", "data.max_rows", "data.subset_seed"),
    *("evaluation.names", "evaluation.stores", "evaluation.subset_seed"),
)
_LEAST_PASSES = 0.01  # below which a budget is not told in them


def go_on(results: Measurements, *words: str) -> str:
    """The comparison gone on with in its folder."""
    return shlex.join(["fmlm", "compare-masks", config_in(_root(results)), "--resume", *words])


def anew(results: Measurements, how: str, *words: str) -> str:
    """The comparison with something otherwise, in a folder beside it whose name ends in `how`."""
    root = _root(results)
    return shlex.join(["fmlm", "compare-masks", config_in(root), *words, "--out", beside(root, how)])


def train(results: Measurements, arm: ArmResult) -> str:
    """A run with an arm's masking and all else as in the race, on all rows, which are seen as often."""
    run = build(PretrainSettings, results.settings.get("run", {}))
    checkpoint = run.model.checkpoint
    begin = ["continue", "--from", checkpoint] if checkpoint else ["pretrain"]
    words = ["fmlm", *begin, *(word for store in run.data.stores for word in ("--data", store))]
    words += [word for store in run.data.replay for word in ("--replay", store)]
    words += [word for name, path in run.evaluation.stores.items() for word in ("--eval", f"{name}={path}")]
    words += [] if checkpoint else ["--model", run.model.name]
    words += ["--masking", str(arm.masking["strategy"]), "--budget", _budget(results, arm, run)]
    for name, value in (*_otherwise(run), *_masked_otherwise(arm)):
        words += ["--set", f"{name}={in_yaml(value)}"]
    return shlex.join([*words, "--out", beside(_root(results), "run")])


def in_yaml(value: Any) -> str:
    """A value as --set reads it."""
    return str(yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10**6)).strip()[
        1:-1
    ]


def config_in(root: Path) -> str:
    """The settings that a command has left in its folder, as a word that is no option."""
    path = str(root / RUN_CONFIG)
    return f"./{path}" if path.startswith("-") else path


def beside(root: Path, how: str) -> str:
    """The name of a folder beside another."""
    return str(root.with_name(f"{root.name}-{how}")) if root.name not in ("", "..") else f"../{how}"


def _root(results: Measurements) -> Path:
    return Path(str(results.settings["out"]))


def _budget(results: Measurements, arm: ArmResult, run: PretrainSettings) -> str:
    """As long as the race's runs; where these had a sample of the rows, all of them are seen as often."""
    if run.data.max_rows is None or arm.passes is None or arm.passes < _LEAST_PASSES:
        return f"{results.steps}-steps"
    return f"{arm.passes:{'.3g' if arm.passes < 1000 else '.0f'}}-epochs"


def _otherwise(run: PretrainSettings) -> Iterator[tuple[str, Any]]:
    """The settings that are not at their defaults, masking apart."""
    default = flat(PretrainSettings().model_dump(mode="json"))
    for name, value in flat(run.model_dump(mode="json")).items():
        left_out = any(name == own or name.startswith(f"{own}.") for own in _LEFT_OUT)
        if not left_out and value != default.get(name):
            yield name, value


def _masked_otherwise(arm: ArmResult) -> Iterator[tuple[str, Any]]:
    """How an arm masks, its strategy apart."""
    default = flat(PretrainSettings().masking.model_dump(mode="json")) | {"segments": DEFAULT_SEGMENTS}
    for name, value in flat(arm.masking).items():
        if name != "strategy" and value is not None and value != default.get(name):
            yield f"masking.{name}", value
