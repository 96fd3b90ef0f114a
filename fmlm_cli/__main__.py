"""Entry point of `fmlm` and `python -m fmlm_cli`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being loaded ends it in one line too."""
    try:
        from fmlm_cli.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit("stopped by Ctrl-C before anything began")
    run()


if __name__ == "__main__":
    main()
