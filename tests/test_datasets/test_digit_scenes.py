"""Scenes of digits: what is drawn, and what readers of the files see."""

import json
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image

from mm_rotssl.datasets import Digits
from mm_rotssl.datasets.synthetic import digit_scenes
from mm_rotssl.datasets.synthetic.digit_scenes import (
    compose_scene,
    generate_scenes,
    mask_to_box,
    write_scenes,
)

TRAIN, VAL, SIZE, SEED = 6, 3, 80, 4
COUNTS = dict(train=TRAIN, val=VAL)
CLASSES = tuple('0123456789')


def marked(glyphs):
    """In place of Digits: the same few images, and who asked for them."""

    class Marked:
        METAINFO = Digits.METAINFO
        asked = []

        def __init__(self, split, size):
            self.split = split
            assert size == 8

        def __len__(self):
            return len(glyphs[self.split])

        def get_data_info(self, index):
            self.asked.append(self.split)
            label, gray = glyphs[self.split][index]
            img = np.repeat(gray[..., None], 3, 2)
            return dict(img=img, gt_label=label, img_path='')

    return Marked


def bar(columns):
    gray = np.zeros((8, 8), np.uint8)
    gray[:, 4 - columns // 2 : 4 + columns // 2] = 255
    return gray


CROSS = np.maximum(bar(2), bar(2).T)
BOTH = {'train': [(3, bar(8))], 'val': [(3, bar(8))]}


def same_scene(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def tight_box(mask):
    """Left, top, width and height, by a look at every pixel of it."""
    rows, columns = np.nonzero(mask)
    left, top = min(columns), min(rows)
    return left, top, max(columns) - left + 1, max(rows) - top + 1


def core_of(mask):
    """Without its edge, which is soft; OpenCV keeps that of the image."""
    padded = np.pad(mask, 2).astype(np.uint8)
    return cv2.erode(padded, np.ones((5, 5)))[2:-2, 2:-2] > 0


def box_iou(one, other):
    (a, b, c, d), (e, f, g, h) = one, other
    width = min(a + c, e + g) - max(a, e)
    height = min(b + d, f + h) - max(b, f)
    common = max(0, width) * max(0, height)
    return common / (c * d + g * h - common)


def free_masks(scene):
    """Masks that no other one touches, with their labels."""
    for i, (mask, label) in enumerate(
        zip(scene.masks, scene.labels, strict=True)
    ):
        others = np.delete(scene.masks, i, 0).any(0).astype(np.uint8)
        if not (mask & (cv2.dilate(others, np.ones((5, 5))) > 0)).any():
            yield mask, label


def rectangle(mask):
    """Sides across and along, and degrees from upright, if it is one.

    A side of a rectangle is the root of twelve times its variance.
    """
    points = np.argwhere(mask)[:, ::-1].astype(float)
    # a pixel is no point
    variance = np.cov(points.T, bias=True) + np.eye(2) / 12
    values, axes = np.linalg.eigh(variance)
    along = int(abs(axes[1, 1]) > abs(axes[1, 0]))
    width, height = np.sqrt(12 * values[[1 - along, along]])
    tilt = np.degrees(np.arctan(axes[0, along] / axes[1, along]))
    return width, height, tilt


def fill(mask):
    """1 for a rectangle, rotated or not; 0.73 for the cross."""
    width, height, _ = rectangle(mask)
    return mask.sum() / (width * height)


@pytest.fixture(scope='module')
def scenes():
    return {
        split: list(generate_scenes(split, 150, seed=1))
        for split in ('train', 'val')
    }


def test_types(scenes):
    counts = set()
    for scene in scenes['train']:
        count = len(scene.labels)
        counts.add(count)
        assert scene.image.shape == (96, 96, 3)
        assert scene.image.dtype == np.uint8
        assert (scene.image == scene.image[..., :1]).all()
        assert scene.masks.shape == (count, 96, 96)
        assert scene.masks.dtype == bool
        assert scene.labels.dtype == np.int64
        assert scene.masks.any((1, 2)).all()
        # each pixel is of one digit at most
        assert scene.masks.sum(0).max() == 1
    assert counts == {2, 3, 4}
    labels = np.concatenate([scene.labels for scene in scenes['train']])
    assert np.bincount(labels, minlength=10).min() > 20


def test_boxes_are_tight_and_hardly_overlap(scenes):
    close = 0
    for scene in scenes['train'] + scenes['val']:
        boxes = [tight_box(mask) for mask in scene.masks]
        for mask, (x, y, width, height) in zip(
            scene.masks, boxes, strict=True
        ):
            assert mask_to_box(mask) == (x, y, x + width, y + height)
        overlaps = [
            box_iou(boxes[i], boxes[j])
            for i in range(len(boxes))
            for j in range(i)
        ]
        assert max(overlaps) <= 0.1
        close += max(overlaps) > 0
    # they may touch
    assert close > 30


def test_digits_are_bright_and_the_ground_is_dark(scenes):
    missed = 0
    for scene in scenes['train']:
        gray = scene.image[..., 0].astype(float)
        ink = scene.masks.any(0).astype(np.uint8)
        far = cv2.dilate(ink, np.ones((7, 7))) == 0
        ground = np.median(gray[far])
        assert ground < 110
        # clutter is there, yet there is more of the digits
        clutter = (gray > ground + 35) & far
        missed += clutter.sum() < 20
        assert clutter.sum() < 0.15 * far.sum()
        for mask in scene.masks:
            core = core_of(mask)
            if core.any():
                assert gray[core].mean() > ground + 40
    assert missed < 15


def test_labels_by_nearest_neighbor():
    """Rotated back, masks look most like digits of their class."""
    for split, other in (('train', 'train'), ('val', 'train')):
        known = Digits(split=other, size=8)
        infos = [known.get_data_info(i) for i in range(len(known))]
        images = np.array([i['img'][..., 0] > 127 for i in infos], float)
        images = images.reshape(len(infos), 64)
        answers = np.array([i['gt_label'] for i in infos])
        right = []
        for scene in generate_scenes(split, 60, seed=2):
            for mask, label in free_masks(scene):
                best = None
                for tilt in range(-24, 25, 8):
                    x, y, width, height = tight_box(mask)
                    middle = x + (width - 1) / 2, y + (height - 1) / 2
                    matrix = cv2.getRotationMatrix2D(middle, tilt, 1)
                    back = cv2.warpAffine(
                        mask.astype(np.float32), matrix, mask.shape[::-1]
                    )
                    x, y, width, height = tight_box(back > 0.5)
                    side = max(width, height)
                    square = np.zeros((side, side), np.float32)
                    left = (side - width) // 2
                    square[:height, left : left + width] = back[
                        y : y + height, x : x + width
                    ]
                    small = cv2.resize(
                        square, (8, 8), interpolation=cv2.INTER_AREA
                    )
                    distances = ((images - small.ravel()) ** 2).sum(1)
                    found = distances.min(), answers[distances.argmin()]
                    best = min(best or found, found)
                right.append(best[1] == label)
        assert len(right) > 60
        assert np.mean(right) > 0.75


def test_marked_digits_keep_label_size_and_tilt(monkeypatch):
    columns = {1: 2, 4: 4, 6: 6, 9: 8}
    glyphs = [(label, bar(count)) for label, count in columns.items()]
    monkeypatch.setattr(digit_scenes, 'Digits', marked({'train': glyphs}))
    tilts, heights = [], []
    for scene in generate_scenes('train', 200, size=200):
        for mask, label in free_masks(scene):
            width, height, tilt = rectangle(mask)
            # a side is found to a pixel or so
            assert abs(width - height * columns[label] / 8) < 2.5
            assert abs(fill(mask) - 1) < 0.1
            heights.append(height)
            if label == 1 and height > 25:
                tilts.append(tilt)
    assert min(heights) > 14.5
    assert min(heights) < 18
    assert max(heights) < 41.5
    assert max(heights) > 37
    # small ones are as likely as large ones, by ratio
    assert abs(np.median(heights) - np.sqrt(16 * 40)) < 1.5
    assert max(np.abs(tilts)) < 27
    quarters = np.histogram(tilts, [-25.01, -12.5, 0, 12.5, 25.01])[0]
    assert quarters.min() > 0.15 * len(tilts)


def test_what_is_visible(monkeypatch):
    """Digits lie on clutter, and later ones on earlier ones."""
    monkeypatch.setattr(digit_scenes, 'Digits', marked(BOTH))
    # upright squares, which look the same upside down
    monkeypatch.setattr(digit_scenes, 'TILT', 0)
    hidden = 0
    for scene in generate_scenes('train', 80):
        gray = scene.image[..., 0].astype(float)
        lost = []
        for mask in scene.masks:
            core = core_of(mask)
            # a square has the same brightness all over, up to noise of 8
            assert gray[core].std() < 10
            x, y, width, height = tight_box(mask)
            part = mask[y : y + height, x : x + width]
            lost.append((part != part[::-1, ::-1]).mean())
        # nothing is on the last one
        assert lost[-1] < 0.01
        hidden += max(lost) > 0.05
    assert hidden > 10


def test_crowded_scenes(monkeypatch):
    monkeypatch.setattr(digit_scenes, 'Digits', marked(BOTH))
    counts = set()
    for scene in generate_scenes('val', 100, size=40):
        counts.add(len(scene.labels))
        for mask, _ in free_masks(scene):
            width, height, _ = rectangle(mask)
            # it would be cut if it were not within the image
            assert abs(width - height) < 2.5
            assert fill(mask) > 0.97
        boxes = [tight_box(mask) for mask in scene.masks]
        for one, other in pairwise(boxes):
            assert box_iou(one, other) <= 0.1
    # there is no room for four
    assert {1, 2} <= counts <= {1, 2, 3}
    # most heights are too large for these
    for scene in generate_scenes('val', 30, size=32):
        assert len(scene.labels) >= 1


def test_scraps_are_no_digits():
    """Of the fullest digit, drawn alone: smaller than any digit."""
    digits = marked({'train': [(0, bar(8))]})('train', 8)
    sides = []
    for seed in range(300):
        canvas = np.zeros((96, 96), np.float32)
        rng = np.random.default_rng(seed)
        digit_scenes._draw_scrap(rng, canvas, 100.0, digits)
        assert canvas.max() > 90
        sides.append(max(tight_box(canvas > 50)[2:]))
    assert max(sides) <= 16
    assert min(sides) >= 3


def test_strokes_are_no_ones():
    angles = []
    for seed in range(300):
        canvas = np.zeros((96, 96), np.float32)
        digit_scenes._draw_stroke(np.random.default_rng(seed), canvas, 100.0)
        points = np.argwhere(canvas > 50)
        # those that reach out of the image are not seen whole
        if len(points) > 8 and points.min() > 0 and points.max() < 95:
            across = np.linalg.svd(points - points.mean(0))[2][0]
            angles.append(np.degrees(np.arctan2(*np.abs(across))))
    assert len(angles) > 150
    # from level: the ends of a bent one span what it was drawn along
    assert max(angles) < 55
    assert max(angles) > 40


def test_no_digit_is_in_both_splits(monkeypatch):
    glyphs = {'train': [(0, bar(8))], 'val': [(1, CROSS)]}
    for split, wanted in (('train', 1), ('val', 0.73)):
        digits = marked(glyphs)
        monkeypatch.setattr(digit_scenes, 'Digits', digits)
        drawn = 0
        for scene in generate_scenes(split, 30):
            drawn += len(scene.labels)
            assert set(scene.labels) == {glyphs[split][0][0]}
            for mask, _ in free_masks(scene):
                assert abs(fill(mask) - wanted) < 0.1
        # scraps too
        assert set(digits.asked) == {split}
        assert len(digits.asked) > 1.3 * drawn


def test_what_a_scene_depends_on(monkeypatch):
    five = list(generate_scenes('val', 5, 64, 7))
    for i, scene in enumerate(generate_scenes('val', 3, 64, 7)):
        assert same_scene(scene, five[i])
    for number in range(5):
        rng = np.random.default_rng([7, 1, number])
        alone = compose_scene(rng, Digits('val', size=8), 64)
        assert same_scene(alone, five[number])
    other = list(generate_scenes('val', 5, 64, 8))
    monkeypatch.setattr(digit_scenes, 'Digits', marked(BOTH))
    train = list(generate_scenes('train', 5, 64, 7))
    val = list(generate_scenes('val', 5, 64, 7))
    for one, two in ((five, other), (train, val)):
        for scene in one:
            assert not any(same_scene(scene, another) for another in two)


def test_default_size_and_seed():
    (scene,) = generate_scenes('train', 1)
    rng = np.random.default_rng([0, 0, 0])
    digits = Digits('train', size=8)
    assert same_scene(scene, compose_scene(rng, digits, 96))


@pytest.fixture
def out(tmp_path):
    pytest.importorskip('pycocotools')
    return tmp_path / 'scenes'


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    pytest.importorskip('pycocotools')
    folder = tmp_path_factory.mktemp('written') / 'new' / 'scenes'
    numbers = write_scenes(folder, TRAIN, VAL, SIZE, SEED)
    drawn = {
        split: list(generate_scenes(split, count, SIZE, SEED))
        for split, count in COUNTS.items()
    }
    assert numbers == {
        split: sum(len(scene.labels) for scene in drawn[split])
        for split in COUNTS
    }
    return folder, drawn


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def name_of(split, number):
    return f'{split}_{number:06d}'


def test_files(written):
    folder, drawn = written
    expected = set()
    voc = 'VOCdevkit/VOC2012'
    for split, count in COUNTS.items():
        names = [name_of(split, number) for number in range(count)]
        expected.add(f'coco/annotations/instances_{split}2017.json')
        for name in names:
            expected |= {
                f'coco/{split}2017/{name}.jpg',
                f'{voc}/JPEGImages/{name}.jpg',
                f'{voc}/Annotations/{name}.xml',
                f'{voc}/SegmentationClass/{name}.png',
                f'{voc}/SegmentationObject/{name}.png',
            }
        for kind in ('Main', 'Segmentation'):
            path = f'{voc}/ImageSets/{kind}/{split}.txt'
            expected.add(path)
            assert (folder / path).read_text().split('\n') == [*names, '']
        for name, scene in zip(names, drawn[split], strict=True):
            jpeg = (folder / f'coco/{split}2017/{name}.jpg').read_bytes()
            other = folder / f'{voc}/JPEGImages/{name}.jpg'
            assert jpeg == other.read_bytes()
            # an encoder that does not know of this one
            quality = cv2.imencode('.jpg', scene.image, [1, 95])[1]
            assert jpeg == quality.tobytes()
            image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1)
            error = image.astype(int) - scene.image
            assert np.abs(error).mean() < 2
    assert set(files_of(folder)) == expected
    # readable by whom the umask lets
    folder.with_name('usual').mkdir()
    mode = folder.with_name('usual').stat().st_mode
    assert folder.stat().st_mode == mode


def test_png(written):
    folder, drawn = written
    # of PASCAL VOC's development kit
    palette = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        4: (0, 0, 128),
        7: (128, 128, 128),
        8: (64, 0, 0),
        10: (64, 128, 0),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    voc = folder / 'VOCdevkit/VOC2012'
    for split, split_scenes in drawn.items():
        for number, scene in enumerate(split_scenes):
            classes = np.zeros((SIZE, SIZE))
            numbers = np.zeros((SIZE, SIZE))
            for i, mask in enumerate(scene.masks):
                classes[mask] = scene.labels[i] + 1
                numbers[mask] = i + 1
            for kind, wanted in (('Class', classes), ('Object', numbers)):
                name = f'{name_of(split, number)}.png'
                image = Image.open(voc / f'Segmentation{kind}' / name)
                assert image.mode == 'P'
                np.testing.assert_array_equal(np.array(image), wanted)
                colors = np.reshape(image.getpalette(), (-1, 3))
                assert len(colors) == 256
                for value, color in palette.items():
                    assert tuple(colors[value]) == color


def test_xml(written):
    folder, drawn = written
    for split, split_scenes in drawn.items():
        for number, scene in enumerate(split_scenes):
            name = name_of(split, number)
            root = ET.parse(
                folder / f'VOCdevkit/VOC2012/Annotations/{name}.xml'
            ).getroot()
            assert root.tag == 'annotation'
            assert [child.tag for child in root][:5] == [
                'folder',
                'filename',
                'source',
                'size',
                'segmented',
            ]
            assert root.findtext('folder') == 'VOC2012'
            assert root.findtext('filename') == f'{name}.jpg'
            size = [
                root.findtext(f'size/{key}')
                for key in ('width', 'height', 'depth')
            ]
            assert size == [str(SIZE), str(SIZE), '3']
            objects = root.findall('object')
            for part, mask, label in zip(
                objects, scene.masks, scene.labels, strict=True
            ):
                assert [child.tag for child in part] == [
                    'name',
                    'pose',
                    'truncated',
                    'difficult',
                    'bndbox',
                ]
                assert part.findtext('name') == str(label)
                assert part.findtext('difficult') == '0'
                rows, columns = np.nonzero(mask)
                # the first pixel is 1
                wanted = dict(
                    xmin=columns.min() + 1,
                    ymin=rows.min() + 1,
                    xmax=columns.max() + 1,
                    ymax=rows.max() + 1,
                )
                box = {edge.tag: edge.text for edge in part.find('bndbox')}
                assert box == {k: str(v) for k, v in wanted.items()}


def test_coco_json(written):
    folder, drawn = written
    coco_module = pytest.importorskip('pycocotools.coco')
    for split, split_scenes in drawn.items():
        file = folder / f'coco/annotations/instances_{split}2017.json'
        content = json.loads(file.read_text())
        assert {'info', 'licenses'} < set(content)
        categories = [(c['id'], c['name']) for c in content['categories']]
        assert categories == list(enumerate(CLASSES, 1))
        coco = coco_module.COCO(file)
        total = sum(len(scene.labels) for scene in split_scenes)
        assert sorted(coco.getAnnIds()) == list(range(1, total + 1))
        assert len(coco.getImgIds()) == len(split_scenes)
        by_name = {info['file_name']: info for info in content['images']}
        for number, scene in enumerate(split_scenes):
            info = by_name[f'{name_of(split, number)}.jpg']
            assert (info['width'], info['height']) == (SIZE, SIZE)
            objects = Image.open(
                folder
                / 'VOCdevkit/VOC2012/SegmentationObject'
                / f'{name_of(split, number)}.png'
            )
            found = coco.loadAnns(coco.getAnnIds(imgIds=[info['id']]))
            assert len(found) == len(scene.labels)
            for i, annotation in enumerate(found):
                mask = coco.annToMask(annotation)
                np.testing.assert_array_equal(mask, scene.masks[i])
                np.testing.assert_array_equal(mask, np.array(objects) == i + 1)
                assert annotation['category_id'] == scene.labels[i] + 1
                assert annotation['iscrowd'] == 0
                assert annotation['area'] == np.count_nonzero(mask)
                assert tuple(annotation['bbox']) == tight_box(mask)
                assert {type(x) for x in annotation['bbox']} == {float}
                assert isinstance(annotation['segmentation']['counts'], str)


def downstream(dataset, split, folder):
    """What a library's dataset makes of a split: one result an image."""
    dataset.full_init()
    assert len(dataset) == COUNTS[split]
    results = [dataset[i] for i in range(len(dataset))]
    for number, result in enumerate(results):
        image = cv2.imread(
            str(folder / f'coco/{split}2017' / f'{name_of(split, number)}.jpg')
        )
        np.testing.assert_array_equal(result['img'], image)
    return results


@pytest.mark.downstream
@pytest.mark.parametrize('split', ['train', 'val'])
def test_detection_data_sets(written, split):
    registry = pytest.importorskip('mmdet.registry')
    folder, drawn = written
    load = dict(type='mmdet.LoadAnnotations', with_bbox=True)
    images = dict(type='LoadImageFromFile')
    coco = registry.DATASETS.build(
        dict(
            type='mmdet.CocoDataset',
            data_root=str(folder / 'coco'),
            ann_file=f'annotations/instances_{split}2017.json',
            data_prefix=dict(img=f'{split}2017/'),
            metainfo=dict(classes=CLASSES),
            pipeline=[
                images,
                dict(load, with_mask=True, poly2mask=True),
            ],
        )
    )
    voc = registry.DATASETS.build(
        dict(
            type='mmdet.VOCDataset',
            data_root=str(folder / 'VOCdevkit'),
            ann_file=f'VOC2012/ImageSets/Main/{split}.txt',
            data_prefix=dict(sub_data_root='VOC2012/'),
            metainfo=dict(classes=CLASSES),
            pipeline=[images, load],
        )
    )
    found = zip(
        downstream(coco, split, folder),
        downstream(voc, split, folder),
        drawn[split],
        strict=True,
    )
    for one, other, scene in found:
        boxes = np.array([tight_box(mask) for mask in scene.masks])
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_array_equal(one['gt_bboxes'].numpy(), boxes)
        # its reader takes 1 off each edge and keeps the last pixel's own
        boxes[:, 2:] -= 1
        np.testing.assert_array_equal(other['gt_bboxes'].numpy(), boxes)
        for result in (one, other):
            np.testing.assert_array_equal(
                result['gt_bboxes_labels'], scene.labels
            )
            assert not result['gt_ignore_flags'].any()
        np.testing.assert_array_equal(one['gt_masks'].masks, scene.masks)


@pytest.mark.downstream
@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('kind', ['PascalVOCDataset', 'BaseSegDataset'])
def test_segmentation_data_sets(written, split, kind):
    registry = pytest.importorskip('mmseg.registry')
    folder, drawn = written
    # the classes of PascalVOCDataset can be made fewer, not others
    settings = (
        {}
        if kind == 'PascalVOCDataset'
        else dict(
            img_suffix='.jpg',
            seg_map_suffix='.png',
            metainfo=dict(classes=('background', *CLASSES)),
        )
    )
    dataset = registry.DATASETS.build(
        dict(
            type=f'mmseg.{kind}',
            data_root=str(folder / 'VOCdevkit/VOC2012'),
            ann_file=f'ImageSets/Segmentation/{split}.txt',
            data_prefix=dict(
                img_path='JPEGImages', seg_map_path='SegmentationClass'
            ),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='mmseg.LoadAnnotations'),
            ],
            **settings,
        )
    )
    results = downstream(dataset, split, folder)
    for result, scene in zip(results, drawn[split], strict=True):
        wanted = np.zeros((SIZE, SIZE))
        for mask, label in zip(scene.masks, scene.labels, strict=True):
            wanted[mask] = label + 1
        np.testing.assert_array_equal(result['gt_seg_map'], wanted)


