'use strict';

// Sorting: a heading orders by its column, then the other way round, then as
// it was. What has no value is last either way.
function sortBy(table, column, order) {
  const body = table.tBodies[0];
  const key = (row) => row.cells[column].dataset.value;
  const rows = [...body.rows].sort((a, b) => a.dataset.place - b.dataset.place);
  if (order !== 'none') {
    const sign = order === 'ascending' ? 1 : -1;
    const numeric = rows.some((row) => key(row) !== undefined);
    rows.sort((a, b) => {
      if (!numeric) {
        const [x, y] = [a, b].map((row) => row.cells[column].textContent);
        return sign * x.localeCompare(y, undefined, { numeric: true });
      }
      const missing = (key(a) === undefined) - (key(b) === undefined);
      return missing || (key(a) === undefined ? 0 : sign * (key(a) - key(b)));
    });
  }
  body.append(...rows);
  table.classList.toggle('sorted', order !== 'none');
  [...table.tHead.rows[0].cells].forEach((cell, i) => {
    cell.setAttribute('aria-sort', i === column ? order : 'none');
  });
}

for (const table of document.querySelectorAll('table')) {
  [...table.tBodies[0].rows].forEach((row, i) => {
    row.dataset.place = i;
  });
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    // of numbers the largest first
    const orders = cell.classList.contains('number')
      ? ['none', 'descending', 'ascending']
      : ['none', 'ascending', 'descending'];
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...cell.childNodes);
    button.addEventListener('click', () => {
      const now = orders.indexOf(cell.getAttribute('aria-sort'));
      sortBy(table, column, orders[(now + 1) % orders.length]);
    });
    cell.append(button);
    cell.setAttribute('aria-sort', 'none');
  });
}

// Dark or light: as the system has it, until the button says otherwise.
const root = document.documentElement;
const system = matchMedia('(prefers-color-scheme: dark)');
const theme = document.getElementById('theme');

function showTheme() {
  const dark = (root.dataset.theme ?? (system.matches ? 'dark' : 'light')) === 'dark';
  theme.setAttribute('aria-pressed', dark);
  return dark;
}

theme.addEventListener('click', () => {
  root.dataset.theme = showTheme() ? 'light' : 'dark';
  showTheme();
});
system.addEventListener('change', showTheme);
theme.hidden = false;
showTheme();
