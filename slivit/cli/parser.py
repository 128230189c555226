"""The parser of the three scripts, which takes flags from recipes: files named as @FILE.

argparse can read such files too, but cannot say in which line of which file a flag is wrong.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@dataclass(frozen=True)
class Part:
    """Words of a command: those of a recipe's line, or one of the command line itself.

    Attributes:
        words: as argparse takes them.
        where: file and line of a recipe; empty for the command line.
    """

    words: tuple[str, ...]
    where: str = ""


class Fault(Exception):
    """Why some words are not options of a script."""


class Parser(argparse.ArgumentParser):
    """A parser in whose arguments `@FILE` stands for the flags in a file; later flags win.

    Args:
        text: that describes the script.
    """

    def __init__(self, text: str | None) -> None:
        super().__init__(description=text, formatter_class=argparse.RawDescriptionHelpFormatter,
                         allow_abbrev=False,
                         epilog="@FILE inserts the flags from a file, such as "
                                "@recipes/nodules_volumes; later flags override earlier ones")
        self._parts: list[Part] = []
        self._probing = False

    def parse_known_args(self, args: Sequence[str] | None = None,
                         namespace: argparse.Namespace | None = None
                         ) -> tuple[argparse.Namespace, list[str]]:
        """Put the flags of recipes in their place, then parse."""
        self._parts = []
        try:
            for word in sys.argv[1:] if args is None else args:
                self._parts += expanded(word)
        except Fault as fault:
            self.error(str(fault))
        return super().parse_known_args(self._words(len(self._parts)), namespace)

    def _words(self, count: int) -> list[str]:
        return [word for part in self._parts[:count] for word in part.words]

    def error(self, message: str) -> NoReturn:
        """End with exit code 2, one message, and the line of a recipe that it is about."""
        if self._probing:
            raise Fault(message)
        where = self._where(message)
        super().error(f"{where}: {message}" if where else message)

    def _where(self, message: str) -> str:
        """Return the file and line with which the same fault comes first; empty for no recipe."""
        if not any(part.where for part in self._parts):
            return ""
        faults = (self._fault(count) for count in range(len(self._parts) + 1))
        kind = message.partition(":")[0] if message.startswith("unrecognized") else message
        first = next((k for k, fault in enumerate(faults) if fault.startswith(kind)), 0)
        return self._parts[first - 1].where if first else ""

    def _fault(self, count: int) -> str:
        """Return what is wrong with the first parts alone; empty where nothing is."""
        self._probing = True
        try:
            _, unknown = super().parse_known_args(self._words(count))
        except Fault as fault:
            return str(fault)
        finally:
            self._probing = False
        return f"unrecognized arguments: {' '.join(unknown)}" if unknown else ""


def expanded(word: str, where: str = "", within: tuple[Path, ...] = ()) -> Iterator[Part]:
    """Yield a word of a command or, of `@FILE`, the words of each line of the file.

    Args:
        word: of the command line, or of a recipe.
        where: file and line that the word is in; empty for the command line.
        within: the recipes that it is in.

    Raises:
        Fault: no such file, no text, no flags, or a recipe within itself.
    """
    if not word.startswith("@"):
        yield Part((word,), where)
        return
    name, start = word[1:], f"{where}: " * bool(where)
    path = Path(name).absolute()
    if path in within:
        raise Fault(f"{start}@{name} includes itself")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise Fault(f"{start}@{name}: cannot be read ({why}); expected a file of flags, such as "
                    f"those in {RECIPES}") from None
    for number, line in enumerate(lines, 1):
        here = f"{name}, line {number}"
        try:
            words = flags_of(line)
        except ValueError as error:
            raise Fault(f"{here}: {line.strip()!r} cannot be read as flags "
                        f"({str(error).lower()})") from None
        inner = [list(expanded(one, here, (*within, path))) for one in words]
        if any(one.startswith("@") for one in words):
            for parts in inner:
                yield from parts
        elif words:
            yield Part(tuple(words), here)


def flags_of(line: str) -> list[str]:
    """Return the words of a line of a recipe: quotation marks hold together, # begins a comment.

    Raises:
        ValueError: a quotation mark is not closed.
    """
    words = shlex.shlex(line, posix=True, punctuation_chars=False)
    words.whitespace_split, words.commenters, words.escape = True, "#", ""
    return list(words)


def read_recipe(name: str) -> list[str]:
    """Return the flags of one of this repository's recipes."""
    lines = (RECIPES / name).read_text(encoding="utf-8").splitlines()
    return [word for line in lines for word in flags_of(line)]
