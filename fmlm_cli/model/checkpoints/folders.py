"""Where in a folder its model lies: sentence-transformers used to put it into one below."""

from pathlib import Path

from fmlm_cli.errors import UserError
from fmlm_cli.storage import read_json

_MODULES = "modules.json"  # of sentence-transformers: what a text passes through, the model first


def inner_model(folder: Path) -> Path:
    """The folder of the model that a folder holds, such as its `0_Transformer`; mostly the folder itself."""
    if not (folder / _MODULES).is_file():
        return folder
    modules = read_json(folder / _MODULES)
    try:
        inner = str(modules[0]["path"])
    except (LookupError, TypeError):
        raise UserError(f"{folder / _MODULES} does not say where its model lies: it is damaged") from None
    if Path(inner).name != inner or not (folder / inner / "config.json").is_file():
        return folder  # newer ones leave the path empty; nor is anything looked for elsewhere
    return folder / inner
