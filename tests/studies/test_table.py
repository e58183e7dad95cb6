"""Parquet in and out: equal rows give equal bytes, any value may be missing."""

import pandas as pd
import pyarrow.parquet as pq
import pytest

from whyfooled.errors import ImageError, OutputError
from whyfooled.studies.table import Table, encode, join, read_about

COLUMNS = {"method": "text", "value": "real", "rank": "whole", "good": "flag", "picture": "bytes"}
ROWS = [
    {"index": 0, "image": "a", "method": "m", "value": 0.1, "rank": 3, "good": True, "picture": b"\x00\xff"},
    {"index": 0, "image": "a", "method": "n", "value": None, "rank": None, "good": None, "picture": None},
    {"index": 1, "image": "b", "error": "It is broken."},
    {"index": 2, "image": "c", "method": "m", "value": 1.5},
]


def shard(path, rows, **about):
    path.write_bytes(encode(rows, COLUMNS, about))
    return path


@pytest.fixture
def table(tmp_path):
    join(
        [shard(tmp_path / "0", ROWS[:2]), shard(tmp_path / "1", ROWS[2:3]), shard(tmp_path / "2", ROWS[3:])],
        tmp_path / "t",
    )
    return Table(tmp_path / "t")


def test_what_was_measured_is_read_and_what_failed_apart(table):
    rows = table.read()
    assert rows["index"].tolist() == [0, 0, 2]
    assert rows["value"].tolist()[::2] == [0.1, 1.5]
    assert rows["picture"][0] == b"\x00\xff"
    assert rows["value"].isna().tolist() == [False, True, False]
    assert table.errors()[["index", "error"]].values.tolist() == [[1, "It is broken."]]
    assert table.images == 3


def test_columns_and_rows_are_chosen_while_reading(table):
    assert table.read(["value"], [("method", "==", "m")])["value"].tolist() == [0.1, 1.5]
    assert table.read(["index"], [("index", "in", [2, 1])])["index"].tolist() == [2]


def test_texts_are_categories_so_that_a_name_stands_in_memory_once(table):
    assert table.read()["method"].dtype == "category"


def test_equal_rows_give_equal_bytes_whatever_the_order_of_their_columns(tmp_path):
    turned = [dict(reversed(row.items())) for row in ROWS]
    assert encode(ROWS, COLUMNS, {"a": 1, "b": 2}) == encode(turned, COLUMNS, {"b": 2, "a": 1})


def test_what_is_kept_beside_the_rows_comes_back(tmp_path):
    about = {"run": "r", "forwards": 3, "backwards": 0, "good": 3, "notes": [], "headline": [1.6, 2]}
    assert read_about(shard(tmp_path / "x", ROWS, **about)) == about
    assert read_about(tmp_path / "missing") is None
    (tmp_path / "damaged").write_bytes((tmp_path / "x").read_bytes()[:-5])
    assert read_about(tmp_path / "damaged") is None
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "foreign")
    assert read_about(tmp_path / "foreign") is None


def test_a_table_of_the_first_version_is_read_and_a_damaged_or_foreign_one_named(table, tmp_path):
    rows = table.read()
    old = pq.read_table(table.path).replace_schema_metadata(None)
    pq.write_table(old, tmp_path / "old")
    assert Table(tmp_path / "old").read().equals(rows)
    whole = (tmp_path / "old").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-5])
    (tmp_path / "torn").write_bytes(whole[:4] + bytes(90) + whole[94:])
    (tmp_path / "none").write_bytes(b"")
    pq.write_table(old.replace_schema_metadata({"whyfooled": '{"format": 2}'}), tmp_path / "without its seal")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "foreign")
    for name in ("cut", "torn", "none", "without its seal", "foreign", "missing"):
        for read in (Table.read, Table.errors, lambda table: table.images):
            with pytest.raises(ImageError, match=f"{name} is no table of `whyfooled study`, or is damaged"):
                read(Table(tmp_path / name))
    pq.write_table(old.replace_schema_metadata({"whyfooled": '{"format": 3}'}), tmp_path / "later")
    with pytest.raises(ImageError, match="its format is 3, and this one reads 2"):
        Table(tmp_path / "later").read()


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path):
    (tmp_path / "folder").write_text("in the way")
    target = tmp_path / "folder" / "t"
    with pytest.raises(OutputError, match="cannot be written"):
        join([shard(tmp_path / "0", ROWS)], target)
    assert not target.exists()
