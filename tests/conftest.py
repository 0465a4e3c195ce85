"""What holds in all tests."""

import gc
import io
import os
from pathlib import Path

import pytest
import yapf.yapflib.yapf_api as yapf_api
from matplotlib.image import imread

# Networks are too small for several threads to be worth their overhead. This
# is read when torch is imported, here and in programs that tests start.
os.environ['OMP_NUM_THREADS'] = '1'
# Those programs run this package, not one that is installed.
os.environ['PYTHONPATH'] = os.pathsep.join(
    [str(Path(__file__).parents[1]), os.environ.get('PYTHONPATH', '')]
).rstrip(os.pathsep)
# mmengine writes the config to the log, and its layout takes seconds.
yapf_api.FormatCode = lambda text, **_: (text, True)


@pytest.fixture(autouse=True, scope='module')
def _fresh_globals():
    """Scope, message hub and loggers that an earlier file left are gone."""
    from mmengine.utils import ManagerMixin

    kinds = [ManagerMixin]
    for kind in kinds:
        kinds += kind.__subclasses__()
        kind._instance_dict.clear()
    # mmengine's datasets collect garbage, which takes long among the million
    # objects that were imported
    gc.collect()
    gc.freeze()


@pytest.fixture
def log(tmp_path):
    """The file of the current logger."""
    from mmengine.logging import MMLogger

    path = tmp_path / 'log.txt'
    # the newest logger is the current one
    logger = MMLogger.get_instance(str(path), log_file=str(path))
    yield path
    for handler in logger.handlers:
        handler.close()
    del MMLogger._instance_dict[str(path)]


@pytest.fixture
def run_cli(monkeypatch):
    """Run the console command in this process."""
    from mm_rotssl.cli import main

    def run(command, *words):
        words = ['mm-rotssl', command, *map(str, words)]
        monkeypatch.setattr('sys.argv', words)
        # what it changes in the environment is undone
        monkeypatch.setattr(os, 'environ', dict(os.environ))
        main()

    return run


@pytest.fixture
def rendered():
    """A function that gives a figure's pixels as saved: int (H, W, 3)."""

    def render(figure):
        data = io.BytesIO()
        figure.savefig(data, format='png', dpi=figure.dpi)
        data.seek(0)
        return (imread(data)[..., :3] * 255).round().astype(int)

    return render
