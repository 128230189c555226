"""Types of command-line options: text in, value out, or a message that says what was expected."""

import argparse

from slivit.operating import Rule, parse_rule
from slivit.readers.orientation import PLANES, VIEWS


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1."""
    return _number(text, int, 1)


def natural(text: str) -> int:
    """Parse a whole number of at least 0."""
    return _number(text, int, 0)


def positive(text: str) -> float:
    """Parse a number above 0, and at most a million."""
    value = _number(text, float, 0)
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0, at most 1000000")
    return value


def seed_number(text: str) -> int:
    """Parse a whole number of 32 bits."""
    value = _number(text, int, 0)
    if value >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number below 2**32")
    return value


def non_negative(text: str) -> float:
    """Parse a finite number of at least 0."""
    return _number(text, float, 0)


def rate(text: str) -> float:
    """Parse a number from 0 to below 1."""
    value = _number(text, float, 0)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to below 1")
    return value


def names(text: str) -> list[str]:
    """Parse comma-separated names."""
    found = [part.strip() for part in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r}: expected comma-separated names")
    return found


def flip_axes(text: str) -> str:
    """Parse the axes of random flips: letters of h, v and z, or `none`."""
    if text == "none":
        return ""
    if not text or set(text) - set("hvz"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected letters of h, v, z, or none")
    return text


def share(text: str) -> float:
    """Parse a number above 0, at most 1."""
    value = _number(text, float, 0)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0, at most 1")
    return value


def folds(text: str) -> int:
    """Parse a number of folds: one to measure on, one to choose the epoch, the rest to train."""
    return _number(text, int, 3)


def pos_weight(text: str) -> str | float:
    """Parse `auto` or a number above 0."""
    return text if text == "auto" else positive(text)


def operating_rule(text: str) -> Rule:
    """Parse how an operating point is chosen; see operating.parse_rule."""
    try:
        return parse_rule(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(text: str, kind: type, least: float) -> int | float:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not least <= value < float("inf"):
        word = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{text!r}: expected {word} of at least {least}")
    return value


def view(text: str) -> str:
    """Parse how a volume is cut: the acquisition, a plane, or the number of an axis."""
    if text not in VIEWS:
        raise argparse.ArgumentTypeError(f"{text!r}: expected one of {', '.join(VIEWS)}")
    return text


def views(text: str) -> tuple[str, ...]:
    """Parse comma-separated planes, each once."""
    found = tuple(part.strip() for part in text.split(","))
    if not set(found) <= set(PLANES) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r}: expected some of {', '.join(PLANES)}, "
                                         "comma-separated")
    return found
