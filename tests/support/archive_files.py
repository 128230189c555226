"""Writers of archives of slices."""

import io
import tarfile
import zipfile
from pathlib import Path

from PIL import Image
from scan_files import STACK

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


def png(pixels, suffix="png") -> bytes:
    """Return a picture file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, suffix)
    return stream.getvalue()


def slices_of(stack=STACK, folder="") -> dict[str, bytes]:
    """Return a picture file for every slice, by name: 1.png, 6.png, 11.png and so on."""
    return {f"{folder}{5 * k + 1}.png": png(pixels) for k, pixels in enumerate(stack)}


def contents(folder: Path, below: str = "") -> dict[str, bytes]:
    """Return the files of a folder, by name."""
    return {f"{below}{file.name}": file.read_bytes() for file in folder.iterdir()}


def pack(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write an archive of files, as its suffix says; the last name comes first."""
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in reversed(files.items()):
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for name, content in reversed(files.items()):
            add(archive, name, content)
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **fields) -> None:
    """Add a member with some fields of its header changed."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(content))
