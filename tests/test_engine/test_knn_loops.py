import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from mm_rotssl.evaluation import knn_classify

DIGITS = dict(type='mm_rotssl.Digits', pipeline=[dict(type='PackInputs')])
LOADER = dict(
    batch_size=16,
    num_workers=0,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
NIN = dict(type='mm_rotssl.NIN', base_channels=6, out_indices=(1, 3))
ROTNET = dict(
    type='mm_rotssl.RotNet',
    backbone=NIN,
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=6),
)
# an algorithm of the host, which has no `predict`
SIMSIAM = dict(
    type='SimSiam',
    backbone=NIN,
    neck=dict(
        type='NonLinearNeck', in_channels=6, hid_channels=6, out_channels=6
    ),
    head=dict(
        type='LatentPredictHead',
        loss=dict(type='CosineSimilarityLoss'),
        predictor=dict(
            type='NonLinearNeck', in_channels=6, hid_channels=6, out_channels=6
        ),
    ),
)


def make_runner(model, evaluator, tmp_path, name, part='val'):
    cfg = Config(
        dict(
            model=model,
            default_scope='mmpretrain',
            work_dir=str(tmp_path),
            experiment_name=name,
            log_level='ERROR',
            randomness=dict(seed=0),
        )
    )
    cfg[f'{part}_evaluator'] = evaluator
    cfg[f'{part}_dataloader'] = dict(
        LOADER, dataset=dict(DIGITS, split='val', indices=40)
    )
    cfg[f'{part}_cfg'] = dict(
        type=f'mm_rotssl.KNN{part.capitalize()}Loop',
        reference_dataloader=dict(LOADER, dataset=dict(DIGITS, indices=50)),
    )
    return Runner.from_cfg(copy.deepcopy(cfg))


@pytest.mark.parametrize('part', ['val', 'test'])
@pytest.mark.parametrize('model', [ROTNET, SIMSIAM], ids=['ours', 'host'])
def test_accuracy_of_a_real_run(model, part, tmp_path):
    """And whoever listens is told of each batch of that part, no other."""
    evaluator = [dict(type='mm_rotssl.KNNAccuracy', k=3)]
    name = f'{model["type"]}-{part}'
    runner = make_runner(model, evaluator, tmp_path, name, part)
    calls = []
    call_hook = runner.call_hook
    runner.call_hook = lambda place, **kwargs: (
        calls.append(place),
        call_hook(place, **kwargs),
    )
    metrics = getattr(runner, part)()
    batches = [call for call in calls if call.endswith('_iter')]
    assert batches == [f'before_{part}_iter', f'after_{part}_iter'] * 3

    def features(dataloader):
        feats, labels = [], []
        for batch in dataloader:
            maps = runner.model.backbone(batch['inputs'].float())
            feats.append([m.mean((2, 3)) for m in maps])
            labels += [int(s.gt_label) for s in batch['data_samples']]
        return [torch.cat(f) for f in zip(*feats, strict=True)], torch.tensor(
            labels
        )

    with torch.no_grad():
        loop = getattr(runner, f'{part}_loop')
        reference, reference_labels = features(loop.reference_dataloader)
        queries, labels = features(loop.dataloader)
    assert len(reference_labels) == 50
    assert len(labels) == 40
    for stage in range(2):
        scores = knn_classify(
            reference[stage], reference_labels, queries[stage], 3
        )
        accuracy = 100 * (scores.argmax(1) == labels).float().mean()
        assert metrics[f'knn/stage{stage + 1}'] == pytest.approx(
            accuracy.item()
        )


def test_other_metrics_do_not_see_the_reference_set(tmp_path):
    evaluator = [
        dict(type='mm_rotssl.RotationAccuracy'),
        dict(type='mm_rotssl.KNNAccuracy'),
    ]
    runner = make_runner(ROTNET, evaluator, tmp_path, 'both')
    seen = []
    rotation = runner.val_loop.evaluator.metrics[0]
    process = rotation.process
    rotation.process = lambda batch, samples: (
        seen.append(len(samples)),
        process(batch, samples),
    )
    metrics = runner.val()
    assert sum(seen) == 40
    assert {'rotation/accuracy', 'knn/best'} <= set(metrics)


def write_folders(root, classes):
    """Three images of one color a class, the same color in every folder."""
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(3):
            image = Image.new('RGB', (16, 16), COLORS[name])
            image.save(root / name / f'{i}.png')
    return dict(
        type='mm_rotssl.ImageFolder',
        data_root=str(root),
        with_label=True,
        test_mode=True,
        pipeline=[
            dict(type='mm_rotssl.LoadIntactImage'),
            dict(type='PackInputs'),
        ],
    )


COLORS = dict(a=(250, 0, 0), b=(0, 250, 0), c=(0, 0, 250), d=(9, 9, 9))


def make_folder_runner(tmp_path, name, reference, val):
    cfg = dict(
        model=ROTNET,
        default_scope='mmpretrain',
        work_dir=str(tmp_path),
        experiment_name=name,
        val_dataloader=dict(
            LOADER, dataset=write_folders(tmp_path / 'v', val)
        ),
        val_cfg=dict(
            type='mm_rotssl.KNNValLoop',
            reference_dataloader=dict(
                LOADER, dataset=write_folders(tmp_path / 'r', reference)
            ),
        ),
        val_evaluator=[dict(type='mm_rotssl.KNNAccuracy', k=3)],
        log_level='ERROR',
        randomness=dict(seed=0),
    )
    return Runner.from_cfg(Config(cfg))


def test_classes_are_matched_by_name(tmp_path):
    """The second of two classes is the third of the reference set."""
    runner = make_folder_runner(tmp_path, 'names', 'abc', 'ac')
    assert runner.val()['knn/best'] == 100


def test_a_class_without_reference_stops_before_training(tmp_path):
    runner = make_folder_runner(tmp_path, 'stranger', 'abc', 'ad')
    with pytest.raises(ValueError, match=r'val_dataloader has .*right: d\.'):
        runner.build_val_loop(runner._val_loop)
