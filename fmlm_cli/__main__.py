"""Entry point of `fmlm` and `python -m fmlm_cli`."""

from fmlm_cli.cli.app import main

if __name__ == "__main__":
    main()
