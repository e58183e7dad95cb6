"""What photographs show, from a CSV file."""

from __future__ import annotations

from unicodedata import normalize

import pytest

from tests.helpers.pictures import listed, photograph, write
from whyfooled.errors import ParameterError, WhyfooledWarning
from whyfooled.sources import open_source


class TestLabels:
    def test_class_names_become_indices(self, photographs, tmp_path):
        table = write(tmp_path / "l.csv", "file,label\na/one.jpg,lynx\nb/one.png,tabby;lynx\ntwo.JPEG, cat \n")
        source = open_source(photographs, table)
        assert source.class_names == ("cat", "lynx", "tabby")
        assert listed(source) == {"a/one.jpg": (1,), "a/two.JPEG": (0,), "b/one.png": (2, 1)}
        assert source[2].labels == (2, 1)

    def test_indices_stay_as_they_are(self, photographs, tmp_path):
        table = write(tmp_path / "l.csv", "file,label\na/one.jpg,281\nb/one.png,7;3\ntwo.JPEG,281\n")
        source = open_source(photographs, table)
        assert source.class_names is None
        assert listed(source)["b/one.png"] == (7, 3)

    def test_labels_of_a_file_may_stand_in_several_rows_and_in_quotation_marks(self, photographs, tmp_path):
        rows = 'file,label\n./b/one.png,"tabby, tabby cat"\nb/one.png,lynx\nb/one.png,lynx\n'
        source = open_source(photographs / "b", write(tmp_path / "l.csv", rows))
        assert source.class_names == ("lynx", "tabby, tabby cat")
        assert source.labels(0) == (1, 0)

    def test_paths_may_begin_above_the_common_folder(self, photographs, tmp_path):
        rows = f"file,label\nphotographs/a/one.jpg,1\n{photographs}/a/two.JPEG,2\n"
        assert listed(open_source(photographs / "a", write(tmp_path / "l.csv", rows))) == {
            "one.jpg": (1,),
            "two.JPEG": (2,),
        }

    def test_a_photograph_without_a_label_is_named(self, photographs, tmp_path):
        table = write(tmp_path / "l.csv", "file,label\na/one.jpg,1\nb/one.png,\n")
        with pytest.raises(ParameterError, match=r"nothing for 2 of 3, such as a/two.JPEG"):
            open_source(photographs, table)

    def test_a_label_of_no_photograph_is_warned_of(self, photographs, tmp_path):
        table = write(tmp_path / "l.csv", "file,label\na/one.jpg,1\nb/one.png,2\ntwo.JPEG,3\nnix.png,4\n")
        with pytest.warns(WhyfooledWarning, match=r"1 of the 4 labels belong to no photograph, such as nix.png"):
            source = open_source(photographs, table)
        assert [source.labels(index) for index in range(3)] == [(1,), (3,), (2,)]

    def test_a_name_of_two_photographs_is_refused(self, photographs, tmp_path):
        photograph(photographs / "b" / "one.jpg")
        table = write(tmp_path / "l.csv", "file,label\none.jpg,1\none.png,2\ntwo.JPEG,3\n")
        with pytest.raises(ParameterError, match=r"one.jpg for a/one.jpg and b/one.jpg"):
            open_source(photographs, table)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("name,label\na,b\n", "with the columns file and label"),
            ("", "with the columns file and label|nothing for"),
            ("file,label\nb/one.png,tabby, tabby cat\n", "line 2 has more columns"),
            ("file,label\nb/one.png\n", "with the columns file and label"),
            ("file,label\nb/one.png,\xe9\n", "with the columns file and label"),
        ],
    )
    def test_a_table_of_another_form_is_refused(self, photographs, tmp_path, text, reason):
        (tmp_path / "l.csv").write_bytes(text.encode("latin-1"))
        with pytest.raises(ParameterError, match=f"`labels` must .*{reason}"):
            open_source(photographs, tmp_path / "l.csv")

    def test_a_missing_table_is_named(self, photographs, tmp_path):
        with pytest.raises(ParameterError, match=r"no.csv: No such file"):
            open_source(photographs, tmp_path / "no.csv")

    def test_they_are_for_photographs(self, photographs, tmp_path):
        with pytest.raises(ParameterError, match="`labels` are for files and folders"):
            open_source(f"folder:{photographs}", tmp_path / "l.csv")

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_tables_of_spreadsheets_are_read(self, photographs, tmp_path, encoding, separator):
        lines = [["file", " label"], ["a/one.jpg", "Löwe"], ["b/one.png", '"Löwe;cat"'], ["two.JPEG", "cat"]]
        text = "\r\n".join(separator.join(line) for line in lines)
        mark = "\ufeff" if encoding == "utf-16-le" else ""
        (tmp_path / "l.csv").write_bytes((mark + text).encode(encoding))
        source = open_source(photographs, tmp_path / "l.csv")
        assert source.class_names == ("Löwe", "cat")
        assert listed(source) == {"a/one.jpg": (0,), "a/two.JPEG": (1,), "b/one.png": (0, 1)}

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("file,label\na/one.jpg,1\n".encode("utf-16-le"), "not text in UTF-8 or UTF-16. Save it in UTF-8"),
            ("file,label\na/one.jpg,ä\n".encode("latin-1"), "not text in UTF-8 or UTF-16. Save it in UTF-8"),
            (b"\xff\xfea", "not text in UTF-8 or UTF-16"),
            (b"file;label\nb/one.png;tabby;lynx\n", 'line 2 has more columns. Put several labels into .*"tabby;lynx"'),
            (b"file\tlabel\nb/one.png\ta\tb\n", "line 2 has more columns. Put a label with a tab into quotation marks"),
        ],
    )
    def test_what_cannot_be_read_is_refused_with_the_fix(self, photographs, tmp_path, content, reason):
        (tmp_path / "l.csv").write_bytes(content)
        with pytest.raises(ParameterError, match=f"`labels` must be a CSV file .*{reason}"):
            open_source(photographs, tmp_path / "l.csv")

    @pytest.mark.parametrize(("on_disk", "in_table"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
    def test_accents_may_be_written_in_either_form(self, tmp_path, on_disk, in_table):
        photograph(tmp_path / "pictures" / normalize(on_disk, "Brücke") / normalize(on_disk, "é.png"))
        photograph(tmp_path / "pictures" / "b.png")
        table = write(tmp_path / "l.csv", f"file,label\n{normalize(in_table, 'Brücke/é.png')},1\nb.png,2\n")
        assert list(open_source(tmp_path / "pictures", table).all_labels) == [(1,), (2,)]

    def test_of_two_forms_each_photograph_has_its_own(self, tmp_path):
        for form in ("NFC", "NFD"):
            photograph(tmp_path / "pictures" / normalize(form, "é.png"))
        rows = f"{normalize('NFC', 'é.png')},1\n{normalize('NFD', 'é.png')},2\n"
        source = open_source(tmp_path / "pictures", write(tmp_path / "l.csv", f"file,label\n{rows}"))
        assert listed(source) == {normalize("NFC", "é.png"): (1,), normalize("NFD", "é.png"): (2,)}
