"""The settings of Sphinx. `bin/docs` builds the pages into docs/_build/html, offline, with warnings as errors."""

import sys
from pathlib import Path

import feature_store

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "feature-store"
author = "The feature-store maintainers"
project_copyright = author
release = version = feature_store.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference_pages"]
exclude_patterns = ["_build", "_ext"]

# Markdown. Links to files of the repository that are no pages become downloads.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
# Pages that are included begin below a title; `acl` blocks are no language that Pygments knows.
suppress_warnings = ["myst.header", "misc.highlighting_failure"]

# Docstrings are Google's form; single backticks hold code.
default_role = "literal"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Class attributes", "params_style")]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "exclude-members": "model_config, model_post_init",
}
python_maximum_signature_line_length = 100

# Nothing is fetched when a page is viewed: fonts are the reader's own, and the search runs in the page.
html_theme = "furo"
html_title = f"feature-store {release}"
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
