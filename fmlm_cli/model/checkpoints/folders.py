"""Where in a folder its model lies, and what follows it: sentence-transformers has several parts in one."""

from pathlib import Path

from fmlm_cli.errors import UserError
from fmlm_cli.storage import read_json

_MODULES = "modules.json"  # of sentence-transformers: what a text passes through, the model first


def inner_model(folder: Path) -> Path:
    """The folder of the model that a folder holds, such as its `0_Transformer`; mostly the folder itself."""
    if not (folder / _MODULES).is_file():
        return folder
    inner = _paths(folder)[0]
    if Path(inner).name != inner or not (folder / inner / "config.json").is_file():
        return folder  # newer ones leave the path empty; nor is anything looked for elsewhere
    return folder / inner


def parts_after_model(folder: Path) -> tuple[str, ...]:
    """What a sentence encoder passes the model's output through, such as its `1_Pooling`; mostly nothing."""
    return tuple(_paths(folder)[1:]) if (folder / _MODULES).is_file() else ()


def _paths(folder: Path) -> list[str]:
    """The folders of the modules, of which there is one at least."""
    modules = read_json(folder / _MODULES)
    try:
        first, *others = [str(module["path"]) for module in modules]
    except (LookupError, TypeError, ValueError):
        raise UserError(f"{folder / _MODULES} does not say where its model lies: it is damaged") from None
    return [first, *others]
