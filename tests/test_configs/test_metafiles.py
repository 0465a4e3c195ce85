"""The index that mim reads: all configs, and what their names say."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
METAFILES = sorted(ROOT.glob('configs/*/metafile.yml'))
# Recipes of the methods; other libraries', and probes, have no such entry.
CONFIGS = {
    str(path.relative_to(ROOT))
    for path in ROOT.glob('configs/*/*.py')
    if path.parent.name != '_base_'
}


def read(path):
    return yaml.safe_load(path.read_text())


def test_index_lists_the_metafiles():
    found = [ROOT / path for path in read(ROOT / 'model-index.yml')['Import']]
    assert found == METAFILES


def test_every_config_is_listed_once():
    listed = [m['Config'] for p in METAFILES for m in read(p)['Models']]
    assert sorted(listed) == sorted(CONFIGS)


@pytest.mark.parametrize('path', METAFILES, ids=lambda p: p.parent.name)
def test_metafile(path):
    content = read(path)
    (collection,) = content['Collections']
    readme = ROOT / collection['README']
    assert readme == path.with_name('README.md')
    text = readme.read_text()
    for model in content['Models']:
        config = ROOT / model['Config']
        name = config.stem
        assert config.parent == path.parent
        assert model['Name'] == name
        assert model['In Collection'] == collection['Name']
        devices, images = map(int, re.search(r'_(\d+)xb(\d+)-', name).groups())
        metadata = model['Metadata']
        assert metadata['Batch Size'] == devices * images
        assert metadata['Epochs'] == int(re.search(r'-(\d+)e_', name)[1])
        # the table of the README has it
        assert f']({name}.py)' in text, name


@pytest.mark.parametrize(
    'path',
    sorted(ROOT.glob('configs/*/README.md')),
    ids=lambda p: p.parent.name,
)
def test_links_of_readme(path):
    links = re.findall(r'\]\(([^)#]+)', path.read_text())
    files = [link for link in links if '://' not in link]
    assert files
    missing = [file for file in files if not (path.parent / file).exists()]
    assert not missing
