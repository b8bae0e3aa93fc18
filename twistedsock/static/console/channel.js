/** The view of one channel: live events, subscribers, history, a form to publish, and snippets to connect. */

import { buildComposer } from '../composer.js';
import { byId, make, oncePerFrame } from '../dom.js';
import { buildEventList, ROWS_SHOWN } from '../event-list.js';
import { buildEventTools } from '../event-tools.js';
import {
  CHANNEL_BYTES, describeAccessError, describeError, isAccessError, nameError, plural, UNVERIFIED, UNVERIFIED_HINT,
} from '../format.js';
import { buildValueChart } from '../value-chart.js';
import { ChannelValues, ServerClock } from '../values.js';
import { buildHistory } from './history.js';
import { writeRoute } from './routes.js';
import { write } from './table.js';
import { bytes, count, rate } from './units.js';

/** Events of the history that are shown at first. */
const LAST_EVENTS = 50;

/** Maximum number of subscribers listed. The others are counted. */
const MEMBERS_SHOWN = 100;

/** Minimum interval between two requests for the members, however many join or leave. */
const MEMBERS_INTERVAL_MS = 2000;

export function buildChannel({ sysChannels, client, identity, connectionBar, snippets }) {
  let name = '';
  let subscription;
  let head = 0;
  let own = new Set(); // offsets of events published here
  let received = 0; // offset of the newest event received
  let newest = 0; // offset of the newest event, as the server or the metrics last reported it
  let unsubscribe = () => {};
  let membersTimer;

  const eventList = buildEventList({
    isOwn: ({ offset }) => own.has(offset),
    drawn: (events) => { if (!events.every(({ offset }) => own.has(offset))) connectionBar.pulse('in'); },
  });
  const eventTools = buildEventTools({
    client,
    eventList,
    channels: () => (subscription ? [{ name, hue: 0 }] : []),
    hasToken: () => identity.hasToken,
  });
  const history = buildHistory({ client });
  const clock = new ServerClock();
  const chart = buildValueChart({ client, clock });
  let values;

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
      identity.requestToken();
      return describeAccessError('publish on', channel, error.code, identity.verifiedName);
    },
  });

  function subscribe() {
    subscription?.unsubscribe();
    subscription = client.subscribe(name, onEvent, {
      last: LAST_EVENTS,
      presence: true,
      onSubscribed(state) {
        head = newest = state.offset; // lower than before if the server has restarted
        loadMembers();
        if (state.missed && state.recovered) eventList.note('back', `Caught up: ${plural(state.missed, 'missed event')}.`);
      },
      onLost(gap) {
        eventList.gap(gap, { name, hue: 0 });
        if (gap.reason === 'epoch') startAt(0);
      },
      onReset(reset) {
        eventList.epochReset(reset, received, { name, hue: 0 });
        startAt(reset.offset);
      },
      onJoin: loadMembersLater,
      onLeave: loadMembersLater,
      onRefused(error) {
        subscription = undefined;
        if (isAccessError(error)) identity.requestToken();
        showEmptyState(isAccessError(error) ? describeAccessError('read', name, error.code, identity.verifiedName).slice(0, -1) : describeError(error), 'Events received before stay visible.');
      },
    });
  }

  /** Starts an epoch whose events after this offset follow. */
  function startAt(offset) {
    values?.restart(offset);
    head = newest = received = offset;
    own = new Set();
  }

  function onEvent(event) {
    eventList.event(event, { hue: 0, head });
    newest = received = event.offset;
    if (event.offset > head) clock.adjust(event.time);
    if (values.add(event)) chart.changed(values);
    drawNewest();
  }

  function showEmptyState(title, note) {
    write(byId('empty-title'), title);
    write(byId('empty-note'), note);
  }

  // ---- members ----

  function loadMembersLater() {
    membersTimer ??= setTimeout(loadMembers, MEMBERS_INTERVAL_MS);
  }

  async function loadMembers() {
    clearTimeout(membersTimer);
    membersTimer = undefined;
    const requested = name;
    try {
      const members = await client.who(requested);
      if (requested === name) showMembers(members);
    } catch { /* disconnected or not permitted: the subscription shows the reason */ }
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
    if (members.length > rows.length) rows.push(make('li', 'others', `and ${(members.length - rows.length).toLocaleString('en')} more`));
    const focused = [...byId('members').querySelectorAll('a')].indexOf(document.activeElement);
    byId('members').replaceChildren(...rows);
    if (focused >= 0) byId('members').querySelectorAll('a')[Math.min(focused, rows.length - 1)]?.focus();
    write(byId('members-count'), members.length.toLocaleString('en'));
    write(byId('members-none'), members.length <= 1 ? 'Only this console. Connect with a snippet above, and that connection will appear here, too.' : '');
  }

  // ---- metrics, from the list of channels ----

  function onList(data) {
    const found = data?.channels?.find(({ channel }) => channel === name);
    if (found) showFacts(found);
  }

  function showFacts({ readers, rate: speed, events, bytes: size, offset, epoch }) {
    newest = Math.max(newest, offset);
    const facts = [
      ['Subscribers', count(readers), ''],
      ['Events/s', rate(speed), ''],
      ['History', events ? `${plural(events, 'event')}, ${bytes(size)}` : 'empty', `${size.toLocaleString('en')} bytes`],
      ['Last offset', newest.toLocaleString('en'), `In epoch ${epoch}`],
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
    open(route) {
      name = route.name;
      values = undefined;
      startAt(0);
      values = new ChannelValues();
      byId('channel-title').textContent = name;
      byId('channel-select').value = name;
      byId('channel-facts').replaceChildren();
      byId('members').replaceChildren();
      write(byId('members-count'), '');
      write(byId('members-none'), '');
      const error = nameError(name, CHANNEL_BYTES);
      showEmptyState(error ? 'Invalid channel name' : `No events on ${name} yet`, error || 'New events appear here. Publish something below, or connect with a snippet on the right.');
      eventList.reset();
      eventTools.reset();
      history.reset(name);
      composer.shown();
      snippets.showFor(name);
      if (error) {
        chart.show(name);
        return;
      }
      subscribe();
      chart.show(name, values);
      unsubscribe = sysChannels.subscribe(`$sys/channels/find/${name}`, onList, 1, true);
    },
    close() {
      clearTimeout(membersTimer);
      membersTimer = undefined;
      subscription?.unsubscribe();
      subscription = undefined;
      unsubscribe();
      unsubscribe = () => {};
    },
    /** Called when the permissions can have changed. */
    resume() {
      if (name && !subscription) subscribe();
    },
  };
}
