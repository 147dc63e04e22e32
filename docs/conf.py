"""Settings of the documentation site: `make docs` builds it by Sphinx, from Markdown and docstrings, without the network."""

from medsass import __version__

project, author = "medsass", "the medsass developers"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
myst_heading_anchors = 3  # links to headings, as GitHub makes them
default_role = "code"  # docstrings put names in single backticks
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
napoleon_use_ivar = True  # a field of a dataclass is described once
suppress_warnings = ["ref.python"]  # a name in "Attributes:" that several classes have
apidoc_modules = [
    {
        "path": "../medsass",
        "destination": "api",
        "automodule_options": {"members", "show-inheritance"},
    }
]
toc_object_entries = False  # or each page renders a navigation of thousands of names
html_theme = "furo"
html_title = f"medsass {__version__}"
