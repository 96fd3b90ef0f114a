"""Every setting: typed, documented, validated. YAML in, resolved YAML out."""

from fmlm_cli.config.compare import (
    CHECKPOINTS,
    CORRUPTIONS,
    LEAST_SEQUENCES,
    CompareSettings,
    DownstreamSettings,
    Part,
    VarianceSettings,
)
from fmlm_cli.config.finetune import (
    ALL,
    FinetuneSettings,
    Hyperparameters,
    PredictSettings,
    TaskSettings,
)
from fmlm_cli.config.layers import (
    as_typed,
    build,
    choices,
    describe_settings,
    line_in,
    nested,
    parse_assignments,
    read_yaml,
    saved_settings,
    sets,
    setting_field,
    setting_names,
    to_yaml,
)
from fmlm_cli.config.looking import DoctorSettings, InspectSettings
from fmlm_cli.config.reading import yaml_file, yaml_value
from fmlm_cli.config.roles import deciding, differing
from fmlm_cli.config.schema import (
    BudgetSettings,
    EvaluateSettings,
    EvaluationSettings,
    MaskingSettings,
    MasksSettings,
    PretrainSettings,
)
from fmlm_cli.config.section import SPELLINGS, Budget, Packing, Section
from fmlm_cli.config.tokenize import ReadingSettings, TextSettings, TokenizeSettings

__all__ = [
    "ALL",
    "CHECKPOINTS",
    "CORRUPTIONS",
    "LEAST_SEQUENCES",
    "SPELLINGS",
    "Budget",
    "BudgetSettings",
    "CompareSettings",
    "DoctorSettings",
    "DownstreamSettings",
    "EvaluateSettings",
    "EvaluationSettings",
    "FinetuneSettings",
    "Hyperparameters",
    "InspectSettings",
    "MaskingSettings",
    "MasksSettings",
    "Packing",
    "Part",
    "PredictSettings",
    "PretrainSettings",
    "ReadingSettings",
    "Section",
    "TaskSettings",
    "TextSettings",
    "TokenizeSettings",
    "VarianceSettings",
    "as_typed",
    "build",
    "choices",
    "deciding",
    "describe_settings",
    "differing",
    "line_in",
    "nested",
    "parse_assignments",
    "read_yaml",
    "saved_settings",
    "sets",
    "setting_field",
    "setting_names",
    "to_yaml",
    "yaml_file",
    "yaml_value",
]
