"""The settings of a command as a JSON schema, by which editors complete and check its files."""

from typing import Any

from fmlm_cli.config.section import Section

_DIALECT = "https://json-schema.org/draft/2020-12/schema"  # as pydantic writes it


def schema_of(section: type[Section], command: str) -> dict[str, Any]:
    """The schema of files of settings for a command.

    Nothing is required of a file: flags may give what is.
    """
    schema = section.model_json_schema()
    schema.pop("required", None)
    return {"$schema": _DIALECT, **schema, "title": f"settings of fmlm {command}"}
