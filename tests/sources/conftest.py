"""A folder of photographs that several files share."""

import pytest

from tests.helpers.pictures import photograph


@pytest.fixture
def photographs(tmp_path):
    for seed, name in enumerate(["b/one.png", "a/one.jpg", "a/.hidden.png", "a/two.JPEG", "notes.txt"]):
        photograph(tmp_path / "photographs" / name, seed)
    return tmp_path / "photographs"
