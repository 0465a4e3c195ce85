"""Pages, metafiles and the API reference name only what exists."""

import re
import runpy
import shlex
from importlib import import_module
from inspect import isclass
from pathlib import Path
from pkgutil import walk_packages

import pytest
import yaml
from mmengine.registry import DefaultScope

import mm_rotssl
from mm_rotssl import registry
from mm_rotssl.apis import read_config
from mm_rotssl.cli.common import parse_cfg_options
from mm_rotssl.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ('*.md', 'docs/**/*.md', 'configs/**/*.md', '.github/*.md')
    for page in ROOT.glob(pattern)
    if '_build' not in page.parts
)
# The tables of old names, see below, are no description of what is there.
DESCRIPTIONS = [page for page in PAGES if page != 'CHANGELOG.md']
SCRIPT = runpy.run_path(str(ROOT / '.dev_scripts/page_commands.py'))


def read(page):
    return (ROOT / page).read_text(encoding='utf-8')


def prose(text):
    """Pages without their blocks of code."""
    return re.sub(r'^```.*?^```', '', text, flags=re.DOTALL | re.MULTILINE)


# --- links ------------------------------------------------------------------


def anchors(text):
    """Names of a page's headings, as code hosts make them."""
    headings = re.findall(r'^#+ (.+)$', prose(text), re.MULTILINE)
    return [
        re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
        for heading in headings
    ]


def test_anchors_are_those_of_code_hosts():
    text = '# A `b`, c: d-e\n```shell\n# no heading\n```\n## Old & new\n'
    assert anchors(text) == ['a-b-c-d-e', 'old--new']


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', prose(read(page))):
        if '://' in target or target.startswith('mailto:'):
            continue
        path, _, anchor = target.partition('#')
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text()), target


# --- commands ---------------------------------------------------------------


def test_commands_of_a_text():
    text = """
```shell
make a && make b  # both
X="1  2"   # a variable
# no command
mm-rotssl c --d \\
    e
```
`python f.py
g` and `mm-rotssl h`, `no program either`
```python
make = 'i j k'
```
"""
    assert SCRIPT['find_commands'](text) == [
        *('make a && make b', 'X="1 2"', 'mm-rotssl c --d e'),
        'python f.py g',
    ]


def commands(page):
    """Words of each command of a page."""
    variables = {}
    found = []
    for line in SCRIPT['read_commands'](page):
        for command in re.split(r' && | \| ', line):
            assignment = re.fullmatch(r'(\w+)=("?)(.*)\2', command)
            if assignment and ' ' not in command.partition('"')[0]:
                variables[assignment[1]] = assignment[3]
                continue
            for name, value in variables.items():
                command = command.replace(f'${name}', value)
            words = shlex.split(command)
            # variables of the environment
            while re.match(r'\w+=', words[0]):
                del words[0]
            found.append(words)
    return found


ALL_COMMANDS = [
    pytest.param(words, id=f'{page}-{number}')
    for page in SCRIPT['PAGES']
    for number, words in enumerate(commands(page))
]


def is_placeholder(word):
    """Something of the reader's own: CONFIG, CHECKPOINT, /path/to/images."""
    return word.isupper() or word.startswith('/path/')


@pytest.fixture
def parse(monkeypatch):
    """A function that parses a command of mm-rotssl, and does not run it."""
    parsed = []
    for name in COMMANDS:
        module = import_module(f'mm_rotssl.cli.{name.replace("-", "_")}')
        monkeypatch.setattr(module, 'run', parsed.append)

    def parse_words(words):
        monkeypatch.setattr('sys.argv', ['mm-rotssl', *words])
        main()
        return parsed.pop()

    return parse_words


def command_of_script(script):
    """The command that a script of tools/ stands for."""
    return re.search(r"main\('([\w-]+)'\)", read(script))[1]


def shipped_configs(name):
    return [
        path
        for path in (ROOT / 'configs').rglob(f'{Path(name).stem}.py')
        if '_base_' not in path.parts
    ]


