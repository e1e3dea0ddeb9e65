# SPDX-License-Identifier: BSD-3-Clause
"""How the documentation site is made: offline, from pages, docstrings and examples that are executed while it is
built."""

import logging
import os
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import pykernel
from pykernel import activations, formats, inits, layers, observables

sys.path.insert(0, str(Path(__file__).parent))  # the settings of the gallery are pickled by name

project, author, copyright = "pykernel", "the pykernel developers", "the pykernel developers"
version = release = pykernel.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "shown",
]
if os.environ.get("PYKERNEL_DOCS_ONLINE"):  # links into other projects' references need the network while they are made
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "xarray": ("https://docs.xarray.dev/en/stable", None),
        "pandas": ("https://pandas.pydata.org/docs", None),
        "matplotlib": ("https://matplotlib.org/stable", None),
    }
exclude_patterns = ["_build", "gallery/**/*.ipynb", "gallery/**/*.py", "gallery/**/*.md5", "gallery/**/*.json"]
myst_enable_extensions = ["deflist", "dollarmath", "amsmath", "colon_fence", "substitution"]
myst_heading_anchors = 3
ROW = {
    "layer": "replicas x layers",
    "mix": "replicas x attentions",
    "rounded": "replicas x blocks, of a run with formats",
    "activation": "replicas x activation steps",
    "node": "replicas x blocks",
    "input": "replicas x (blocks + 1)",
    "weight": "replicas x distinct weights, where layers share some",
    "replica": "replicas",
}
myst_substitutions = {  # tables made from the tables of the code
    "rows": "\n".join(
        ["| row | shape | unit | meaning |", "|---|---|---|---|"]
        + [f"| `{row.name}` | {ROW[row.extent]} | {row.unit} | {row.meaning} |" for row in observables.ROWS]
    ),
    "formats": "\n".join(
        ["| format | bits | largest | smallest normal | smallest | beyond the largest |", "|---|---|---|---|---|---|"]
        + [
            f"| `{row.name}` | {row.bits} | {row.largest:.6g} | {row.smallest_normal:.3g} "
            f"| {row.smallest_subnormal:.3g} | {'inf' if row.infinite else 'the largest'} |"
            for row in formats.FORMATS.values()
        ]
    ),
    "schemes": ", ".join(f'`"{name}"`' for name in inits.SCHEMES),
    "functions": ", ".join(f'`"{name}"`' for name in activations.ROWS),
}
html_math_renderer = "mathml"

html_theme = "furo"
html_title = f"pykernel {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_typehints, autodoc_typehints_format = "signature", "short"
napoleon_google_docstring, napoleon_numpy_docstring, napoleon_use_rtype = True, False, False


def legible(gallery_conf, fname):
    """Figures that can still be read at the width of a phone."""
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "figure.figsize": (5, 3.6),
            "font.size": 11,
            "savefig.dpi": 160,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


os.environ.setdefault("MPLBACKEND", "agg")
logging.getLogger("pykernel").setLevel(logging.ERROR)  # a note that Numba compiles is not of the site's making
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/\d\d_",
    "ignore_pattern": r"/(?!\d\d_)[^/]*\.py$",
    "within_subsection_order": "FileNameSortKey",
    "reset_modules": ("conf.legible",),
    "image_srcset": ["2x"],
    "abort_on_example_error": True,
    "download_all_examples": False,
    "min_reported_time": 0,
    "show_memory": False,
    "write_computation_times": False,  # that page loads its scripts from elsewhere
    "plot_gallery": True,
    "remove_config_comments": True,
}


def with_steps(app, name, source):
    """A line of every kind of step where a page asks for them; in directives myst substitutes nothing."""
    steps = "\n".join(f".. autoclass:: pykernel.{kind.__name__}" for kind in layers.STEPS)
    source[0] = source[0].replace("@steps@", steps)


def setup(app):
    app.connect("source-read", with_steps)

    # Browsers draw MathML themselves: no script, no font, no request.
    def formula(block):
        def visit(writer, node):
            writer.body.append(tex2mathml(node.astext(), as_block=block))
            raise nodes.SkipNode

        return visit

    app.add_html_math_renderer("mathml", (formula(False), None), (formula(True), None))
