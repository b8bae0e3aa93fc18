/**
 * The list of events, sorted by time. Rows are drawn in batches that fit into a frame, with pauses between them. While the
 * user has scrolled up, nothing moves and new events are counted. If more than ROWS_SHOWN are queued, the oldest are
 * skipped, and a note reports it.
 */

import { announce, byId, make, memory } from './dom.js';
import { fromCell, payloadCell, timeCell, updateTimeCell } from './event-cells.js';
import { describeGap, describePresence, describeReset, plural } from './format.js';

/** Maximum number of rows in the document: few enough for a layout within one frame. */
export const ROWS_SHOWN = 500;

/** Maximum number of notes about missed events that are kept when queued rows are skipped. */
const MAX_QUEUED_GAPS = 20;

/** Time for drawing one batch: about one frame. The number of rows follows from the duration of previous batches. */
const BATCH_TIME_MS = 16;

/** Minimum number of rows per batch, even on slow machines. */
const MIN_BATCH_ROWS = 10;

/** The pause after a batch, as a multiple of its duration, so that the tab stays responsive under a flood of events. */
const REST_FACTOR = 3;

/** Interval between announcements to screen readers: about the time it takes to speak one. */
const ANNOUNCE_INTERVAL_MS = 6000;

/** Maximum length of a payload in an announcement, which the user cannot interrupt. */
const MAX_ANNOUNCED_CHARACTERS = 120;

/** Delay before an empty list shows instructions: events from the history usually arrive within it. */
const EMPTY_STATE_DELAY_MS = 600;

/** Maximum number of names in a note about joins or leaves. The others are counted. */
const MAX_NICKS = 3;

/** Joins and leaves within this time are combined in one note. Later ones get a note with a time of their own. */
const PRESENCE_NOTE_MS = 10_000;

/** Interval between updates of texts such as `5 min ago`. */
const TIME_UPDATE_MS = 20_000;

/** Live events are not moved above others that are later by more than this: the clock of the server has been set back. */
const MAX_DISORDER_MS = 60_000;

/** Distance from the end of the list that still counts as the end. */
const END_MARGIN_PX = 32;

/**
 * True if an item belongs above another one that was added before it. Channels are replayed one after the other, and a slow
 * page also receives new events channel by channel: events are sorted by time. They stay below notes, which explain what
 * follows. Only notes about joins and leaves explain nothing about events of the history.
 */
function belongsAbove({ event, replayed }, other) {
  if (!event) return false;
  if (!other.event) return replayed && ['join', 'leave'].includes(other.kind);
  const earlierBy = other.event.time - event.time;
  return earlierBy > 0 && (replayed || earlierBy < MAX_DISORDER_MS);
}

