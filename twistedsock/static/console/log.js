/** The connection log: what happened to connections, with filters. */

import { byId, make } from '../dom.js';
import { clockTime, exactTime } from '../format.js';
import { buildList } from './list-view.js';
import { identityWords, nameOf, protocolOf } from './peers.js';
import { LOG_KINDS, writeRoute } from './routes.js';
import { write, writeLink } from './table.js';
import { bytes, count, duration } from './units.js';

const TITLES = { connect: 'Connected', behind: 'Slow', lost: 'Lost events', end: 'Disconnected', refused: 'Rejected' };

const FILTERS = { all: 'All', ...TITLES };

const NOTHING = {
  all: 'Connections will be listed here when they open, become slow or end.',
  connect: 'No client has connected yet.',
  behind: 'No client has been slow.',
  lost: 'No events were lost.',
  end: 'No client has disconnected.',
  refused: 'No client was rejected. Rejected commands are answered to the client and are not listed here.',
};

/** Describes the traffic of a connection. Unix sockets do not count it. */
export function traffic(sent, received) {
  if (typeof sent !== 'number' || typeof received !== 'number') return 'bytes not counted';
  return `sent ${bytes(sent)}, received ${bytes(received)}`;
}

/** Describes why a connection ended. */
export function describeReason(by, why) {
  if (why === 'broken') return 'connection lost';
  if (why === 'aborted') return 'aborted by the server';
  const reason = why && why !== 'cleanly' ? ` (${why})` : '';
  return `closed by the ${by === 'server' ? 'server' : 'client'}${reason}`;
}

/** The title of an entry, with the number of repeated ones. Later servers can send kinds that are unknown here. */
export const titleOfEntry = ({ kind, times = 1 }) => `${TITLES[kind] ?? kind}${times > 1 ? ` ×${count(times)}` : ''}`;

export function describeEntry(entry) {
  const { kind, detail = '', seconds, by, sent, received } = entry;
  if (kind === 'connect') return protocolOf(entry);
  if (kind === 'behind') return `${detail}${seconds === undefined ? '' : ` · for ${duration(seconds)}`}`;
  if (kind === 'end') return `${describeReason(by, detail)} · connected ${duration(seconds)} · ${traffic(sent, received)}`;
  return detail;
}

export function buildLog({ sysChannels }) {
  const filters = LOG_KINDS.map((kind) => Object.assign(make('a', '', FILTERS[kind]), { href: writeRoute({ view: 'log', order: kind }) }));
  const kinds = Object.assign(make('nav', 'filters'), { id: 'log-kinds' });
  kinds.setAttribute('aria-label', 'Events');
  kinds.append(...filters);
  let kind = LOG_KINDS[0];
  const list = buildList({
    view: 'log',
    title: 'Connection log',
    one: 'entry',
    many: 'entries',
    sysChannels,
    placeholder: 'name, address or reason',
    tools: [kinds],
    keyOf: ({ number }) => String(number),
    orders: Object.fromEntries(LOG_KINDS.map((one) => [one, FILTERS[one].toLowerCase()])),
    columns: [
      { title: 'Time', name: 'time-cell', draw: drawTime },
      { title: 'Event', name: 'kind', draw: drawKind },
      { title: 'Client', name: 'name', draw: drawClient },
      { title: 'Remote', name: 'ends', draw: (cell, { from }) => write(cell, from, from) },
      { title: 'Details', name: 'details', draw: (cell, entry) => write(cell, describeEntry(entry)) },
    ],
    empty(found, error) {
      write(byId('log-empty-title'), found ? `Nothing found for “${found}”` : 'No entries');
      write(byId('log-empty-text'), error || (found ? 'No kind, name, address or reason contains this text.' : NOTHING[kind]));
    },
  });
  return {
    ...list,
    open(route) {
      kind = route.order;
      for (const [index, link] of filters.entries()) {
        if (!route.find && LOG_KINDS[index] === kind) link.setAttribute('aria-current', 'true');
        else link.removeAttribute('aria-current');
      }
      list.open(route);
    },
  };
}

function drawTime(cell, { at, since }) {
  if (!cell.firstChild) cell.append(make('time', 'time'));
  const date = new Date(at * 1000);
  write(cell.firstChild, clockTime(date, new Date()), `${exactTime(date)}${since ? `, the first at ${exactTime(new Date(since * 1000))}` : ''}`);
  cell.firstChild.dateTime = date.toISOString();
}

function drawKind(cell, entry) {
  write(cell, titleOfEntry(entry));
  cell.dataset.kind = entry.kind;
}

/** A rejected client has no id and no timeline. */
function drawClient(cell, entry) {
  const { id, from } = entry;
  if (id) writeLink(cell, nameOf(entry), writeRoute({ view: 'peer', id }));
  let more = cell.querySelector('.aside');
  if (!more) {
    more = make('span', 'aside');
    cell.append(more, make('span', 'detail'));
  }
  const detail = describeEntry(entry);
  write(cell.lastChild, `${titleOfEntry(entry)}${detail && ': '}${detail}`); // shown on phones, instead of two columns
  cell.lastChild.dataset.kind = entry.kind;
  write(more, id ? identityWords(entry) : from.replace(/:\d+$/, ''));
}
