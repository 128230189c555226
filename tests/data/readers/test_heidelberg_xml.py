"""Heidelberg's XML exports, good and bad."""

import numpy as np
import pytest
from oct_files import GREY, NAME, write_export
from scan_files import read_both, refused

from slivit.data.readers import export_in, files_of, is_scan, read_volume, volume_header
from slivit.data.readers.heidelberg_xml import _parse
from slivit.data.scan_table import FileSource


@pytest.mark.parametrize("suffix", ["tif", "png", "bmp"])
def test_b_scans_come_in_the_order_of_the_xml_without_the_localizer(tmp_path, suffix):
    slices = np.random.default_rng(0).integers(0, 255, (11, 9, 12), dtype=np.uint8)
    path = write_export(tmp_path, slices, suffix=suffix)
    volume = read_both(path)
    assert (volume.slices == slices).all()
    assert volume.spacing == pytest.approx((0.25, 0.004, 0.5))
    assert (read_volume(path, lambda count: np.array([2, 9])).slices == slices[[2, 9]]).all()
    assert volume_header(path).kind == "xml"


def test_the_pictures_belong_to_the_scan(tmp_path):
    path = write_export(tmp_path)
    names = [file.name for file in files_of(path)]
    assert names == ["scan.xml", "B1.tif", "B2.tif", "B3.tif", "B4.tif"]
    source = FileSource((path,), 3)
    before, about = source.identity(0), source.describe(0)
    (tmp_path / "B3.tif").write_bytes((tmp_path / "B3.tif").read_bytes() + b" ")
    assert source.identity(0) != before and source.describe(0) != about
    path.write_text("<HEDX>")
    assert files_of(path) == [path]


def test_other_xml_files_are_no_scans(tmp_path):
    (tmp_path / "other.xml").write_text("<annotation/>")
    assert not is_scan(tmp_path / "other.xml")
    assert is_scan(write_export(tmp_path / "export"))
    refused(tmp_path / "other.xml",
            "is not an export of Heidelberg's: its first element is annotation, expected HEDX")


def test_the_folder_of_an_export_is_refused_with_the_name_of_the_xml(tmp_path):
    path = write_export(tmp_path / "export")
    assert export_in(tmp_path / "export") == path
    assert export_in(tmp_path) is None
    refused(tmp_path / "export", "contains an XML export of Heidelberg's, .*; name that file, "
                                 ".*/export/scan.xml")


def test_the_grid_of_an_export_has_its_spacing(tmp_path):
    path = write_export(tmp_path, slices := np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
    image = FileSource((path,), 3).grid(0).image(slices)
    assert image.shape == (5, 4, 3)
    assert image.header.get_zooms() == pytest.approx((0.5, 0.004, 0.25))
    assert (np.asarray(image.dataobj) == slices.T).all()


def test_missing_pictures_are_one_message(tmp_path):
    path = write_export(tmp_path)
    (tmp_path / "B2.tif").unlink()
    (tmp_path / "B4.tif").unlink()
    refused(path, "scan.xml: 2 of its 4 pictures are missing: B2.tif, B4.tif; expected them beside")


def test_names_do_not_lead_out_of_the_folder(tmp_path):
    write_export(tmp_path / "other")
    path = write_export(tmp_path / "export", change=lambda text: text.replace(
        "\\B1.tif", "\\..\\..\\other/B1.tif"))
    assert (read_both(path).slices == GREY).all()
    (tmp_path / "export/B1.tif").unlink()
    refused(path, "1 of its 4 pictures are missing: B1.tif")


@pytest.mark.parametrize(("old", "new", "message"), [
    ("B1.tif", "..", "names '..' as the picture of a B-scan, expected one of .png"),
    ("B1.tif", "B1.exe", "names 'B1.exe' as the picture"),
    ("B1.tif", "a" * 300 + ".tif", "names 'aaaaaaaaaa"),
    ("B2.tif", "B1.tif", "names a picture twice: B1.tif"),
    ("<Type>Volume</Type>", "<Type>Radial</Type>", "is a radial scan, expected a volume scan"),
    ("<Type>Volume</Type>", "<Type>Circle</Type>", "is a circle scan, expected a volume scan"),
    ("<Height>9</Height>", "<Height>8</Height>", "have 9x12 pixels, expected 8x12 as it says"),
    ("<Type>OCT</Type>", "<Type>LOCALIZER</Type>", "contains 0 series of B-scans, expected one"),
    ("<HEDX>", "<!DOCTYPE a [<!ENTITY b 'c'>]><HEDX>", "contains a DOCTYPE, expected none"),
    ("<HEDX>", "<HEDX>" + "<BODY>" * 40, "its elements are more than 32 deep"),
    ("</HEDX>", "", "cannot be read as XML .no element found"),
    ("<HEDX>", "", "its first element is BODY, expected HEDX"),
    ("<BODY>", "<BODY>&x;", "cannot be read as XML .undefined entity"),
])
def test_exports_that_cannot_be_are_refused(tmp_path, old, new, message):
    refused(write_export(tmp_path, change=lambda text: text.replace(old, new)), message)


def test_several_series_and_single_b_scans_are_refused(tmp_path):
    path = write_export(tmp_path, change=lambda text: text.replace(
        "</Series>", "</Series>" + text[text.index("<Series>"):text.index("</Study>")]))
    refused(path, "contains 2 series of B-scans, expected one; export each into its own folder")
    refused(write_export(tmp_path, GREY[:1]), "its number of B-scans is 1, expected 2 to 10000")
    refused(write_export(tmp_path, turn=45), "its B-scans are not parallel, as in a radial scan")


def test_pictures_of_other_sizes_are_refused(tmp_path):
    path = write_export(tmp_path)
    (tmp_path / "B2.tif").write_bytes((tmp_path / "NIR.tif").read_bytes())
    refused(path, "slices differ in size")


def test_the_patient_does_not_leave_the_parser(tmp_path):
    path = write_export(tmp_path)
    assert NAME in path.read_bytes()
    assert not [one for one in _parse(path).iter() if NAME.decode() in (one.text or "")]
    assert {one.tag for one in _parse(path).iter()}.isdisjoint({"LastName", "FirstNames"})
