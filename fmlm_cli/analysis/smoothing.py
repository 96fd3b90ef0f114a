"""A noisy curve as a smooth one."""

import numpy as np
import numpy.typing as npt
from scipy.signal import savgol_filter

_SMOOTHED = 0.02  # share of the curve that is averaged
_LEAST_SMOOTHED = 9  # points; fewer say little at the curve's ends


def smoothed(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean around each point, float64[n]; in the half windows at the ends, the line that fits there.

    A window that narrowed towards the ends instead would show the last point's noise as it is, and one that
    stayed behind would raise a falling curve's end.
    """
    window = max(2 * round(len(losses) * _SMOOTHED / 2) + 1, _LEAST_SMOOTHED)
    return losses if len(losses) < window else np.asarray(savgol_filter(losses, window, polyorder=1))
