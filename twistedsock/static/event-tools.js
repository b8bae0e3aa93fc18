/** The controls of the list of events: filter, one channel alone, pause, earlier events, details and export. */

import { isTyping } from './dialog.js';
import { announce, byId, make, makeButton } from './dom.js';
import { describeBeginning, EarlierEvents } from './earlier-events.js';
import { buildDrawer } from './event-drawer.js';
import { buildExport } from './event-export.js';
import { readFilter } from './event-filter.js';
import { MAX_ROWS } from './event-list.js';
import { describeError } from './format.js';

/** Delay between the last key and the filter. */
const FILTER_DELAY_MS = 150;

/** Distance from the beginning of the list at which earlier events are loaded. */
const LOAD_MARGIN_PX = 120;

const LIST_FULL = `The list holds ${MAX_ROWS.toLocaleString('en')} rows. Export the history to read more.`;

/** Maximum number of pages that are searched at a time for events that match the filter. */
const PAGES_SEARCHED = 5;

/**
 * @param {object} page
 * @param {import('./sockbridge.js').Client} page.client
 * @param {ReturnType<import('./event-list.js').buildEventList>} page.eventList
 * @param {() => {name: string, hue: number, isEmpty?: boolean}[]} page.channels the channels of the list that can be read
 * @param {() => boolean} page.hasToken
 * @param {boolean} [page.several] true if the list can have several channels
 * @param {(channel: string) => void} [page.shownAlone] called when one of several channels is shown alone
 */
