"""The parser of the three scripts, which takes flags from recipes: files named as @FILE."""

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import NoReturn

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


class Parser(argparse.ArgumentParser):
    """A parser in whose arguments `@FILE` stands for the flags in a file; later flags win.

    Args:
        text: that describes the script.
    """

    def __init__(self, text: str | None) -> None:
        super().__init__(description=text, formatter_class=argparse.RawDescriptionHelpFormatter,
                         allow_abbrev=False, fromfile_prefix_chars="@",
                         epilog="@FILE inserts the flags from a file, such as "
                                "@recipes/nodules_volumes; later flags override earlier ones")
        self._lines: dict[str, str] = {}  # where the flags of recipes are, for messages

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        """Return the flags of a line of a recipe; what follows # is a comment."""
        return shlex.split(arg_line, comments=True)

    def parse_known_args(self, args: list[str] | None = None,
                         namespace: argparse.Namespace | None = None
                         ) -> tuple[argparse.Namespace, list[str]]:
        """Note where the flags of recipes are, then parse."""
        given = sys.argv[1:] if args is None else list(args)
        for word in given:
            if word.startswith("@"):
                self._note(word[1:])
        return super().parse_known_args(given, namespace)

    def _note(self, name: str) -> None:
        try:
            lines = Path(name).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            self.error(f"@{name}: cannot be read ({why}); expected a file of flags, such as "
                       f"those in {RECIPES}")
        for number, line in enumerate(lines, 1):
            try:
                words = self.convert_arg_line_to_args(line)
            except ValueError as error:
                self.error(f"{name}, line {number}: {line.strip()!r} cannot be read as flags "
                           f"({str(error).lower()})")
            for word in words:
                self._lines[word.partition("=")[0]] = f"{name}, line {number}"

    def error(self, message: str) -> NoReturn:
        """End with exit code 2, one message, and the line of a recipe that it is about."""
        flags = re.findall(r"--?[A-Za-z]\w*", message)
        where = next((self._lines[flag] for flag in flags if flag in self._lines), None)
        super().error(message if where is None else f"{where}: {message}")


def read_recipe(name: str) -> list[str]:
    """Return the flags of one of this repository's recipes."""
    lines = (RECIPES / name).read_text(encoding="utf-8").splitlines()
    return [word for line in lines for word in shlex.split(line, comments=True)]
