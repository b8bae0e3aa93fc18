/** One channel: what is said on it, live; its members and its log; a line to publish; and how to connect to it. */

import { buildComposer } from '../composer.js';
import { byId, make } from '../dom.js';
import { buildEventList, ROWS_SHOWN } from '../event-list.js';
import { CHANNEL_BYTES, describeError, describeAccessError, isAccessError, nameError, plural, UNVERIFIED, UNVERIFIED_HINT } from '../format.js';
import { bytes, count, rate } from './units.js';
import { oncePerFrame } from './sys-channels.js';
import { buildHistory } from './history.js';
import { writeRoute } from './routes.js';
import { write } from './table.js';

/** Events of the log that the tail begins with. */
const LAST_EVENTS = 50;

/** Members listed; the rest is counted. */
const MEMBERS_SHOWN = 100;

/** Milliseconds between two questions for who is there: joins and leaves are a reason, but not each of a thousand. */
const MEMBERS_EVERY = 2000;

export function buildChannel({ sysChannels, client, identity, connectionBar, snippets }) {
  let name = '';
  let subscription;
  let head = 0;
  let own = new Set(); // offsets published from here
  let newest = 0; // offset, of what the tail has heard: it is ahead of the figures
  let stop = () => {};
  let asking;

  const eventList = buildEventList({
    isOwn: ({ offset }) => own.has(offset),
    drawn: (events) => { if (!events.every(({ offset }) => own.has(offset))) connectionBar.pulse('in'); },
  });
  const log = buildHistory({ client });

  const composer = buildComposer({
    client,
    sending: () => eventList.follow(),
    sent(channel, offset) {
      if (channel === name) own.add(offset);
      if (own.size > ROWS_SHOWN) own.delete(own.values().next().value);
      connectionBar.pulse('out');
    },
    explain(channel, error) {
      if (!isAccessError(error)) return describeError(error);
      identity.isAsked();
      return describeAccessError('publish on', channel, error.code, identity.provedName);
    },
  });

  function listen() {
    subscription?.unsubscribe();
    subscription = client.subscribe(name, heard, {
      last: LAST_EVENTS,
      presence: true,
      onSubscribed(state) {
        head = newest = state.offset; // lower than before, where the bridge was started anew
        askMembers();
        if (state.missed && state.recovered) eventList.note('back', `Caught up: ${plural(state.missed, 'missed event')}.`);
      },
      onLost: (gap) => eventList.gap(gap, { name, hue: 0 }),
      onJoin: askLater,
      onLeave: askLater,
      onRefused(error) {
        subscription = undefined;
        if (isAccessError(error)) identity.isAsked();
        teach(isAccessError(error) ? describeAccessError('read', name, error.code, identity.provedName).slice(0, -1) : describeError(error), 'Events from before, if any, stay.');
      },
    });
  }

  function heard(event) {
    eventList.event(event, { hue: 0, head });
    newest = event.offset;
    drawNewest();
  }

  function teach(title, note) {
    write(byId('empty-title'), title);
    write(byId('empty-note'), note);
  }

  // ---- who is there ----

  function askLater() {
    asking ??= setTimeout(askMembers, MEMBERS_EVERY);
  }

  async function askMembers() {
    clearTimeout(asking);
    asking = undefined;
    const asked = name;
    try {
      const members = await client.who(asked);
      if (asked === name) showMembers(members);
    } catch { /* the connection broke, or we may not: the subscription tells */ }
  }

  function showMembers(members) {
    const mine = client.peer?.id;
    const rows = [...members].sort((a, b) => (b.id === mine) - (a.id === mine)).slice(0, MEMBERS_SHOWN).map(({ id, nick }) => {
      const row = make('li');
      const link = make('a', '', nick);
      link.href = writeRoute({ view: 'peer', id });
      link.title = nick.startsWith(UNVERIFIED) ? `${id}. ${UNVERIFIED_HINT}` : id;
      row.append(link, id === mine ? ' (this console)' : '');
      return row;
    });
    if (members.length > rows.length) rows.push(make('li', 'others', `and ${plural(members.length - rows.length, 'other')}`));
    const focused = [...byId('members').querySelectorAll('a')].indexOf(document.activeElement);
    byId('members').replaceChildren(...rows);
    if (focused >= 0) byId('members').querySelectorAll('a')[Math.min(focused, rows.length - 1)]?.focus();
    write(byId('members-count'), members.length.toLocaleString('en'));
    write(byId('members-none'), members.length <= 1 ? 'Nobody but this console. Take one of the ways above, and you stand here twice.' : '');
  }

  // ---- the figures, from the list of channels ----

  function told(data) {
    const found = data?.channels?.find(({ channel }) => channel === name);
    if (found) showFacts(found);
  }

  function showFacts({ readers, rate: speed, events, bytes: size, offset, epoch }) {
    newest = Math.max(newest, offset);
    const facts = [
      ['Readers', count(readers), ''],
      ['Events a second', rate(speed), ''],
      ['In the log', events ? `${plural(events, 'event')}, ${bytes(size)}` : 'nothing', `${size.toLocaleString('en')} bytes`],
      ['Newest event', newest.toLocaleString('en'), `Of epoch ${epoch}: the name of this run of numbers`],
    ];
    const box = byId('channel-facts');
    if (box.childElementCount !== facts.length) {
      box.replaceChildren(...facts.map(([title]) => {
        const entry = make('div');
        entry.append(make('dt', '', title), make('dd'));
        return entry;
      }));
    }
    for (const [index, [, value, title]] of facts.entries()) {
      write(box.children[index].lastChild, value);
      box.children[index].title = title;
    }
  }

  const drawNewest = oncePerFrame(() => {
    const entry = byId('channel-facts').lastElementChild;
    if (entry) write(entry.lastChild, newest.toLocaleString('en'));
  });

  return {
    title: () => name,
    enter(route) {
      name = route.name;
      own = new Set();
      head = newest = 0;
      byId('channel-title').textContent = name;
      byId('channel-select').value = name;
      byId('channel-facts').replaceChildren();
      byId('members').replaceChildren();
      write(byId('members-count'), '');
      write(byId('members-none'), '');
      const fault = nameError(name, CHANNEL_BYTES);
      teach(fault ? 'No channel can have this name' : `All quiet on ${name}`, fault || 'What is published comes out here. Write something below, or connect to it in one of the ways beside.');
      eventList.begin();
      log.begin(name);
      composer.shown();
      snippets.showFor(name);
      if (fault) return;
      listen();
      stop = sysChannels.follow(`$sys/channels/find/${name}`, told, 1, true);
    },
    leave() {
      clearTimeout(asking);
      asking = undefined;
      subscription?.unsubscribe();
      subscription = undefined;
      stop();
      stop = () => {};
    },
    /** More may be allowed than before. */
    again() {
      if (name && !subscription) listen();
    },
    summary: () => '',
  };
}
