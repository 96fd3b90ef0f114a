"""`fmlm evaluate`."""

from fmlm_cli.cli.flags import Flag
from fmlm_cli.cli.options import with_options
from fmlm_cli.config import EvaluateSettings
from fmlm_cli.events import Emit


@with_options(
    EvaluateSettings,
    Flag("--from", "checkpoint", metavar="RUN|FOLDER|HUB-NAME"),
    Flag("--data", "store", metavar="STORE"),
    Flag("--threads", "speed.threads"),
    Flag("--revision", "revision"),
    Flag("--trust-remote-code", "trust_remote_code"),
    by_one=True,
)
def command(settings: EvaluateSettings, emit: Emit) -> None:
    """Evaluate any masked language model on a store's validation split.

    Example: fmlm evaluate --from run --data store
    """
    from fmlm_cli.recipes.evaluate import evaluate_checkpoint

    evaluate_checkpoint(settings, emit=emit)
