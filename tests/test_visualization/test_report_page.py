"""The report as Markdown and HTML: what a reader, and a browser, gets."""

import base64
import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from made_up_report import made_up_report
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from mm_rotssl.evaluation.report_sections import report_sections
from mm_rotssl.utils import InputError
from mm_rotssl.visualization import write_html, write_markdown
from mm_rotssl.visualization.style import PAGE_COLORS

# what must not become markup
NASTY = (
    '</script><img src=x onerror="alert(1)"> & \'a\' *b* _c_ [d](e) `f` $g$'
)
VOID = {'img', 'link', 'meta'}


class Page(HTMLParser):
    """What of a page the tests look at; its tags have to match."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.tables = [], [], []
        self.content, self.strong = {}, []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag == 'table':
            self.tables.append([])
        if tag == 'tr':
            self.tables[-1].append([])
        if tag in ('td', 'th'):
            self.tables[-1][-1].append([dict(attrs).get('data-value'), ''])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if 'td' in self.open or 'th' in self.open:
            self.tables[-1][-1][-1][1] += data
            if 'strong' in self.open:
                self.strong.append(data)
        if self.open:
            element = self.open[-1]
            self.content.setdefault(element, []).append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope='module')
def figures(tmp_path_factory):
    """A folder with a PNG of 4 inches and an SVG."""
    folder = tmp_path_factory.mktemp('report')
    figure = Figure((4, 3))
    figure.add_subplot().plot([1, 2])
    (folder / 'figures').mkdir()
    figure.savefig(folder / 'figures/a b.png', dpi=150)
    figure.savefig(folder / 'figures/c.svg')
    return folder


@pytest.fixture(scope='module')
def report():
    report = made_up_report(2, ('knn', 'linear', 'rank'))
    report['figures'] = [
        {
            'file': 'figures/a b.png',
            'title': 'By stage',
            'about': 'The bars are deviations.',
            'protocol': 'knn',
        },
        {
            'file': 'figures/c.svg',
            'title': 'All',
            'about': 'Each a point.',
            'protocol': None,
        },
    ]
    return report


@pytest.fixture(scope='module')
def page(report, figures):
    write_html(report, figures / 'report.html', figures)
    return Page((figures / 'report.html').read_text())


def nasty_report():
    """Signs of markup wherever a report has a user's text."""
    report = made_up_report(1, ('knn', 'linear'))
    name = NASTY + '|'
    renamed = json.dumps(report).replace('"rotnet"', json.dumps(name))
    report = json.loads(renamed)
    report['data']['images']['name'] = name
    report['data']['classes'] = [NASTY, '#1', '- 2']
    report['command'] = NASTY
    report['remarks'] = [NASTY, '1. first', '# 2']
    protocol = report['protocols'][0]
    protocol.update(title=NASTY, about=NASTY, settings={NASTY: [NASTY]})
    protocol['metrics']['accuracy'].update(title=NASTY, about=NASTY)
    for difference in report['differences']:
        difference['how'] = NASTY
    return report


def texts_of(report):
    """Tables as lists of rows as lists of texts."""
    return [
        [
            [*rows.names, *rows.numbers],
            *([cell.text for cell in row.cells] for row in rows.rows),
        ]
        for section in report_sections(report)
        for rows in section.tables
    ]


def in_one_line(tables):
    return [[[' '.join(c.split()) for c in r] for r in t] for t in tables]


@pytest.mark.parametrize('make', [made_up_report, nasty_report])
def test_markdown_says_what_the_report_says(make, tmp_path):
    report = make()
    path = tmp_path / 'report.md'
    write_markdown(report, path)
    rendered = (
        MarkdownIt('commonmark').enable('table').render(path.read_text())
    )
    page = Page(rendered)
    shown = [[[text for _, text in row] for row in t] for t in page.tables]
    assert shown == in_one_line(texts_of(report))
    # nothing of the text turned into anything else
    tags = {tag for tag, _ in page.elements}
    assert tags <= {
        *('h1', 'h2', 'h3', 'ul', 'li', 'p', 'strong'),
        *('table', 'thead', 'tbody', 'tr', 'th', 'td'),
    }
    plain = ' '.join(html.unescape(re.sub('<[^>]*>', ' ', rendered)).split())
    for section in report_sections(report):
        for text in (
            *section.remarks,
            *section.about,
            *section.about.values(),
        ):
            assert ' '.join(text.split()) in plain


