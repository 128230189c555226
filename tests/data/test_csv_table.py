"""Tables as spreadsheets save them: what is recognised and read, and what each refusal says."""

import numpy as np
import pytest

from slivit.data.meta_csv import read_meta
from slivit.utils.errors import UserError

ROWS = "F_Name,Path,A,note\none,a.png,1,\"x, y; z\"\ntwo,b.png,0,\n"
UNREADABLE = "--meta_csv .*meta.csv: cannot be read as a CSV table"


def separated_by(separator):
    """Return the rows with another separator; the quoted cell keeps its comma."""
    return separator.join(ROWS.split(",")).replace(f"x{separator} y", "x, y")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("separator", "word"), [(",", "commas"), (";", "semicolons"),
                                                 ("\t", "tabs")])
@pytest.mark.parametrize("sep_line", [True, False])
def test_separators_and_encodings_are_read_and_said(read, messages, separator, word, encoding,
                                                    sep_line):
    text = f"sep={separator}\r\n" * sep_line + separated_by(separator)
    scans = read(text, encoding=encoding)
    assert scans.ids == ("one", "two")
    assert scans.labels.tolist() == [[1], [0]]
    assert scans.columns["note"] == ("x, y; z", "")
    said = [text for text in messages if "is read as" in text]
    wide = "UTF-16" if encoding == "utf-16" else "UTF-8"
    expected = f"meta.csv is read as {wide} text separated by {word}"
    assert said == ([] if (wide, word) == ("UTF-8", "commas") else [expected])


def test_lines_are_counted_as_an_editor_counts_them(read):
    text = 'sep=;\n\nF_Name;Path;A;note\n1;a;1;"two\nlines"\n\n2;b;yes;\n'
    with pytest.raises(UserError, match="line 7, column A: 'yes'"):
        read(text)


@pytest.mark.parametrize("line", ["Study of 2024", "Study;of;2024", "", "a,b,c,d,e"])
def test_title_above_the_header_is_named_with_the_line_of_the_header(read, line):
    with pytest.raises(UserError, match="the header .* is in line 3") as error:
        read(f"Results\n{line}\n{separated_by(';')}")
    assert "beginning with 'Results'" in str(error.value)


def test_other_separators_of_a_sep_line_are_refused(read):
    with pytest.raises(UserError, match=f"{UNREADABLE}.*'x' separates cells, expected a comma"):
        read(f"sep=x\n{ROWS}")


@pytest.mark.parametrize(("separator", "quote"), [(";", ""), ("\t", ""), (",", '"')])
def test_decimal_commas_are_refused_in_one_message(read, separator, quote):
    rows = [["F_Name", "Path", "A", "B"], ["1", "a", f"{quote}0,5{quote}", "1"],
            ["2", "b", f"{quote}-12,25{quote}", "0"], ["3", "c", "", "0"]]
    with pytest.raises(UserError, match="2 label cells contain a comma") as error:
        read("\n".join(separator.join(row) for row in rows))
    for text in ("line 2, column A: '0,5'", "line 3, column A: '-12,25'", "Write 0.5 for 0,5"):
        assert text in str(error.value)


@pytest.mark.parametrize(("content", "message"), [
    (ROWS.encode().replace(b"two", b"M\xfcller"), r"b'.*M\\xfcller.*' in line 3 is not UTF-8"),
    (ROWS.encode("utf-16-le"), "NUL bytes, as UTF-16 without a byte order mark"),
    (ROWS.encode("utf-16")[:-1], "is not UTF-16"),
    (b"PK\x03\x04rest", "it is a spreadsheet workbook"),
    (b"\n \n", "it is empty"),
    (b"\xef\xbb\xbf", "it is empty"),
    (ROWS.encode() + b'3,"c.png,1\n4,d.png,0\n', "a quotation mark opened in line 4 is not closed"),
    (b"F_Name,Path,A\n1,a,1\n2,b,1,5\n3,c,0,,\n4,d,1,,x\n",
     "2 lines have more cells than the 3 of the header:\n  line 3: 4 cells\n  line 5: 5 cells"),
])
def test_what_is_no_such_table_is_refused_with_the_reason(read, content, message):
    with pytest.raises(UserError, match=f"(?s){UNREADABLE}.*{message}"):
        read(content)


def test_quotation_mark_that_swallows_rows_is_refused(read):
    with pytest.raises(UserError, match="1 cells contain a line break; is a quotation mark left "
                                        "open"):
        read('F_Name,Path,A\n1,"a.png,1\n2,"b.png,0\n3,c.png,1\n')


def test_folder_as_table_is_named(tmp_path):
    with pytest.raises(UserError, match="--meta_csv .* is a folder; name the table itself"):
        read_meta(tmp_path, 2)


def test_underscores_make_no_number(read):
    with pytest.raises(UserError, match="line 2, column A: '1_0'"):
        read("F_Name,Path,A\n1,a,1_0\n2,b,1\n")


def test_large_tables_are_read_fast_enough(read):
    """A guard against a cost that grows with the square of the rows."""
    n = 20_000
    scans = read("F_Name,Path,A,Split,pid\n" + "".join(
        f"{i},deep/er/{i}.png,{i % 2},{('train', 'val')[i % 5 == 0]},P{i}\n" for i in range(n)))
    assert len(scans) == n
    assert np.isin(scans.labels, (0, 1)).all()
