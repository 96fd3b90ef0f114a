"""Whether a run that exists is the one that is asked for."""

from collections.abc import Mapping
from typing import Any

import yaml

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build
from fmlm_cli.errors import UserError
from fmlm_cli.recipes.shared.checkpoints import saved_settings

# Settings that change where and how fast a run goes, but not what it computes: a resumed run may change them. Of those
# that name data and weights the contents decide, which are in the plan's identity.
MAY_CHANGE = (
    "out",
    "device",
    "data.stores",
    "data.replay",
    "data.verify",
    "text",
    "model.checkpoint",
    "evaluation.stores",
    "batch.micro_size",
    "checkpoint",
    "logging",
)


def deciding(settings: PretrainSettings) -> dict[str, Any]:
    """The settings that decide results, flat."""
    flat = _flatten(settings.model_dump(mode="json"))
    return {
        k: v for k, v in flat.items() if not any(k == free or k.startswith(f"{free}.") for free in MAY_CHANGE)
    }


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def settings_to_resume(settings: PretrainSettings, run: storage.RunDirectory) -> PretrainSettings:
    """A run's own settings, with what `settings` sets explicitly laid over them."""
    return build(PretrainSettings, saved_settings(run).model_dump(), settings.model_dump(exclude_unset=True))


def check_same_run(settings: PretrainSettings, run: storage.RunDirectory) -> None:
    """Refuse to resume a run under settings that would have made it another one."""
    before, now = deciding(saved_settings(run)), deciding(settings)
    for name in {**before, **now}:  # options of a strategy may be in one of the two alone
        if before.get(name) != now.get(name):
            raise UserError(
                f"{run.root} was started with {name} {_shown(before.get(name))}, not {_shown(now.get(name))}: "
                f"drop that setting to resume, or give another --out"
            )


def _shown(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).splitlines()[0]
