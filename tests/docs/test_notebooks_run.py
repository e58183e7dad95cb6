"""The gallery's notebooks run in Jupyter as they are (`pytest -m nightly`), and read as the site does."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.doc_pages import GALLERY

MOST_SECONDS = 600
"""Ten times what an example may take on two free cores."""
NEEDED = ("ipykernel", "nbclient", "sphinx_gallery")
ROLE = re.compile(r":\w+:`")
"""How the site's source refers to the reference, which Jupyter shows as it is written."""

each_example = pytest.mark.parametrize("example", GALLERY, ids=lambda path: path.stem)


@each_example
def test_the_text_of_an_example_is_read_as_it_is_meant_on_the_site_and_in_jupyter(example):
    assert not ROLE.search(example.read_text(encoding="utf-8"))


@pytest.mark.nightly
@each_example
def test_a_notebook_of_the_gallery_runs_in_jupyter(example, tmp_path):
    missing = [name for name in NEEDED if find_spec(name) is None]
    assert not missing, f"needs {' and '.join(missing)}: pip install '.[docs,nightly]'"
    import nbformat
    from nbclient import NotebookClient
    from sphinx_gallery.notebook import python_to_jupyter_cli

    python = tmp_path / example.name
    python.write_bytes(example.read_bytes())
    python_to_jupyter_cli([str(python)])
    notebook = nbformat.read(python.with_suffix(".ipynb"), as_version=4)
    # An error in a cell is raised here, with its traceback.
    NotebookClient(notebook, timeout=MOST_SECONDS, kernel_name="python3", resources=in_folder(tmp_path)).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def in_folder(folder: Path) -> dict[str, dict[str, str]]:
    return {"metadata": {"path": str(folder)}}
