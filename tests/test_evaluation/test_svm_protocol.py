"""SVMs of images with one class and with several."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope
from mmpretrain.datasets import VOC
from PIL import Image
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC
from test_average_precision import naive
from torch.utils.data import DataLoader, Subset

from mm_rotssl.datasets import Digits
from mm_rotssl.evaluation.feature_store import FeatureStore
from mm_rotssl.evaluation.features import Features
from mm_rotssl.evaluation.labels import label_matrix
from mm_rotssl.evaluation.protocols import SVM, ExemplarSVM
from mm_rotssl.evaluation.protocols.svm import draw_shots
from mm_rotssl.evaluation.subject import Subject
from mm_rotssl.registry import MODELS
from mm_rotssl.utils import InputError

CLASSES = ('cat', 'dog', 'cow', 'bus')
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]


def write_voc(root, count, seed):
    """Images of the classes' colors, some of them difficult to see."""
    rng = np.random.default_rng(seed)
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    marks = rng.choice([0, 1, 2], (count, 3), p=[0.55, 0.35, 0.1])
    for i, row in enumerate(marks):
        pixels = rng.integers(60, 120, (16, 16, 3))
        objects = ''
        for k in np.flatnonzero(row):
            pixels[..., k] += 60
            objects += (
                f'<object><name>{CLASSES[k]}</name>'
                f'<difficult>{int(row[k] == 2)}</difficult></object>'
            )
        Image.fromarray(pixels.astype(np.uint8)).save(
            root / f'JPEGImages/{i}.jpg', quality=95
        )
        (root / f'Annotations/{i}.xml').write_text(
            f'<annotation>{objects}</annotation>'
        )
    names = ''.join(f'{i}\n' for i in range(count))
    for split in ('trainval', 'test'):
        (root / f'ImageSets/Main/{split}.txt').write_text(names)
    # a class that is there and difficult, too, is there
    file = root / 'Annotations/0.xml'
    file.write_text(
        '<annotation><object><name>cat</name><difficult>1</difficult>'
        '</object><object><name>cat</name><difficult>0</difficult></object>'
        '</annotation>'
    )
    marks[0] = [1, 0, 0]
    return np.where(marks == 2, -1, marks)


def open_voc(root, split='trainval'):
    return VOC(
        str(root),
        split=split,
        metainfo=dict(classes=CLASSES),
        pipeline=PIPELINE,
    )


def load(dataset):
    return DataLoader(dataset, 20, collate_fn=default_collate)


def build_model():
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='mm_rotssl.RotNet',
            backbone=dict(
                type='mm_rotssl.NIN',
                base_channels=6,
                num_stages=3,
                out_indices=(0, 2),
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='mm_rotssl.RotationHead', in_channels=6),
            data_preprocessor=dict(
                type='SelfSupDataPreprocessor',
                mean=[120.0] * 3,
                std=[50.0] * 3,
            ),
        )
    ).eval()


@pytest.fixture(scope='module')
def voc(tmp_path_factory):
    """Labels of training and test images, and a subject."""
    init_default_scope('mmpretrain')
    root = tmp_path_factory.mktemp('voc')
    trained = write_voc(root / 'a', 45, 0)
    tested = write_voc(root / 'b', 30, 1)
    told = []
    subject = Subject(
        build_model(),
        FeatureStore(),
        load(open_voc(root / 'b', 'test')),
        load(open_voc(root / 'a')),
        load(open_voc(root / 'b', 'test')),
        seed=2,
        report=told.append,
    )
    return trained, tested, subject, told


SMALL = dict(costs=(0.01, 1.0, 100.0), shots=(2, 5, 15), draws=3, values=54)


@pytest.fixture(scope='module')
def measured(voc):
    """Metric and stage -> what was measured."""
    found = {}
    for one in SVM(**SMALL).run(voc[2]):
        assert (one.metric, one.stage) not in found
        found[one.metric, one.stage] = one
    return found


def unit_maps(subject, loader):
    """Maps of 3 channels by 3 x 3 cells and 6 by 4 x 4, of length 1."""
    images = torch.stack([item['inputs'] for item in loader.dataset])
    with torch.no_grad():
        first, second = subject.model.backbone((images.float() - 120) / 50)
    # 54 values are 4 and 3 cells a side
    maps = F.adaptive_avg_pool2d(first, 4), F.adaptive_avg_pool2d(second, 3)
    return [
        rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5)
        for rows in (stage.flatten(1).double().numpy() for stage in maps)
    ]


def fit(feats, positive, cost):
    """As the benchmark's code does."""
    svm = LinearSVC(
        C=cost,
        class_weight={1: 2, -1: 1},
        intercept_scaling=1.0,
        penalty='l2',
        loss='squared_hinge',
        tol=0.0001,
        dual=True,
        max_iter=2000,
        random_state=2,
    )
    return svm.fit(feats, np.where(positive, 1, -1))


def plain_precision(scores, positive):
    """The mean precision at the positives, which scikit-learn chooses by."""
    ranked = positive[np.argsort(-scores, kind='stable')]
    precision = ranked.cumsum() / np.arange(1, len(ranked) + 1)
    return precision[ranked].mean()


