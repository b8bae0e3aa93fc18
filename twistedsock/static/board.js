/**
 * The board at `/#board`: a tile with the last value of each field of each channel, grouped by the part of the name before
 * the last slash. Only channels whose tiles are visible are subscribed to, and tiles are drawn in batches, so that it works
 * with a thousand channels.
 */

import { CHANNELS_PER_REQUEST, listChannels } from './channel-list.js';
import { byId, make, makeButton, oncePerFrame } from './dom.js';
import { plural } from './format.js';
import { drawSparkline, makeSparkline, sparklinePoints } from './sparkline.js';
import { ChannelValues, formatAge, formatValue, isSilent, summarize, WHOLE } from './values.js';

/** Maximum number of subscriptions: more tiles than fit on a wall of screens. The server permits 1,000 per client. */
export const MAX_SUBSCRIPTIONS = 400;

/** Points kept per field, and events requested when a tile becomes visible. */
const POINTS = 60;
const SPARK = { width: 120, height: 28, count: POINTS };

/** Interval between two drawings: values can change faster than anyone can read. */
const DRAW_INTERVAL_MS = 150;
const AGE_INTERVAL_MS = 1000;

/** Time without scrolling before subscriptions change. */
const SETTLE_MS = 200;

/** Interval between two requests for the list, which has the new channels, and the values of those beyond the limit. */
const REFRESH_MS = 15_000;

/** Tiles this far outside of the screen count as visible. */
const MARGIN = '200px';

const TYPING_MS = 150;

const SUMMARY_CHARACTERS = 60;

/**
 * @typedef {object} Entry a channel
 * @property {string} name
 * @property {ChannelValues} values
 * @property {object} [last] the newest event
 * @property {number[]} times of the last events
 * @property {Map<string, HTMLElement>} tiles by field; the field of channels without numbers is an empty string
 * @property {number} visible the number of its tiles that are visible
 * @property {import('./sockbridge.js').Subscription} [subscription]
 */

/** The group of a channel, and its name in the group: `home/attic/lamp` is `lamp` in `home/attic`. */
export function splitName(name) {
  const slash = name.lastIndexOf('/');
  return slash > 0 ? [name.slice(0, slash), name.slice(slash + 1) || name] : ['', name];
}

/** True if all words of the filter are in a text. */
export function matches(filter, text) {
  const lower = text.toLowerCase();
  return filter.toLowerCase().split(/\s+/).every((word) => lower.includes(word));
}

/**
 * @param {object} page
 * @param {import('./sockbridge.js').Client} page.client
 * @param {import('./values.js').ServerClock} page.clock
 * @param {() => string[]} page.openNames the channels that are open in the page
 * @param {(channel: string) => void} page.open opens a channel in the page
 */
