"""Entry point of `fmlm` and `python -m fmlm_cli`."""

import sys

from fmlm_cli.errors import STOPPED_EARLY


def main() -> None:
    """Run the command line; Ctrl-C while it is still being loaded ends it in one line too."""
    try:
        from fmlm_cli.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(STOPPED_EARLY)
    run()


if __name__ == "__main__":
    main()
