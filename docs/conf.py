"""Settings of the documentation site: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import generator  # noqa: E402

import sonde  # noqa: E402

# The reference is written anew from the code at every build; no page of it is under version control.
generator.write(HERE / "reference")

project = "sonde"
author = "the authors of sonde"
copyright = "the authors of sonde; Apache-2.0"
release = version = sonde.__version__
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
smartquotes = False
exclude_patterns = ["_build"]
nitpicky = True
html_theme = "furo"
html_title = "sonde"
html_static_path = ["_static"]
html_css_files = ["sonde.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6e8a", "color-brand-content": "#0b6e8a"},
    "dark_css_variables": {"color-brand-primary": "#5cc6e2", "color-brand-content": "#5cc6e2"},
}
