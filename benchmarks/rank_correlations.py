r"""Do metrics without labels rank stages and networks as labels do?

    python benchmarks/rank_correlations.py REPORT/report.json \
        --json FILE --against knn/k=20 linear/all

Rank correlations of each metric that needs no label with accuracy, over the
stages of a network and over the last stages of all networks, untrained ones
included. Spearman's rho and Kendall's tau-b are computed for each run and
averaged. A metric of which less is better counts with its sign changed, so
that 1 is always the order of the labels. How well the accuracies agree with
each other stands beside it. Networks with the same figures, such as untrained
ones of two methods, count once. The table has the mean over the runs; over the
stages the mean over networks, and their range.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr

# the group of all networks
LAST = 'last stages'
# protocol/metric, stage, entry -> a value a run
Values = Mapping[tuple[str, str, str], list[float]]


def read_values(report: Mapping[str, Any]) -> Values:
    """Means over the draws of each run, in the direction of better."""
    signs = {
        (protocol['name'], key): -1 if metric['better'] == 'lower' else 1
        for protocol in report['protocols']
        for key, metric in protocol['metrics'].items()
    }
    return {
        (f'{one["protocol"]}/{one["metric"]}', one['stage'], one['entry']): [
            signs[one['protocol'], one['metric']] * float(np.mean(run))
            for run in one['runs']
        ]
        for one in report['measurements']
    }


def correlate(
    pairs: list[tuple[list[float], list[float]]],
) -> dict[str, Any] | None:
    """Correlations of two metrics, once a run.

    Args:
        pairs: Of each stage or network the values of either, one a run.
    """
    rho, tau = [], []
    for run in range(min((len(p[0]) for p in pairs), default=0)):
        first, second = np.array([(a[run], b[run]) for a, b in pairs]).T
        # without an order there is nothing to correlate
        if len(pairs) < 3 or not np.ptp(first) or not np.ptp(second):
            continue
        rho.append(float(spearmanr(first, second).statistic))
        tau.append(float(kendalltau(first, second).statistic))
    if not tau:
        return None
    return dict(points=len(pairs), spearman=rho, kendall=tau)


def correlations(
    report: Mapping[str, Any], targets: list[str]
) -> Iterator[dict[str, Any]]:
    """Each metric without labels with each target."""
    values = read_values(report)
    stages = {e['name']: e['stages'] for e in report['entries']}
    free = [
        f'{protocol["name"]}/{key}'
        for protocol in report['protocols']
        # the pretext task of one method is no measure of others
        if not protocol['labeled'] and protocol['name'] != 'own-predictions'
        for key in protocol['metrics']
    ]
    for target in targets:
        for metric in [*free, *targets]:
            if metric == target:
                continue
            groups = defaultdict(list)
            for entry, names in stages.items():
                backbone = [name for name in names if name != 'embedding']
                for stage in backbone:
                    try:
                        pair = (
                            values[metric, stage, entry],
                            values[target, stage, entry],
                        )
                    except KeyError:
                        continue
                    groups[f'stages of {entry}'].append(pair)
                    if stage == backbone[-1] and pair not in groups[LAST]:
                        groups[LAST].append(pair)
            seen: list[Any] = []
            for over, pairs in groups.items():
                found = correlate(pairs)
                if found is not None and pairs not in seen:
                    seen.append(pairs)
                    yield dict(
                        metric=metric, target=target, over=over, **found
                    )


def write_table(found: list[dict[str, Any]], targets: list[str]) -> str:
    """Kendall's tau-b as Markdown: a row a metric, two columns a target."""
    lines = [
        '| | '
        + ' | '.join(f'{t}: stages | {t}: networks' for t in targets)
        + ' |',
        '| --- ' * (2 * len(targets) + 1) + '|',
    ]
    for metric in dict.fromkeys(one['metric'] for one in found):
        cells = []
        for target in targets:
            own = {
                one['over']: float(np.mean(one['kendall']))
                for one in found
                if one['metric'] == metric and one['target'] == target
            }
            last = own.pop(LAST, None)
            stages = list(own.values())
            cells += [
                f'{np.mean(stages):+.2f} ({min(stages):+.2f} to '
                f'{max(stages):+.2f})'
                if stages
                else '',
                '' if last is None else f'{last:+.2f}',
            ]
        lines.append(f'| {metric} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def main() -> None:
    """Print the tables, and write everything."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('report', type=Path)
    parser.add_argument('--json', type=Path)
    parser.add_argument(
        '--against', nargs='+', default=['knn/k=20', 'linear/all']
    )
    args = parser.parse_args()
    report = json.loads(args.report.read_bytes())
    found = list(correlations(report, args.against))
    print(write_table(found, args.against))
    if args.json:
        args.json.write_text(json.dumps(found) + '\n')


if __name__ == '__main__':
    main()
