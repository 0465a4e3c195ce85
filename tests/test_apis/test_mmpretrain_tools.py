"""mmpretrain's own scripts and functions with configs of this package."""

import json
import runpy
from pathlib import Path

import cv2
import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, default_collate
from mmengine.registry import TRANSFORMS, DefaultScope

from mm_rotssl.apis import read_config
from mm_rotssl.utils import find_config

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(mmpretrain.__file__).parent / '.mim' / 'tools'
DIGITS = ROOT / 'configs/rotnet/rotnet_nin-w24_1xb128-15e_digits.py'
SHORT = (
    'train_cfg.max_epochs=1',
    'train_dataloader.dataset.indices=128',
    'val_dataloader.dataset.indices=20',
    'val_cfg.reference_dataloader.dataset.indices=100',
)


@pytest.fixture
def run_tool(monkeypatch):
    """Run a script of mmpretrain in this process."""
    monkeypatch.setenv('MPLBACKEND', 'agg')

    def run(script, *words):
        path = str(TOOLS / script)
        monkeypatch.setattr('sys.argv', [path, *map(str, words)])
        with DefaultScope.overwrite_default_scope(None):
            runpy.run_path(path, run_name='__main__')

    return run


def test_train_test_and_plot(run_tool, tmp_path):
    folder = tmp_path / 'run'
    run_tool('train.py', DIGITS, '--work-dir', folder, '--cfg-options', *SHORT)
    assert (folder / 'epoch_1.pth').is_file()
    log = next(folder.glob('*/vis_data/2*.json'))
    figures = json.loads(log.read_text().splitlines()[-1])
    assert figures['knn/stage2'] > 10
    # the same figures once more, from the checkpoint
    small = [word.replace('val_', 'test_') for word in SHORT[2:]]
    words = (DIGITS, folder / 'epoch_1.pth', '--work-dir', folder / 'test')
    run_tool(
        'test.py',
        *words,
        *('--out-item', 'metrics', '--out', tmp_path / 'a.json'),
        *('--cfg-options', *small),
    )
    assert json.loads((tmp_path / 'a.json').read_text())['knn/stage2'] == (
        pytest.approx(figures['knn/stage2'])
    )
    run_tool(
        'visualization/vis_tsne.py',
        *(DIGITS, '--checkpoint', folder / 'epoch_1.pth'),
        *('--work-dir', tmp_path / 'tsne', '--max-num-class', 3),
        *('--n-iter', 250, '--perplexity', 3),
        *('--cfg-options', *small),
    )
    assert list((tmp_path / 'tsne').rglob('*.png'))
    plot = tmp_path / 'loss.png'
    script = 'analysis_tools/analyze_logs.py'
    run_tool(script, 'plot_curve', log, '--keys', 'loss', '--out', plot)
    assert plot.is_file()


@pytest.mark.parametrize(
    'config',
    [
        'rotnet/rotnet_nin-w24_1xb128-15e_digits',
        # hooks that look at the training set
        'feature_decoupling/feature-decoupling_nin-w24_1xb128-15e_digits',
        'self_classifier/self-classifier_32c5-32c5-128f_1xb128-20e_digits',
        'multi_task/multi-task_32c5-32c5-128f_1xb64-10e_digits',
    ],
)
def test_plot_the_schedule(run_tool, tmp_path, config):
    run_tool(
        'visualization/vis_scheduler.py',
        ROOT / 'configs' / f'{config}.py',
        *(
            '--dataset-size',
            400,
            '--not-show',
            '--save-path',
            tmp_path / 'rate.png',
        ),
        *('--cfg-options', f'work_dir={tmp_path}'),
    )


def test_print_the_config_and_count_operations(run_tool, capsys):
    run_tool('misc/print_config.py', DIGITS)
    assert "type='mm_rotssl.RotNet'" in capsys.readouterr().out
    run_tool('analysis_tools/get_flops.py', DIGITS, '--shape', 32)
    assert 'Params: ' in capsys.readouterr().out


@pytest.mark.parametrize(
    'name',
    [
        'rotnet_resnet18_1xb64-100e_custom',
        'simclr_resnet18_1xb128-100e_custom',
        'exemplar-cnn_64c5-128c5-256c5-512f_1xb128-100e_custom',
        'self-classifier_resnet18_1xb128-larc-coslr-100e_custom',
    ],
)
def test_extract_features(tmp_path, name):
    """With the weights of a file, those of the network itself."""
    path = find_config(name)
    model = mmpretrain.get_model(str(path)).eval()
    weights = tmp_path / 'a.pth'
    torch.save(dict(state_dict=model.state_dict()), weights)
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    file = tmp_path / 'a.png'
    cv2.imwrite(str(file), image)
    extract = mmpretrain.FeatureExtractor(str(path), pretrained=str(weights))
    found = extract(str(file))[0]
    pipeline = read_config(path).test_dataloader.dataset.pipeline
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose([TRANSFORMS.build(step) for step in pipeline])
    batch = default_collate([pipeline(dict(img_path=str(file)))])
    with torch.no_grad():
        inputs = model.data_preprocessor(batch)['inputs']
        expected = model.extract_feat(inputs)
    for have, want in zip(found, expected, strict=True):
        torch.testing.assert_close(have, want[0])


def test_extract_features_of_images_in_memory():
    """Arrays of their size, as there are no files to prepare."""
    model = mmpretrain.get_model(str(DIGITS)).eval()
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    found = mmpretrain.FeatureExtractor(model)(image)[0]
    inputs = (torch.from_numpy(image).permute(2, 0, 1).float() - 78) / 87
    with torch.no_grad():
        expected = model.extract_feat(inputs[None])
    for have, want in zip(found, expected, strict=True):
        torch.testing.assert_close(have, want[0])