def test_markdown_reads_well_in_a_terminal(report, tmp_path):
    write_markdown(report, tmp_path / 'report.md')
    text = (tmp_path / 'report.md').read_text()
    blocks = text.split('\n\n')
    tables = [block for block in blocks if block.startswith('|')]
    assert len(tables) == len(texts_of(report))
    for table in tables:
        assert len({len(line) for line in table.splitlines()}) == 1
    for block in blocks:
        if not block.startswith(('|', '![')):
            assert max(map(len, block.splitlines())) <= 79
    # paths and intervals are not full of backslashes
    assert 'configs/rotnet/rotnet_resnet18_digits.py' in text
    assert re.search(r'\*\*\+\d+\.\d \[\d+\.\d, \d+\.\d\]\*\*', text)
    assert '![By stage](figures/a%20b.png)' in text
    assert text.count('**') // 2 == sum(
        cell.strong
        for section in report_sections(report)
        for rows in section.tables
        for row in rows.rows
        for cell in row.cells
    ) + sum(len(section.about) for section in report_sections(report))


def test_html_holds_the_figures(page, report):
    sections = report_sections(report)
    rows = [
        [cell for row in rows.rows for cell in row.cells]
        for section in sections
        for rows in section.tables
    ]
    shown = [[c for row in t[1:] for c in row] for t in page.tables]
    for cells, expected in zip(shown, rows, strict=True):
        assert [text.strip() for _, text in cells] == [
            cell.text for cell in expected
        ]
        assert [value and float(value) for value, _ in cells] == [
            cell.value for cell in expected
        ]
    assert page.strong == [c.text for cells in rows for c in cells if c.strong]
    # and so do the report's own: each mean is in the table
    (knn,) = [t for t in page.tables if t[0][-1][1] == 'top-1 (%) ↑'][:1]
    for found in report['measurements']:
        if found['protocol'] == 'knn':
            (value,) = [
                row[2][0]
                for row in knn
                if [text for _, text in row[:2]]
                == [found['stage'], found['entry']]
            ]
            assert float(value) == pytest.approx(np.mean(found['runs']))


def test_html_refers_to_nothing_outside(page, figures):
    text = (figures / 'report.html').read_text()
    ids = [attrs['id'] for _, attrs in page.elements if 'id' in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.elements:
        for name in ('src', 'href', 'srcset', 'action', 'data', 'poster'):
            address = attrs.get(name, '#summary')
            assert address.startswith('data:') or address[1:] in ids, tag
        assert not [name for name in attrs if name.startswith('on')]
    assert not re.search(r'url\(|@import|https?:|file:|//(?=\w+\.)', text)
    assert str(figures) not in text
    # a browser would not load anything either
    (policy,) = [
        attrs['content']
        for attrs in page.all('meta')
        if attrs.get('http-equiv') == 'Content-Security-Policy'
    ]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_html_holds_the_images(page, figures):
    whole, by_stage = page.all('img')
    assert (whole['alt'], by_stage['alt']) == ('All', 'By stage')
    for image, file, kind in (
        (whole, 'figures/c.svg', 'image/svg+xml'),
        (by_stage, 'figures/a b.png', 'image/png'),
    ):
        head, _, content = image['src'].partition(',')
        assert head == f'data:{kind};base64'
        assert base64.b64decode(content) == (figures / file).read_bytes()
        assert image['decoding'] == 'async'
    # as large as it was drawn
    assert by_stage['width'] == str(4 * 96)
    assert 'The bars are deviations.' in ''.join(page.content['figcaption'])


def test_html_is_made_for_phones_and_screen_readers(page):
    assert page.all('html') == [{'lang': 'en'}]
    assert {
        'name': 'viewport',
        'content': 'width=device-width, initial-scale=1',
    } in page.all('meta')
    scrolled = [
        attrs for attrs in page.all('div') if attrs.get('class') == 'scroll'
    ]
    assert len(scrolled) == len(page.all('table')) + len(page.all('img'))
    assert all(a['tabindex'] == '0' and a['aria-label'] for a in scrolled)
    css = page.content['style'][0]
    assert not re.search(r'(?<!max-)(?<!min-)\b(width|columns): [\d.]+px', css)
    links = [attrs['href'] for attrs in page.all('a')]
    assert links == [f'#{a["id"]}' for a in page.all('section')]
    assert len(page.all('details')) == len(page.all('summary')) == 4
    assert {attrs['scope'] for attrs in page.all('th')} == {'col', 'row'}


def test_html_of_any_text_is_that_text(figures):
    report = nasty_report()
    write_html(report, figures / 'nasty.html', figures)
    page = Page((figures / 'nasty.html').read_text())
    assert not page.all('img')
    assert len(page.all('script')) == 2
    shown = [[[text for _, text in row] for row in t] for t in page.tables]
    assert in_one_line(shown) == in_one_line(texts_of(report))
    assert NASTY in page.content['dd']
    assert NASTY in page.content['li']
    assert json.loads(page.content['script'][0]) == report


def test_html_carries_the_report(figures):
    report = made_up_report(1, ('rank',))
    report['measurements'][0]['runs'] = [[1.5], [float('nan')], []]
    write_html(report, figures / 'nan.html', figures)
    page = Page((figures / 'nan.html').read_text())
    assert page.all('script')[0] == {
        'type': 'application/json',
        'id': 'report',
    }
    found = json.loads(page.content['script'][0], parse_constant=pytest.fail)
    assert found['measurements'][0]['runs'] == [[1.5], [None], []]
    report['measurements'][0]['runs'] = [[1.5], [None], []]
    assert found == report
    assert list(found) == list(report)


@pytest.mark.parametrize(
    ('file', 'message'),
    [
        ('none.png', 'There is no figure'),
        ('a.pdf', 'figures are .png or .svg'),
    ],
)
def test_figures_that_cannot_be_shown(file, message, figures, tmp_path):
    report = made_up_report(1, ('knn',))
    report['figures'] = [
        {'file': file, 'title': 'a', 'about': 'b', 'protocol': None}
    ]
    with pytest.raises(InputError, match=message) as caught:
        write_html(report, tmp_path / 'report.html', figures)
    assert str(figures / file) in str(caught.value)
    assert not list(tmp_path.iterdir())


def luminance(color):
    """Relative luminance of WCAG 2."""
    parts = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(
        parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4
    )
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize('mode', PAGE_COLORS)
def test_colors_can_be_read(mode):
    colors = {k: luminance(v) for k, v in PAGE_COLORS[mode].items()}
    assert (colors['background'] > 0.5) == (mode == 'light')
    for ground in ('background', 'raised'):
        for text in ('text', 'muted', 'accent'):
            low, high = sorted([colors[ground], colors[text]])
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ground, text)
    assert PAGE_COLORS['light'].keys() == PAGE_COLORS['dark'].keys()


