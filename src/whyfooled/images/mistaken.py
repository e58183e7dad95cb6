"""Files that were taken for images, tensors or weights and are something else: told by how they begin."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

_READ = 4096
"""How much of a file's beginning tells what it is."""
_MOST_JSON = 2**26
_BEGINNINGS = (
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, in place of the file itself. Run `git lfs pull` in its repository",
    ),
    (b"/annex/objects/", "a git-annex pointer, in place of the file itself. Run `git annex get` in its repository"),
    (b"<?xml", "an XML document, such as the error message of a server. Download the file itself"),
    (b"\x1f\x8b", "compressed with gzip. Unpack it first"),
    (b"\x89HDF", "an HDF5 file, as Keras writes them. Convert it: whyfooled reads PyTorch's tensors"),
)
_PAGE = "a web page (HTML), perhaps one that asks to log in. Download the file itself, by its own address"
_SCRIPT = (
    "a TorchScript archive, a program with its weights. Save them alone: "
    "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')"
)


def recognise_mistaken(path: Path) -> str:
    """Say what a file is, and what to do, if it can hold no image and no tensors; else return ''."""
    try:
        with path.open("rb") as file:
            start = file.read(_READ)
        if not start:
            return "empty. Download it, or save it, again"
        known = next((what for beginning, what in _BEGINNINGS if start.startswith(beginning)), "")
        if known:
            return known
        if start.lstrip().lower().startswith((b"<!doctype html", b"<html", b"<head")):
            return _PAGE
        if start[257:262] == b"ustar":
            return "a tar archive. Unpack it first"
        if start.startswith(b"PK\x03\x04"):
            return _recognise_archive(path)
        return _recognise_json(path) if start.lstrip()[:1] in (b"{", b"[") else ""
    except Exception:  # missing, or damaged, on which zipfile stumbles in many ways: what reads it says so
        return ""


def _recognise_archive(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        files = {name.partition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in files:
        return _SCRIPT
    return "" if "data.pkl" in files else "a ZIP archive that torch.save did not write. Unpack it first"


def _recognise_json(path: Path) -> str:
    if path.stat().st_size > _MOST_JSON:
        return ""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return ""
    if not isinstance(content, dict) or not isinstance(content.get("weight_map"), dict):
        return "a JSON file, with no tensors in it. Give the file beside it that holds them"
    parts = sorted({str(part) for part in content["weight_map"].values()})
    listed = f" ({', '.join(parts[:2])}{', …' if len(parts) > 2 else ''})" if parts else ""
    return f"the index of weights that are in several files{listed}. Load those, and save the state dict as one file"
