"""What every test of a command needs: the process as it was before."""

import signal
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands set signal handlers and the environment; one thread is enough for a tiny model.

    Temporary folders may have long names, at which lines would be folded.
    """
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for number, handler in before.items():
        signal.signal(number, handler)
