"""Types of command-line options: text in, value out, or a message that says what was expected."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from slivit.checkpoints.hub import is_hub_name, parse_hub_name, repo_fault
from slivit.cli.paths import path
from slivit.config import PLANES, VIEWS
from slivit.data.ratio import parse_ratio
from slivit.data.window import parse_window
from slivit.metrics.operating_point import Rule, parse_rule
from slivit.utils.errors import UserError

MILLION = 1_000_000
STARTS = ("imagenet", "none")  # --weights that are no files


def positive_int(text: str) -> int:
    """Parse a whole number from 1 to a million."""
    return _whole(text, 1, MILLION)


def natural(text: str) -> int:
    """Parse a whole number from 0 to a million."""
    return _whole(text, 0, MILLION)


def picture_side(text: str) -> int:
    """Parse the side of a picture in pixels, 1 to 8192."""
    return _whole(text, 1, 8192)


def size(text: str) -> int:
    """Parse a size of the network, 1 to 16384."""
    return _whole(text, 1, 16384)


def count(text: str) -> int:
    """Parse a number of things of which there are few, 1 to 10000."""
    return _whole(text, 1, 10_000)


def count_or_none(text: str) -> int:
    """Parse a number of things of which there are few, 0 to 10000."""
    return _whole(text, 0, 10_000)


def positive(text: str) -> float:
    """Parse a number above 0 and at most a million."""
    return _number(text, float, "a number above 0 and at most 1000000", lambda x: 0 < x <= MILLION)


def seed_number(text: str) -> int:
    """Parse a whole number of 32 bits."""
    return _whole(text, 0, 2**32 - 1)


def non_negative(text: str) -> float:
    """Parse a number from 0 to a million."""
    return _number(text, float, "a number from 0 to 1000000",
                   lambda x: 0 <= x <= MILLION)


def strength(text: str) -> float:
    """Parse how strong something is, 0 to 100."""
    return _number(text, float, "a number from 0 to 100", lambda x: 0 <= x <= 100)


def rate(text: str) -> float:
    """Parse a number from 0 to below 1."""
    return _number(text, float, "a number of at least 0 and below 1", lambda x: 0 <= x < 1)


def text(given: str) -> str:
    """Parse a text that must not be empty."""
    if not given.strip():
        raise argparse.ArgumentTypeError(f"{given!r}: is empty; give a value, or omit the option")
    return given


def weights(given: str) -> str:
    """Parse `imagenet`, `none` or the name of a file, of which `~` is expanded."""
    return text(given) if given in (*STARTS, "") else str(weights_file(given))


def weights_file(given: str) -> Path | str:
    """Parse the name of a file of weights, or one of the Hub, which no Path can hold."""
    if not is_hub_name(given):
        return path(given)
    try:
        return str(parse_hub_name(given))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def hub_repository(given: str) -> str:
    """Parse `owner/name`, a repository of the Hub."""
    if fault := repo_fault(given):
        raise argparse.ArgumentTypeError(fault)
    return given


def licence(given: str) -> str:
    """Parse the Hub's identifier of a licence, such as `cc-by-4.0`."""
    if not re.fullmatch(r"[a-z][a-z0-9.-]{1,39}", given):
        raise argparse.ArgumentTypeError(f"{_short(given)}: expected an identifier of the Hub, "
                                         "such as apache-2.0 or cc-by-nc-4.0")
    return given


def gpu(given: str) -> str:
    """Parse `cpu` or the number of a GPU, 0 to 999."""
    if given.lower() == "cpu":
        return "cpu"
    if not given.isdecimal() or len(given) > 3:
        raise argparse.ArgumentTypeError(f"{_short(given)}: expected a GPU number from 0 to 999, "
                                         "or 'cpu'")
    return str(int(given))


def split_ratio(given: str) -> str:
    """Check the fractions of train, val and test; see ratio.parse_ratio."""
    parse_ratio(given)
    return given


def window(given: str) -> str:
    """Check grey values to use; see window.parse_window."""
    parse_window(given)
    return given


def names(text: str) -> list[str]:
    """Parse comma-separated names."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected comma-separated names")
    return parts


def flip_axes(text: str) -> str:
    """Parse the axes of random flips: letters of h, v and z, or `none`."""
    if text == "none":
        return ""
    if not text or set(text) - set("hvz"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected letters from h, v, z, or none")
    return text


def share(text: str) -> float:
    """Parse a number above 0 and at most 1."""
    return _number(text, float, "a number above 0 and at most 1", lambda x: 0 < x <= 1)


def folds(text: str) -> int:
    """Parse a number of folds: one to measure on, one to choose the epoch, the rest to train."""
    return _whole(text, 3, 1000)


def pos_weight(text: str) -> str | float:
    """Parse `auto` or a number above 0."""
    return text if text == "auto" else positive(text)


def operating_rule(text: str) -> Rule:
    """Parse how an operating point is chosen; see operating_point.parse_rule."""
    try:
        return parse_rule(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def view(text: str) -> str:
    """Parse how a volume is cut: the acquisition, a plane, or the number of an axis."""
    if text not in VIEWS:
        raise argparse.ArgumentTypeError(f"{text!r}: expected one of {', '.join(VIEWS)}")
    return text


def views(text: str) -> tuple[str, ...]:
    """Parse comma-separated planes, each once."""
    parts = tuple(part.strip() for part in text.split(","))
    if not set(parts) <= set(PLANES) or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected one or more of {', '.join(PLANES)}, "
                                         "comma-separated")
    return parts


def _whole(text: str, least: int, most: int) -> int:
    return _number(text, int, f"a whole number from {least} to {most}",
                   lambda x: least <= x <= most)


def _number(text: str, kind: type, expected: str, fits: Callable[[float], bool]) -> int | float:
    """Parse a number; NaN fits nothing."""
    try:
        value = kind(text)
    except (ValueError, OverflowError):
        value = float("nan")
    if not fits(value):
        raise argparse.ArgumentTypeError(f"{_short(text)}: expected {expected}")
    return value


def _short(text: str) -> str:
    return repr(text if len(text) < 100 else f"{text[:97]}...")
