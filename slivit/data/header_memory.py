"""What was seen of the headers of a table's scans, remembered, so that a cohort starts fast.

One file per table, in `--cache_dir` or else in the user's cache folder. It knows scans by a hash of
their path and recognises them by the names, sizes and times of their files; nothing else of a path
is in it. A file that is damaged, or of another version, is as good as none.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import zlib
from pathlib import Path

from platformdirs import user_cache_path

from slivit.data.readers import Header, stats_of
from slivit.utils.errors import NotWritten, UserError
from slivit.utils.files import atomic_write

FORMAT = 2  # to be raised when headers of the same files are read differently
FIELDS = tuple(field.name for field in dataclasses.fields(Header))
Known = dict[str, tuple[str, Header]]  # of a scan's key: its stamp, and its header


def memory_file(table: Path, ndim: int, cache_dir: Path | None) -> Path:
    """Return the file in which the headers of a table's scans are remembered."""
    folder = cache_dir if cache_dir is not None else user_cache_path("slivit")
    name = hashlib.sha256(f"{os.path.realpath(table)} {ndim}".encode(errors="surrogateescape"))
    return folder / "headers" / f"{name.hexdigest()[:32]}.json"


def key_of(path: Path) -> str:
    """Return by what a scan is known."""
    return hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:32]


def stamp_of(path: Path) -> str:
    """Return what changes when a file of a scan is changed, added or removed."""
    digest = hashlib.sha256()
    for name, stat in stats_of(path):
        digest.update(b"%s %d %d\n" % (os.fsencode(name), stat.st_size, stat.st_mtime_ns))
    return digest.hexdigest()[:32]


def load(file: Path | None) -> Known:
    """Return what a file remembers; nothing where it is missing, damaged or of another version."""
    try:
        if not file.is_file():  # a pipe would keep us waiting
            return {}
        content = file.read_bytes()
        body, total = content[:-8], int(content[-8:], 16)
        if zlib.crc32(body) != total:
            return {}
        told = json.loads(body)
        if told["format"] != FORMAT or told["fields"] != list(FIELDS):
            return {}
        return {key: (stamp, _header(values)) for key, (stamp, values) in told["scans"].items()}
    except (AttributeError, OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


def save(file: Path | None, known: Known) -> None:
    """Write what is to be remembered; where that cannot be, the next start is as slow as this."""
    if file is None:
        return
    scans = {key: (stamp, [getattr(header, name) for name in FIELDS])
             for key, (stamp, header) in known.items()}
    body = json.dumps({"format": FORMAT, "fields": FIELDS, "scans": scans},
                      separators=(",", ":")).encode()
    with contextlib.suppress(OSError, NotWritten, UserError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as part:
            part.write_bytes(body + b"%08x" % zlib.crc32(body))


def _header(values: list) -> Header:
    """Return a header of the values of its fields; of JSON, lists stand for tuples."""
    return Header(*[tuple(value) if isinstance(value, list) else value for value in values])
