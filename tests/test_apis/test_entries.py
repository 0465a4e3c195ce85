"""What the words of the command line name."""

import pytest
import torch

from mm_rotssl.apis import Entry, Run, find_entry
from mm_rotssl.apis.entries import name_entries


def make_run(folder, epochs=(1, 2), config='a.py'):
    folder.mkdir(parents=True)
    (folder / config).write_text('model = None\n')
    for epoch in epochs:
        torch.save(dict(state_dict={}), folder / f'epoch_{epoch}.pth')
    (folder / 'last_checkpoint').write_text(
        str(folder / f'epoch_{epochs[-1]}.pth')
    )
    return folder


def test_a_run_is_its_newest_checkpoint(tmp_path):
    folder = make_run(tmp_path / 'rotnet')
    run = Run(str(folder / 'a.py'), str(folder / 'epoch_2.pth'))
    assert find_entry(folder) == Entry('rotnet', (run,))
    assert find_entry(f'mine={folder}').name == 'mine'
    # of a checkpoint, that one
    entry = find_entry(folder / 'epoch_1.pth')
    assert entry.name == 'epoch_1'
    assert entry.runs[0].checkpoint == str(folder / 'epoch_1.pth')
    # the config as asked for
    assert find_entry(folder, 'other').runs[0].config == 'other'


def test_runs_of_several_seeds(tmp_path):
    for seed in range(3):
        make_run(tmp_path / f'runs/seed_{seed}')
    (tmp_path / 'runs/notes').mkdir()
    entry = find_entry(tmp_path / 'runs')
    assert entry.name == 'runs'
    assert [run.checkpoint for run in entry.runs] == [
        str(tmp_path / f'runs/seed_{seed}/epoch_2.pth') for seed in range(3)
    ]


@pytest.mark.parametrize(
    ('word', 'name'), [('c.py@{}', 'runs'), ('x=c.py@{}', 'x')]
)
def test_one_config_for_a_folder_of_runs(tmp_path, word, name):
    for seed in range(2):
        make_run(tmp_path / f'runs/seed_{seed}')
    assert find_entry(word.format(tmp_path / 'runs')) == Entry(
        name,
        tuple(
            Run('c.py', str(tmp_path / f'runs/seed_{seed}/epoch_2.pth'))
            for seed in range(2)
        ),
    )


def test_the_config_of_the_last_log_where_several_lie(tmp_path):
    folder = make_run(tmp_path / 'run')
    (folder / 'b.py').write_text('')
    for day in ('20260101', '20260301', '20260201'):
        (folder / day / 'vis_data').mkdir(parents=True)
        (folder / day / 'vis_data/config.py').write_text('')
    assert find_entry(folder).runs[0].config == str(
        folder / '20260301/vis_data/config.py'
    )


def test_config_and_checkpoint_that_lie_apart(tmp_path):
    assert find_entry('a.py@b/c.pth') == Entry('c', (Run('a.py', 'b/c.pth'),))
    assert find_entry('x=timm:resnet18@w.pth') == Entry(
        'x', (Run('timm:resnet18', 'w.pth'),)
    )
    assert find_entry('torchvision:resnet18') == Entry(
        'torchvision:resnet18', (Run('torchvision:resnet18'),)
    )
    # a path may have these signs in it
    folder = make_run(tmp_path / 'a=b@c')
    assert find_entry(folder).name == 'a=b@c'


def test_names_are_made_different():
    entries = [Entry(name, ()) for name in 'aaba']
    assert [entry.name for entry in name_entries(entries)] == [
        *('a', 'a (2)', 'b', 'a (3)')
    ]


def test_errors_name_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no checkpoint .*"none"'):
        find_entry('none')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='no whole checkpoint'):
        find_entry(tmp_path / 'empty')
    lonely = tmp_path / 'lonely.pth'
    torch.save({}, lonely)
    with pytest.raises(ValueError, match=r'CONFIG@.*lonely\.pth'):
        find_entry(lonely)