def check_config(config, options=()):
    """There is such a config, and each option has its place in it."""
    if not is_placeholder(config):
        named = shipped_configs(config) if '/' not in config else ()
        assert len(named) == 1 or (ROOT / config).is_file(), config
        # those of transfer are read where mmdet and mmseg are installed
        if 'transfer' not in config:
            path = named[0] if named else ROOT / config
            read_config(path, parse_cfg_options(options))


@pytest.mark.parametrize('words', ALL_COMMANDS)
def test_commands_of_pages_are_understood(words, parse):
    for word in words:
        if re.match(r'(tools|configs|benchmarks|tests|docs)/', word):
            assert list(ROOT.glob(word)), word
    program, *rest = words
    if program == 'make':
        targets = re.findall(r'^([a-z-]+):', read('Makefile'), re.MULTILINE)
        assert set(rest) <= set(targets)
    elif program == 'mm-rotssl':
        args = parse(rest)
        if 'config' in args and isinstance(args.config, str):
            check_config(args.config, getattr(args, 'cfg_options', ()))
    elif program in ('tools/dist_train.sh', 'tools/slurm_train.sh'):
        config, *options = (
            [rest[0], *rest[2:]] if 'dist' in program else rest[2:3]
        )
        args = parse(['train', config, *options])
        check_config(args.config, args.cfg_options)
    elif rest and rest[0].startswith('tools/'):
        args = parse([command_of_script(rest[0]), *rest[1:]])
        if 'config' in args:
            check_config(args.config, getattr(args, 'cfg_options', ()))
    else:
        assert program.split('/')[-1] in (
            'awk',
            'cd',
            'git',
            'ls',
            'pip',
            'python',
            'torchrun',
        ), words


def test_a_wrong_command_is_noticed(parse):
    with pytest.raises(SystemExit):
        parse(['train', 'CONFIG', '--no-such-option'])
    with pytest.raises(AssertionError):
        check_config('rotnet_resnet17_1xb64-100e_custom')
    with pytest.raises(ValueError, match='Did you mean "max_epochs"'):
        check_config(
            'rotnet_resnet18_1xb64-100e_custom', ['train_cfg.max_epoch=1']
        )


def test_commands_are_all_run_or_left_out_on_purpose():
    found = {
        command
        for page in SCRIPT['PAGES']
        for command in SCRIPT['read_commands'](page)
        if not re.fullmatch(SCRIPT['VARIABLE'], command)
    }
    run = [
        SCRIPT['shorten'](command)
        for command in found
        if SCRIPT['entry'](SCRIPT['NOT_RUN'], command) is None
    ]
    assert {words[1] for words in map(str.split, run)} >= set(COMMANDS) - {
        'digit-scenes',
        'test',
    }
    # nothing of the reader's own is left
    own = r'(?<![\w$])([A-Z_]{3,}(?![\w=])|/path/|\.\.\.)'
    assert not [command for command in run if re.search(own, command)]
    # nothing in the tables is of before
    for table in ('NOT_RUN', 'SHORT', 'FILLED_IN'):
        for start in SCRIPT[table]:
            assert any(f'{one} '.startswith(start) for one in found), start
    with pytest.raises(SystemExit, match='mm-rotssl unheard'):
        SCRIPT['shorten']('mm-rotssl unheard-of')


@pytest.mark.parametrize(
    ('command', 'short'),
    [
        ('mm-rotssl sort A B', 'mm-rotssl sort A B'),
        (
            'mm-rotssl train x --data /path/to/images',
            'mm-rotssl train x --data images --epochs 1 --batch-size 4 '
            '--crop-size 32',
        ),
        (
            'mm-rotssl train exemplar-cnn_x --cfg-options a=b',
            'mm-rotssl train exemplar-cnn_x --cfg-options a=b '
            'model.head.num_exemplars=4 --epochs 1 --batch-size 4',
        ),
        (
            'mm-rotssl train exemplar-cnn_x',
            'mm-rotssl train exemplar-cnn_x --epochs 1 --batch-size 4 '
            '--cfg-options model.head.num_exemplars=4',
        ),
    ],
)
def test_commands_are_made_short(command, short):
    assert SCRIPT['shorten'](command) == short


