"""The command line: Typer commands and the console. Heavy libraries are imported when a command runs."""
