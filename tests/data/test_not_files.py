"""What is not a regular file where a scan is expected, and one scan of several in a file."""

import os
import socket

import numpy as np
import pytest
from helpers import write_image
from scan_files import PIXELS, STACK, refused, refused_image, write_dicom_series

from slivit.data.given_scans import given_scans
from slivit.data.header_check import check_headers
from slivit.data.readers import is_scan, volume_header
from slivit.utils.errors import UserError

NAMES = ("x", "x.dcm", "x.nii", "x.nii.gz", "x.hdr", "x.img", "x.mgh", "x.mgz", "x.mnc",
         "x.tif", "x.npy", "x.npz", "x.avi", "x.fds", "x.vol",
         "x.e2e", "x.xml")


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_is_no_volume(tmp_path, name):
    os.mkfifo(tmp_path / name)
    refused(tmp_path / name, f"{name}: is a named pipe, expected a regular file")
    with pytest.raises(UserError, match="is a named pipe, expected a regular file"):
        given_scans(tmp_path / name, 3, ["A"])
    assert not is_scan(tmp_path / name)


@pytest.mark.parametrize("name", [*NAMES, "x.png", "x.jpg"])
def test_a_pipe_is_no_image(tmp_path, name):
    os.mkfifo(tmp_path / name)
    refused_image(tmp_path / name, f"{name}: is a named pipe, expected a regular file")


@pytest.mark.parametrize("name", ["9.png", "9"])
@pytest.mark.parametrize("kind", ["pictures", "dicom"])
def test_a_pipe_is_no_slice(tmp_path, name, kind):
    write_image(tmp_path / "pictures/1.png", PIXELS)
    write_dicom_series(tmp_path / "dicom", STACK.astype(np.int16))
    os.mkfifo(tmp_path / kind / name)
    refused(tmp_path / kind, f"{name}: is a named pipe, expected a regular file")


def test_sockets_devices_and_arrays_in_a_pipe_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as box:
        box.bind("x.nii")
        refused(tmp_path / "x.nii", "is a socket, expected a regular file")
    (tmp_path / "x.npy").symlink_to("/dev/zero")
    refused(tmp_path / "x.npy", "x.npy: is a device, expected a regular file")
    os.mkfifo(tmp_path / "x.npz")
    refused(tmp_path / "x.npz:a", "x.npz: is a named pipe, expected a regular file")


def test_odd_paths_are_refused(tmp_path):
    (tmp_path / "loop.nii").symlink_to("loop.nii")
    refused(tmp_path / "loop.nii", "cannot be read .Too many levels of symbolic links")
    refused(tmp_path / ("x" * 300 + ".nii"), "cannot be read .File name too long")
    refused(tmp_path / "a\0.nii", "cannot be read .embedded null byte")
    refused_image(tmp_path, "is a folder, expected one image")


def test_a_volume_is_one_of_several_arrays(tmp_path):
    np.savez(tmp_path / "m.npz", a=STACK, b=STACK[:2])
    scans = given_scans(tmp_path / "m.npz:b", 3, ["A"])
    assert scans.ids == ("m.npz:b",)
    assert (scans.read(0).slices == STACK[:2]).all()
    check_headers(scans)
    (tmp_path / "folder.npz").mkdir()
    for name, message in (
            ("m.npz",
             r"m.npz: contains 2 arrays \(a, b\), expected one, or its name as in m.npz:a"),
            ("m.npz:c",
             r"m.npz:c: no such array \(a, b\), expected one, or its name as in m.npz:a"),
            ("absent.npz:a", "absent.npz:a: no such file or folder"),
            ("absent.npz", "absent.npz: no such file or folder"),
            ("folder.npz:a", "folder.npz is a folder, expected a file"),
            ("folder.npz", "contains no slices .neither pictures nor DICOM files.: it is empty")):
        with pytest.raises(UserError, match=message):
            check_headers(given_scans(tmp_path / name, 3, ["A"]))
    write_image(tmp_path / "folder.npz/1.png", PIXELS)
    assert volume_header(tmp_path / "folder.npz").shape == (1, *PIXELS.shape)
