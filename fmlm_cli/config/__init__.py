"""Every setting: typed, documented, validated. YAML in, resolved YAML out."""

from fmlm_cli.config.layers import (
    build,
    choices,
    describe_settings,
    nested,
    parse_assignments,
    read_yaml,
    setting_names,
    to_yaml,
)
from fmlm_cli.config.schema import (
    EvaluateSettings,
    MaskingSettings,
    MasksSettings,
    PretrainSettings,
    Section,
    TextSettings,
    TokenizeSettings,
)

__all__ = [
    "EvaluateSettings",
    "MaskingSettings",
    "MasksSettings",
    "PretrainSettings",
    "Section",
    "TextSettings",
    "TokenizeSettings",
    "build",
    "choices",
    "describe_settings",
    "nested",
    "parse_assignments",
    "read_yaml",
    "setting_names",
    "to_yaml",
]
