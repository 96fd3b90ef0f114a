"""Whose settings a file holds."""

from pathlib import Path

from fmlm_cli.config.compare import CompareSettings
from fmlm_cli.config.finetune import FinetuneSettings
from fmlm_cli.config.reading import yaml_file
from fmlm_cli.config.schema import PretrainSettings
from fmlm_cli.config.section import Section
from fmlm_cli.errors import UserError

# Of commands that take a file of settings; the first is meant where nothing tells another.
SECTIONS: dict[str, type[Section]] = {
    "pretrain": PretrainSettings,
    "continue": PretrainSettings,
    "finetune": FinetuneSettings,
    "compare-masks": CompareSettings,
}


def likeliest_section(file: Path) -> type[Section]:
    """The settings that have most of a file's names at the top, the first of several."""
    try:
        _, tree = yaml_file(file)
    except FileNotFoundError:
        raise UserError(f"no such configuration file: {file}") from None
    names = set(tree) if isinstance(tree, dict) else set()
    return max(SECTIONS.values(), key=lambda section: len(names & section.model_fields.keys()))


def commands_with(section: type[Section]) -> str:
    """The commands that have these settings, in words."""
    return " or ".join(f"`fmlm {name}`" for name, known in SECTIONS.items() if known is section)