# --- in a browser -----------------------------------------------------------

BROWSERS = (
    *('chromium', 'chromium-browser', 'chrome', 'google-chrome'),
    'google-chrome-stable',
)
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
# In a frame that is as wide as a phone: a window may not become so narrow.
# What the browser has found is left as the only text of the outer page.
OUTER = """<!DOCTYPE html><meta charset="utf-8">
<iframe src="report.html" style="width: 360px; height: 640px"></iframe>
<script>
const frame = document.querySelector('iframe');
const pause = (check) => new Promise((resolve) => {
  const wait = () => check() ? resolve() : setTimeout(wait, 20);
  wait();
});
onload = async () => {
  const page = frame.contentDocument;
  const view = frame.contentWindow;
  const find = (text) => page.querySelector(text);
  const images = [...page.images];
  await Promise.all(images.map((image) => image.decode()));

  const table = find('#protocol-linear table');
  const column = () => [...table.tBodies[0].rows].map((row) => [
    row.cells[0].textContent.trim(),
    row.cells[1].textContent.trim(),
    row.cells[2].dataset.value ?? null,
  ]);
  const [stage, network, number] = table.tHead.rows[0].cells;
  const sorted = [];
  const press = (heading) => {
    heading.querySelector('button').click();
    sorted.push([heading.getAttribute('aria-sort'), column()]);
  };
  const before = column();
  press(number), press(number), press(number);
  press(stage), press(stage);
  press(network);

  const colors = () => {
    const style = view.getComputedStyle(page.documentElement);
    return [style.color, style.backgroundColor];
  };
  const theme = find('#theme');
  const themes = [[theme.getAttribute('aria-pressed'), ...colors()]];
  for (let i = 0; i < 2; i++) {
    theme.click();
    themes.push([theme.getAttribute('aria-pressed'), ...colors()]);
  }

  const buttons = [...page.querySelectorAll('thead button')];
  buttons.at(-1).focus();
  const found = {
    width: view.innerWidth,
    page: page.documentElement.scrollWidth,
    sticking_out: [...page.querySelectorAll('body *')].filter((element) =>
      !element.closest('.scroll > *') &&
      element.getBoundingClientRect().right > view.innerWidth
    ).map((element) => element.outerHTML.slice(0, 80)),
    scrolls: [...page.querySelectorAll('.scroll')].filter(
      (element) => element.scrollWidth > element.clientWidth).length,
    images: images.map((image) => image.naturalWidth),
    dark_system: view.matchMedia('(prefers-color-scheme: dark)').matches,
    before, sorted, themes,
    headings: page.querySelectorAll('thead th').length,
    focused: buttons.filter((button) => {
      button.focus();
      return page.activeElement === button;
    }).length,
    report: Object.keys(JSON.parse(find('#report').textContent)),
  };
  frame.remove();
  document.body.textContent = JSON.stringify(found);
};
</script>"""


