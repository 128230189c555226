"""Paths as users write them."""

import argparse
import os
from pathlib import Path

LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes; Linux has no longer ones
SHOWN = 100  # characters of a text that is refused


def path(text: str) -> Path:
    """Parse the option that names a file or folder, with `~` and `~user` expanded.

    What does begin with ~ is named with a folder before it: `./~name`.

    Raises:
        ArgumentTypeError: saying what was found and what was expected.
    """
    try:
        return _to_path(text)
    except ValueError as error:
        shown = text if len(text) < SHOWN else f"{text[:SHOWN]}..."
        raise argparse.ArgumentTypeError(f"{shown!r}: {error}") from None


def _to_path(text: str) -> Path:
    if not text.strip():
        raise ValueError("is empty, expected the name of a file or folder")
    if "\0" in text:
        raise ValueError("contains a NUL byte, which no file or folder name can")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8, the encoding of tables and reports; rename it"
                         ) from None
    full = os.path.expanduser(text)
    if full == text and text.startswith("~"):
        raise ValueError("there is no such user; write a name that begins with ~ as ./~name")
    if (max(len(os.fsencode(name)) for name in full.split(os.sep)) > LONGEST_NAME
            or len(os.fsencode(os.path.abspath(full))) > LONGEST_PATH):
        raise ValueError(f"is too long for the system, expected names of at most {LONGEST_NAME} "
                         f"bytes, and {LONGEST_PATH} in all")
    expanded = Path(full)
    literal = str(expanded).startswith("~")  # ./~name: what reads it again must not expand it
    return Path.cwd() / expanded if literal else expanded
