"""The environment that tests run in: the same whatever the shell that starts them exports."""

import os
from collections.abc import MutableMapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# All else is taken away: HF_HUB_OFFLINE, proxies, NO_COLOR, COLUMNS, XDG_*, LC_*, PYTHONWARNINGS, ... each change
# what some library does, and no list of those would be complete.
_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
_KEPT_BEGINNINGS = ("PYTEST_", "COV_", "COVERAGE_", "LD_", "DYLD_")


def settle(environment: MutableMapping[str, str], caches: str, *, gpu: bool = False) -> None:
    """Leave of an environment what running Python needs, and set what decides how libraries behave.

    To be called before anything of Hugging Face's, torch or matplotlib is imported: they read it then.
    `caches`: an empty folder for what they keep; what lies in the user's own caches is not there for tests.
    `gpu`: whether a GPU is seen. Tests are written for the CPU: whatever takes a GPU where it finds one finds
    none, but for the tests that ask for one.
    """
    visible = {name: environment[name] for name in ("CUDA_VISIBLE_DEVICES",) if gpu and name in environment}
    for name in list(environment):
        if name not in _KEPT and not name.startswith(_KEPT_BEGINNINGS):
            del environment[name]
    environment |= {
        **(visible if gpu else {"CUDA_VISIBLE_DEVICES": ""}),
        # Models here are so small that two threads spend their time waiting for each other.
        "OMP_NUM_THREADS": "1",
        "HF_HOME": f"{caches}/huggingface",
        "MPLCONFIGDIR": f"{caches}/matplotlib",
    }


def python_path() -> str:
    """PYTHONPATH for a process that is to run this code wherever it is started, with the libraries of this one."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
