"""How many digits a number shows, and what shows as none. Used by best.py and tables.py."""


def number(value: float, size: float | None = None) -> str:
    """`value` with three decimals, or one where values of this `size` reach 10."""
    digits = 1 if abs(value if size is None else size) >= 10 else 3
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a zero


def signed(value: float, size: float | None = None) -> str:
    """`number` with a plus where more than 0 shows."""
    text = number(value, size)
    return f"+{text}" if float(text) > 0 else text


def is_zero(value: float, size: float | None = None) -> bool:
    """Whether a value of this size shows as 0."""
    return not float(number(value, size))
