/**
 * The list of events. Rows are drawn in batches, as many as a frame allows and with rests between; while somebody reads
 * further up nothing moves, and what arrives is counted. What waits beyond ROWS_SHOWN is dropped, and that is said.
 */

import { announce, byId, make, memory } from './dom.js';
import { fromCell, payloadCell, timeCell } from './event-cells.js';
import { describeGap, describePresence, plural } from './format.js';

/** Rows kept in the document: more than anybody scrolls back through here, few enough to lay out within a frame. */
export const ROWS_SHOWN = 500;

/** Notes of lost events that outlive the dropping of what waits too long: what the bridge lost is news, what the page skips is not. */
const GAPS_KEPT = 20;

/** Milliseconds one batch of rows may take to draw, by what the rows before it took: about a frame. */
const DRAWING_TIME = 16;

/** Rows drawn in one batch at least, however slow the machine. */
const BATCH_AT_LEAST = 10;

/** After drawing, the sheet rests this many times as long as it took: a flood leaves most of the tab's time to its reader. */
const REST_FACTOR = 3;

/** Milliseconds between two announcements to screen readers: about as long as one takes to be spoken. */
const ANNOUNCE_EVERY = 6000;

/** Characters of a payload in an announcement: it can be looked up, but not interrupted. */
const SAID_AT_MOST = 120;

/** Milliseconds an empty sheet waits before it teaches: events from the log are usually here by then. */
const LESSON_AFTER = 600;

/** Nicks named in one line about who came or went; the rest is counted. */
const NICKS_TOLD = 3;

/** Pixels from the end that still count as being there. */
const END_MARGIN = 32;

