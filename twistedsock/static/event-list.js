/**
 * The list of events, sorted by time. Rows are drawn in batches that fit into a frame, with pauses between them. While the
 * user has scrolled up or paused the list, nothing moves and new events are counted. If more than ROWS_SHOWN are queued,
 * the oldest are skipped, and a note reports it and offers to load them. A filter hides rows, and does not remove them.
 * event-tools.js has the controls.
 */

import { announce, byId, make, makeButton, memory } from './dom.js';
import { fromCell, payloadCell, timeCell, updateTimeCell } from './event-cells.js';
import { describeGap, describePresence, describeReset, plural } from './format.js';
import { payloadText } from './payloads.js';

/** Maximum number of rows in the document: few enough for a layout within one frame. */
export const ROWS_SHOWN = 500;

/** Maximum number of rows in the document while the user reads earlier events, or while a filter hides most of them. */
export const MAX_ROWS = 2000;

/** Maximum number of notes about missed events that are kept when queued rows are skipped. */
const MAX_QUEUED_GAPS = 20;

/** Events that are kept when queued ones are skipped: with the notes about those missing, they fit into the list. */
const EVENTS_KEPT = ROWS_SHOWN - MAX_QUEUED_GAPS;

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

/** Kinds of notes about members. They explain nothing about events. */
const PRESENCE_KINDS = ['join', 'leave'];

/**
 * True if an item belongs above another one that was added before it. Channels are replayed one after the other, and a slow
 * page also receives new events channel by channel: events are sorted by time. They stay below notes, which explain what
 * follows. Only notes about joins and leaves explain nothing about events of the history.
 */
