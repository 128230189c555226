"""What the package says on the terminal."""

import logging
import sys

LOG = logging.getLogger("slivit")



def setup_logging() -> None:
    """Send this package's messages to stdout, one line each.

    What stdout cannot say, such as a file name that is not UTF-8, is written as an escape.
    """
    LOG.handlers.clear()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
