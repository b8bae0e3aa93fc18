/** The list of peers: who is connected, from where, and how far each is with what it reads. */

import { byId, make } from '../dom.js';
import { plural } from '../format.js';
import { age, bytes, count, duration } from './units.js';
import { buildList } from './list-view.js';
import { writeRoute } from './routes.js';
import { write, writeLink } from './table.js';

const DIALECTS = { line: 'lines', json: 'JSON', events: 'SSE' };

/** How a peer is called here: the name that others see, or its id. */
export const nameOf = ({ id, nick }) => nick || id;

/** Its id and the subject of its token, as far as they are not its name. */
export function identityWords(peer) {
  const name = nameOf(peer);
  return [...new Set([peer.id, peer.subject])].filter((word) => word && word !== name).join(', ');
}

export const protocolOf = ({ dialect }) => DIALECTS[dialect] ?? dialect;

const exactly = (size) => `${size.toLocaleString('en')} bytes`;

/** A figure that not every socket has. */
export const counted = (value, format) => (typeof value === 'number' ? format(value) : '–');

/** What it does, in a word or two. */
export function stateOf({ state, behind, lag }) {
  if (state !== 'open') return state;
  return behind || lag ? 'behind' : 'caught up';
}

export function buildPeers({ sysChannels, client }) {
  return buildList({
    view: 'peers',
    one: 'peer',
    sysChannels,
    keyOf: ({ id }) => id,
    orders: { newest: 'the newest first', lag: 'the furthest behind first', sent: 'who was sent the most first', id: 'by id' },
    columns: [
      { title: 'Peer', name: 'name', order: 'id', rising: true, draw: (cell, peer) => drawName(cell, peer, client.peer?.id) },
      { title: 'Dialect', name: 'dialect less', draw: (cell, peer) => write(cell, protocolOf(peer)) },
      { title: 'Its end', name: 'ends', draw: (cell, { from }) => write(cell, from, from) },
      { title: 'Our end', name: 'ends least', draw: (cell, { to }) => write(cell, to, to) },
      { title: 'Age', name: 'number', order: 'newest', rising: true, draw: (cell, peer) => write(cell, age(peer.age).split(' ')[0], age(peer.age)) },
      { title: 'State', name: 'state-cell less', draw: drawState },
      {
        title: 'Behind',
        name: 'number',
        order: 'lag',
        draw: (cell, { lag, behind }) => write(cell, lag ? count(lag) : '0', lag ? `${plural(lag, 'event')} on ${plural(behind, 'channel')}` : 'It has all that there is'),
      },
      { title: 'Unsent', name: 'number least', draw: (cell, { unsent }) => write(cell, counted(unsent, bytes), 'Bytes that wait for room in its socket') },
      { title: 'Sent', name: 'number less', order: 'sent', draw: (cell, { sent }) => write(cell, counted(sent, bytes), counted(sent, exactly)) },
      { title: 'Received', name: 'number least', draw: (cell, { received }) => write(cell, counted(received, bytes), counted(received, exactly)) },
      { title: 'Round trip', name: 'number least', draw: (cell, { rtt_ms: rtt }) => write(cell, counted(rtt || null, (milliseconds) => duration(milliseconds / 1000))) },
    ],
    empty(found, fault) {
      write(byId('peers-empty-title'), found ? `Nobody found for “${found}”` : 'Nobody is connected');
      write(byId('peers-empty-text'), fault || (found ? 'No peer has that in its id, its name or its address.' : 'Not even you: the list is on its way.'));
    },
  });
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
