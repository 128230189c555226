"""Paths as users write them."""

import os
from pathlib import Path

LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes; Linux has no longer ones


def to_path(text: str) -> Path:
    """Return the path that a user's text names, with `~` and `~user` expanded.

    What does begin with ~ is named with a folder before it: `./~name`.

    Raises:
        ValueError: saying what was found and what was expected; the text is not repeated.
    """
    if not text.strip():
        raise ValueError("is empty, expected the name of a file or folder")
    if "\0" in text:
        raise ValueError("holds a NUL byte, which no name of a file or folder does")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8, as which tables and reports are written; rename it"
                         ) from None
    full = os.path.expanduser(text)
    if full == text and text.startswith("~"):
        raise ValueError("there is no such user; a name that begins with ~ is written ./~name")
    if (max(len(os.fsencode(name)) for name in full.split(os.sep)) > LONGEST_NAME
            or len(os.fsencode(os.path.abspath(full))) > LONGEST_PATH):
        raise ValueError(f"is too long for the system, expected names of at most {LONGEST_NAME} "
                         f"bytes, and {LONGEST_PATH} in all")
    path = Path(full)
    return Path.cwd() / path if path.parts[0].startswith("~") else path