def test_byte_for_byte(written, out):
    folder, _ = written
    # an empty folder is taken
    out.mkdir()
    write_scenes(out, TRAIN, VAL, SIZE, SEED)
    assert files_of(out) == files_of(folder)
    assert [path.name for path in out.parent.iterdir()] == ['scenes']


def test_more_scenes_leave_the_first_ones(written, out):
    before = files_of(written[0])
    write_scenes(out, TRAIN - 3, VAL + 2, SIZE, SEED)
    after = files_of(out)
    assert len(set(before) & set(after)) > 30
    for name in set(before) & set(after):
        if not name.endswith(('.txt', '.json')):
            assert after[name] == before[name], name
    both = [
        json.loads(files['coco/annotations/instances_val2017.json'])
        for files in (before, after)
    ]
    for key in ('images', 'annotations'):
        few, many = (content[key] for content in both)
        assert many[: len(few)] == few
        assert len(many) > len(few)


def test_another_seed(written, out):
    folder, _ = written
    write_scenes(out, TRAIN, VAL, SIZE, SEED + 1)
    before, after = files_of(folder), files_of(out)
    assert set(before) == set(after)
    for name, content in after.items():
        assert (content == before[name]) == name.endswith('.txt'), name


def test_what_is_there_stays(out):
    out.mkdir()
    (out / 'mine').write_text('text')
    file = out.parent / 'file'
    file.write_text('text')
    for path in (out, file):
        with pytest.raises(FileExistsError, match='name another one') as error:
            write_scenes(path, 1, 1)
        assert f'"{path}"' in str(error.value)
    assert files_of(out.parent) == {'scenes/mine': b'text', 'file': b'text'}


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError])
@pytest.mark.parametrize('empty', [False, True])
def test_an_interrupted_run_leaves_nothing(out, monkeypatch, error, empty):
    original = digit_scenes.generate_scenes
    monkeypatch.setattr(digit_scenes, 'Digits', marked(BOTH))

    def stop(split, *args):
        scenes = original(split, *args)
        yield next(scenes)
        if split == 'val':
            # what is there by now is not where it will be
            assert not out.exists() or not any(out.iterdir())
            assert len(files_of(out.parent)) > 5
            raise error('stopped')

    monkeypatch.setattr(digit_scenes, 'generate_scenes', stop)
    if empty:
        out.mkdir()
    with pytest.raises(error, match='stopped'):
        write_scenes(out, 2, 2)
    assert list(out.parent.rglob('*')) == [out] * empty


