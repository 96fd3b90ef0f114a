"""What a GPU draws of power while something is at work on it."""

import shutil
import statistics
import subprocess
import threading
from types import TracebackType

import torch

_APART = 0.5  # seconds between two looks
_PATIENCE = 5.0  # seconds for one


class PowerMeter:
    """Looks at a device's power from time to time. A context manager: what is at work inside is measured.

    As nvidia-smi tells it, which comes with the driver. Of anything else but NVIDIA's GPUs nothing is known.
    """

    def __init__(self, device: torch.device) -> None:
        self._command = _command_for(device)
        self._seen: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="power", daemon=True)

    def __enter__(self) -> "PowerMeter":
        if self._command:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._command:
            self._thread.join(2 * _PATIENCE)

    @property
    def watts(self) -> float | None:
        """The median of what was seen, so that beginning and end do not count; None where it is not known."""
        return statistics.median(self._seen) if self._seen else None

    def _look_on(self) -> None:
        while not self._over.is_set():
            watts = _asked(self._command)
            if watts is None:
                return
            self._seen.append(watts)
            self._over.wait(_APART)


def _command_for(device: torch.device) -> list[str]:
    """What asks for a device's power; empty for one of which nothing is known."""
    program = shutil.which("nvidia-smi")
    if device.type != "cuda" or program is None:
        return []
    # By its own name: CUDA_VISIBLE_DEVICES numbers anew, and nvidia-smi does not.
    own_name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    return [program, f"--id={own_name}", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]


def _asked(command: list[str]) -> float | None:
    """Watts; None where the answer is no number, as of a part of a GPU."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=True).stdout
        return float(said.strip())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
