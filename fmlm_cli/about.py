"""What fmlm is here: versions of it and of what it stands on, and the device that it would use."""

import platform
import warnings
from collections.abc import Iterator
from importlib import metadata

from fmlm_cli import __version__
from fmlm_cli.cores import usable_cores
from fmlm_cli.errors import one_line

_PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "pyarrow")


def described() -> Iterator[str]:
    """Lines for a person or a report of a fault. The last one takes as long as torch takes to load."""
    yield from packages()
    yield f"device: {_device()}"


def packages() -> Iterator[str]:
    """The same without the device."""
    yield f"fmlm {__version__}"
    yield f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _device() -> str:
    """What `device: auto` becomes."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of what else is not installed
            import torch  # noqa: PLC0415 - only whoever asks for the device waits for it
    except (ImportError, OSError) as error:  # a library of its own may be missing
        return f"unknown, for torch does not load ({one_line(error)})"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    return f"{'mps' if torch.backends.mps.is_available() else 'cpu'}, {usable_cores()} cores"