export function buildBoard({ client, clock, openNames, open }) {
  const board = byId('board');
  /** @type {Map<string, Entry>} */
  const entries = new Map();
  /** @type {Map<string, {box: HTMLElement, list: HTMLElement, count: HTMLElement}>} */
  const groups = new Map();
  const dirty = new Set();
  let isOpen = false;
  let total = 0;
  let timers = [];
  let settling;
  let typing;

  const title = Object.assign(make('h2', '', 'Board'), { id: 'board-title', tabIndex: -1 });
  const summary = make('p', 'total');
  const find = Object.assign(make('input'), { type: 'search', id: 'board-find', autocomplete: 'off', spellcheck: false, placeholder: 'channel or field' });
  find.setAttribute('autocapitalize', 'off');
  const label = Object.assign(make('label', '', 'Filter'), { htmlFor: 'board-find' });
  const full = makeButton('', 'Full screen', () => (document.fullscreenElement ? document.exitFullscreen() : board.requestFullscreen()));
  full.hidden = !document.fullscreenEnabled;
  const head = make('div', 'board-head');
  head.append(title, summary, label, find, full);
  const empty = make('p', 'board-empty');
  const content = make('div', 'board-groups');
  board.append(head, empty, content);

  document.addEventListener('fullscreenchange', () => { full.textContent = document.fullscreenElement ? 'Exit full screen' : 'Full screen'; });

  // ---- channels ----

  async function refresh() {
    const list = await listChannels();
    const [prefix] = find.value.trim().split(/\s+/);
    // If there are more channels than in one answer, those whose names begin with the filter are loaded, too.
    const found = list?.total > CHANNELS_PER_REQUEST && prefix ? await listChannels(prefix) : undefined;
    if (!isOpen) return;
    total = list?.total ?? 0;
    // Clients without the right to list channels see those that are open in the page.
    const channels = list ? [...new Map([...list.channels, ...(found?.channels ?? [])].map((one) => [one.channel, one])).values()] : openNames().map((channel) => ({ channel }));
    const listed = channels.filter(({ time }) => time !== null);
    const names = new Set(listed.map(({ channel }) => channel));
    if (total > CHANNELS_PER_REQUEST) for (const name of [...entries.keys()]) if (!names.has(name)) remove(entries.get(name));
    const added = listed.filter(({ channel }) => !entries.has(channel));
    for (const { channel } of added) add(channel);
    for (const { channel, last } of listed) if (last && !entries.get(channel).subscription) receive(entries.get(channel), last);
    for (const name of new Set(added.map(({ channel }) => splitName(channel)[0]))) sortGroup(name);
    for (const { channel, last } of added) if (!last) showTile(entries.get(channel), ''); // its value comes with the subscription
    applyFilter();
  }

  function add(name) {
    entries.set(name, { name, values: new ChannelValues(POINTS), times: [], tiles: new Map(), visible: 0 });
  }

  function remove(entry) {
    entry.subscription?.unsubscribe();
    for (const field of [...entry.tiles.keys()]) removeTile(entry, field);
    entries.delete(entry.name);
    dirty.delete(entry);
  }

  function receive(entry, event) {
    if (entry.last?.offset === event.offset && entry.last.time === event.time) return; // listed again
    entry.last = event;
    entry.times.push(event.time);
    if (entry.times.length > POINTS) entry.times.shift();
    entry.values.add(event);
    dirty.add(entry);
    draw();
  }

  /** Subscribes to the channels that are visible, and only to those. */
  function updateSubscriptions() {
    const visible = [...entries.values()].filter((entry) => entry.visible > 0).slice(0, MAX_SUBSCRIPTIONS);
    const wanted = new Set(visible);
    for (const entry of entries.values()) {
      if (!entry.subscription || wanted.has(entry)) continue;
      entry.subscription.unsubscribe();
      entry.subscription = undefined;
    }
    for (const entry of visible) if (!entry.subscription) subscribe(entry);
  }

  function subscribe(entry) {
    let head = 0;
    const restart = (offset) => {
      entry.last = undefined;
      entry.values.restart(offset);
    };
    let isFirst = true;
    entry.subscription = client.subscribe(entry.name, (event) => {
      // The history has the values of the time in which the tile was not visible.
      if (isFirst) Object.assign(entry, { values: new ChannelValues(POINTS), times: [], last: undefined });
      isFirst = false;
      if (event.offset > head) clock.adjust(event.time);
      receive(entry, event);
    }, {
      last: POINTS,
      onSubscribed(state) { head = state.offset; },
      onLost(gap) { if (gap.reason === 'epoch') restart(0); },
      onReset(reset) { restart(reset.offset); },
      onRefused() { remove(entry); },
    });
  }

  // ---- tiles ----

  const observer = new IntersectionObserver((changes) => {
    const now = clock.now();
    for (const { target, isIntersecting } of changes) {
      const entry = entries.get(target.dataset.channel);
      if (!entry || target.isVisible === isIntersecting) continue;
      target.isVisible = isIntersecting;
      entry.visible += isIntersecting ? 1 : -1;
      if (isIntersecting) drawTile(target, entry, target.dataset.field, now);
    }
    clearTimeout(settling);
    settling = setTimeout(updateSubscriptions, SETTLE_MS);
  }, { root: board, rootMargin: MARGIN });

  function showTile(entry, field) {
    const tile = make('li', 'tile');
    Object.assign(tile.dataset, { channel: entry.name, field });
    tile.isVisible = false;
    const link = make('a');
    link.href = `#${encodeURIComponent(entry.name)}${entry.name === 'board' ? ',' : ''}`;
    link.title = entry.name;
    link.addEventListener('click', (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab or window
      event.preventDefault();
      open(entry.name);
    });
    const spark = makeSparkline(SPARK.width, SPARK.height);
    spark.classList.add('sparkline');
    link.append(make('span', 'tile-name', splitName(entry.name)[1]), ' ', make('span', 'tile-field', field === WHOLE ? '' : field), ' ', make('strong', 'tile-value'), ' ', spark, make('span', 'tile-age'));
    tile.append(link);
    entry.tiles.set(field, tile);
    groupOf(splitName(entry.name)[0]).list.append(tile);
    tile.hidden = !isFound(tile);
    observer.observe(tile);
    return tile;
  }

  function removeTile(entry, field) {
    const tile = entry.tiles.get(field);
    observer.unobserve(tile);
    if (tile.isVisible) entry.visible -= 1;
    entry.tiles.delete(field);
    tile.remove();
  }

  function groupOf(name) {
    if (!groups.has(name)) {
      const box = make('section', 'board-group');
      const title = name ? `${name}/` : 'Top level'; // the slash tells the group from a channel with its name
      box.setAttribute('aria-label', title);
      const heading = make('h3', '', title);
      const count = make('span', 'count');
      heading.append(' ', count);
      const list = make('ul', 'tiles');
      box.append(heading, list);
      groups.set(name, { box, list, count });
      const next = [...groups.keys()].sort().find((other) => other > name);
      content.insertBefore(box, next === undefined ? null : groups.get(next).box);
    }
    return groups.get(name);
  }

  /** Sorts the tiles of a group by channel. The fields of a channel keep their order. */
  function sortGroup(name) {
    const group = groups.get(name);
    if (!group) return;
    const sorted = [...group.list.children].sort((one, other) => compare(one.dataset.channel, other.dataset.channel));
    if (sorted.some((tile, index) => tile !== group.list.children[index])) group.list.append(...sorted);
  }

  const draw = oncePerFrame(() => {
    if (!isOpen) return;
    const now = clock.now();
    let isChanged = false;
    for (const entry of dirty) {
      const fields = entry.values.names.length ? entry.values.names : [''];
      const isSame = fields.length === entry.tiles.size && fields.every((field) => entry.tiles.has(field));
      if (!isSame && entry.last) {
        for (const field of [...entry.tiles.keys()]) if (!fields.includes(field)) removeTile(entry, field);
        for (const field of fields) if (!entry.tiles.has(field)) showTile(entry, field);
        sortGroup(splitName(entry.name)[0]);
        isChanged = true;
      }
      for (const [field, tile] of entry.tiles) if (tile.isVisible) drawTile(tile, entry, field, now);
    }
    dirty.clear();
    if (isChanged) showSummary();
  }, DRAW_INTERVAL_MS);

  function drawTile(tile, { values, last, times }, field, now) {
    const [, , value, spark, age] = tile.firstChild.children;
    if (!last) return;
    const series = values.series(field);
    write(value, series ? formatValue(series.latest, series.decimals) : summarize(last.data, SUMMARY_CHARACTERS));
    tile.toggleAttribute('data-text', !series);
    drawSparkline(spark, series ? sparklinePoints(series.values, SPARK) : '');
    drawAge(tile, age, series?.times ?? times, now);
  }

  function drawAge(tile, age, times, now) {
    write(age, times.length ? formatAge(now - times.at(-1)) : '');
    const silent = isSilent(times, now);
    if (tile.hasAttribute('data-silent') !== silent) tile.toggleAttribute('data-silent', silent);
  }

  function drawAges() {
    const now = clock.now();
    for (const { tiles, values, times, visible } of entries.values()) {
      if (!visible) continue;
      for (const [field, tile] of tiles) if (tile.isVisible) drawAge(tile, tile.firstChild.lastChild, values.series(field)?.times ?? times, now);
    }
  }

  // ---- filter ----

  const isFound = ({ dataset: { channel, field } }) => matches(find.value.trim(), `${channel} ${field}`);

  function applyFilter() {
    for (const { tiles } of entries.values()) for (const tile of tiles.values()) tile.hidden = !isFound(tile);
    showSummary();
  }

  function showSummary() {
    let found = 0;
    let all = 0;
    for (const { box, list, count } of groups.values()) {
      const shown = [...list.children].filter(({ hidden }) => !hidden).length;
      found += shown;
      all += list.childElementCount;
      box.hidden = !shown;
      write(count, plural(shown, 'value'));
    }
    const parts = [found === all ? plural(all, 'value') : `${found.toLocaleString('en')} of ${plural(all, 'value')}`];
    if (total > CHANNELS_PER_REQUEST) parts.push(`${CHANNELS_PER_REQUEST.toLocaleString('en')} of ${plural(total, 'channel')}: filter by the beginning of a name to see others`);
    write(summary, parts.join(' · '));
    empty.hidden = found > 0;
    write(empty, all ? 'No channel or field contains this text.' : 'No values yet. A value appears as soon as something is published on a channel that you can read, for example in a terminal with PUB kitchen 21.5');
  }

  find.addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      history.replaceState(null, '', `#board${find.value.trim() ? `?find=${encodeURIComponent(find.value.trim())}` : ''}`);
      if (total > CHANNELS_PER_REQUEST) refresh();
      else applyFilter();
    }, TYPING_MS);
  });

  addEventListener('keydown', (event) => {
    if (!isOpen || event.key !== '/' || event.target.closest?.('input, textarea, select')) return;
    event.preventDefault();
    find.focus();
  });

  return {
    /** Shows the board, for the hash `#board` or `#board?find=home`. */
    open(hash) {
      find.value = new URLSearchParams(hash.split('?')[1] ?? '').get('find') ?? '';
      if (isOpen) {
        applyFilter();
        return;
      }
      isOpen = true;
      title.focus({ preventScroll: true });
      refresh();
      timers = [setInterval(drawAges, AGE_INTERVAL_MS), setInterval(() => { if (client.state === 'open' && document.visibilityState === 'visible') refresh(); }, REFRESH_MS)];
    },
    close() {
      isOpen = false;
      for (const timer of timers) clearInterval(timer);
      clearTimeout(settling);
      clearTimeout(typing);
      for (const entry of [...entries.values()]) remove(entry);
      groups.clear();
      content.replaceChildren();
      total = 0;
    },
    /** Called when the permissions can have changed. */
    resume() { if (isOpen) refresh(); },
  };
}

function compare(one, other) {
  if (one === other) return 0;
  return one < other ? -1 : 1;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
