"""What the package says on the terminal."""

import logging
import sys
import textwrap

WIDEST = 160
LONGEST_NAME = 24  # letters of a label or a model's name in a line or a legend
LOG = logging.getLogger("slivit")


class Wrapped(logging.Formatter):
    """Messages as a terminal shows them; see `wrapped`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message of a record."""
        return wrapped(super().format(record))


def wrapped(text: str) -> str:
    """Return a text in lines of at most WIDEST characters; words, such as paths, are kept whole."""
    return "\n".join("\n".join(textwrap.wrap(
        line, WIDEST, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False,
        replace_whitespace=False, drop_whitespace=False)) if len(line) > WIDEST else line
        for line in text.split("\n"))


def short(name: str, letters: int = LONGEST_NAME, end: bool = False) -> str:
    """Return a name of at most so many letters: both its ends or, of a path, its `end` alone."""
    if len(name) <= letters:
        return name
    tail = letters - 1 if end else letters // 2
    return f"{name[:letters - 1 - tail]}…{name[-tail:]}"


def counted(count: int, what: str, one: str = "", several: str = "") -> str:
    """Return a number of things in words, such as `1 thread` or `2 threads`.

    With verbs for one thing and for several, the one that fits follows: `1 thread is`.
    """
    verb = one if count == 1 else several
    return f"{count:,} {what}{'s' * (count != 1)}{verb and ' '}{verb}"


def setup_logging() -> None:
    """Send this package's messages to stdout, one line each.

    What stdout cannot say, such as a file name that is not UTF-8, is written as an escape.
    """
    LOG.handlers.clear()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Wrapped("%(message)s") if sys.stdout.isatty() else
                         logging.Formatter("%(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