@pytest.mark.filterwarnings('ignore::sklearn.exceptions.ConvergenceWarning')
def test_voc_as_by_the_benchmark(voc, measured):
    trained, tested, subject, _ = voc
    # all marks occur, and images of several classes and of none
    assert (tested == -1).any()
    assert ((tested == 1).sum(1) > 1).any()
    assert ((tested == 1).sum(1) == 0).any()
    costs = set()
    for stage, feats, queries in zip(
        ('1', '3'),
        unit_maps(subject, subject.reference),
        unit_maps(subject, subject.test),
        strict=True,
    ):
        areas, points = [], []
        few = np.zeros((3, 3))
        # no bus is tested
        for k in range(3):
            positive = trained[:, k] == 1
            folds = list(StratifiedKFold(3).split(feats, positive))
            means = [
                np.mean(
                    [
                        plain_precision(
                            fit(
                                feats[learn], positive[learn], cost
                            ).decision_function(feats[held]),
                            positive[held],
                        )
                        for learn, held in folds
                    ]
                )
                for cost in SMALL['costs']
            ]
            cost = SMALL['costs'][int(np.argmax(means))]
            costs.add(cost)
            scores = fit(feats, positive, cost).decision_function(queries)
            judged = tested[:, k] != -1
            area, eleven = naive(scores[judged], tested[judged, k] == 1)
            areas.append(area)
            points.append(eleven)
            for draw in range(3):
                rows = draw_shots(trained[:, k], 5, 3, (2, draw, k))
                svm = fit(feats[rows], positive[rows], cost)
                few[draw, k], _ = naive(
                    svm.decision_function(queries)[judged],
                    tested[judged, k] == 1,
                )
        for metric, values in (('map', areas), ('map_11', points)):
            found = measured[metric, stage]
            np.testing.assert_allclose(found.values, [np.mean(values)])
            shares = [
                (tested[:, k] == 1).sum() / (tested[:, k] != -1).sum()
                for k in range(3)
            ]
            assert found.chance == pytest.approx(100 * np.mean(shares))
            assert found.correct is None
        np.testing.assert_allclose(
            measured['map_5_shot', stage].values, few.mean(1)
        )
    # it is chosen, by class
    assert len(costs) > 1
    # several classes
    assert not any(metric == 'accuracy' for metric, _ in measured)


def test_few_labels(voc, measured):
    trained, _, _, told = voc
    most = (trained == 1).sum(0)[:3].min()
    assert 5 <= most < 15 < (trained == 1).sum(0).max()
    shown = {metric for metric, _ in measured}
    assert shown == {'map', 'map_11', 'map_2_shot', 'map_5_shot'}
    assert 'svm: a class has fewer than 15 images' in told
    assert shown | {'map_15_shot', 'accuracy'} == set(SVM(**SMALL).metrics)
    for stage in ('1', '3'):
        for shots in (2, 5):
            values = measured[f'map_{shots}_shot', stage].values
            assert len(values) == 3
            # the draws differ
            assert len({*values}) > 1
    # the same again
    again = [
        one
        for one in SVM(**{**SMALL, 'shots': (5,)}).run(voc[2])
        if one.metric == 'map_5_shot'
    ]
    for one in again:
        assert one.values == measured['map_5_shot', one.stage].values


def test_draws_of_few_labels():
    present = np.array([1, 0, -1] * 30, np.int8)
    small, large, other = (
        draw_shots(present, shots, 4, seed)
        for shots, seed in ((2, [7, 0, 1]), (5, [7, 0, 1]), (2, [7, 1, 1]))
    )
    assert present[small].tolist() == [1] * 2 + [0] * 6
    assert present[large].tolist() == [1] * 5 + [0] * 15
    assert len({*large.tolist()}) == 20
    assert {*small.tolist()} < {*large.tolist()}
    assert {*small.tolist()} != {*other.tolist()}
    # as many others as there are
    assert present[draw_shots(present, 20, 9, [0])].tolist().count(0) == 30


def test_labels_of_several_classes(voc):
    trained, _, subject, _ = voc
    dataset = subject.reference.dataset
    everything = torch.arange(len(dataset))
    found = label_matrix(dataset, everything, 5)
    assert found.dtype == np.int8
    assert found[:, :3].tolist() == trained.tolist()
    assert not found[:, 3:].any()
    # of some, of a part, with other numbers
    mapping = torch.tensor([2, 0, 1, 3])
    part = label_matrix(
        Subset(dataset, [3, 4]), torch.tensor([4, 3]), 4, mapping
    )
    assert part[:, [2, 0, 1]].tolist() == trained[[4, 3]].tolist()
    # elsewhere there is one label an image, or an error
    extracted = subject.store.extract(subject.model, subject.reference)
    assert extracted.labels is None
    assert extracted.index.tolist() == everything.tolist()
    with pytest.raises(ValueError, match=r'does not have one label.*svm'):
        Features.extract(subject.model, subject.reference, subject.test)


class Reversed(Digits):
    METAINFO = dict(classes=Digits.METAINFO['classes'][::-1])

    def load_data_list(self):
        return [
            dict(info, gt_label=9 - info['gt_label'])
            for info in super().load_data_list()
        ]


