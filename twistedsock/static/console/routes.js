/** Routes of the console in the URL hash, so that the back button and bookmarks work. */

/** Orders of the lists. The first one is the default. */
export const CHANNEL_ORDERS = ['rate', 'name', 'readers'];
export const PEER_ORDERS = ['newest', 'lag', 'sent', 'id'];

/** Kinds of entries of the connection log. They select entries as an order does. */
export const LOG_KINDS = ['all', 'connect', 'behind', 'lost', 'end', 'refused'];

const ORDERS = { channels: CHANNEL_ORDERS, peers: PEER_ORDERS, log: LOG_KINDS };

/**
 * @typedef {{view: 'overview'}
 *   | {view: 'channels' | 'peers' | 'log', order: string, page: number, find: string}
 *   | {view: 'channel', name: string}
 *   | {view: 'peer', id: string}} Route
 */

/** Parses a URL hash. Invalid ones are routes to the overview. @returns {Route} */
export function readRoute(hash) {
  const [path, query = ''] = split(hash.replace(/^#\/?/, ''), '?');
  const [place, rest] = split(path, '/');
  const name = decode(rest ?? '');
  if (place === 'channels' && name) return { view: 'channel', name };
  if (place === 'channels' || place === 'log') return { view: place, ...readList(query, place) };
  if (place === 'peers' && name) return { view: 'peer', id: name };
  if (place === 'peers') return { view: 'peers', ...readList(query, place) };
  return { view: 'overview' };
}

/** @param {Route} route */
export function writeRoute(route) {
  if (route.view === 'channel') return `#/channels/${encodeURIComponent(route.name)}`;
  if (route.view === 'peer') return `#/peers/${encodeURIComponent(route.id)}`;
  if (route.view === 'overview') return '#/';
  const [usual] = ORDERS[route.view];
  const query = new URLSearchParams();
  if (route.find) query.set('find', route.find);
  else if (route.order && route.order !== usual) query.set(orderParameter(route.view), route.order);
  if (!route.find && route.page) query.set('page', String(route.page + 1)); // pages in URLs are numbered from 1
  return `#/${route.view}${query.size ? `?${query}` : ''}`;
}

/** The `$sys/` channel with the content of a list. */
export function channelOf({ view, order, page, find }) {
  return find ? `$sys/${view}/find/${find}` : `$sys/${view}/${order}/${page}`;
}

/** Returns an error message for a search that matches no valid name, otherwise an empty string. */
export function searchError(text) {
  const invalid = text.match(/[\s\p{Cc}*>#+?]/u);
  if (invalid) return invalid[0].trim() ? `Names can’t contain “${invalid[0]}”.` : 'Names can’t contain spaces.';
  return new TextEncoder().encode(text).length > 100 ? 'Too long to search for.' : '';
}

const orderParameter = (view) => (view === 'log' ? 'kind' : 'order');

function readList(query, view) {
  const orders = ORDERS[view];
  const parameters = new URLSearchParams(query);
  const order = parameters.get(orderParameter(view));
  const page = Number(parameters.get('page') ?? 1);
  return {
    order: orders.includes(order) ? order : orders[0],
    page: Number.isSafeInteger(page) && page > 0 ? page - 1 : 0,
    find: parameters.get('find') ?? '',
  };
}

function split(text, mark) {
  const index = text.indexOf(mark);
  return index < 0 ? [text] : [text.slice(0, index), text.slice(index + 1)];
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // contains an invalid % sequence
  }
}
