"""Files that hold no tensors are named for what they are."""

import gzip
import io
import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from whyfooled.images import recognise_mistaken

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
INDEX = {
    "metadata": {},
    "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"},
}


def zipped(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (POINTER, "a Git LFS pointer, in place of the file itself. Run `git lfs pull` in its repository"),
        (b"/annex/objects/SHA256E-s1--4d7a.pt\n", "a git-annex pointer"),
        (b"<!DOCTYPE html>\n<html></html>", "a web page (HTML)"),
        (b"\n <HTML><head>", "a web page (HTML)"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
        (json.dumps(INDEX).encode(), "in several files (model-1.safetensors, model-2.safetensors). Load those"),
        (b'{"weight_map": {}}', "the index of weights that are in several files. Load those"),
        (b'{"model_type": "resnet"}', "a JSON file, with no tensors in it"),
        (b"[1, 2]", "a JSON file, with no tensors in it"),
        (gzip.compress(b"x", mtime=0), "compressed with gzip"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (bytes(257) + b"ustar" + bytes(300), "a tar archive"),
        (zipped("model/weights.bin"), "a ZIP archive that torch.save did not write"),
        (zipped("model/constants.pkl"), "a TorchScript archive, a program with its weights. Save them alone: torch"),
        (b"", "empty"),
    ],
)
def test_what_is_something_else_is_named(tmp_path, content, reason):
    (tmp_path / "a.pt").write_bytes(content)
    assert reason in recognise_mistaken(tmp_path / "a.pt")


def test_nothing_is_said_of_tensors_and_of_damaged_files(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "new.pt")
    torch.save(torch.zeros(3), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "half.pt").write_bytes((tmp_path / "new.pt").read_bytes()[:-50])
    (tmp_path / "text.pt").write_bytes(b"{ no json" + bytes(100))
    (tmp_path / "deep.pt").write_bytes(b"[" * 100_000)
    for path in [*tmp_path.iterdir(), tmp_path / "nowhere.pt"]:
        assert recognise_mistaken(path) == "", path


def test_an_archive_whose_list_of_files_is_damaged_is_left_to_what_reads_it(tmp_path):
    torch.save(torch.ones(3), tmp_path / "image.pt")
    content = (tmp_path / "image.pt").read_bytes()
    # The name of the first file in the list at the end, which says of itself that it is UTF-8.
    place = content.index(b"PK\x01\x02")
    damaged = bytearray(content)
    damaged[place + 9] |= 8
    damaged[place + 46] = 0xFF
    (tmp_path / "image.pt").write_bytes(damaged)
    with pytest.raises(UnicodeDecodeError):
        zipfile.ZipFile(tmp_path / "image.pt")
    assert recognise_mistaken(tmp_path / "image.pt") == ""
