/**
 * A table that is updated every two seconds. Rows keep their elements, so that the focus and the selection stay. Only text
 * that has changed is written. While the pointer is over the table, the order of the rows does not change.
 */

import { make, makeButton } from '../dom.js';

/**
 * @typedef {object} Column
 * @property {string} title
 * @property {string} [name] class of its cells
 * @property {string} [order] the order that sorts by this column
 * @property {boolean} [rising] true if that order is ascending
 * @property {(cell: HTMLElement, row: object) => void} draw
 */

/**
 * @param {object} options
 * @param {HTMLElement} options.box
 * @param {Column[]} options.columns
 * @param {(row: object) => string} options.keyOf
 * @param {(order: string) => void} options.ordered called when the user selects an order
 */
export function buildTable({ box, columns, keyOf, ordered }) {
  const table = make('table', 'table');
  const caption = make('caption', 'visually-hidden');
  const head = make('tr');
  const body = make('tbody');
  const rows = new Map();
  let frozen = false;

  const headers = columns.map(({ title, name, order }) => {
    const cell = make('th', name);
    cell.scope = 'col';
    if (order) cell.append(makeButton('order', title, () => ordered(order)));
    else cell.textContent = title;
    return cell;
  });
  head.append(...headers);
  const thead = make('thead');
  thead.append(head);
  table.append(caption, thead, body);
  box.replaceChildren(table);

  body.addEventListener('pointerenter', ({ pointerType }) => { frozen = pointerType === 'mouse'; });
  body.addEventListener('pointerleave', () => { frozen = false; });

  // The whole row is a target. Text can still be selected, and the link can be opened in another tab.
  body.addEventListener('click', (event) => {
    const link = event.target.closest('tr')?.querySelector('a');
    if (!link || event.target.closest('a, button') || !getSelection().isCollapsed) return;
    if (event.ctrlKey || event.metaKey) open(link.href);
    else link.click();
  });

  function buildRow() {
    const element = make('tr');
    const cells = columns.map(({ name }) => make('td', name));
    element.append(...cells);
    return { element, cells };
  }

  /** Returns the rows in display order: as received, or, while the order is frozen, new rows at the end. */
  function arrange(entries) {
    if (!frozen) return entries;
    const positions = new Map([...body.children].map((element, index) => [element.dataset.key, index]));
    const place = (entry) => positions.get(keyOf(entry)) ?? Infinity;
    return entries.map((entry, index) => ({ entry, index })).sort((a, b) => place(a.entry) - place(b.entry) || a.index - b.index).map(({ entry }) => entry);
  }

  /** Puts the elements in order without moving the one with the focus, which would lose it. */
  function place(elements) {
    const pivot = elements.findIndex((element) => element.contains(document.activeElement));
    const settled = pivot < 0 ? undefined : elements[pivot];
    const before = settled ? elements.slice(0, pivot) : [];
    const after = settled ? elements.slice(pivot + 1) : elements;
    let next = settled ?? null;
    for (const element of before.reverse()) {
      if (element.nextSibling !== next) body.insertBefore(element, next);
      next = element;
    }
    let last = settled;
    for (const element of after) {
      const follower = last ? last.nextSibling : body.firstChild;
      if (follower !== element) body.insertBefore(element, follower);
      last = element;
    }
  }

  return {
    element: table,
    /** @param {string} order the current order, or an empty string */
    setOrder(order, description) {
      caption.textContent = description;
      for (const [index, column] of columns.entries()) {
        if (!column.order) continue;
        if (column.order === order) headers[index].setAttribute('aria-sort', column.rising ? 'ascending' : 'descending');
        else headers[index].removeAttribute('aria-sort');
      }
    },
    clear() {
      rows.clear();
      body.replaceChildren();
    },
    show(entries) {
      const shown = arrange(entries);
      const keys = new Set(shown.map(keyOf));
      for (const [key, { element }] of rows) {
        if (keys.has(key)) continue;
        element.remove();
        rows.delete(key);
      }
      place(shown.map((entry) => {
        const key = keyOf(entry);
        if (!rows.has(key)) rows.set(key, buildRow());
        const { element, cells } = rows.get(key);
        element.dataset.key = key;
        for (const [index, { draw }] of columns.entries()) draw(cells[index], entry);
        return element;
      }));
    },
  };
}

/** Writes only changed text: most cells do not change. */
export function write(cell, text, title) {
  if (cell.textContent !== text) cell.textContent = text;
  if (title !== undefined && cell.title !== title) cell.title = title;
}

/** Updates the link in a cell, or creates it. */
export function writeLink(cell, text, href) {
  let link = cell.querySelector('a');
  if (!link) {
    link = make('a');
    cell.prepend(link);
  }
  if (link.textContent !== text) link.textContent = text;
  if (link.getAttribute('href') !== href) link.setAttribute('href', href);
  return link;
}

/** Buttons for the previous and the next page, hidden if there is only one page. */
export function buildPager({ nav, turned }) {
  const back = makeButton('', '← Previous', () => turned(-1));
  const position = make('p');
  const on = makeButton('', 'Next →', () => turned(1));
  nav.append(back, position, on);
  return {
    show(page, pages) {
      nav.hidden = pages < 2;
      // `disabled` would remove the focus. These buttons do nothing at the first and last page.
      back.setAttribute('aria-disabled', String(page <= 0));
      on.setAttribute('aria-disabled', String(page >= pages - 1));
      write(position, `Page ${(page + 1).toLocaleString('en')} of ${pages.toLocaleString('en')}`);
    },
  };
}
