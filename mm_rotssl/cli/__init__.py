"""The console command ``mm-rotssl``.

A module a command: ``add_arguments`` describes what it takes, ``run`` does it
and imports what it needs only then, so that ``--help`` answers at once.
"""

from .main import main

__all__ = ['main']
