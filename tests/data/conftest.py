"""How the tests of tables read them."""

import pytest

from slivit.data.meta_csv import read_meta


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a table given as text or bytes."""
    def from_content(content: str | bytes, ndim: int = 2, encoding: str = "utf-8", **options):
        path = tmp_path / "meta.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return read_meta(path, ndim, **options)
    return from_content
