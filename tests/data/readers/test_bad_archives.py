"""Archives that are damaged, encrypted, too large, or lead out of themselves."""

import gzip
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from archive_files import SUFFIXES, add, pack, png, slices_of
from scan_files import PIXELS, STACK, refused, write_dicom_series

from slivit.data.readers import ReadError, archive_entries, read_volume, volume_header

DAMAGED = "is truncated or damaged, or is not an archive as its suffix says"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0, 3, 0.2, 0.5, 0.8, 0.99])
def test_cut_off_archives_are_refused(tmp_path, suffix, kept):
    path = pack(tmp_path / f"x{suffix}", slices_of())
    content = path.read_bytes()
    if suffix == ".tar":
        content = content.rstrip(b"\0")  # two blocks of 512 at its end
    path.write_bytes(content[:int(kept * len(content)) if isinstance(kept, float) else kept])
    refused(path, f"x{suffix}: {DAMAGED}")


def test_a_tar_that_ends_between_two_files_is_refused(tmp_path):
    path = pack(tmp_path / "x.tar", slices_of(STACK[:1]))
    whole = path.read_bytes()
    size = 512 * (1 + -(-len(png(STACK[0])) // 512))
    for end in (b"", b"\0" * 100, b"x" * 512):
        path.write_bytes(whole[:size] + end)
        refused(path, rf"{DAMAGED} .at byte {size} is neither another file nor the end")


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_tar_that_was_not_copied_whole_is_refused(tmp_path, suffix):
    stack = np.random.default_rng(0).integers(0, 255, (4, 90, 120), dtype=np.uint8)
    whole = pack(tmp_path / "x.tar", slices_of(stack)).read_bytes()
    second = 512 * (1 + -(-len(png(stack[3])) // 512))  # the last slice comes first
    damaged = whole[:second] + bytes(len(whole) - second)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(damaged if suffix == ".tar" else gzip.compress(damaged))
    refused(path, rf"x{suffix}: its last {len(whole) - second} bytes are zeros, expected at most "
                  "11264: it was probably not copied whole")
    path = tmp_path / "y.tar"
    path.write_bytes(whole[:1000] + whole[1007:])
    refused(path, DAMAGED)


def test_headers_that_were_overwritten_do_not_hide_files(tmp_path):
    path = pack(tmp_path / "x.tar", slices_of())
    whole = path.read_bytes()
    path.write_bytes(whole[:1024] + bytes(512) + whole[1536:])
    refused(path, f"{DAMAGED} .at byte 1024 is neither another file nor the end")
    path = pack(tmp_path / "x.zip", slices_of())
    whole = bytearray(path.read_bytes())
    second = whole.index(b"PK\1\2", whole.index(b"PK\1\2") + 1)
    struct.pack_into("<H", whole, second + 32, whole.index(b"PK\5\6") - second - 46 - 6)
    path.write_bytes(whole)  # what follows is a comment of the second file
    refused(path, f"{DAMAGED} .2 entries, expected 4")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_text_and_other_archives_are_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_text("this is no archive " * 40)
    refused(path, f"x{suffix}: {DAMAGED}")
    other = pack(tmp_path / ("y.tar" if suffix == ".zip" else "y.zip"), slices_of())
    path.write_bytes(other.read_bytes())
    refused(path, DAMAGED)


@pytest.mark.parametrize("kind", ["pictures", "dicom"])
def test_a_wrong_checksum_is_one_message(tmp_path, kind):
    files = slices_of()
    if kind == "dicom":
        folder = write_dicom_series(tmp_path / "s", STACK)
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
    name, content = list(files.items())[1]
    path = pack(tmp_path / "x.zip", files, zipfile.ZIP_STORED)
    whole = bytearray(path.read_bytes())
    whole[whole.index(content) + len(content) - 20] ^= 1
    path.write_bytes(whole)
    refused(path, rf"^\S*x.zip: {DAMAGED} .Bad CRC-32 for file '{name}'.$")
    packed = pack(tmp_path / "x.tgz", files)
    whole = bytearray(packed.read_bytes())
    whole[-6] ^= 1
    packed.write_bytes(whole)
    refused(packed, rf"x.tgz: {DAMAGED} .CRC check failed")


def test_encrypted_and_oddly_packed_files_are_refused(tmp_path):
    path = pack(tmp_path / "x.zip", slices_of())
    whole = bytearray(path.read_bytes())
    for entry in (whole.index(b"PK\1\2") + 8, whole.index(b"PK\3\4") + 6):
        whole[entry] |= 1
    path.write_bytes(whole)
    refused(path, r"x.zip: \d+.png in it is encrypted; unpack it with its password into a folder")
    refused(pack(tmp_path / "y.zip", slices_of(), zipfile.ZIP_BZIP2),
            "y.zip: .*png in it is packed by bzip2, expected deflate; pack it again")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["../1.png", "a/../../1.png", "/etc/1.png", "C:/1.png"])
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path, suffix, name):
    path = pack(tmp_path / f"x{suffix}", slices_of() | {name: png(STACK[0])})
    refused(path, f"contains {name}, which leads out of the archive; expected names below its top")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
                                  tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_not_followed(tmp_path, kind):
    (tmp_path / "secret.png").write_bytes(png(STACK[0]))
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add(archive, "1.png", png(STACK[0]))
        add(archive, "2.png", type=kind, linkname=str(tmp_path / "secret.png"))
    refused(tmp_path / "x.tar", "x.tar: 2.png in it is a link, device or sparse file, expected a "
            r"plain file; pack the files themselves \(tar --dereference\)")


def test_links_in_a_zip_are_not_followed(tmp_path):
    info = zipfile.ZipInfo("2.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("1.png", png(STACK[0]))
        archive.writestr(info, "/etc/hostname")
    refused(tmp_path / "x.zip", "2.png in it is a link or device, expected a file")


def test_a_name_that_occurs_twice_is_refused(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in ("v/1.png", "./v/1.png"):
            add(archive, name, png(STACK[0]))
    refused(tmp_path / "x.tar", "contains v/1.png twice, expected a name for every file")


def test_archives_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_entries, "TOTAL", 2**16)
    paths = [pack(tmp_path / f"x{suffix}", slices_of() | {"9.png": bytes(2**17)})
             for suffix in SUFFIXES]
    for path in paths:
        refused(path, f"{path.name}: unpacks to more than 65536 bytes .0 GiB, or 1032 times its "
                "size.*unpack it into a folder")
    monkeypatch.setattr(archive_entries, "MOST", 2)
    for path in paths:
        with pytest.raises(ReadError, match="(contains|unpacks to) more than (2 files|65536)"):
            volume_header(path)


def test_a_zip_whose_files_share_their_bytes_is_refused(tmp_path):
    """A zip bomb: many entries lead to the same packed bytes."""
    path = pack(tmp_path / "x.zip", {"1.png": bytes(10**6)})
    whole = path.read_bytes()
    start, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
    names = [f"{letter}.png".encode() for letter in "abcdefghijklmnopqrst"]
    many = b"".join(whole[start:end].replace(b"1.png", name) for name in names)
    last = bytearray(whole[end:])
    struct.pack_into("<HHII", last, 8, len(names), len(names), len(many), start)
    path.write_bytes(whole[:start] + many + last)
    refused(path, "x.zip: unpacks to more than .* 1032 times its size")


def test_a_tar_header_that_asks_for_much_is_refused(tmp_path):
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.XHDTYPE, 2**32
    for name, content in (("x.tar", info.tobuf()), ("x.tgz", gzip.compress(info.tobuf()))):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, f"{DAMAGED} .a header of {2**32} bytes, expected at most 16384")
    info.type = tarfile.REGTYPE
    info.name = "1.png"
    (tmp_path / "x.tar").write_bytes(info.tobuf() + png(PIXELS))
    refused(tmp_path / "x.tar", f"{DAMAGED} .unexpected end of data")


def test_long_names_are_read(tmp_path):
    name = "a" * 150
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "x.tar", "w", format=kind) as archive:
            add(archive, f"{name}/{name}/1.png", png(PIXELS))
        assert np.array_equal(read_volume(tmp_path / "x.tar").slices[0], PIXELS)


def test_an_archive_is_not_unpacked_to_disk(tmp_path, monkeypatch):
    path = pack(tmp_path / "x.tar.gz", slices_of(folder="v/"))
    opened, real = [], io.open
    monkeypatch.setattr(io, "open", lambda *args, **kwargs: opened.append(args)
                        or real(*args, **kwargs))
    read_volume(path)
    assert not [args for args in opened if "w" in str(args[1:])]
    assert [file.name for file in tmp_path.iterdir()] == ["x.tar.gz"]
