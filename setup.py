"""Build script: metadata, and the files that mim looks for."""

import os
import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_FILES = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Put configs and tools into ``mm_rotssl/.mim``, where mim finds them.

    A wheel gets copies. An editable install gets links, so that an edited
    config is the one that runs.
    """

    def run(self):
        """Build the package, then fill its ``.mim`` folder."""
        super().run()
        base = ROOT if self.editable_mode else Path(self.build_lib)
        target = base / 'mm_rotssl' / '.mim'
        # What an earlier build left may name files that are gone.
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in MIM_FILES:
            source = ROOT / name
            if self.editable_mode:
                link(source, target / name)
            else:
                copy(source, target / name)


def link(source, target):
    """Link relatively, or copy where the system allows no links."""
    try:
        target.symlink_to(os.path.relpath(source, target.parent))
    except OSError:
        copy(source, target)


def copy(source, target):
    """Copy a file or a folder, without compiled Python."""
    if source.is_dir():
        ignored = shutil.ignore_patterns('__pycache__')
        shutil.copytree(source, target, ignore=ignored)
    else:
        shutil.copy2(source, target)


setup(
    name='mm-rotssl',
    version=runpy.run_path(str(ROOT / 'mm_rotssl/version.py'))['__version__'],
    description='RotNet, Rotation Feature Decoupling, Exemplar-CNN and '
    'Self-Classifier for the OpenMMLab ecosystem',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The mm_rotssl contributors',
    license_expression='Apache-2.0',
    license_files=['LICENSE'],
    keywords='self-supervised learning, pre-training, rotation, RotNet, '
    'OpenMMLab, PyTorch',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Typing :: Typed',
    ],
    packages=find_packages(include=['mm_rotssl', 'mm_rotssl.*']),
    package_data={
        'mm_rotssl': ['py.typed', 'visualization/templates/*'],
    },
    include_package_data=False,
    entry_points={'console_scripts': ['mm-rotssl = mm_rotssl.cli:main']},
    cmdclass={'build_py': BuildWithMim},
    python_requires='>=3.10',
    # No engine here: two families of distributions provide the same modules,
    # and installing this package must never overwrite the user's choice.
    install_requires=[
        'jinja2>=3.1',
        'joblib>=1.3',
        'matplotlib>=3.7',
        'numpy>=1.24',
        'packaging>=22',
        'pillow>=10',
        'rich>=13',
        'safetensors>=0.4',
        'scikit-learn>=1.3',
        'scipy>=1.10',
        'threadpoolctl>=3.1',
        'torch>=2.5',
        'torchvision>=0.20',
    ],
    extras_require={
        'onedl': [
            'onedl-mmengine>=0.10.12',
            'onedl-mmcv>=2.3.6',
            'onedl-mmpretrain>=1.3.6',
        ],
        # These are the last releases. The engine cannot resume under torch
        # 2.6 or newer, and imports pkg_resources, which setuptools 82 dropped.
        'openmmlab': [
            'mmengine==0.10.7',
            'mmcv-lite==2.1.0',
            'mmpretrain==1.2.0',
            'setuptools<82',
            'torch<2.6',
            'torchvision<0.21',
        ],
        # For the maintained fork; onedl-mmcv must have its compiled ops.
        'transfer': [
            'onedl-mmdetection>=3.5.1',
            'onedl-mmsegmentation>=1.4.2',
            'timm>=1.0',
        ],
        'dev': [
            'build>=1.2',
            'codespell>=2.4',
            'furo>=2024.8',
            'mypy>=1.11',
            'myst-parser>=4.0',
            'pre-commit>=3.5',
            'pytest>=8.2',
            'pytest-xdist>=3.6',
            'ruff>=0.9',
            'sphinx>=8.1',
            'uv>=0.5',
        ],
    },
    zip_safe=False,
)
