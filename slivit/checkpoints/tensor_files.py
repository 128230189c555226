"""Files of tensors: recognised by content, read without running anything, checked for damage."""

import contextlib
import math
import re
import stat
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from slivit.utils.errors import UserError, first_line, listing

ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # how files of torch begin, since 1.6 and before
NOT_ALLOWED = re.compile(r"(?:GLOBAL|class) ([\w.]+)")
ADVICE_TO_RUN = re.compile(r"weights.?only", re.IGNORECASE)  # in texts of torch, never passed on
CUT = ("PytorchStreamReader", "unexpected EOF")
MOST_LISTED = 10
ADDRESSES = ("http:", "https:", "hf:")  # how names begin that are no paths
ADDRESS_HINT = "; one of the Hugging Face Hub is named hf://owner/name[/file][@revision]"


class Unreadable(Exception):
    """A file of torch that cannot be read; says why. `damaged`: a whole one could be."""

    def __init__(self, reason: str, damaged: bool = False) -> None:
        super().__init__(reason)
        self.damaged = damaged


def check_file(path: Path, what: str = "checkpoint") -> None:
    """Refuse what is not a regular file.

    Raises:
        UserError: there is none, or a folder, a pipe or a device; or the system will not say.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        hint = ADDRESS_HINT if str(path).lower().startswith(ADDRESSES) else ""
        raise UserError(f"{path}: no such {what} file{hint}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})"
                        ) from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: is a folder, expected a file of weights")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is not a regular file, expected a {what} file")


def beginning(path: Path) -> bytes:
    """Return up to 9 first bytes of a file; none of what is not a file, or cannot be read."""
    with contextlib.suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                return file.read(9)
    return b""


def is_safetensors(path: Path) -> bool:
    """Return whether a file begins as safetensors do, whatever its name: a length, then JSON."""
    return beginning(path)[8:] == b"{"


def load_torch(path: Path, device: torch.device | str = "cpu", sums: bool = False) -> object:
    """Read what torch.save has written, without running anything in it.

    Args:
        path: the file.
        device: where its tensors go.
        sums: whether the checksum of every part is compared, which torch does not do.

    Raises:
        Unreadable: damaged, or more than tensors and plain values.
    """
    try:
        if beginning(path).startswith(ZIP):
            with zipfile.ZipFile(path) as file:
                if sums and (bad := file.testzip()):
                    raise Unreadable(f"it is damaged: the checksum of {bad} is wrong", True)
        elif sums:
            raise Unreadable("it is damaged: its first bytes have been changed", True)
        with warnings.catch_warnings(), path.open("rb") as file:  # by content: torch knows suffixes
            warnings.simplefilter("ignore")  # the error says what is wrong
            return torch.load(file, map_location=device, weights_only=True)
    except Unreadable:
        raise
    except Exception as error:  # zipfile and torch raise a dozen kinds for a damaged file
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> Unreadable:
    """Return why torch could not read a file; its own text advises to run what the file holds."""
    text = str(error)
    if named := NOT_ALLOWED.search(text):
        return Unreadable(f"it contains code or objects ({named[1]}), not only tensors; such files "
                          "are never loaded, because that could run any code")
    if ADVICE_TO_RUN.search(text):
        return Unreadable("it is damaged, or contains more than tensors")
    if isinstance(error, EOFError | zipfile.BadZipFile) or any(sign in text for sign in CUT):
        return Unreadable("it is truncated or damaged", damaged=True)
    return Unreadable(first_line(error)[:200])


def check_tensors(path: Path, tensors: Iterable[tuple[str, object]], advice: str) -> None:
    """Refuse tensors that are not plain finite numbers, and numbers that are not finite.

    Args:
        path: the file they were read from.
        tensors: names, and tensors or numbers.
        advice: what to do.

    Raises:
        UserError: with how many there are, and the first of them.
    """
    bad = [f"{name}: {fault}" for name, value in tensors if (fault := _fault(value))]
    if bad:
        raise UserError(f"{path}: {len(bad)} of its tensors are not complete, finite numbers:\n"
                        f"{listing(bad, MOST_LISTED)}\n{advice}")


def _fault(value: object) -> str | None:
    """Return what is wrong with a tensor or a number; None where nothing is."""
    if not torch.is_tensor(value):
        return f"{value}" if isinstance(value, float) and not math.isfinite(value) else None
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return "a sparse, quantized or empty tensor, expected plain numbers"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"{value.numel()} numbers, but the file contains fewer"
    if not (value.is_floating_point() or value.is_complex()):
        return None
    if value.is_floating_point() and value.element_size() != 4:
        value = value.float()  # as the model takes it
    if torch.isfinite(value.sum()):  # ten times as fast; the sum of large numbers may overflow
        return None
    bad = int((~torch.isfinite(value)).sum())
    return f"{bad} of {value.numel()} values are NaN or infinite" if bad else None


def numbers_in(content: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Yield every tensor and number in nested dicts and lists, with its place."""
    if isinstance(content, dict | list | tuple):
        parts = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in parts:
            yield from numbers_in(value, f"{name}.{key}" if name else str(key))
    elif torch.is_tensor(content) or isinstance(content, float):
        yield name, content
