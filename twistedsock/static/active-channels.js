/** The channels in which something was published lately: a list to open them, and completions for the field that adds one. */

import { CHANNELS_PER_REQUEST, listChannels } from './channel-list.js';
import { byId, make, makeButton } from './dom.js';
import { plural } from './format.js';
import { formatAge, formatValue, numbersIn, summarize, WHOLE } from './values.js';

/** Maximum number of channels that are listed, in the middle of the page and in the panel. */
const LISTED = 12;
const LISTED_IN_PANEL = 5;

/** Interval between two requests. There are none if the server has many channels, because each costs it time. */
const REFRESH_MS = 15_000;

/**
 * The same while no channel is open and the server has few: then the list is the main part of the page. Such a request
 * takes the server 1 ms at most, so a thousand pages in view take a fifth of a core.
 */
const REFRESH_MAIN_MS = 5_000;
const FEW_CHANNELS = 100;

/** Time after the last key before completions are requested. */
const TYPING_MS = 200;

const SUMMARY_CHARACTERS = 40;

/** Channels with an event in this time are listed first, those with the most events in the history at the top. */
const ACTIVE_MS = 300_000;

/**
 * @param {object} page
 * @param {() => boolean} page.isConnected
 * @param {(channel: string) => boolean} page.isOpen
 * @param {(channels: string[]) => void} page.open
 * @param {import('./values.js').ServerClock} page.clock
 * @param {() => void} page.changed called when the list has changed
 */
export function buildActiveChannels({ isConnected, isOpen, open, clock, changed }) {
  const field = byId('channel-add');
  const isMain = () => !byId('channels').childElementCount;
  let channels = [];
  let total = 0;
  let typing;
  let loading;

  /** Loads the list, once at a time. */
  function refresh() {
    loading ??= load().finally(() => { loading = undefined; });
    return loading;
  }

  async function load() {
    const list = await listChannels();
    if (!list) return;
    const activity = ({ time, events }) => (clock.now() - time < ACTIVE_MS ? events : 0);
    const known = list.channels.filter(({ time }) => time !== null);
    channels = known.sort((one, other) => activity(other) - activity(one) || other.time - one.time);
    total = list.total;
    draw();
    changed();
    complete(list.channels);
  }

  function complete(found) {
    const names = found.map(({ channel }) => channel).filter((name) => !isOpen(name));
    byId('channel-names').replaceChildren(...names.map((name) => Object.assign(make('option'), { value: name })));
  }

  field.addEventListener('focus', () => refresh());
  field.addEventListener('input', () => {
    if (total <= CHANNELS_PER_REQUEST) return; // all names are there
    clearTimeout(typing);
    typing = setTimeout(async () => complete((await listChannels(field.value.trim()))?.channels ?? []), TYPING_MS);
  });

  function draw() {
    const others = channels.filter(({ channel }) => !isOpen(channel));
    drawList('active', isMain() ? others.slice(0, LISTED) : []);
    drawList('also-active', isMain() ? [] : others.slice(0, LISTED_IN_PANEL));
    byId('active-all').hidden = others.length < 2;
    byId('active-all').textContent = `Open ${others.length > LISTED ? `these ${LISTED}` : `all ${others.length}`}`;
  }

  function drawList(id, shown) {
    const focused = document.activeElement?.closest(`#${id} button`)?.dataset.channel;
    byId(id).replaceChildren(...shown.map(makeRow));
    byId(`${id}-section`).hidden = !shown.length;
    if (focused !== undefined) [...byId(id).querySelectorAll('button')].find(({ dataset }) => dataset.channel === focused)?.focus();
  }

  function makeRow({ channel, readers, time, last }) {
    const item = make('li');
    const button = makeButton('active-channel', '', () => open([channel]));
    button.dataset.channel = channel;
    button.append(
      make('span', 'active-name', channel), ' ',
      make('span', 'active-value', describe(last)), ' ',
      make('span', 'active-age', [formatAge(clock.now() - time), ...(readers ? [plural(readers, 'subscriber')] : [])].join(' · ')),
    );
    item.append(button);
    return item;
  }

  byId('active-all').addEventListener('click', () => open(channels.map(({ channel }) => channel).filter((name) => !isOpen(name)).slice(0, LISTED)));

  let passed = 0;
  setInterval(() => {
    passed += REFRESH_MAIN_MS;
    if (passed < (isMain() && total <= FEW_CHANNELS ? REFRESH_MAIN_MS : REFRESH_MS)) return;
    passed = 0;
    if (isConnected() && document.visibilityState === 'visible' && total <= CHANNELS_PER_REQUEST) refresh();
  }, REFRESH_MAIN_MS);

  return {
    refresh,
    draw,
    /** True if there is a channel to open. */
    get hasAny() { return channels.some(({ channel }) => !isOpen(channel)); },
  };
}

function describe(last) {
  if (!last) return '';
  const [[field, number] = []] = numbersIn(last.data);
  if (field === undefined) return summarize(last.data, SUMMARY_CHARACTERS);
  return field === WHOLE ? formatValue(number) : `${formatValue(number)} ${field}`;
}
