"""The command line. `main` is the console script; app.py holds the commands, one file a group."""


def main() -> None:
    """Run the command that the arguments name."""
    from dfdbench.cli.app import app

    app(prog_name="dfdbench")
