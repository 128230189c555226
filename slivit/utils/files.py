"""Files that are written whole or not at all."""

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from slivit.utils.errors import NotWritten, UserError, first_line

if TYPE_CHECKING:
    from slivit.utils.distributed import ProcessGroup

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
KINDS = ((stat.S_ISLNK, "a symbolic link"), (stat.S_ISDIR, "a folder"),
         (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
         (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))
PART = re.compile(r"\..*\.[0-9]+\.part(\..*)?", re.DOTALL)  # names of files that are being written
SCRATCH = ".scratch."  # how names of temporary folders begin
STEM = 100  # letters of a name that its temporary file keeps
TORCH = ("PytorchStreamWriter", "inline_container", "iostream", "unexpected pos")  # cannot write

# Takes path and size of a file that is about to be there; size None: of one that is temporary.
Record = Callable[[Path, int | None], None]
_record: ContextVar[Record | None] = ContextVar("record", default=None)


@contextlib.contextmanager
def recorded(record: Record) -> Iterator[None]:
    """Have every file that is written within this block recorded (output_dir.Manifest)."""
    token = _record.set(record)
    try:
        yield
    finally:
        _record.reset(token)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it on success and vanishes on failure.

    The temporary name keeps the suffix, since matplotlib chooses the format by it. The file gets
    the mode that the umask gives, whatever library writes it.

    Raises:
        UserError: what is at `path` is not a regular file; nothing but those is replaced.
        NotWritten: the system refused.
    """
    path, record = Path(path), _record.get()
    check_replaceable(path)
    part = path.with_name(f".{path.stem[:STEM]}.{os.getpid()}.part{path.suffix}")
    try:
        if record is not None:
            record(part, None)
        yield part
        os.chmod(part, 0o666 & ~_umask())
        if record is not None:
            record(path, part.stat().st_size)
        os.replace(part, path)
    except (RuntimeError, SafetensorError) as error:  # how torch and safetensors say it
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in TORCH):
            raise
        raise NotWritten(path, first_line(error)) from None
    except OSError as error:
        if error.filename not in (None, str(part), str(path)):
            raise
        raise NotWritten(path, error.strerror or first_line(error), error.errno in FULL) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def check_replaceable(path: Path, what: str = "") -> None:
    """Refuse to replace what is not a regular file: a folder, a device, a pipe, a link.

    Args:
        path: where a file is to be written.
        what: the flag that named it, for the message.

    Raises:
        UserError: saying what is there.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{what} {path}: cannot be written ({error.strerror}); name another file"
                        .lstrip()) from None
    if not stat.S_ISREG(mode):
        raise UserError(f"{what} {path}: is {kind_of_file(mode)}; only regular files are replaced. "
                        "Name another file".lstrip())


def kind_of_file(mode: int) -> str:
    """Return in words what has a mode (of os.stat)."""
    return next((words for is_kind, words in KINDS if is_kind(mode)), "a file")


def _umask() -> int:
    mask = os.umask(0o022)  # the only way to read it is to set it
    os.umask(mask)
    return mask


def write_json(path: Path, content: object) -> None:
    """Write `content` as indented JSON, whole or not at all; NaN is refused."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def scratch_dir(parent: Path, world: "ProcessGroup | None" = None) -> Iterator[Path]:
    """Yield a new folder in `parent`, the same for all processes, that is removed at the end."""
    main = world is None or world.is_main
    made = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=parent)) if main else None
    try:
        if main and (record := _record.get()) is not None:
            record(made, None)
        yield made if world is None else world.all_gather(made)[0]
    finally:
        if main:
            shutil.rmtree(made, ignore_errors=True)
