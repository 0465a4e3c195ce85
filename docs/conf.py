"""Settings of the documentation: ``make docs`` builds it.

The source is the whole checkout, not this folder only, so that README.md and
the pages of the configs are pages too, and links between all of them work on
the code host and here.
"""

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).resolve().parents[1]
# whatever is installed, this checkout is documented
sys.path.insert(0, str(ROOT))

from mm_rotssl import __version__  # noqa: E402

project = 'mm_rotssl'
author = 'The mm_rotssl contributors'
version = release = __version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.mathjax',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
]
root_doc = 'docs/index'
include_patterns = [
    '*.md',
    'configs/**/README.md',
    'docs/**.md',
    'docs/**.rst',
]
exclude_patterns = ['docs/_build']

html_theme = 'furo'
html_title = f'mm_rotssl {version}'

# links to headings, as code hosts make them
myst_heading_anchors = 3

# the constructor's arguments are documented in the class
autodoc_class_signature = 'mixed'
autodoc_default_options = {
    'members': True,
    'imported-members': True,
    'member-order': 'groupwise',
    'show-inheritance': True,
}
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# A role that names nothing is an error; what is outside is not looked up.
nitpicky = True
nitpick_ignore_regex = [
    ('py:.*', r'(mmcv|mmengine|mmpretrain|numpy|sklearn|torch)\..*'),
    # bases of several classes, which stand nowhere for themselves
    ('py:class', r'abc\.ABC'),
    ('py:class', r'.*\.(StagedBackbone|_KNNLoop|TrainedProbe)'),
]


def resolve(
    app: Sphinx, env: Any, node: Any, text: nodes.Element
) -> nodes.Node | None:
    """Find a name of the package wherever a docstring mentions it.

    Args:
        app (Sphinx): The application.
        env (BuildEnvironment): Knows all documented names.
        node (pending_xref): The reference that Sphinx could not resolve.
        text (Element): What it shows.

    Returns:
        nodes.Node, optional: A link; the text of a type in a signature, which
        is no reference; or None, which is reported.
    """
    if node.get('refdomain') != 'py':
        return None
    objects = env.domains['py'].objects
    parts = node['reftarget'].split('.')
    # mm_rotssl.models.ESSL is documented where it is exported first.
    shorter = range(1, len(parts)) if parts[0] == 'mm_rotssl' else ()
    for start in (0, *shorter):
        ending = '.' + '.'.join(parts[start:])
        found = [
            name
            for name, entry in objects.items()
            if name.endswith(ending) and not entry.aliased
        ]
        if len(found) == 1:
            entry = objects[found[0]]
            return make_refnode(
                app.builder,
                node['refdoc'],
                entry.docname,
                entry.node_id,
                text,
                found[0],
            )
    return None if isinstance(text, nodes.literal) else text


def setup(app: Sphinx) -> None:
    """Connect what is defined here.

    Args:
        app (Sphinx): The application.
    """
    app.connect('missing-reference', resolve)
