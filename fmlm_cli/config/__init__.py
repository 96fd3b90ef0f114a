"""Every setting: typed, documented, validated. YAML in, resolved YAML out."""

from fmlm_cli.config.compare import CompareSettings, DownstreamSettings, VarianceSettings
from fmlm_cli.config.finetune import (
    ALL,
    FinetuneSettings,
    Hyperparameters,
    PredictSettings,
    TaskSettings,
)
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
    "ALL",
    "CompareSettings",
    "DownstreamSettings",
    "EvaluateSettings",
    "FinetuneSettings",
    "Hyperparameters",
    "MaskingSettings",
    "MasksSettings",
    "PredictSettings",
    "PretrainSettings",
    "Section",
    "TaskSettings",
    "TextSettings",
    "TokenizeSettings",
    "VarianceSettings",
    "build",
    "choices",
    "describe_settings",
    "nested",
    "parse_assignments",
    "read_yaml",
    "setting_names",
    "to_yaml",
]
