/** What the lists of channels and of peers have in common: an order, pages, looking for a name, and what is said while they are empty. */

import { announce, byId } from '../dom.js';
import { plural } from '../format.js';
import { oncePerFrame } from './sys-channels.js';
import { channelOf, searchError, writeRoute } from './routes.js';
import { buildPager, buildTable, write } from './table.js';

/** Milliseconds after a key until the bridge is asked: one question for a word, not one for each letter. */
const TYPED = 250;

/**
 * @param {object} options
 * @param {'channels' | 'peers'} options.view
 * @param {string} options.one what a row is, in the singular
 * @param {object} options.live
 * @param {import('./table.js').Column[]} options.columns
 * @param {(row: object) => string} options.keyOf
 * @param {Record<string, string>} options.orders what each order is, in words
 * @param {(found: string) => void} options.empty there is nothing to show; with what was looked for
 * @param {(rows: object[]) => void} [options.arrived]
 */
export function buildList({ view, one, sysChannels, columns, keyOf, orders, empty, arrived = () => {} }) {
  const part = (name) => byId(`${view}-${name}`);
  const table = buildTable({ box: part('box'), columns, keyOf, ordered: (order) => go({ order, page: 0, find: '' }) });
  const pager = buildPager({ nav: part('pager'), turned: (by) => turn(by) });
  let route = { view };
  let newest;
  let stop = () => {};
  let typing;

  function go(change, replace = false) {
    const hash = writeRoute({ ...route, ...change });
    if (hash === location.hash) return;
    if (replace) {
      history.replaceState(null, '', hash);
      dispatchEvent(new HashChangeEvent('hashchange'));
    } else location.hash = hash;
  }

  function turn(by) {
    const page = route.page + by;
    if (newest && page >= 0 && page < newest.pages) go({ page });
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
    if (route.find) return rows.length < total ? `the first ${rows.length} of ${plural(total, one)} found` : `${plural(rows.length, one)} found`;
    if (total <= rows.length) return plural(total, one);
    // Where names are long, fewer rows than usual make a page.
    const first = newest.page < newest.pages - 1 ? newest.page * rows.length + 1 : total - rows.length + 1;
    return `${first.toLocaleString('en')} to ${(first + rows.length - 1).toLocaleString('en')} of ${plural(total, one)}`;
  }

  function told(data) {
    if (!data?.[view]) return;
    const first = newest === undefined;
    // Where rows went away meanwhile, this page may have ceased to be.
    if (!route.find && data.pages && route.page >= data.pages) {
      go({ page: data.pages - 1 }, true);
      return;
    }
    newest = data;
    arrived(data[view]);
    draw();
    if (first && route.find) announce(describe(data[view]));
  }

  part('find').addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(() => go({ find: part('find').value.trim(), page: 0 }, true), TYPED);
  });

  addEventListener('keydown', (event) => {
    if (event.key !== '/' || part('box').closest('[hidden]') || event.target.closest('input, textarea') || document.querySelector('dialog[open]')) return;
    event.preventDefault();
    part('find').focus();
  });

  return {
    title: () => (view === 'channels' ? 'Channels' : 'Peers'),
    enter(next) {
      const same = writeRoute(route) === writeRoute(next);
      route = next;
      if (document.activeElement !== part('find')) part('find').value = route.find;
      if (!same) {
        newest = undefined;
        table.clear();
      }
      const fault = route.find && searchError(route.find);
      table.setOrder(route.find ? '' : route.order, route.find ? `${one}s that contain ${route.find}` : `${one}s, ${orders[route.order]}, page ${route.page + 1}`);
      part('loading').hidden = Boolean(newest) || Boolean(fault);
      if (fault) {
        part('box').hidden = true;
        part('empty').hidden = false;
        empty(route.find, fault);
        part('pager').hidden = true;
        write(part('total'), '');
        return;
      }
      if (!newest) {
        part('empty').hidden = true;
        part('box').hidden = true;
      }
      stop = sysChannels.follow(channelOf(route), told);
    },
    leave() {
      clearTimeout(typing);
      stop();
      stop = () => {};
    },
    summary: () => (newest ? describe(newest[view]) : ''),
  };
}
