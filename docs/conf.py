"""How the documentation becomes a site: `sphinx-build -W docs build/site`.

`-D plot_gallery=0` builds it without running the gallery.

Nothing is fetched, neither by building nor by reading: mathematics becomes MathML, which browsers draw by themselves.
"""

from __future__ import annotations

import os

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

os.environ.setdefault("MPLBACKEND", "agg")

project = "whyfooled"
author = "the whyfooled authors"
project_copyright = "the whyfooled authors, under Apache-2.0"
html_title = "whyfooled"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {"light_css_variables": {"code-font-size": "76%"}}
html_math_renderer = "mathml"
html_show_sphinx = False

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["README.md", "gallery/*.ipynb", "gallery/*.py", "gallery/GALLERY_HEADER.rst"]
smartquotes = False  # they would join the two hyphens of an option
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 4

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = False
napoleon_use_rtype = False

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"

sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    # Names in the code lead to the reference; roles in the text would stand in the notebooks as they are.
    "doc_module": "whyfooled",
    "reference_url": {"whyfooled": None},
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "min_reported_time": 1,
}

ELSEWHERE = {
    "../CONTRIBUTING.md": "contributing.md",
    "../CHANGELOG.md": "changelog.md",
    "../SECURITY.md": "security.md",
    "../examples/gallery/GALLERY_HEADER.rst": "gallery/index.rst",
}
"""Where the site has what lies outside of this folder."""


def lead_into_the_site(app: Sphinx, docname: str, source: list[str]) -> None:
    """Lead links to files outside of this folder to the pages that the site makes of them."""
    for file, page in ELSEWHERE.items():
        source[0] = source[0].replace(f"]({file}", f"]({page}")


def write_inline(self: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a line."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def write_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on a line of its own."""
    self.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    app.connect("source-read", lead_into_the_site)
    app.add_html_math_renderer("mathml", inline_renderers=(write_inline, None), block_renderers=(write_block, None))