/** @param {{isOwn: (event: object) => boolean, drawn: (events: object[]) => void}} page */
export function buildEventList({ isOwn, drawn }) {
  const roll = byId('event-scroll');
  const list = byId('events');
  const shown = new WeakMap(); // row -> its event, to draw it anew in the other layout
  let arrived = [];
  let dropped = 0;
  let digits = 0; // of the longest offset: the margin makes room for it
  let seen = 0;
  let lost = 0;
  let passed = 0; // never drawn: they went by faster
  let following = true;
  let scheduled = false;
  let restUntil = 0;
  let timePerRow = 0.5; // milliseconds; measured from the first batch on
  const gatherings = new Map(); // kind and channel -> the note that counts who came or went since the last event
  let pretty = memory.get('layout') === 'pretty';
  byId(pretty ? 'layout-pretty' : 'layout-compact').checked = true;

  let lessonTimer;
  teachLater();

  function teachLater() {
    byId('empty-state').hidden = true;
    clearTimeout(lessonTimer);
    lessonTimer = setTimeout(() => { byId('empty-state').hidden = list.childElementCount > 0; }, LESSON_AFTER);
  }

  // ---- what arrives ----

  function add(item) {
    item.at = new Date();
    arrived.push(item);
    if (arrived.length >= 2 * ROWS_SHOWN) keepNewest(); // in a hidden tab no frame comes, and the list must not grow
    schedule();
    return item;
  }

  function keepNewest() {
    if (arrived.length <= ROWS_SHOWN) return;
    const surplus = arrived.splice(0, arrived.length - ROWS_SHOWN);
    const gaps = surplus.filter(({ kind }) => kind === 'lost').slice(-GAPS_KEPT);
    dropped += surplus.length - gaps.length;
    passed += surplus.length - gaps.length;
    arrived.unshift(...gaps);
  }

  function schedule() {
    if (scheduled) return;
    scheduled = true;
    const rest = restUntil - performance.now();
    if (rest > 0) setTimeout(() => requestAnimationFrame(draw), rest);
    else requestAnimationFrame(draw);
  }

  function draw() {
    scheduled = false;
    const counts = [[seen, 'seen'], [passed, 'not drawn'], [lost, 'lost']].filter(([count]) => count);
    byId('event-count').textContent = counts.map(([count, words]) => `${count.toLocaleString('en')} ${words}`).join(', ');
    if (following) drawArrived();
    const waiting = arrived.length + dropped;
    byId('new-events').hidden = following || !waiting;
    byId('new-events').textContent = `${waiting.toLocaleString('en')} new`;
  }

  function drawArrived() {
    const began = performance.now();
    keepNewest();
    const batch = arrived.splice(0, Math.max(BATCH_AT_LEAST, Math.floor(DRAWING_TIME / timePerRow)));
    if (!batch.length) return;
    if (dropped) batch.unshift({ kind: 'dropped', text: `${plural(dropped, 'event')} went by faster than this page shows.` });
    dropped = 0;
    const surplus = list.childElementCount + batch.length - ROWS_SHOWN;
    for (let index = 0; index < surplus && list.firstChild; index += 1) list.firstChild.remove();
    list.append(...batch.map((item) => (item.event ? eventRow(item) : noteRow(item))));
    const events = batch.filter(({ event }) => event).map(({ event }) => event);
    if (events.length) {
      byId('empty-state').hidden = true;
      drawn(events);
    }
    scrollToEnd(); // this lays the rows out, so that what is measured below is most of the cost
    const took = performance.now() - began;
    timePerRow = (timePerRow + took / batch.length) / 2;
    restUntil = began + took + REST_FACTOR * took;
    if (arrived.length) schedule();
  }

  // ---- rows ----

  function eventRow({ event, at, replayed, hue }) {
    const row = make('li', 'event');
    shown.set(row, event);
    if (String(event.offset).length > digits) {
      digits = String(event.offset).length;
      document.documentElement.style.setProperty('--digits', digits);
    }
    Object.assign(row.dataset, { channel: event.channel, offset: event.offset, hue });
    row.toggleAttribute('data-own', isOwn(event));
    row.toggleAttribute('data-replayed', replayed);
    const time = timeCell(at, replayed ? 'From the log: sent earlier, arrived here now' : 'Arrived');
    row.append(make('span', 'offset', event.offset), make('span', 'event-channel', event.channel), fromCell(event), payloadCell(event, pretty), time);
    return row;
  }

  function noteRow(note) {
    const { kind, text, at, channel, hue } = note;
    const row = make('li', 'note');
    note.row = row;
    row.dataset.kind = kind;
    if (channel) Object.assign(row.dataset, { note: channel, hue });
    row.append(make('span', 'words', text));
    if (at) row.append(timeCell(at, ''));
    return row;
  }

  // ---- reading ----

  function scrollToEnd() {
    roll.scrollTop = roll.scrollHeight;
  }

  function follow() {
    following = true;
    scrollToEnd();
    schedule();
  }

  roll.addEventListener('scroll', () => {
    following = roll.scrollHeight - roll.scrollTop - roll.clientHeight < END_MARGIN;
    if (following && arrived.length) schedule();
  }, { passive: true });

  // The keyboard of a phone, or a growing message, takes room away: who was at the end stays there.
  new ResizeObserver(() => { if (following) scrollToEnd(); }).observe(roll);

  byId('new-events').addEventListener('click', () => {
    roll.focus({ preventScroll: true }); // the button is about to go, and would take the focus with it
    follow();
  });

  function clear() {
    list.replaceChildren();
    arrived = [];
    dropped = 0;
    gatherings.clear();
    follow();
  }

  byId('clear').addEventListener('click', () => {
    clear();
    byId('empty-state').hidden = false;
  });

  for (const radio of document.querySelectorAll('input[name="layout"]')) {
    radio.addEventListener('change', () => {
      pretty = byId('layout-pretty').checked;
      memory.set('layout', radio.value);
      for (const row of list.querySelectorAll('.event')) row.querySelector('.payload').replaceWith(payloadCell(shown.get(row), pretty));
      if (following) scrollToEnd();
    });
  }

  // ---- for those who listen instead of looking: a sentence now and then, not every event ----

  let unspoken = 0;
  let latest;
  let announcing;
  function tellLater(event) {
    unspoken += 1;
    latest = event;
    announcing ??= setTimeout(() => {
      const said = typeof latest.data === 'string' ? latest.data : JSON.stringify(latest.data);
      announce(`${plural(unspoken, 'new event')}. ${latest.from} on ${latest.channel}: ${said.slice(0, SAID_AT_MOST)}`);
      announcing = undefined;
      unspoken = 0;
    }, ANNOUNCE_EVERY);
  }

  return {
    follow,
    /** Nothing has been seen yet: what comes now is about something else. */
    begin() {
      seen = lost = passed = 0;
      clear();
      teachLater();
    },
    event(event, { hue, head }) {
      gatherings.clear();
      const replayed = event.offset <= head;
      seen += 1;
      add({ event, hue, replayed });
      if (!replayed && !isOwn(event)) tellLater(event);
    },
    note(kind, text, channel) {
      gatherings.clear();
      add({ kind, text, hue: channel?.hue, channel: channel?.name });
    },
    gap(gap, channel) {
      if (gap.last) lost += gap.last - gap.first + 1; // how many an old epoch still had, nobody knows
      this.note('lost', describeGap(gap), channel);
    },
    /** All who come, or go, between two events are one line: after a restart everybody does. */
    presence(kind, { name, hue }, nick) {
      const key = `${kind} ${name}`;
      const note = gatherings.get(key);
      if (!note) {
        gatherings.set(key, add({ kind, channel: name, hue, nicks: [nick], count: 1, text: describePresence(kind, name, [nick], 1) }));
        return;
      }
      note.count += 1;
      if (note.nicks.length < NICKS_TOLD) note.nicks.push(nick);
      note.text = describePresence(kind, name, note.nicks, note.count);
      if (note.row) note.row.querySelector('.words').textContent = note.text;
    },
  };
}