export function buildEventTools({ client, eventList, channels, hasToken, several = false, shownAlone = () => {} }) {
  const scroller = byId('event-scroll');
  const shownChannels = () => channels().filter(({ name }) => !eventList.only || name === eventList.only);

  // ---- filter ----

  const filter = make('input');
  Object.assign(filter, { id: 'filter', type: 'search', placeholder: 'Filter: celsius>22', autocomplete: 'off', spellcheck: false, autocapitalize: 'off' });
  filter.setAttribute('aria-label', 'Filter events');
  filter.setAttribute('aria-describedby', 'filter-error');
  const filterError = make('p', 'field-error');
  filterError.id = 'filter-error';
  filterError.setAttribute('role', 'status');
  let filterTimer;

  function applyFilter() {
    clearTimeout(filterTimer);
    const { matches, error } = readFilter(filter.value);
    filterError.textContent = error;
    filter.toggleAttribute('aria-invalid', Boolean(error));
    if (!error) eventList.setFilter(matches); // until it can be read, the list stays as it is
    showEarlier();
  }

  filter.addEventListener('input', () => {
    clearTimeout(filterTimer);
    filterTimer = setTimeout(applyFilter, filter.value ? FILTER_DELAY_MS : 0);
  });

  // ---- one channel alone ----

  const onlyButton = makeButton('only', '', () => showOnly(''));
  onlyButton.id = 'only';
  onlyButton.title = 'Show all channels';

  function showOnly(name) {
    eventList.showOnly(name);
    onlyButton.hidden = !name;
    onlyButton.textContent = `Only ${name} ×`;
    onlyButton.dataset.hue = channels().find((channel) => channel.name === name)?.hue ?? 0;
    drawerOnly.textContent = name ? 'Show all channels' : 'Show only this channel';
    if (name) shownAlone(name);
    announce(name ? `Only ${name} is shown` : 'All channels are shown');
  }

  const drawerOnly = makeButton('', 'Show only this channel', () => showOnly(eventList.only ? '' : drawer.event.channel));

  // ---- pause ----

  const pause = makeButton('', 'Pause', togglePause);
  pause.id = 'pause';
  pause.title = 'Space';

  function togglePause() {
    eventList.setPaused(!eventList.paused);
    announce(eventList.paused ? 'Paused' : 'Continued');
  }

  // ---- details ----

  let openedRow;
  const drawer = buildDrawer({
    async find(channel, offset) {
      const known = eventList.find(channel, offset);
      if (known) return known;
      const { events } = await client.history(channel, { since: offset - 1, before: offset + 1 });
      return events[0];
    },
    hasToken,
    actions: several ? [drawerOnly] : [],
    closed() {
      openedRow.removeAttribute('aria-current');
      const target = openedRow.isConnected ? openedRow.querySelector('.offset') : scroller;
      target.focus({ preventScroll: true });
    },
  });

  eventList.observers.opened = (event, row) => {
    openedRow = row;
    drawer.show(event);
    announce(`Details of event ${event.offset} on ${event.channel}`);
  };

  // ---- earlier events ----

  const load = makeButton('plain', 'Show earlier events', () => loadEarlier());
  load.id = 'earlier-load';
  const beginning = make('span');
  beginning.id = 'beginning';
  const earlierLine = make('p', 'earlier');
  earlierLine.append(load, beginning);
  byId('events').before(earlierLine);
  let earlier;
  let loading = false;

  const historyOf = (sources) => new EarlierEvents((name, options) => client.history(name, options), sources);

  function withHues(events) {
    const hues = new Map(channels().map(({ name, hue }) => [name, hue]));
    return events.map((event) => ({ event, hue: hues.get(event.channel) ?? 0 }));
  }

  eventList.observers.cut = () => {
    earlier = undefined;
    showEarlier();
  };

  /** From the first known events on. A channel that has never had an event needs no request. */
  function newReading() {
    const firsts = eventList.firstOffsets();
    return historyOf(shownChannels().map(({ name, isEmpty }) => ({ name, ...(isEmpty ? { before: 1 } : {}), ...firsts.get(name) })));
  }

  function showEarlier(text = '') {
    const present = earlier ?? newReading();
    const { done } = present;
    const full = eventList.isFull;
    load.hidden = done || full;
    load.textContent = loading ? 'Loading…' : 'Show earlier events';
    if (full) beginning.textContent = LIST_FULL;
    else beginning.textContent = done ? describeBeginning(present) : text;
  }

  async function loadEarlier() {
    if (loading || earlier?.done || eventList.isFull) return;
    earlier ??= newReading();
    const reading = earlier;
    loading = true;
    showEarlier();
    let problem = '';
    try {
      const shownBefore = eventList.shownEvents().length;
      for (let pages = 0; pages < PAGES_SEARCHED && !reading.done && eventList.shownEvents().length === shownBefore && !eventList.isFull; pages += 1) {
        const events = await reading.next();
        if (reading !== earlier) break; // cleared, or another selection of channels
        eventList.insertEarlier(withHues(events));
        const found = eventList.shownEvents().length > shownBefore;
        problem = found || !events.length ? '' : `No match back to ${new Date(events[0].time).toLocaleTimeString()}.`;
      }
    } catch (error) {
      problem = describeError(error);
    }
    loading = false;
    showEarlier(problem);
    loadAtTop(); // events of several channels can all belong below the first row
  }

  function loadAtTop() {
    if (scroller.scrollTop < LOAD_MARGIN_PX && scroller.scrollHeight > scroller.clientHeight + LOAD_MARGIN_PX && !beginning.textContent) loadEarlier();
  }

  scroller.addEventListener('scroll', loadAtTop, { passive: true });

  // ---- skipped events ----

  /** Loads the newest of the skipped events that are not in the list. */
  eventList.observers.skippedWanted = async (note) => {
    const button = note.row.querySelector('button');
    if (eventList.isFull) {
      eventList.rewrite(note, LIST_FULL);
      return;
    }
    note.reading ??= historyOf([...note.ranges].map(([name, { first, last }]) => ({ name, first, before: last + 1 })));
    button.disabled = true;
    try {
      const events = await note.reading.next();
      const isGone = note.reading.channels.some(({ gone, reset, error }) => gone || reset || error);
      const rest = isGone ? describeBeginning(note.reading) : '';
      eventList.insertSkipped(note, withHues(events), note.reading.done ? rest : undefined);
    } catch (error) {
      eventList.rewrite(note, describeError(error));
    }
    button.disabled = false;
  };

  // ---- the bar, and keys ----

  const openExport = buildExport({ history: (name, options) => client.history(name, options), shownEvents: eventList.shownEvents, channels: shownChannels });
  const exportButton = makeButton('', 'Export', openExport);
  exportButton.id = 'export';
  const bar = make('div', 'event-tools');
  bar.append(filter, onlyButton, pause, exportButton, filterError);
  byId('clear').closest('.event-panel-head').append(bar);
  onlyButton.hidden = true;

  eventList.observers.changed = () => {
    pause.textContent = eventList.paused ? 'Continue' : 'Pause';
    if (!earlier) showEarlier();
  };

  if (several) {
    byId('events').addEventListener('click', (event) => {
      const channel = event.pointerType !== 'touch' && event.target.closest('.event-channel');
      if (!channel) return;
      event.stopPropagation();
      const name = channel.closest('.event').dataset.channel;
      showOnly(eventList.only === name ? '' : name);
    }, { capture: true });
  }

  const moves = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 };

  addEventListener('keydown', (event) => {
    const inPanel = bar.offsetParent !== null;
    if (!inPanel || isTyping(event)) return;
    const inList = scroller.contains(event.target);
    if (event.key === '/') filter.focus();
    else if (event.key === ' ' && !isTyping(event, true)) togglePause();
    else if (event.key in moves && (inList || event.key.length === 1)) {
      const row = eventList.moveFocus(moves[event.key]);
      if (row && !drawer.element.hidden) eventList.open(row);
    } else if (event.key === 'Escape' && !drawer.element.hidden) drawer.hide();
    else return;
    event.preventDefault();
  });

  filter.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    filter.value = '';
    applyFilter();
    scroller.focus({ preventScroll: true });
  });

  return {
    /** Starts again, for another channel. */
    reset() {
      filter.value = '';
      drawer.hide();
      earlier = undefined;
      onlyButton.hidden = true;
      applyFilter();
    },
    /** Called when channels were opened or closed, or rights have changed. */
    channelsChanged() {
      if (eventList.only && !channels().some(({ name }) => name === eventList.only)) showOnly('');
      earlier = undefined;
      showEarlier();
    },
  };
}