# --- names ------------------------------------------------------------------


def registered(name):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return any(
            getattr(registry, kind).get(name) is not None
            for kind in registry.__all__
        )


def check_names(text, page):
    """Files and parts of the package that a text names."""
    folders = 'benchmarks|configs|docs|mm_rotssl|tests|tools'
    # not "mmsegmentation's `tools/...`"
    files = rf"(?<!'s )`((?:{folders})/[\w./*{{}},-]*)`"
    for path in re.findall(files, text):
        if not re.search(r'[*{}]|NAME|_build', path):
            assert (ROOT / path).exists(), path
    for name in re.findall(r'mm_rotssl((?:\.\w+)+)\b', text):
        found = mm_rotssl
        parts = name.split('.')[1:]
        if len(parts) == 1 and registered(f'mm_rotssl.{parts[0]}'):
            continue
        for number, part in enumerate(parts):
            if not hasattr(found, part):
                assert hasattr(found, '__path__'), f'{page}: mm_rotssl{name}'
                import_module('.'.join(['mm_rotssl', *parts[: number + 1]]))
            found = getattr(found, part)


@pytest.mark.parametrize('page', DESCRIPTIONS)
def test_files_and_types_that_pages_name_exist(page):
    check_names(read(page), page)


# --- old names --------------------------------------------------------------


def renamed():
    """Old and new cell of each row of the tables of the changelog."""
    text = read('CHANGELOG.md')
    _, _, tables = text.partition('## Old names and new ones')
    rows = re.findall(r'^\| (.+?) \| (.+?) \|$', tables, re.MULTILINE)
    return [row for row in rows if row[0] not in ('---', 'old')]


def test_changelog_maps_old_names_to_what_exists():
    assert len(renamed()) > 50
    for _, new in renamed():
        check_names(new, 'CHANGELOG.md')
        for name in re.findall(r'`mm-rotssl ([\w-]+)', new):
            assert name in COMMANDS


# --- metafiles --------------------------------------------------------------

METAFILES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.glob('configs/**/metafile.yml')
)


def test_model_index_lists_all_metafiles():
    assert yaml.safe_load(read('model-index.yml'))['Import'] == METAFILES


@pytest.mark.parametrize('metafile', METAFILES)
def test_metafile_is_true(metafile):
    content = yaml.safe_load(read(metafile))
    collections = {}
    for collection in content['Collections']:
        collections[collection['Name']] = collection
        readme = ROOT / collection['README']
        assert readme.parent == (ROOT / metafile).parent
        assert collection['Paper']['Title']
        assert collection['Paper']['URL'].startswith('https://')
        assert collection['Paper']['URL'] in readme.read_text()
    names = [model['Name'] for model in content['Models']]
    assert len(names) == len(set(names))
    for model in content['Models']:
        assert model['In Collection'] in collections
        config = ROOT / model['Config']
        assert config.is_file(), model['Config']
        assert config.parent == (ROOT / metafile).parent
        assert config.stem == model['Name']
    configs = {path.stem for path in (ROOT / metafile).parent.glob('*.py')}
    assert configs == set(names)


# --- API reference ----------------------------------------------------------


def exported(module):
    return [getattr(module, name) for name in getattr(module, '__all__', ())]


def test_api_reference_has_all_that_packages_export():
    documented = set()
    for page in (ROOT / 'docs/api').glob('*.rst'):
        for name in re.findall(r'automodule:: (\S+)', page.read_text()):
            module = import_module(name)
            public = exported(module) or vars(module).values()
            documented |= {id(thing) for thing in public}
    packages = [
        import_module(info.name)
        for info in walk_packages(mm_rotssl.__path__, 'mm_rotssl.')
        if info.ispkg and info.name != 'mm_rotssl.cli'
    ]
    for package in packages:
        for thing in exported(package):
            # constants have no docstring
            if isclass(thing) or callable(thing):
                assert id(thing) in documented, (package.__name__, thing)
