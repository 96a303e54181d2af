"""What a terminal shows after a program's output: as much of one as rich's display needs."""

import re

CODE = re.compile(r"\x1b\[\??([\d;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


def lines_of(output: str) -> list[str]:
    """The lines of a terminal that is never too small, without blank ones at the end."""
    screen, row, column = [""], 0, 0
    for count, command, back, down, text in CODE.findall(output):
        if command == "A":
            row = max(0, row - int(count or 1))
        elif command == "K":
            screen[row] = ""
        elif back:
            column = 0
        elif down:
            row, column = row + 1, 0
            screen += [""] * (row + 1 - len(screen))
        elif text:
            old = screen[row].ljust(column)
            screen[row] = old[:column] + text + old[column + len(text) :]
            column += len(text)
    return [line.rstrip() for line in "\n".join(screen).rstrip().split("\n")]