def test_unlabeled(written, out):
    folder, _ = written
    write_scenes(out, TRAIN, VAL, SIZE, SEED, 5)
    extra = files_of(out / 'unlabeled')
    assert sorted(extra) == [f'{number:06d}.jpg' for number in range(5)]
    assert len(set(extra.values())) == 5
    # the rest is as it is without
    rest = {
        name: content
        for name, content in files_of(out).items()
        if not name.startswith('unlabeled')
    }
    assert rest == files_of(folder)
    fewer = out.with_name('fewer')
    write_scenes(fewer, 1, 1, SIZE, SEED, 2)
    some = files_of(fewer / 'unlabeled')
    assert len(some) == 2
    assert all(extra[name] == content for name, content in some.items())
    other = out.with_name('other')
    write_scenes(other, 1, 1, SIZE, SEED + 1, 2)
    values = set(extra.values())
    assert values.isdisjoint(files_of(other / 'unlabeled').values())


def test_unlabeled_holds_one_digit_of_training(out, monkeypatch):
    digits = marked({'train': [(0, bar(8))], 'val': [(1, CROSS)]})
    monkeypatch.setattr(digit_scenes, 'Digits', digits)
    scenes = []
    compose = digit_scenes.compose_scene

    def spy(*args):
        scenes.append(compose(*args))
        return scenes[-1]

    monkeypatch.setattr(digit_scenes, 'compose_scene', spy)
    write_scenes(out, 1, 1, unlabeled=40)
    # nothing of validation after its only scene
    last = len(digits.asked) - digits.asked[::-1].index('val')
    assert len(digits.asked) - last >= 80
    files = sorted((out / 'unlabeled').iterdir())
    for scene, file in zip(scenes[2:], files, strict=True):
        image = cv2.imread(str(file))
        assert np.abs(image.astype(int) - scene.image).mean() < 2
        (mask,) = scene.masks
        width, height, _ = rectangle(mask)
        # a whole square
        assert abs(fill(mask) - 1) < 0.05
        assert 14.5 < height < 41.5
        assert abs(width - height) < 2.5


def test_without_pycocotools(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pycocotools', None)
    monkeypatch.setitem(sys.modules, 'pycocotools.mask', None)
    with pytest.raises(ImportError, match='pip install pycocotools'):
        write_scenes(tmp_path / 'scenes', 1, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('settings', 'say'),
    [
        (dict(train=0), r'train=0.* at least 1'),
        (dict(val=-1), r'val=-1.* at least 1'),
        (dict(seed=-1), r'seed=-1.* at least 0'),
        (dict(unlabeled=-1), r'unlabeled=-1.* at least 0'),
        (dict(size=31), r'size=31.* at least 32'),
    ],
)
def test_numbers_that_make_no_sense(out, settings, say):
    with pytest.raises(ValueError, match=say):
        write_scenes(out, **{**dict(train=1, val=1), **settings})
    assert list(out.parent.iterdir()) == []
