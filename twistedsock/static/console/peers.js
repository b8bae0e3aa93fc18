/** The list of clients with address, state, lag and traffic. */

import { byId, make } from '../dom.js';
import { plural } from '../format.js';
import { buildList } from './list-view.js';
import { writeRoute } from './routes.js';
import { write, writeLink } from './table.js';
import { age, bytes, count, duration } from './units.js';

const PROTOCOLS = { line: 'lines', json: 'JSON', events: 'SSE', http: 'HTTP' };

/** The name of a client, or its id. */
export const nameOf = ({ id, nick }) => nick || id;

/** The id and the verified subject of a client, without repeating its name. */
export function identityWords(peer) {
  const name = nameOf(peer);
  return [...new Set([peer.id, peer.subject])].filter((word) => word && word !== name).join(', ');
}

export const protocolOf = ({ dialect }) => PROTOCOLS[dialect] ?? dialect;

const exactBytes = (size) => `${size.toLocaleString('en')} bytes`;

/** Formats a number that some sockets do not provide. */
export const counted = (value, format) => (typeof value === 'number' ? format(value) : '–');

export function stateOf({ state, behind, lag }) {
  if (state !== 'open') return state;
  return behind || lag ? 'behind' : 'caught up';
}

export function buildPeers({ sysChannels, client }) {
  let unsubscribe;
  const slow = make('a', 'slow-link');
  Object.assign(slow, { id: 'peers-slow', href: writeRoute({ view: 'peers', order: 'lag' }), hidden: true });
  const list = buildList({
    view: 'peers',
    title: 'Clients',
    one: 'client',
    sysChannels,
    placeholder: 'id, name or address',
    tools: [slow],
    keyOf: ({ id }) => id,
    orders: { newest: 'newest first', lag: 'furthest behind first', sent: 'most data sent first', id: 'by id' },
    columns: [
      { title: 'Client', name: 'name', order: 'id', rising: true, draw: (cell, peer) => drawName(cell, peer, client.peer?.id) },
      { title: 'Protocol', name: 'dialect less', draw: (cell, peer) => write(cell, protocolOf(peer)) },
      { title: 'Remote', name: 'ends', draw: (cell, { from }) => write(cell, from, from) },
      { title: 'Age', name: 'number', order: 'newest', rising: true, draw: (cell, peer) => write(cell, age(peer.age).split(' ')[0], age(peer.age)) },
      { title: 'State', name: 'state-cell less', draw: drawState },
      {
        title: 'Behind',
        name: 'number',
        order: 'lag',
        draw(cell, { lag, behind }) {
          write(cell, lag ? count(lag) : '0', lag ? `${plural(lag, 'event')} on ${plural(behind, 'channel')}` : 'Up to date');
          cell.dataset.state = lag ? 'behind' : '';
        },
      },
      { title: 'Unsent', name: 'number least', draw: (cell, { unsent }) => write(cell, counted(unsent, bytes), 'Bytes waiting in the socket buffer') },
      { title: 'Sent', name: 'number less', order: 'sent', draw: (cell, { sent }) => write(cell, counted(sent, bytes), counted(sent, exactBytes)) },
      { title: 'Received', name: 'number least', draw: (cell, { received }) => write(cell, counted(received, bytes), counted(received, exactBytes)) },
      { title: 'Round trip', name: 'number least', draw: (cell, { rtt_ms: rtt }) => write(cell, counted(rtt || null, (milliseconds) => duration(milliseconds / 1000))) },
    ],
    empty(found, error) {
      write(byId('peers-empty-title'), found ? `Nothing found for “${found}”` : 'No clients');
      write(byId('peers-empty-text'), error || (found ? 'No id, name or address of a client contains this text.' : 'This console will appear here, too.'));
    },
  });

  /** Offers the order by lag while clients are slow: they are hard to find among others. */
  function showSlow(figures) {
    slow.hidden = !figures?.behind;
    write(slow, `${count(figures?.behind ?? 0)} slow`);
  }

  return {
    ...list,
    open(route) {
      unsubscribe = sysChannels.subscribe('$sys/figures', showSlow, 1, true);
      list.open(route);
    },
    close() {
      unsubscribe();
      list.close();
    },
  };
}

function drawName(cell, peer, mine) {
  writeLink(cell, nameOf(peer), writeRoute({ view: 'peer', id: peer.id }));
  let more = cell.querySelector('.aside');
  if (!more) {
    more = make('span', 'aside');
    cell.append(more);
  }
  write(more, [identityWords(peer), peer.id === mine ? 'this console' : ''].filter(Boolean).join(', '));
}

function drawState(cell, peer) {
  const state = stateOf(peer);
  write(cell, state);
  if (cell.dataset.state !== state) cell.dataset.state = state;
}