/** @param {{isOwn: (event: object) => boolean, drawn: (events: object[]) => void}} page */
export function buildEventList({ isOwn, drawn }) {
  const scroller = byId('event-scroll');
  const list = byId('events');
  const items = new WeakMap(); // row -> item
  let queue = [];
  let dropped = 0;
  let offsetDigits = 0; // of the longest offset; determines the width of the margin
  let seen = 0;
  let lost = 0;
  let skipped = 0; // never drawn
  let following = true;
  let scheduled = false;
  let restUntil = 0;
  let timePerRow = 0.5; // milliseconds, measured from the first batch on
  const presenceNotes = new Map(); // kind and channel -> the note to which further joins or leaves are added
  let pretty = memory.get('layout') === 'pretty';
  byId(pretty ? 'layout-pretty' : 'layout-compact').checked = true;

  let emptyTimer;
  showEmptyStateLater();

  function showEmptyStateLater() {
    byId('empty-state').hidden = true;
    clearTimeout(emptyTimer);
    emptyTimer = setTimeout(() => { byId('empty-state').hidden = list.childElementCount > 0; }, EMPTY_STATE_DELAY_MS);
  }

  // ---- queue ----

  function add(item) {
    item.at = new Date(item.event?.time ?? Date.now()); // older servers send no time
    let index = queue.length;
    while (index > 0 && belongsAbove(item, queue[index - 1])) index -= 1;
    queue.splice(index, 0, item);
    if (queue.length >= 2 * ROWS_SHOWN) dropOldest(); // hidden tabs do not draw, and the queue must not grow
    schedule();
    return item;
  }

  function dropOldest() {
    if (queue.length <= ROWS_SHOWN) return;
    const excess = queue.splice(0, queue.length - ROWS_SHOWN);
    const gaps = excess.filter(({ kind }) => kind === 'lost').slice(-MAX_QUEUED_GAPS);
    dropped += excess.length - gaps.length;
    skipped += excess.length - gaps.length;
    queue.unshift(...gaps);
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
    const counts = [[skipped, 'skipped'], [lost, 'missed']].filter(([count]) => count);
    const details = counts.map(([count, label]) => `${count.toLocaleString('en')} ${label}`);
    byId('event-count').textContent = [...(seen ? [plural(seen, 'event')] : []), ...details].join(', ');
    if (following) drawBatch();
    const waiting = queue.length + dropped;
    byId('new-events').hidden = following || !waiting;
    byId('new-events').textContent = `${waiting.toLocaleString('en')} new`;
  }

  function drawBatch() {
    const startedAt = performance.now();
    dropOldest();
    const batch = queue.splice(0, Math.max(MIN_BATCH_ROWS, Math.floor(BATCH_TIME_MS / timePerRow)));
    if (!batch.length) return;
    if (dropped) batch.unshift({ kind: 'dropped', text: `${plural(dropped, 'event')} skipped: faster than the page can draw.` });
    dropped = 0;
    for (const item of batch) insert(item);
    while (list.childElementCount > ROWS_SHOWN) list.firstChild.remove();
    const events = batch.filter(({ event }) => event).map(({ event }) => event);
    if (events.length) {
      byId('empty-state').hidden = true;
      drawn(events);
    }
    scrollToEnd(); // forces a layout, which is most of the measured duration
    const duration = performance.now() - startedAt;
    timePerRow = (timePerRow + duration / batch.length) / 2;
    restUntil = startedAt + duration + REST_FACTOR * duration;
    if (queue.length) schedule();
  }

  // ---- rows ----

  function insert(item) {
    const row = item.event ? eventRow(item) : noteRow(item);
    items.set(row, item);
    let next = null;
    let previous = list.lastElementChild;
    while (previous && belongsAbove(item, items.get(previous))) {
      next = previous;
      previous = previous.previousElementSibling;
    }
    list.insertBefore(row, next);
  }

  function eventRow({ event, at, replayed, hue }) {
    const row = make('li', 'event');
    if (String(event.offset).length > offsetDigits) {
      offsetDigits = String(event.offset).length;
      document.documentElement.style.setProperty('--digits', offsetDigits);
    }
    Object.assign(row.dataset, { channel: event.channel, offset: event.offset, hue });
    row.toggleAttribute('data-own', isOwn(event));
    row.toggleAttribute('data-replayed', replayed);
    row.append(
      make('span', 'offset', event.offset), make('span', 'event-channel', event.channel), fromCell(event), payloadCell(event, pretty), timeCell(at, replayed),
    );
    return row;
  }

  function noteRow(note) {
    const { kind, text, at, channel, hue } = note;
    const row = make('li', 'note');
    note.row = row;
    row.dataset.kind = kind;
    if (channel) Object.assign(row.dataset, { note: channel, hue });
    row.append(make('span', 'note-text', text));
    if (at) row.append(timeCell(at));
    return row;
  }

  setInterval(() => {
    const now = new Date();
    for (const cell of list.querySelectorAll('.time')) updateTimeCell(cell, now);
  }, TIME_UPDATE_MS);

  /** Changes the text of a note, drawn or not. */
  function rewrite(note, text) {
    note.text = text;
    if (note.row) note.row.querySelector('.note-text').textContent = text;
  }

  // ---- scrolling ----

  function scrollToEnd() {
    scroller.scrollTop = scroller.scrollHeight;
  }

  function follow() {
    following = true;
    scrollToEnd();
    schedule();
  }

  scroller.addEventListener('scroll', () => {
    following = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < END_MARGIN_PX;
    if (following && queue.length) schedule();
  }, { passive: true });

  // Stay at the end when the keyboard of a phone or a growing message makes the list smaller.
  new ResizeObserver(() => { if (following) scrollToEnd(); }).observe(scroller);

  byId('new-events').addEventListener('click', () => {
    scroller.focus({ preventScroll: true }); // the button is about to disappear together with its focus
    follow();
  });

  function clear() {
    list.replaceChildren();
    queue = [];
    dropped = 0;
    presenceNotes.clear();
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
      for (const row of list.querySelectorAll('.event')) row.querySelector('.payload').replaceWith(payloadCell(items.get(row).event, pretty));
      if (following) scrollToEnd();
    });
  }

  // ---- screen readers: a summary at intervals instead of every event ----

  let unannounced = 0;
  let latest;
  let announcing;
  function announceLater(event) {
    unannounced += 1;
    latest = event;
    announcing ??= setTimeout(() => {
      const text = typeof latest.data === 'string' ? latest.data : JSON.stringify(latest.data);
      announce(`${plural(unannounced, 'new event')}. ${latest.from} on ${latest.channel}: ${text.slice(0, MAX_ANNOUNCED_CHARACTERS)}`);
      announcing = undefined;
      unannounced = 0;
    }, ANNOUNCE_INTERVAL_MS);
  }

  return {
    follow,
    /** Starts an empty list, for another channel. */
    reset() {
      seen = lost = skipped = 0;
      clear();
      showEmptyStateLater();
    },
    event(event, { hue, head }) {
      presenceNotes.clear();
      const replayed = event.offset <= head;
      seen += 1;
      add({ event, hue, replayed });
      if (!replayed && !isOwn(event)) announceLater(event);
    },
    note(kind, text, channel) {
      presenceNotes.clear();
      return add({ kind, text, hue: channel?.hue, channel: channel?.name });
    },
    rewrite,
    gap(gap, channel) {
      if (gap.last) lost += gap.last - gap.first + 1; // the number is unknown if the epoch has changed
      this.note('lost', describeGap(gap), channel);
    },
    epochReset(reset, newest, channel) {
      const text = describeReset(reset, newest);
      if (newest > reset.good) announce(text);
      this.note(newest > reset.good ? 'reset' : 'notice', text, channel);
    },
    /** Adds a join or leave. Several in a short time share a note: after a restart, all members join again. */
    presence(kind, { name, hue }, nick) {
      const key = `${kind} ${name}`;
      const note = presenceNotes.get(key);
      if (!note || Date.now() - note.at > PRESENCE_NOTE_MS) {
        presenceNotes.set(key, add({ kind, channel: name, hue, nicks: [nick], count: 1, text: describePresence(kind, name, [nick], 1) }));
        return;
      }
      note.count += 1;
      if (note.nicks.length < MAX_NICKS) note.nicks.push(nick);
      rewrite(note, describePresence(kind, name, note.nicks, note.count));
    },
  };
}
