/** The view of one client: facts, connection timeline, and a button to disconnect it. */

import { copyFrom } from '../copy.js';
import { byId, make, oncePerFrame } from '../dom.js';
import { plural } from '../format.js';
import { buildDisconnectDialog } from './disconnect-dialog.js';
import { writeRoute } from './routes.js';
import { counted, nameOf, protocolOf, stateOf } from './peers.js';
import { write, writeLink } from './table.js';
import { drawSteps, timelineText } from './timeline.js';
import { age, bytes, duration } from './units.js';

/** The client is shown as missing if no data arrives in this time: the server replies at once. */
const RESPONSE_TIMEOUT_MS = 3000;

const FACTS = [
  ['Id', ({ id }) => id],
  ['Name', ({ nick, id }) => (nick === id ? 'none' : nick), 'The name that the client has chosen, or the one in its token'],
  ['Identity', ({ subject }) => subject || 'none', 'The subject of its token or certificate'],
  ['Protocol', protocolOf],
  ['Connected for', (peer) => age(peer.age)],
  ['Channels', ({ channels }) => channels.toLocaleString('en'), 'Channels to which it is subscribed'],
  ['Behind', ({ lag, behind }) => (lag ? `${plural(lag, 'event')} on ${plural(behind, 'channel')}` : 'up to date'), 'Events that have been published but not sent to this client'],
  ['Unsent', ({ unsent }) => counted(unsent, bytes), 'Bytes waiting in the socket buffer'],
  ['Sent', ({ sent }) => counted(sent, bytes), 'From the server to the client'],
  ['Received', ({ received }) => counted(received, bytes), 'From the client by the server'],
  ['Round trip', ({ rtt_ms: rtt }) => counted(rtt || null, (milliseconds) => duration(milliseconds / 1000)), 'Measured by the kernel or by a ping'],
];

/** Draws the channels to which a client is subscribed, those furthest behind first. The server lists a limited number. */
function drawSubscriptions(total, rows) {
  byId('peer-channels-block').hidden = !rows.length;
  const list = byId('peer-channels');
  for (const [index, { channel, lag }] of rows.entries()) {
    if (!list.children[index]) {
      const row = make('li');
      row.append(make('span', 'id'), make('span', 'figure'));
      list.append(row);
    }
    const [name, state] = list.children[index].children;
    writeLink(name, channel, writeRoute({ view: 'channel', name: channel })).title = channel;
    write(state, lag ? `${plural(lag, 'event')} behind` : 'up to date');
    state.dataset.state = lag ? 'behind' : '';
  }
  while (list.children.length > rows.length) list.lastChild.remove();
  const hidden = total - rows.length;
  write(byId('peer-channels-more'), hidden > 0 ? `and ${plural(hidden, 'channel')} that ${hidden === 1 ? 'is' : 'are'} less far behind` : '');
}

export function buildPeer({ sysChannels, client }) {
  const disconnectDialog = buildDisconnectDialog({ client });
  const facts = FACTS.map(([name, , title]) => {
    const entry = make('div');
    const value = make('dd');
    if (title) entry.title = title;
    entry.append(make('dt', '', name), value);
    byId('peer-facts').append(entry);
    return value;
  });
  let id = '';
  let newest;
  let unsubscribe = () => {};
  let missingTimer;

  const draw = oncePerFrame(() => {
    if (!newest) return;
    const { peer, steps } = newest;
    const over = steps.some(({ step }) => step === 'closed');
    const open = !over && !steps.some(({ step }) => step === 'closing');
    byId('peer-loading').hidden = byId('peer-gone').hidden = true;
    byId('peer-details').hidden = false;
    byId('disconnect').hidden = !open;
    if (peer) {
      write(byId('peer-title'), nameOf(peer));
      write(byId('peer-state'), over ? 'disconnected' : `${stateOf(peer)}${peer.id === client.peer?.id ? ', this console' : ''}`);
      byId('peer-connection').dataset.state = over ? 'closed' : stateOf(peer) === 'caught up' ? 'open' : 'waiting';
      write(byId('peer-from'), peer.from);
      write(byId('peer-to'), peer.to);
      for (const [index, [, read]] of FACTS.entries()) write(facts[index], read(peer));
    }
    drawSteps(byId('steps'), steps);
    drawSubscriptions(peer?.channels ?? 0, newest.subscriptions);
  });

  function onData(data) {
    if (!data?.steps) return;
    if (!data.peer && !data.steps.length) { // neither connected nor recently disconnected
      showMissing();
      return;
    }
    clearTimeout(missingTimer);
    // When the connection closes, the last subscriptions stay visible.
    const closing = data.steps.some(({ step }) => step === 'closing' || step === 'closed');
    const subscriptions = data.subscriptions ?? ((closing && newest?.subscriptions) || []);
    newest = { peer: data.peer ?? newest?.peer, steps: data.steps, subscriptions };
    draw();
  }

  function showMissing() {
    clearTimeout(missingTimer);
    newest = undefined;
    byId('peer-loading').hidden = byId('peer-details').hidden = byId('disconnect').hidden = true;
    byId('peer-gone').hidden = false;
    write(byId('peer-state'), '');
  }

  byId('steps-copy').addEventListener('click', () => copyFrom(byId('steps-copy'), timelineText(newest.peer, newest.steps), byId('steps')));
  byId('disconnect').addEventListener('click', () => disconnectDialog.open(id, newest?.peer ? nameOf(newest.peer) : id));

  return {
    title: () => (newest?.peer ? nameOf(newest.peer) : id),
    open(route) {
      id = route.id;
      newest = undefined;
      byId('steps').replaceChildren();
      write(byId('peer-title'), id);
      write(byId('peer-state'), '');
      byId('disconnect').hidden = byId('peer-details').hidden = byId('peer-gone').hidden = true;
      byId('peer-loading').hidden = false;
      missingTimer = setTimeout(showMissing, RESPONSE_TIMEOUT_MS);
      unsubscribe = sysChannels.subscribe(`$sys/peer/${id}`, onData);
    },
    close() {
      clearTimeout(missingTimer);
      unsubscribe();
    },
  };
}
