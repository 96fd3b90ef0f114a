"""Python code that a checkpoint brings for a type unknown to transformers: told of, then run if trusted."""

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module, get_relative_import_files
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from fmlm_cli import hub
from fmlm_cli.errors import UserError, one_line
from fmlm_cli.model.build import refuse_decoder

_CONFIG = "AutoConfig"
_REFERENCE = re.compile(r"(?:(?P<repository>[\w.-]+/[\w.-]+)--)?(?P<module>\w+)\.(?P<name>\w+)")


@dataclass(frozen=True)
class _Reference:
    """A class that a config.json names, as OWNER/NAME--module.Class or module.Class.

    `repository`: the Hub name that its module comes from, or None for the checkpoint itself.
    """

    repository: str | None
    module: str
    name: str


def needs_own_code(raw: Mapping[str, Any]) -> bool:
    """Whether a config.json names classes for a type that transformers does not know."""
    model_type = raw["model_type"]
    return (
        isinstance(model_type, str) and model_type not in CONFIG_MAPPING_NAMES and bool(raw.get("auto_map"))
    )


def classes_of(
    folder: Path,
    raw: Mapping[str, Any],
    name: str,
    trust: bool,
    announce: Callable[[str], None],
    model_key: str = "AutoModelForMaskedLM",
) -> tuple[PreTrainedConfig, type[PreTrainedModel], tuple[str, ...]]:
    """The configuration and the model class that a checkpoint's own code makes, and the files that ran.

    `model_key`: the model class's key in the checkpoint's auto_map.

    Nothing is imported before `announce` was told, nor at all without `trust`: then it is a `UserError` that
    lists the files. A module of another repository is fetched, and named with its commit.
    """
    references = [_reference(raw["auto_map"], key, name) for key in (_CONFIG, model_key)]
    if not trust:
        files = _files(references, {None: hub.Located(folder)})
        raise UserError(
            f"{name} brings code of its own for its type '{raw['model_type']}' ({', '.join(files)}): read "
            "it, then --trust-remote-code runs it"
        )
    places = {
        r: hub.locate(r, weights=False, code=True) if r else hub.Located(folder)
        for r in {reference.repository for reference in references}
    }
    files = _files(references, places)
    where = ", ".join(sorted({str(place.folder.absolute()) for place in places.values()}))
    announce(f"running the code that {name} brings: {', '.join(files)} (in {where})")
    try:
        with hub.quiet():
            config_class, model_class = (_imported(ref, places[ref.repository].folder) for ref in references)
            # So that the saved model brings the code too.
            config_class.register_for_auto_class(_CONFIG)
            model_class.register_for_auto_class(model_key)
            config = config_class.from_pretrained(str(folder.absolute()), local_files_only=True)
    except Exception as error:  # it is anybody's code
        raise UserError(f"the code that {name} brings failed: {one_line(error)}") from error
    refuse_decoder(config, f"{name}/config.json")
    return config, model_class, files


def _imported(reference: _Reference, folder: Path) -> Any:
    """The class, once the Python files in `folder` that it needs have run."""
    return get_class_from_dynamic_module(
        f"{reference.module}.{reference.name}", str(folder.absolute()), local_files_only=True
    )


def _reference(auto_map: Any, key: str, name: str) -> _Reference:
    text = auto_map.get(key) if isinstance(auto_map, dict) else None
    if text is None:
        raise UserError(
            f"{name} brings code of its own, but not what this needs (its auto_map has no {key}): use "
            "another checkpoint"
        )
    match = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise UserError(
            f"{name}/config.json: auto_map.{key} is '{text}', not a module.Class: the file is damaged"
        )
    return _Reference(**match.groupdict())


def _files(references: list[_Reference], places: Mapping[str | None, hub.Located]) -> tuple[str, ...]:
    """The files that importing these classes runs, sorted: their modules, and what those import beside them.

    Of modules that are not here yet only they themselves are known.
    """
    files: set[str] = set()
    for reference in references:
        entry = f"{reference.module}.py"
        place = places.get(reference.repository)
        commit = f"@{place.revision}" if place and place.revision else ""
        where = f"{reference.repository}{commit}/" if reference.repository else ""
        files.add(where + entry)
        if place is not None and (place.folder / entry).is_file():
            with contextlib.suppress(OSError, UnicodeDecodeError):  # importing it will tell
                files |= {where + Path(path).name for path in get_relative_import_files(place.folder / entry)}
    return tuple(sorted(files))
