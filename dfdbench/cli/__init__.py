"""The command line. `main` is the console script; app.py holds the commands, one file a group."""


def main() -> None:
    """Run the command that the arguments name."""
    import sys
    import warnings

    from dfdbench.utils.progress import say_warning
    from dfdbench.utils.stopping import interruptible

    for stream in (sys.stdout, sys.stderr):  # a name may be of bytes that are no text
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = say_warning
    try:
        with interruptible():
            from dfdbench.cli.app import app

            app(prog_name="dfdbench")
    except KeyboardInterrupt:
        sys.exit(130)