def test_one_class_an_image():
    """The largest of the scores, and classes matched by name."""
    settings = dict(size=16, pipeline=[dict(type='PackInputs')])
    reference = load(Digits(indices=120, **settings))
    subject = Subject(
        build_model(),
        FeatureStore(),
        reference,
        reference,
        load(Reversed(indices=50, split='val', **settings)),
        test_to_reference=torch.arange(9, -1, -1),
        seed=2,
    )
    protocol = SVM(costs=(1.0,), shots=(), values=54)
    assert 'map_1_shot' not in protocol.metrics
    found = {(m.metric, m.stage): m for m in protocol.run(subject)}
    labels, answers = (
        np.array([int(item['data_samples'].gt_label) for item in data])
        for data in (reference.dataset, subject.test.dataset)
    )
    for stage, feats, queries in zip(
        ('1', '3'),
        unit_maps(subject, reference),
        unit_maps(subject, subject.test),
        strict=True,
    ):
        scores = [
            fit(feats, labels == k, 1.0).decision_function(queries)
            for k in range(10)
        ]
        right = np.argmax(scores, 0) == 9 - answers
        one = found['accuracy', stage]
        assert one.correct.dtype == np.float32
        assert one.correct.tolist() == right.tolist()
        assert list(one.values) == [pytest.approx(100 * right.mean())]
        assert one.chance == 10
        assert found['map', stage].values[0] > found['map', stage].chance


def stand_in(trained, tested):
    class Dataset:
        metainfo = dict(classes=CLASSES)

        def __init__(self, rows):
            self.rows = rows

        def __len__(self):
            return len(self.rows)

        def get_data_info(self, i):
            return dict(gt_label=self.rows[i])

    def extract(*arguments, **_):
        rows = torch.rand(len(arguments[1].dataset), 4)
        return SimpleNamespace(
            stages={'1': rows}, index=torch.arange(len(rows))
        )

    reference, test = (
        SimpleNamespace(dataset=Dataset(rows)) for rows in (trained, tested)
    )
    return SimpleNamespace(
        model=None,
        store=SimpleNamespace(extract=extract),
        reference=reference,
        test=test,
        test_to_reference=None,
        seed=0,
        report=None,
    )


@pytest.mark.parametrize(
    ('trained', 'tested', 'message'),
    [
        ([[0], [0], [0, 1], [1], [2]], [[1]], r'2 of 5 .*"dog".*3-fold'),
        ([[0]] * 4 + [[1]], [[0]], r'4 of 5 .*"cat".*as many do not'),
        ([[0], [1], [2]] * 3, [[], []], 'no image of val_dataloader shows'),
        ([[0], None, [1]], [[0]], r'Image 1 of Dataset has no gt_label'),
        ([[0], [1]], [[0]], 'at least 3 images'),
    ],
)
def test_too_few(trained, tested, message):
    with pytest.raises(InputError, match=message):
        next(SVM().run(stand_in(trained, tested)))


def test_settings_of_the_benchmark():
    costs = SVM().costs
    assert len(costs) == 26
    assert sorted(costs) == list(costs)
    assert {1e-7, 100.0, 2**-4, 2**-19} <= {*costs}
    assert SVM().shots == (1, 2, 4, 8, 16, 32, 64, 96)
    assert SVM().draws == 5


# --- Exemplar-CNN's ---------------------------------------------------------


def test_exemplar_svm_in_a_report():
    """The figures of `evaluate-svm`, with what was right."""
    settings = dict(size=16, pipeline=[dict(type='PackInputs')])
    reference = load(Digits(indices=120, **settings))
    subject = Subject(
        build_model(),
        FeatureStore(),
        reference,
        reference,
        load(Reversed(indices=50, split='val', **settings)),
        test_to_reference=torch.arange(9, -1, -1),
        seed=2,
    )
    protocol = ExemplarSVM(labels=5, draws=2, trials=3, input_size=24)
    feats = Features.extract(
        subject.model,
        reference,
        subject.test,
        subject.test_to_reference,
        pool=protocol.pool,
        input_size=24,
    )
    splits = protocol.split(feats, reference.dataset, 2)
    want = protocol.measure(feats, splits, 2, lambda _: None)
    found = {one.metric: one for one in protocol.run(subject)}
    assert found.keys() == protocol.metrics.keys()
    assert found['accuracy'].values == want['accuracy']
    assert len({*want['accuracy']}) == 2
    assert found['held_out'].values == [want['held_out_accuracy']]
    assert found['c'].values == [want['c']]
    correct = found['accuracy'].correct
    assert len(correct) == 50
    assert {*correct.tolist()} == {0, 0.5, 1}
    assert 100 * correct.mean() == pytest.approx(np.mean(want['accuracy']))
    assert found['accuracy'].chance == 10
    # tested on other images in each draw
    rest = ExemplarSVM(labels=5, draws=2, trials=3, test_rest=2)
    (one,) = (m for m in rest.run(subject) if m.metric == 'accuracy')
    assert one.correct is None
    assert one.values != want['accuracy']