function belongsAbove({ event, replayed }, other) {
  if (!event) return false;
  if (!other.event) return replayed && PRESENCE_KINDS.includes(other.kind);
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
  let droppedRanges = new Map(); // channel -> the offsets { first, last } of its events that were skipped since the last batch
  let offsetDigits = 0; // of the longest offset; determines the width of the margin
  let seen = 0;
  let lost = 0;
  let skipped = 0; // never drawn
  let following = true; // false while the user has scrolled up
  let paused = false;
  let heldBack = false; // true if events were skipped while nothing was drawn
  let matches; // the filter: (event) => boolean, or undefined
  let only = ''; // the channel that is shown alone
  let scheduled = false;
  let restUntil = 0;
  let timePerRow = 0.5; // milliseconds, measured from the first batch on
  const presenceNotes = new Map(); // kind and channel -> the note to which further joins or leaves are added
  const observers = { changed() {}, opened() {}, cut() {}, skippedWanted() {} }; // set by event-tools.js
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
    if (queue.length <= EVENTS_KEPT) return;
    let excess = [];
    if (isFiltered()) { // events that the filter hides are skipped first
      let count = queue.length - EVENTS_KEPT;
      excess = queue.filter((item) => item.event && count > 0 && !isShown(item) && count--);
      queue = queue.filter((item) => !excess.includes(item));
    }
    excess.push(...queue.splice(0, Math.max(0, queue.length - EVENTS_KEPT)));
    if (!isDrawing()) heldBack = true;
    const gaps = excess.filter(({ kind }) => kind === 'lost').slice(-MAX_QUEUED_GAPS);
    for (const { event, former } of excess) if (event && !former) extendRange(event);
    dropped += excess.length - gaps.length;
    skipped += excess.length - gaps.length;
    queue.unshift(...gaps);
  }

  function extendRange({ channel, offset }) {
    const { first = offset, last = offset } = droppedRanges.get(channel) ?? {};
    droppedRanges.set(channel, { first: Math.min(first, offset), last: Math.max(last, offset) });
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
    if (isDrawing()) drawBatch();
    drawCounts();
  }

  function drawCounts() {
    const counts = [[skipped, 'skipped'], [lost, 'missed']].filter(([count]) => count);
    const details = counts.map(([count, label]) => `${count.toLocaleString('en')} ${label}`);
    const total = isFiltered() ? `${eventRows().filter((row) => !row.hidden).length.toLocaleString('en')} of ${plural(eventRows().length, 'event')}` : plural(seen, 'event');
    byId('event-count').textContent = [...(seen ? [total] : []), ...details].join(', ');
    const waiting = queue.length + dropped;
    byId('new-events').hidden = isDrawing() || !waiting;
    byId('new-events').textContent = `${paused ? 'Paused: ' : ''}${waiting.toLocaleString('en')} new`;
    observers.changed();
  }

  function drawBatch() {
    const startedAt = performance.now();
    dropOldest();
    const batch = queue.splice(0, Math.max(MIN_BATCH_ROWS, Math.floor(BATCH_TIME_MS / timePerRow)));
    if (!batch.length) return;
    if (dropped) batch.unshift(skippedNote(dropped, heldBack ? `the list keeps ${EVENTS_KEPT} while it stands still` : 'faster than the page can draw'));
    dropped = 0;
    droppedRanges = new Map();
    heldBack = false;
    for (const item of batch) insert(item);
    cutRows();
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
    row.hidden = !isShown(item);
    let next = null;
    let previous = list.lastElementChild;
    while (previous && belongsAbove(item, items.get(previous))) {
      next = previous;
      previous = previous.previousElementSibling;
    }
    list.insertBefore(row, next);
  }

  /** Removes the first rows, until there are few enough for a layout within one frame. */
  function cutRows() {
    let shown = list.querySelectorAll(':scope > :not([hidden])').length;
    const first = list.firstChild;
    while (list.childElementCount > MAX_ROWS || shown > ROWS_SHOWN) {
      if (!list.firstChild.hidden) shown -= 1;
      list.firstChild.remove();
    }
    if (list.firstChild !== first) observers.cut();
  }

  const eventRows = () => [...list.querySelectorAll(':scope > .event')];

  function eventRow({ event, at, replayed, hue }) {
    const row = make('li', 'event');
    if (String(event.offset).length > offsetDigits) {
      offsetDigits = String(event.offset).length;
      document.documentElement.style.setProperty('--digits', offsetDigits);
    }
    Object.assign(row.dataset, { channel: event.channel, offset: event.offset, hue });
    row.toggleAttribute('data-own', isOwn(event));
    row.toggleAttribute('data-replayed', replayed);
    const offset = make('button', 'offset', event.offset);
    Object.assign(offset, { type: 'button', tabIndex: -1 });
    offset.setAttribute('aria-label', `Event ${event.offset} on ${event.channel}`);
    const channel = make('span', 'event-channel', event.channel);
    channel.title = `Show only ${event.channel}`;
    row.append(offset, channel, fromCell(event), payloadCell(event, pretty), timeCell(at, replayed));
    return row;
  }

  function noteRow(note) {
    const { kind, text, at, channel, hue } = note;
    const row = make('li', 'note');
    note.row = row;
    row.dataset.kind = kind;
    if (channel) Object.assign(row.dataset, { note: channel, hue });
    const cell = make('span');
    cell.append(make('span', 'note-text', text));
    if (note.ranges?.size) cell.append(' ', makeButton('plain', 'Show', () => observers.skippedWanted(note)));
    row.append(cell);
    if (at) row.append(timeCell(at));
    return row;
  }

  setInterval(() => {
    const now = new Date();
    for (const cell of list.querySelectorAll('.time')) updateTimeCell(cell, now);
  }, TIME_UPDATE_MS);

  /** A note about skipped events. `ranges` says which ones: they are still in the history of the server for a while. */
  function skippedNote(count, why) {
    return { kind: 'dropped', count, why, ranges: droppedRanges, text: describeSkipped(count, why) };
  }

  const describeSkipped = (count, why) => `${plural(count, 'event')} skipped: ${why}.`;

  /** Changes the text of a note, drawn or not. */
  function rewrite(note, text) {
    note.text = text;
    if (note.row) note.row.querySelector('.note-text').textContent = text;
  }

  // ---- filter ----

  const isFiltered = () => Boolean(matches || only);

  function isShown({ event, channel, kind }) {
    if (only && (event?.channel ?? channel ?? only) !== only) return false;
    return event ? !matches || matches(event) : !matches || !PRESENCE_KINDS.includes(kind);
  }

  function applyFilter() {
    for (const row of list.children) row.hidden = !isShown(items.get(row));
    if (following) {
      cutRows();
      scrollToEnd();
    }
    drawCounts();
  }

  // ---- earlier events ----

  /** Returns the first known offset of each channel, and whether it is of a former epoch. Channels without events are missing. */
  function firstOffsets() {
    const firsts = new Map();
    for (const { event, former } of [...eventRows().map((row) => items.get(row)), ...queue]) {
      if (event && !firsts.has(event.channel)) firsts.set(event.channel, { before: event.offset, former });
    }
    return firsts;
  }

  /** Inserts events of histories from a row on, sorted by time. */
  function insertHistory(entries, from) {
    let next = from;
    for (const entry of entries) {
      const item = { ...entry, at: new Date(entry.event.time), replayed: true };
      const row = eventRow(item);
      items.set(row, item);
      row.hidden = !isShown(item);
      while (next && items.get(next).at < item.at) next = next.nextSibling;
      list.insertBefore(row, next);
    }
  }

  /** Inserts events of histories without moving what the user reads. */
  function insertEarlier(entries) {
    const { top } = scroller.getBoundingClientRect();
    const read = [...list.children].find((row) => !row.hidden && row.getBoundingClientRect().bottom > top);
    const before = read?.getBoundingClientRect().top;
    const firsts = firstOffsets();
    const isEarlier = ({ event }) => !firsts.has(event.channel) || event.offset < firsts.get(event.channel).before;
    const earlier = entries.filter(isEarlier);
    insertHistory(earlier, list.firstChild);
    seen += earlier.length;
    if (read) scroller.scrollTop += read.getBoundingClientRect().top - before;
    drawCounts();
  }

  /** Inserts skipped events below their note. With `rest`, a sentence or '', the note offers no more of them. */
  function insertSkipped(note, entries, rest) {
    if (!note.row.isConnected) return;
    const known = new Set(eventRows().map((row) => items.get(row)).filter(({ former }) => !former).map(({ event }) => `${event.channel} ${event.offset}`));
    const missing = entries.filter(({ event }) => note.ranges.has(event.channel) && !known.has(`${event.channel} ${event.offset}`));
    following = false; // the note stays where it is
    insertHistory(missing, note.row.nextSibling);
    note.count -= missing.length;
    skipped -= missing.length;
    if (rest === '') note.row.remove();
    else rewrite(note, rest ?? describeSkipped(note.count, note.why));
    if (rest) note.row.querySelector('button').remove();
    drawCounts();
  }

  /** After a reset, the offsets of a channel mean other events. */
  function markFormer(channel) {
    const known = [...[...list.children].map((row) => items.get(row)), ...queue];
    for (const item of known) {
      if (item.event?.channel === channel) item.former = true;
      item.ranges?.delete(channel);
    }
    droppedRanges.delete(channel);
  }

  // ---- one row ----

  list.addEventListener('click', (event) => {
    const row = event.target.closest('.event');
    if (!row || event.target.closest('a, button:not(.offset)')) return;
    if (getSelection().isCollapsed || event.target.closest('.offset')) open(row);
  });

  function open(row) {
    list.querySelector('[aria-current]')?.removeAttribute('aria-current');
    row.setAttribute('aria-current', 'true');
    observers.opened(items.get(row).event, row);
  }

  /** Moves the focus to the next or previous event. */
  function moveFocus(step) {
    const rows = eventRows().filter((row) => !row.hidden);
    const index = rows.indexOf(document.activeElement.closest('.event'));
    const row = rows[index < 0 ? rows.length - 1 : index + step];
    row?.querySelector('.offset').focus();
    return row;
  }

  // ---- scrolling ----

  const isDrawing = () => following && !paused;

  let lastTop = 0;

  function scrollToEnd() {
    scroller.scrollTop = scroller.scrollHeight;
    lastTop = scroller.scrollTop;
  }

  function follow() {
    following = true;
    paused = false;
    scrollToEnd();
    schedule();
  }

  scroller.addEventListener('scroll', () => {
    // Not if the list has become smaller in the meantime: only the user scrolls up.
    if (scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < END_MARGIN_PX) following = true;
    else if (scroller.scrollTop < lastTop) following = false;
    lastTop = scroller.scrollTop;
    if (isDrawing() && queue.length) schedule();
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
    droppedRanges = new Map();
    presenceNotes.clear();
    observers.cut();
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
      announce(`${plural(unannounced, 'new event')}. ${latest.from} on ${latest.channel}: ${payloadText(latest.data).slice(0, MAX_ANNOUNCED_CHARACTERS)}`);
      announcing = undefined;
      unannounced = 0;
    }, ANNOUNCE_INTERVAL_MS);
  }

  return {
    observers,
    follow,
    firstOffsets,
    insertEarlier,
    insertSkipped,
    moveFocus,
    open,
    get paused() { return paused; },
    get only() { return only; },
    get isFull() { return list.childElementCount >= MAX_ROWS; },
    setPaused(now) {
      if (!now) return follow();
      paused = true;
      drawCounts();
    },
    /** @param {((event: object) => boolean) | undefined} filter */
    setFilter(filter) {
      matches = filter;
      applyFilter();
    },
    /** Shows one channel alone, or all if the name is empty. */
    showOnly(channel) {
      only = channel;
      applyFilter();
      observers.cut();
    },
    /** The events that the filter shows, in the order of the list. */
    shownEvents: () => eventRows().filter((row) => !row.hidden).map((row) => items.get(row).event),
    /** The event of the list with this offset, of the present epoch. */
    find: (channel, offset) => eventRows().map((row) => items.get(row)).find(({ event, former }) => event.channel === channel && event.offset === offset && !former)?.event,
    /** Starts an empty list, for another channel. */
    reset() {
      seen = lost = skipped = 0;
      only = '';
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
      else markFormer(channel.name);
      this.note('lost', describeGap(gap), channel);
    },
    epochReset(reset, newest, channel) {
      markFormer(channel.name);
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