@pytest.fixture(scope='module')
def browse(tmp_path_factory):
    """A function that opens a report: what was found, and the log."""
    if BROWSER is None:
        pytest.skip(f'none of {", ".join(BROWSERS)} is installed')

    def run(report, figures, scheme):
        folder = tmp_path_factory.mktemp('browser')
        write_html(report, folder / 'report.html', figures)
        (folder / 'outer.html').write_text(OUTER)
        done = subprocess.run(
            [
                BROWSER,
                *('--headless', '--no-sandbox', '--disable-gpu'),
                # the outer page may look into the frame
                '--allow-file-access-from-files',
                *('--enable-logging=stderr', '--log-level=0'),
                f'--blink-settings=preferredColorScheme={scheme}',
                f'--user-data-dir={folder / "profile"}',
                *('--virtual-time-budget=20000', '--dump-dom'),
                (folder / 'outer.html').as_uri(),
            ],
            capture_output=True,
            env={**os.environ, 'HOME': str(folder)},
            text=True,
            timeout=120,
            check=True,
        )
        errors = [x for x in done.stderr.splitlines() if 'CONSOLE' in x]
        assert not errors, '\n'.join(errors)
        body = re.search('<body>(.*)</body>', done.stdout, re.DOTALL)[1]
        return json.loads(html.unescape(body))

    return run


@pytest.mark.parametrize('scheme', [0, 1], ids=['dark', 'light'])
def test_in_a_browser(browse, report, figures, scheme):
    report = json.loads(json.dumps(report))
    # something to sort last, and something that would widen the page
    for measured in report['measurements']:
        if (measured['metric'], measured['stage']) == ('1', 'layer1'):
            measured['runs'] = [] if measured['entry'] == 'rotnet' else [[1.0]]
    report['data']['images']['name'] = 'x' * 300
    report['remarks'] = ['y' * 300]
    found = browse(report, figures, scheme)
    # a phone: tables and figures scroll, the page does not
    assert found['width'] <= 360
    assert found['page'] <= found['width']
    assert not found['sticking_out']
    assert found['scrolls'] > 3
    assert len(found['images']) == 2
    assert min(found['images']) > 0
    # sorting: largest first, smallest first, as it was
    before = found['before']
    numbers = [float(row[2]) for row in before if row[2]]
    assert len(numbers) == len(before) - 1
    assert [order for order, _ in found['sorted']] == [
        *('descending', 'ascending', 'none'),
        *('ascending', 'descending', 'ascending'),
    ]
    down, up, none, stages_up, stages_down, networks = (
        rows for _, rows in found['sorted']
    )
    assert none == before
    for rows in (down, up):
        *values, missing = (row[2] for row in rows)
        assert missing is None
        numbers.sort(reverse=rows is down)
        assert [float(value) for value in values] == numbers
    # what is equal stays as it was
    assert stages_up == before
    stages = list(dict.fromkeys(row[0] for row in before))
    assert stages_down == sorted(before, key=lambda row: -stages.index(row[0]))
    assert networks == sorted(before, key=lambda row: row[1])
    assert found['focused'] == found['headings'] > 20
    # dark as the system is, then as the button says
    light, dark = (
        [
            'rgb({}, {}, {})'.format(
                *(int(colors[name][i : i + 2], 16) for i in (1, 3, 5))
            )
            for name in ('text', 'background')
        ]
        for colors in (PAGE_COLORS['light'], PAGE_COLORS['dark'])
    )
    shown = [['false', *light], ['true', *dark]]
    system = found['dark_system']
    assert found['themes'] == [
        shown[system],
        shown[not system],
        shown[system],
    ]
    assert found['report'] == list(report)
