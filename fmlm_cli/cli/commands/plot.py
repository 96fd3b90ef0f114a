"""`fmlm plot`."""

from fmlm_cli.cli.flags import Flag
from fmlm_cli.cli.options import with_options
from fmlm_cli.config import PlotSettings
from fmlm_cli.events import Emit


@with_options(
    PlotSettings,
    Flag("RUN", "runs"),
    Flag("--out", "out", metavar="FILE.png|.svg|.pdf"),
    Flag("--x", "x"),
    Flag("--evaluation", "evaluation", metavar="NAME"),
    Flag("--width", "width", metavar="PIXELS"),
    by_one=True,
)
def command(settings: PlotSettings, emit: Emit) -> None:
    """Draw the loss curves of runs over each other, into a picture or in the terminal.

    Example: fmlm plot run-a run-b --x tokens --out curves.png

    - Training losses are smoothed; lines are named by the settings that differ.
    """
    from fmlm_cli.recipes.overview.plotting import plot_runs

    plot_runs(settings, emit)
