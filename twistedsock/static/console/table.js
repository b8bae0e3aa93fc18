/**
 * A table that is drawn anew every two seconds under the eyes of its reader. Rows keep their elements, so that the focus and
 * a selection stay; only text that differs is written; while the pointer is on it no row changes its place.
 */

import { make, makeButton } from '../dom.js';

/**
 * @typedef {object} Column
 * @property {string} title
 * @property {string} [name] class of its cells
 * @property {string} [order] the order in which this column leads
 * @property {boolean} [rising] whether that order begins with the least
 * @property {(cell: HTMLElement, row: object) => void} draw
 */

/**
 * @param {object} options
 * @param {HTMLElement} options.box
 * @param {Column[]} options.columns
 * @param {(row: object) => string} options.keyOf
 * @param {(order: string) => void} options.ordered somebody wants another order
 */
export function buildTable({ box, columns, keyOf, ordered }) {
  const table = make('table', 'table');
  const caption = make('caption', 'visually-hidden');
  const head = make('tr');
  const body = make('tbody');
  const rows = new Map();
  let held = false;

  const heads = columns.map(({ title, name, order }) => {
    const cell = make('th', name);
    cell.scope = 'col';
    if (order) cell.append(makeButton('order', title, () => ordered(order)));
    else cell.textContent = title;
    return cell;
  });
  head.append(...heads);
  const thead = make('thead');
  thead.append(head);
  table.append(caption, thead, body);
  box.replaceChildren(table);

  body.addEventListener('pointerenter', ({ pointerType }) => { held = pointerType === 'mouse'; });
  body.addEventListener('pointerleave', () => { held = false; });

  function buildRow() {
    const element = make('tr');
    const cells = columns.map(({ name }) => make('td', name));
    element.append(...cells);
    return { element, cells };
  }

  /** The rows in the order they are shown in: as they came, or as they stand, with the newcomers behind them. */
  function arrange(entries) {
    if (!held) return entries;
    const places = new Map([...body.children].map((element, index) => [element.dataset.key, index]));
    const place = (entry) => places.get(keyOf(entry)) ?? Infinity;
    return entries.map((entry, index) => ({ entry, index })).sort((a, b) => place(a.entry) - place(b.entry) || a.index - b.index).map(({ entry }) => entry);
  }

  /** Puts the elements into their order without ever moving the one that has the focus: it would lose it. */
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
    /** @param {string} order the present one; an empty string where there is none */
    setOrder(order, words) {
      caption.textContent = words;
      for (const [index, column] of columns.entries()) {
        if (!column.order) continue;
        if (column.order === order) heads[index].setAttribute('aria-sort', column.rising ? 'ascending' : 'descending');
        else heads[index].removeAttribute('aria-sort');
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

/** Writes only what differs: most cells of most refreshes do not. */
export function write(cell, text, title) {
  if (cell.textContent !== text) cell.textContent = text;
  if (title !== undefined && cell.title !== title) cell.title = title;
}

/** A link in a cell, made once. */
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

/** Buttons to the page before and the one behind; the nav is hidden where there is only one. */
export function buildPager({ nav, turned }) {
  const back = makeButton('', '← Before', () => turned(-1));
  const words = make('p');
  const on = makeButton('', 'Next →', () => turned(1));
  nav.append(back, words, on);
  return {
    show(page, pages) {
      nav.hidden = pages < 2;
      // One that is switched off would lose the focus; this one says so, and does nothing.
      back.setAttribute('aria-disabled', String(page <= 0));
      on.setAttribute('aria-disabled', String(page >= pages - 1));
      write(words, `Page ${(page + 1).toLocaleString('en')} of ${pages.toLocaleString('en')}`);
    },
  };
}
