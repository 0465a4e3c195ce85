"""Reports as an evaluation writes them, with made-up figures."""

import numpy as np

STAGES = ['stem', 'layer1', 'layer2', 'layer3', 'layer4']
# name -> title, about, labeled, and of each metric: key, title, unit, which
# way is better, chance, and about how large it is
PROTOCOLS = {
    'knn': (
        'k nearest neighbors',
        'Test images get the classes of their nearest labeled images, by '
        'cosine similarity of pooled features.',
        True,
        [('accuracy', 'top-1', '%', 'higher', 10.0, 60)],
    ),
    'linear': (
        'Linear probe',
        'Logistic regression on frozen, pooled features, fitted with so many '
        'labels a class.',
        True,
        [
            ('1', '1 label', '%', 'higher', 10.0, 35),
            ('5', '5 labels', '%', 'higher', 10.0, 50),
            ('10', '10 labels', '%', 'higher', 10.0, 58),
            ('all', 'all labels', '%', 'higher', 10.0, 75),
        ],
    ),
    'clusters': (
        'Clusters',
        'k-means with as many clusters as there are classes.',
        True,
        [
            ('accuracy', 'matched accuracy', '%', 'higher', 10.0, 40),
            ('nmi', 'NMI', '', 'higher', 0.0, 0.4),
        ],
    ),
    'rank': (
        'Effective rank',
        'RankMe: the exponential of the entropy of the singular values.',
        False,
        [
            ('rank', 'RankMe', '', 'higher', None, 140),
            ('dimensions', 'dimensions', '', None, None, 512),
        ],
    ),
    'uniformity': (
        'Alignment and uniformity',
        'Wang and Isola (2020), on normalized features of two views.',
        False,
        [
            ('alignment', 'alignment', '', 'lower', None, 0.31),
            ('uniformity', 'uniformity', '', 'lower', None, -2.7),
        ],
    ),
    'rotation': (
        'Rotation probe',
        'How well a linear classifier tells by how much an image is turned.',
        False,
        [('accuracy', 'accuracy', '%', 'higher', 25.0, 80)],
    ),
    'invariance': (
        'Invariance to rotation',
        'Cosine similarity of an image and its turned versions.',
        False,
        [('similarity', 'similarity', '', None, None, 0.8)],
    ),
    'retrieval': (
        'Retrieval',
        'Mean average precision of the ranking by cosine similarity.',
        True,
        [
            ('map', 'mAP', '%', 'higher', 10.4, 30),
            ('recall', 'recall at 5', '%', 'higher', 41.0, 70),
        ],
    ),
}


def made_up_report(
    networks=5, protocols=tuple(PROTOCOLS), classes=10, runs=3, seed=0
):
    """The report of some trained networks and one that is not.

    The first has ``runs`` runs; all protocols but ``rank`` have three draws.
    """
    rng = np.random.default_rng(seed)
    names = ['rotnet', 'self-classifier', 'exemplar-cnn', 'simclr', 'moco-v2']
    entries = [
        {
            'name': name,
            'kind': 'trained',
            'untrained': 'untrained',
            'runs': [
                {
                    'config': f'configs/{name}/{name}_resnet18_digits.py',
                    'checkpoint': f'work_dirs/{name}-seed{i}/epoch_100.pth',
                    'seed': i,
                }
                for i in range(runs if name == names[0] else 1)
            ],
            'stages': STAGES,
        }
        for name in names[:networks]
    ]
    entries.append(
        {
            'name': 'untrained',
            'kind': 'untrained',
            'untrained': None,
            'runs': [
                {
                    'config': entries[0]['runs'][0]['config'],
                    'checkpoint': None,
                    'seed': 0,
                }
            ],
            'stages': STAGES,
        }
    )
    told, measurements, differences = [], [], []
    for name in protocols:
        title, about, labeled, metrics = PROTOCOLS[name]
        told.append(
            {
                'name': name,
                'title': title,
                'about': about,
                'labeled': labeled,
                'settings': {'draws': 3, 'center': True, 'metric': 'cosine'},
                'metrics': {
                    key: {
                        'title': heading,
                        'about': f'What {heading} is, and its formula.',
                        'unit': unit,
                        'better': better,
                    }
                    for key, heading, unit, better, *_ in metrics
                },
                'skipped': None,
            }
        )
        for key, _, unit, _, chance, size in metrics:
            for i, stage in enumerate(STAGES):
                for entry in entries:
                    trained = entry['kind'] == 'trained'
                    level = size * ((0.6 + 0.1 * i) if trained else 0.5)
                    draws = 1 if name == 'rank' else 3
                    values = level + abs(size) * 0.02 * rng.standard_normal(
                        (len(entry['runs']), draws)
                    )
                    measurements.append(
                        {
                            'protocol': name,
                            'entry': entry['name'],
                            'metric': key,
                            'stage': stage,
                            'runs': values.tolist(),
                            'chance': chance,
                        }
                    )
                    if trained and unit == '%':
                        value = float(values.mean()) - size * 0.5
                        differences.append(
                            {
                                'protocol': name,
                                'metric': key,
                                'stage': stage,
                                'entry': entry['name'],
                                'baseline': 'untrained',
                                'value': value,
                                'low': value - 4,
                                'high': value + 4.5,
                                'how': '95 % intervals of 2000 bootstrap '
                                'samples of the test images, paired.',
                            }
                        )
    return {
        'created': '2026-05-01T12:00:00',
        'command': 'python tools/evaluate.py --images photos',
        'versions': {'python': '3.11.7', 'torch': '2.9.1'},
        'seconds': 754.2,
        'device': 'cuda',
        'seed': 0,
        'data': {
            'images': {'name': 'photos', 'count': 12345},
            'reference': {'name': 'digits, train', 'count': 1397},
            'test': {'name': 'digits, test', 'count': 400},
            'classes': [f'class {i}' for i in range(classes)],
        },
        'entries': entries,
        'protocols': told,
        'measurements': measurements,
        'differences': differences,
        'figures': [],
        'remarks': [],
    }
