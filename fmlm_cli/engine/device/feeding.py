"""Batches on their way to the device, a step ahead of it."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType

import torch
from torch import Tensor

from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.runtime import Runtime

_LOOK_EVERY = 0.001  # seconds between two looks at whether the device still works, where batches are late


class Feeder:
    """Makes the batches of a step in a thread of its own, while the step before it computes.

    On a GPU that thread copies them, too, on a stream of its own. `prepare(step)`: this process's
    batches of a step. A context manager: leaving it waits for the thread.
    """

    def __init__(self, prepare: Callable[[int], Sequence[Batch]], runtime: Runtime) -> None:
        self._prepare, self._runtime = prepare, runtime
        self._stream = torch.cuda.Stream(runtime.device) if runtime.device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, "prepare")
        self._ahead: Future[tuple[list[Batch], torch.cuda.Event | None]]

    def __enter__(self) -> "Feeder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    def order(self, step: int) -> None:
        """Have the batches of a step made; they are the next to be taken."""
        self._ahead = self._thread.submit(self._made, step)

    def take(self, idle: Callable[[], bool]) -> tuple[list[Batch], float]:
        """The batches that were ordered, and the seconds that the device had nothing to do for want of them.

        `idle()`: whether it has nothing to do now.
        """
        begin = time.perf_counter()
        while not wait([self._ahead], _LOOK_EVERY).done:
            if not idle():
                begin = time.perf_counter()
        waited = time.perf_counter() - begin
        batches, copied = self._ahead.result()
        if copied is not None:
            self._hand_over(batches, copied)
        return batches, waited

    def _made(self, step: int) -> tuple[list[Batch], torch.cuda.Event | None]:
        batches = list(self._prepare(step))
        if self._stream is None:
            return batches, None
        with torch.cuda.stream(self._stream):
            batches = [batch.to(self._runtime.device) for batch in batches]
            return batches, self._stream.record_event()

    def _hand_over(self, batches: Sequence[Batch], copied: torch.cuda.Event) -> None:
        """Let the stream that computes wait for the copies, whose memory is kept until it has used them."""
        computing = torch.cuda.current_stream(self._runtime.device)
        computing.wait_event(copied)
        for batch in batches:
            for value in batch.inputs.values():
                if isinstance(value, Tensor) and value.is_cuda:
                    value.record_stream(computing)
