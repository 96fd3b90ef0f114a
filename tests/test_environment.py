"""The suite is deaf to the environment that it is started in: a part of it passes in a hostile one."""

import os
import subprocess
import sys
import warnings

import pytest

from tests.environment import ROOT, python_path, settle

HOSTILE = {
    **dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1"),
    **dict.fromkeys(("http_proxy", "https_proxy", "ALL_PROXY", "HF_ENDPOINT"), "http://127.0.0.1:9"),
    **dict.fromkeys(("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "GITHUB_ACTIONS"), "1"),
    **dict.fromkeys(
        ("HOME", "HF_HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), "/proc/nowhere"
    ),
    **dict.fromkeys(("RANK", "SLURM_PROCID"), "1"),
    **dict.fromkeys(("WORLD_SIZE", "SLURM_NTASKS", "OMP_NUM_THREADS", "PYTHONHASHSEED"), "4"),
    "COLUMNS": "20",
    "LINES": "3",
    "TERM": "dumb",
    "LC_ALL": "C",
    "LANG": "de_DE",
    "TZ": "Asia/Kathmandu",
    "CUDA_VISIBLE_DEVICES": "0",
    "MPLBACKEND": "nonsense",
    "PYTHONWARNINGS": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "debug",
}

# Kinds that have failed, or could: the Hub, help and its colours, pictures, a run in a process of its own.
SENSITIVE = (
    "tests/test_hub.py",
    "tests/cli/test_help.py",
    "tests/cli/test_evaluate_cli.py",
    "tests/analysis/report/test_training_figures.py",
)


def test_a_part_of_the_suite_passes_in_a_hostile_environment() -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": python_path(), **HOSTILE}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SENSITIVE]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_of_what_is_deprecated_only_our_own_use_is_an_error() -> None:
    """Which old names torch and transformers use themselves depends on their versions."""
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        with warnings.catch_warnings(record=True) as caught:
            warnings.warn_explicit("old", category, "file.py", 1, module="transformers.models.x")
            for module in ("fmlm_cli.hub", "tests.test_hub"):
                with pytest.raises(category):
                    warnings.warn_explicit("old", category, "file.py", 1, module=module)
        assert len(caught) == 1
    with pytest.raises(UserWarning):
        warnings.warn_explicit("odd", UserWarning, "file.py", 1, module="transformers.models.x")


def test_nothing_of_it_is_left() -> None:
    environment = {**HOSTILE, "PATH": "/bin"}
    settle(environment, "/caches")
    kept = {name for name in environment if environment[name] == HOSTILE.get(name)}
    assert kept == {"HOME"}
    assert environment["PATH"] == "/bin"
    assert environment["HF_HOME"].startswith("/caches/")


def test_a_gpu_is_seen_by_the_tests_that_ask_for_one() -> None:
    environment = dict(HOSTILE)
    settle(environment, "/caches")
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    for seen in ({}, {"CUDA_VISIBLE_DEVICES": "3"}):
        environment = dict(seen)
        settle(environment, "/caches", gpu=True)
        assert {name: value for name, value in environment.items() if name.startswith("CUDA")} == seen
