"""Freed memory is kept: what is asked for again costs no new pages."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from fmlm_cli.engine.runtime import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    print("other C library")
else:
    for _ in range(12):
        torch.ones(16 << 20)  # 64 MiB; until the C library has as much as it needs
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(16 << 20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how):
    command = [sys.executable, "-c", PROGRAM, how]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if printed == "other C library":
        pytest.skip("this C library is not glibc")
    return int(printed)


def test_a_tensor_that_is_made_again_takes_no_new_pages():
    assert page_faults("keep") < 100 < page_faults("as it comes")
