"""The command line. `main` is the console script; app.py holds the commands, one file a group."""


def in_a_line(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning as a line, without the place in the code that it comes from."""
    from dfdbench.utils.progress import say

    say(f"warning: {message}")


def main() -> None:
    """Run the command that the arguments name."""
    import sys
    import warnings

    from dfdbench.utils.stopping import interruptible

    for stream in (sys.stdout, sys.stderr):  # a name may be of bytes that are no text
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = in_a_line
    try:
        with interruptible():
            from dfdbench.cli.app import app

            app(prog_name="dfdbench")
    except KeyboardInterrupt:
        sys.exit(130)
