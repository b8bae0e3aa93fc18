/** One peer: what is known of it, what its socket went through, and the button that ends it. */

import { byId, make } from '../dom.js';
import { plural } from '../format.js';
import { buildDisconnectDialog } from './disconnect-dialog.js';
import { age, bytes, duration } from './units.js';
import { oncePerFrame } from './sys-channels.js';
import { counted, protocolOf, nameOf, stateOf } from './peers.js';
import { write } from './table.js';
import { drawSteps } from './timeline.js';

/** Milliseconds until nobody is expected to answer: the bridge answers at once. */
const GONE_AFTER = 3000;

const FACTS = [
  ['Id', ({ id }) => id],
  ['Name', ({ nick, id }) => (nick === id ? 'none' : nick), 'What it calls itself, or what its token proves'],
  ['Token of', ({ subject }) => subject || 'nobody', 'The subject that its token or certificate names'],
  ['Dialect', protocolOf],
  ['Connected for', (peer) => age(peer.age)],
  ['Channels', ({ channels }) => channels.toLocaleString('en'), 'Channels that it reads'],
  ['Behind by', ({ lag, behind }) => (lag ? `${plural(lag, 'event')} on ${plural(behind, 'channel')}` : 'nothing'), 'What others have got and it has not'],
  ['Unsent', ({ unsent }) => counted(unsent, bytes), 'Bytes that wait for room in its socket'],
  ['Sent to it', ({ sent }) => counted(sent, bytes)],
  ['Received from it', ({ received }) => counted(received, bytes)],
  ['Round trip', ({ rtt_ms: rtt }) => counted(rtt || null, (milliseconds) => duration(milliseconds / 1000)), 'As the kernel, or a ping, has measured it'],
];

export function buildPeer({ sysChannels, client }) {
  const disconnect = buildDisconnectDialog({ client });
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
  let stop = () => {};
  let waiting;

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
      write(byId('peer-state'), over ? 'gone' : `${stateOf(peer)}${peer.id === client.peer?.id ? ', this console' : ''}`);
      byId('peer-connection').dataset.state = over ? 'closed' : stateOf(peer) === 'caught up' ? 'open' : 'waiting';
      write(byId('peer-from'), peer.from);
      write(byId('peer-to'), peer.to);
      for (const [index, [, read]] of FACTS.entries()) write(facts[index], read(peer));
    }
    drawSteps(byId('steps'), steps);
  });

  function told(data) {
    if (!data?.steps) return;
    if (!data.peer && !data.steps.length) { // nobody has this id, and it is not among those that left last
      gone();
      return;
    }
    clearTimeout(waiting);
    newest = { peer: data.peer ?? newest?.peer, steps: data.steps };
    draw();
  }

  function gone() {
    clearTimeout(waiting);
    newest = undefined;
    byId('peer-loading').hidden = byId('peer-details').hidden = byId('disconnect').hidden = true;
    byId('peer-gone').hidden = false;
    write(byId('peer-state'), '');
  }

  byId('disconnect').addEventListener('click', () => disconnect.ask(id, newest?.peer ? nameOf(newest.peer) : id));

  return {
    title: () => (newest?.peer ? nameOf(newest.peer) : id),
    enter(route) {
      id = route.id;
      newest = undefined;
      byId('steps').replaceChildren();
      write(byId('peer-title'), id);
      write(byId('peer-state'), '');
      byId('disconnect').hidden = byId('peer-details').hidden = byId('peer-gone').hidden = true;
      byId('peer-loading').hidden = false;
      waiting = setTimeout(gone, GONE_AFTER);
      stop = sysChannels.follow(`$sys/peer/${id}`, told);
    },
    leave() {
      clearTimeout(waiting);
      stop();
    },
    summary: () => '',
  };
}
