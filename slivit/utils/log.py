"""What the package says on the terminal."""

import logging
import sys
import textwrap

WIDEST = 160
LOG = logging.getLogger("slivit")


class Wrapped(logging.Formatter):
    """Lines of at most WIDEST characters, for a terminal; words are kept whole."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message of a record."""
        lines = super().format(record).split("\n")
        return "\n".join("\n".join(textwrap.wrap(
            line, WIDEST, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False,
            replace_whitespace=False, drop_whitespace=False)) if len(line) > WIDEST else line
            for line in lines)


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
