"""Heidelberg's XML exports: an `.xml` file with the B-scans as pictures beside it.

Of the XML only the elements in KEPT are kept; the patient is not among them. The picture of the
fundus (LOCALIZER) is no slice.
"""

import dataclasses
import math
import re
import xml.etree.ElementTree as ElementTree
import xml.parsers.expat
from dataclasses import dataclass
from pathlib import Path

from slivit.data.readers import pictures
from slivit.data.readers.base import Header, Pick, ReadError, Volume, kind_at, reason
from slivit.data.readers.heidelberg import gaps, known

SUFFIXES = (".xml",)
ROOT = "HEDX"
LONGEST_HEAD = 4096
KEPT = {ROOT, "BODY", "Patient", "Study", "Series", "Type", "Image", "ImageType", "ImageData",
        "OphthalmicAcquisitionContext", "Width", "Height", "ScaleX", "ScaleY", "Start", "End",
        "Coord", "X", "Y", "ExamURL"}
DEEPEST = 32       # elements inside each other; an export has 9
MOST_SLICES, LONGEST_NAME = 10_000, 255
CONTEXT = "OphthalmicAcquisitionContext"


@dataclass(frozen=True)
class Export:
    """What an XML says of its volume.

    Attributes:
        files: pictures of the B-scans, in the order of the XML.
        size: height and width of each, None where it does not say.
        spacing: mm between B-scans, rows and columns; None where unknown.
        notes: see Header.
    """

    files: list[Path]
    size: tuple[int, int] | None
    spacing: tuple[float, ...] | None
    notes: tuple[str, ...]


def header(path: Path) -> Header:
    """Return the header of an export, from the XML and the headers of its pictures.

    Raises:
        ReadError: missing, damaged, with a DOCTYPE, of another program, not of one volume scan, or
            with pictures that are missing or of another size.
    """
    export = _open(path)
    return dataclasses.replace(_pictures(path, export), kind="xml", spacing=export.spacing,
                               notes=export.notes)


def read(path: Path, pick: Pick | None = None) -> Volume:
    """Read a volume; its slices are the B-scans in the order of the XML, as the pictures are.

    Raises:
        ReadError: see `header`; or pictures that cannot be decoded.
    """
    export = _open(path)
    _pictures(path, export)
    volume = pictures.read_picture_folder(path, export.files, pick)
    return dataclasses.replace(volume, spacing=export.spacing)


def files(path: Path) -> list[Path]:
    """Return the XML and the pictures of its B-scans, whether they are there or not.

    Raises:
        ReadError: see `header`.
    """
    return [path, *_describe(path).files]


def is_export(path: Path) -> bool:
    """Return whether an XML file looks like an export of Heidelberg's, by its first element."""
    try:
        with path.open("rb") as file:
            return f"<{ROOT}".encode() in file.read(LONGEST_HEAD).replace(b"\0", b"")
    except OSError:
        return False


def _open(path: Path) -> Export:
    if not path.exists():
        raise ReadError(f"{path}: does not exist")
    export = _describe(path)
    missing = [file.name for file in export.files if kind_at(file) != "file"]
    if missing:
        raise ReadError(f"{path}: {len(missing)} of its {len(export.files)} pictures are missing: "
                        f"{', '.join(missing[:10])}{', ...' * (len(missing) > 10)}; expected them "
                        "beside it")
    return export


def _describe(path: Path) -> Export:
    series = [one for one in _parse(path).iter("Series") if _scans(one)]
    if len(series) != 1:
        raise ReadError(f"{path}: contains {len(series)} series of B-scans, expected one; export "
                        "each into its own folder")
    kind, scans = _text(series[0], "Type"), _scans(series[0])
    if kind and "volume" not in kind.lower():
        raise ReadError(f"{path}: is a {kind[:40].lower()} scan, expected a volume scan")
    if not 1 < len(scans) <= MOST_SLICES:
        raise ReadError(f"{path}: its number of B-scans is {len(scans)}, expected 2 to "
                        f"{MOST_SLICES}")
    names = [_name(scan, path) for scan in scans]
    if len(set(names)) < len(names):
        raise ReadError(f"{path}: names a picture twice: "
                        f"{next(name for name in names if names.count(name) > 1)}")
    sizes = {tuple(_number(scan, f"{CONTEXT}/{side}") for side in ("Height", "Width"))
             for scan in scans}
    if len(sizes) > 1:
        raise ReadError(f"{path}: B-scans differ in size, expected one size per volume")
    starts, ends = ([[_number(scan, f"{CONTEXT}/{end}/Coord/{axis}") for axis in "XY"]
                     for scan in scans] for end in ("Start", "End"))
    gap, notes = gaps(starts, ends, path)
    size = sizes.pop()
    rows, columns = (_number(scans[0], f"{CONTEXT}/{side}") for side in ("ScaleY", "ScaleX"))
    return Export([path.parent / name for name in names], None if None in size else size,
                  known(gap, rows, columns), notes)


def _scans(series: ElementTree.Element) -> list[ElementTree.Element]:
    return [image for image in series.findall("Image") if _text(image, "ImageType/Type") == "OCT"]


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(element: ElementTree.Element, path: str) -> float | None:
    try:
        value = float(_text(element, path))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _name(scan: ElementTree.Element, path: Path) -> str:
    """Return the name of a B-scan's picture; the folder it had on the exporting computer is cut."""
    name = re.split(r"[\\/]", _text(scan, "ImageData/ExamURL"))[-1]
    if (not name.lower().endswith(pictures.PICTURE_SUFFIXES) or not name.isprintable()
            or len(name) > LONGEST_NAME):
        raise ReadError(f"{path}: names {name[:60]!r} as the picture of a B-scan, expected one of "
                        f"{', '.join(pictures.PICTURE_SUFFIXES)}")
    return name


def _pictures(path: Path, export: Export) -> Header:
    """Return the header of the pictures; refuse those of another size than the XML says."""
    header = pictures.picture_folder_header(path, export.files)
    if export.size is not None and header.shape[1:3] != export.size:
        raise ReadError(f"{path}: its pictures have {header.shape[1]}x{header.shape[2]} pixels, "
                        f"expected {export.size[0]:g}x{export.size[1]:g} as it says")
    return header


def _parse(path: Path) -> ElementTree.Element:
    """Return the elements of an XML file that are in KEPT, the others and what is in them left out.

    Raises:
        ReadError: not XML, with a DOCTYPE (which could define entities), or of another program.
    """
    builder, open_names, parser = ElementTree.TreeBuilder(), [], xml.parsers.expat.ParserCreate()
    parser.buffer_text = True

    def start(name: str, _: dict) -> None:
        if not open_names and name != ROOT:
            raise ReadError(f"{path}: is not an export of Heidelberg's: its first element is "
                            f"{name[:40]}, expected {ROOT}")
        if len(open_names) >= DEEPEST:
            raise ReadError(f"{path}: is damaged: its elements are more than {DEEPEST} deep")
        open_names.append(name in KEPT and all(open_names))
        if open_names[-1]:
            builder.start(name, {})

    def end(name: str) -> None:
        if open_names.pop():
            builder.end(name)

    def text(data: str) -> None:
        if open_names[-1]:
            builder.data(data)

    def doctype(*_: object) -> None:
        raise ReadError(f"{path}: contains a DOCTYPE, expected none in an export of Heidelberg's")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text, doctype
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
        return builder.close()
    except (xml.parsers.expat.ExpatError, AssertionError, ValueError, LookupError) as error:
        raise ReadError(f"{path}: cannot be read as XML ({reason(error, path)}); it is truncated "
                        "or damaged") from None
