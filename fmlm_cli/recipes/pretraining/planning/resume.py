"""Whether a run that exists is the one that is asked for."""

from typing import Any

import yaml

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, deciding, differing, saved_settings
from fmlm_cli.errors import OtherSettingError


def settings_to_resume(settings: PretrainSettings, run: storage.RunDirectory) -> PretrainSettings:
    """A run's own settings, with what `settings` sets explicitly laid over them."""
    saved = saved_settings(PretrainSettings, run.config)
    return build(PretrainSettings, saved.model_dump(), settings.model_dump(exclude_unset=True))


def check_same_run(settings: PretrainSettings, run: storage.RunDirectory) -> None:
    """Refuse to resume a run under settings that would have made it another one."""
    before, now = deciding(saved_settings(PretrainSettings, run.config)), deciding(settings)
    for name in differing(before, now):
        was, wanted = _shown(before.get(name)), _shown(now.get(name))
        raise OtherSettingError(f"{run.root} was started", name, was, wanted)


def _shown(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).splitlines()[0]
