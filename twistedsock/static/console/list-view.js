/** The view shared by the lists of channels, clients and log entries: order, pages, search, and an empty state. */

import { announce, byId, make, oncePerFrame } from '../dom.js';
import { plural } from '../format.js';
import { channelOf, searchError, writeRoute } from './routes.js';
import { buildPager, buildTable, write } from './table.js';

/** Delay between the last key and the search: one request per word instead of one per letter. */
const SEARCH_DELAY_MS = 250;

/**
 * @param {object} options
 * @param {'channels' | 'peers' | 'log'} options.view
 * @param {string} options.title
 * @param {string} options.one the name of a row, in the singular
 * @param {string} [options.many] its plural
 * @param {object} options.sysChannels
 * @param {import('./table.js').Column[]} options.columns
 * @param {(row: object) => string} options.keyOf
 * @param {string} options.placeholder of the search field
 * @param {Node[]} [options.tools] shown beside the title
 * @param {Node[]} [options.sample] shown if there is nothing else
 * @param {Record<string, string>} options.orders a description of each order
 * @param {(search: string, error?: string) => void} options.empty called if there is nothing to show
 * @param {(rows: object[]) => void} [options.received]
 */
export function buildList({ view, title, one, many = `${one}s`, sysChannels, columns, keyOf, orders, placeholder, tools = [], sample = [], empty, received = () => {} }) {
  const part = (name) => byId(`${view}-${name}`);
  buildParts({ view, title, many, placeholder, tools, sample });
  const table = buildTable({ box: part('box'), columns, keyOf, ordered: (order) => navigate({ order, page: 0, find: '' }) });
  const pager = buildPager({ nav: part('pager'), turned: (by) => turn(by) });
  let route = { view };
  let newest;
  let unsubscribe = () => {};
  let searchTimer;

  function navigate(change, replace = false) {
    const hash = writeRoute({ ...route, ...change });
    if (hash === location.hash) return;
    if (replace) {
      history.replaceState(null, '', hash);
      dispatchEvent(new HashChangeEvent('hashchange'));
    } else location.hash = hash;
  }

  function turn(by) {
    const page = route.page + by;
    if (newest && page >= 0 && page < newest.pages) navigate({ page });
  }

  const draw = oncePerFrame(() => {
    if (!newest) return;
    const rows = newest[view] ?? [];
    part('loading').hidden = true;
    part('box').hidden = !rows.length;
    part('empty').hidden = Boolean(rows.length);
    if (rows.length) table.show(rows);
    else empty(route.find);
    pager.show(route.find ? 0 : newest.page, route.find ? 1 : newest.pages);
    write(part('total'), describe(rows));
  });

  function describe(rows) {
    const total = newest.total ?? rows.length;
    if (route.find) return rows.length < total ? `first ${rows.length} of ${plural(total, one, many)} found` : `${plural(rows.length, one, many)} found`;
    if (total <= rows.length) return plural(total, one, many);
    // If names are long, a page has fewer rows.
    const first = newest.page < newest.pages - 1 ? newest.page * rows.length + 1 : total - rows.length + 1;
    return `${first.toLocaleString('en')}–${(first + rows.length - 1).toLocaleString('en')} of ${plural(total, one, many)}`;
  }

  function onData(data) {
    if (!data?.[view]) return;
    const first = newest === undefined;
    // The page no longer exists if rows were removed in the meantime.
    if (!route.find && data.pages && route.page >= data.pages) {
      navigate({ page: data.pages - 1 }, true);
      return;
    }
    newest = data;
    received(data[view]);
    draw();
    if (first && route.find) announce(describe(data[view]));
  }

  part('find').addEventListener('input', () => {
    clearTimeout(searchTimer);
    searchTimer = setTimeout(() => navigate({ find: part('find').value.trim(), page: 0 }, true), SEARCH_DELAY_MS);
  });

  addEventListener('keydown', (event) => {
    if (event.key !== '/' || part('find').closest('[hidden]') || event.target.closest('input, textarea') || document.querySelector('dialog[open]')) return;
    event.preventDefault();
    part('find').focus();
  });

  return {
    title: () => title,
    open(next) {
      const same = writeRoute(route) === writeRoute(next);
      route = next;
      if (document.activeElement !== part('find')) part('find').value = route.find;
      if (!same) {
        newest = undefined;
        table.clear();
      }
      const error = route.find && searchError(route.find);
      table.setOrder(route.find ? '' : route.order, route.find ? `${many} that contain ${route.find}` : `${many}, ${orders[route.order]}, page ${route.page + 1}`);
      part('loading').hidden = Boolean(newest) || Boolean(error);
      if (error) {
        part('box').hidden = true;
        part('empty').hidden = false;
        empty(route.find, error);
        part('pager').hidden = true;
        write(part('total'), '');
        return;
      }
      if (!newest) {
        part('empty').hidden = true;
        part('box').hidden = true;
      }
      unsubscribe = sysChannels.subscribe(channelOf(route), onData);
    },
    close() {
      clearTimeout(searchTimer);
      unsubscribe();
      unsubscribe = () => {};
    },
  };
}

/** Builds the elements of a view, whose ids begin with its name. */
function buildParts({ view, title, many, placeholder, tools, sample }) {
  const part = (tag, name, className, text) => Object.assign(make(tag, className, text), { id: `${view}-${name}` });
  const heading = part('h1', 'title', '', title);
  heading.tabIndex = -1;
  const field = Object.assign(part('input', 'find'), { type: 'search', autocomplete: 'off', autocapitalize: 'off', spellcheck: false, placeholder });
  const label = make('label', '', 'Find');
  label.htmlFor = field.id;
  const find = make('div', 'find');
  find.append(label, field);
  const head = make('div', 'view-head');
  head.append(heading, part('p', 'total', 'total'), ...tools, find);
  const empty = part('section', 'empty', 'empty-box');
  empty.append(part('h2', 'empty-title'), part('p', 'empty-text'), ...sample);
  const pager = part('nav', 'pager', 'pager');
  pager.setAttribute('aria-label', `Pages of ${many}`);
  empty.hidden = pager.hidden = true;
  document.querySelector(`[data-view="${view}"]`).append(head, part('div', 'box', 'table-box'), part('p', 'loading', 'loading', 'Loading…'), empty, pager);
}
