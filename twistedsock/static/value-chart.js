/**
 * The chart of a channel's values: a button for each field shows its value, minimum and maximum, and switches its line on
 * or off. The chart and the list of events share a cursor. Older values are loaded from the history.
 */

import { byId, make, makeButton, memory, oncePerFrame } from './dom.js';
import { clockTime } from './format.js';
import { buildPlot, loadPlotter, whenColoursChange } from './plot.js';
import { alignSeries, formatRange, formatValue, gapLength, MAX_POINTS } from './values.js';

/** The choices of the time that is shown, in milliseconds. */
const SPANS = [['10min', '10 min', 600_000], ['1h', '1 h', 3_600_000], ['all', 'All', Infinity]];

/** The minimum length of the time axis. */
const MIN_SPAN_MS = 60_000;

/** Interval between two drawings: values can arrive faster than anyone can see. */
const DRAW_INTERVAL_MS = 250;

/** The time axis moves at least this often. */
const TICK_MS = 1000;

const HEIGHT = 150;
const NARROW_HEIGHT = 110;
const NARROW_PX = 600;

/** The number of colours in base.css. The first line has the colour of numbers in payloads. */
const COLOURS = 6;
const colourOf = (index) => `--hue-${(index + 1) % COLOURS}`;

/** Fields whose path ends alike have one scale: `inside.celsius` and `outside.celsius`. */
const scaleOf = (field) => `y ${field.slice(field.lastIndexOf('.') + 1)}`;

/** @param {{client: import('./sockbridge.js').Client, clock: import('./values.js').ServerClock}} page */
export function buildValueChart({ client, clock }) {
  const box = byId('value-chart');
  const rows = byId('events');
  /** The fields whose lines are shown. @type {WeakMap<object, Set<string>>} */
  const chosen = new WeakMap();
  const filling = new WeakSet();
  let channel = '';
  let values;
  let names = '';
  let plot;
  let plotted = ''; // the lines and the size of the plot
  let shown = []; // the names of the lines
  let gaps = []; // of each line
  let data = [[]];
  let pointed = null; // the time under the cursor, in milliseconds
  let pointedRow;
  let isHeld = false; // true if `pointed` was chosen by the keyboard or in the list of events
  let span = SPANS.find(([id]) => id === memory.get('span')) ?? SPANS[0];
  let hasPlot = memory.get('chart') !== 'hidden';

  const title = make('h3', 'value-channel');
  const chips = make('ul', 'chips');
  chips.setAttribute('aria-label', 'Fields');
  const toggle = makeButton('plain', '', () => {
    hasPlot = !hasPlot;
    memory.set('chart', hasPlot ? 'shown' : 'hidden');
    showToggle();
    draw();
  });
  const space = make('div', 'plot');
  space.tabIndex = 0;
  space.setAttribute('role', 'slider');
  space.setAttribute('aria-label', 'Time in the chart');
  for (const bound of ['min', 'max', 'now']) space.setAttribute(`aria-value${bound}`, '0');
  const head = make('div', 'value-head');
  const tools = make('div', 'value-tools');
  tools.append(makeSpans(), toggle);
  head.append(title, chips, tools);
  box.append(head, space);
  showToggle();

  function showToggle() {
    toggle.textContent = hasPlot ? 'Hide chart' : 'Show chart';
    toggle.setAttribute('aria-expanded', String(hasPlot));
    space.hidden = !hasPlot;
  }

  function makeSpans() {
    const choice = make('fieldset', 'choice');
    choice.append(make('legend', 'visually-hidden', 'Time in the chart'));
    for (const one of SPANS) {
      const label = make('label');
      const radio = Object.assign(make('input'), { type: 'radio', name: 'span', value: one[0], checked: one === span });
      radio.addEventListener('change', () => {
        span = one;
        memory.set('span', one[0]);
        fill();
        draw();
      });
      label.append(radio, make('span', '', one[1]));
      choice.append(label);
    }
    return choice;
  }

  // ---- data ----

  /** Loads the values of the time that is shown, as far as they are in the history. */
  async function fill() {
    const filled = values;
    const since = clock.now() - span[2];
    if (!filled || filled.filledSince <= since || filling.has(filled)) return;
    if (filled.first <= 1) {
      filled.filledSince = -Infinity;
      return;
    }
    filling.add(filled);
    try {
      const bounds = { ...(filled.first ? { before: filled.first } : {}), ...(Number.isFinite(since) ? { after: new Date(since) } : {}) };
      const { events } = await client.history(channel, { last: MAX_POINTS, ...bounds });
      filled.fill(events);
      filled.filledSince = since;
    } catch { /* disconnected or not permitted: tried again after the next `open` */ }
    filling.delete(filled);
    draw();
  }

  client.addEventListener('open', fill);

  /** The beginning of the time axis: not earlier than the first value, but a minute ago at least. */
  function startOf(now) {
    const first = Math.min(...values.names.map((name) => values.series(name).times[0]));
    return Math.max(now - span[2], Math.min(now - MIN_SPAN_MS, first));
  }

  // ---- drawing ----

  const draw = oncePerFrame(() => {
    box.hidden = !values?.names.length;
    if (box.hidden) return;
    const now = Math.max(clock.now(), ...values.names.map((name) => values.series(name).latestTime));
    const start = startOf(now);
    showChips(start);
    if (hasPlot) drawPlot(start, now);
  }, DRAW_INTERVAL_MS);

  function chosenFields() {
    if (!chosen.has(values)) chosen.set(values, new Set(values.names.slice(0, 1)));
    return chosen.get(values);
  }

  function showChips(start) {
    const now = values.names.join('\n');
    if (now !== names) {
      names = now;
      const focused = document.activeElement?.dataset.field;
      chips.replaceChildren(...values.names.map(makeChip));
      if (focused !== undefined) [...chips.querySelectorAll('button')].find(({ dataset }) => dataset.field === focused)?.focus();
    }
    for (const [index, name] of values.names.entries()) {
      const series = values.series(name);
      const { decimals } = series;
      const at = pointed === null ? -1 : series.nearest(pointed);
      const extremes = series.extremes(start);
      const [chip, value, , range] = [chips.children[index].firstChild, ...chips.children[index].firstChild.children];
      chip.setAttribute('aria-pressed', String(chosenFields().has(name)));
      write(value, formatValue(at < 0 ? series.latest : series.values[at], decimals));
      write(range, extremes ? formatRange(extremes, decimals) : 'no values');
    }
  }

  function makeChip(name, index) {
    const item = make('li');
    const chip = makeButton('chip', '', () => {
      const fields = chosenFields();
      if (!fields.delete(name)) fields.add(name);
      draw();
    });
    chip.dataset.field = name;
    chip.title = `Show or hide the line of ${name}`;
    chip.style.setProperty('--line', `var(${colourOf(index)})`);
    chip.append(make('span', 'chip-value'), make('span', 'chip-name', name), make('span', 'chip-range'));
    item.append(chip);
    return item;
  }

  async function drawPlot(start, now) {
    if (!globalThis.uPlot) {
      await loadPlotter();
      draw();
      return;
    }
    const fields = chosenFields();
    shown = values.names.filter((name) => fields.has(name));
    const several = shown.map((name) => values.series(name));
    gaps = several.map(({ times }) => gapLength(times) / 1000);
    const [times, ...columns] = alignSeries(several.map((series) => series.since(start)));
    data = [times.map((time) => time / 1000), ...columns];
    const width = space.clientWidth;
    if (!width) return;
    const height = box.clientWidth < NARROW_PX ? NARROW_HEIGHT : HEIGHT;
    const wanted = [channel, width, height, ...shown].join('\n');
    if (wanted !== plotted) rebuild(height);
    else plot.setData(data, false);
    plotted = wanted;
    plot.setScale('x', { min: start / 1000, max: now / 1000 });
    if (isHeld) queueMicrotask(placeCursor); // after the plot has moved
    space.setAttribute('aria-valuemax', String(Math.max(0, times.length - 1)));
    showPointed();
  }

  function rebuild(height) {
    plot?.destroy();
    const scales = [...new Set(shown.map(scaleOf))];
    const decimals = Object.fromEntries(shown.map((name) => [scaleOf(name), values.series(name).decimals]));
    plot = buildPlot(space, {
      height,
      data,
      lines: shown.map((name, index) => ({
        label: name,
        colour: colourOf(values.names.indexOf(name)),
        filled: shown.length === 1,
        scale: scaleOf(name),
        more: { points: { size: 4 }, gaps: () => gapsOf(index) },
      })),
      scales: Object.fromEntries((scales.length ? scales : ['y']).map((scale) => [scale, { range: rangeOf }])),
      padding: [6, scales.length > 1 ? 0 : 24, 0, 0], // room for half of a label
      axes: scales.slice(0, 2).map((scale, index) => ({
        scale,
        side: index ? 1 : 3,
        grid: index ? { show: false } : undefined,
        // With several scales, the colour tells whose it is.
        ...(scales.length > 1 ? { colour: colourOf(values.names.indexOf(shown.find((name) => scaleOf(name) === scale))) } : {}),
        values: (_, splits) => splits.map((value) => formatValue(value, Math.max(decimals[scale], stepDecimals(splits)))),
      })),
      pointed: whenPointed,
    });
  }

  /** Pauses in which a line is interrupted, as pairs of positions on the canvas. */
  function gapsOf(line) {
    const [times, column] = [data[0], data[line + 1]];
    const found = [];
    let before;
    for (const [index, time] of times.entries()) {
      if (column[index] === null) continue;
      if (time - before > gaps[line]) found.push([plot.valToPos(before, 'x', true), plot.valToPos(time, 'x', true)]);
      before = time;
    }
    return found;
  }

  // ---- the cursor ----

  function whenPointed(index) {
    const time = index === null ? null : data[0][index] * 1000;
    if (isHeld || time === pointed) return;
    pointed = time;
    showPointed();
    draw();
  }

  /** Marks the event under the cursor in the list, and describes it. */
  function showPointed() {
    const cell = pointed === null ? undefined : rows.querySelector(`.event[data-channel="${CSS.escape(channel)}"] time[datetime="${new Date(Math.round(pointed)).toISOString()}"]`);
    const row = cell?.closest('.event');
    if (row !== pointedRow) {
      pointedRow?.removeAttribute('data-pointed');
      row?.setAttribute('data-pointed', '');
      pointedRow = row;
    }
    const index = pointed === null ? data[0].length - 1 : data[0].indexOf(pointed / 1000);
    space.setAttribute('aria-valuenow', String(Math.max(0, index)));
    const at = data[0][index];
    const parts = shown.map((name, line) => `${name} ${data[line + 1]?.[index] ?? 'no value'}`);
    space.setAttribute('aria-valuetext', at === undefined ? 'no values' : `${clockTime(new Date(at * 1000))}: ${parts.join(', ') || 'no line'}`);
    title.dataset.time = pointed === null ? '' : clockTime(new Date(pointed), new Date());
  }

  /** Moves the cursor to a time and holds it there, or removes it. */
  function moveTo(time) {
    pointed = time;
    isHeld = time !== null;
    placeCursor();
    showPointed();
    draw();
  }

  function placeCursor() {
    plot?.setCursor(isHeld ? { left: plot.valToPos(pointed / 1000, 'x'), top: 1 } : { left: -10, top: -10 });
  }

  space.addEventListener('pointermove', () => { isHeld = false; });
  space.addEventListener('keydown', (event) => {
    const [times] = data;
    const present = pointed === null ? times.length : times.indexOf(pointed / 1000);
    const next = { ArrowLeft: present - 1, ArrowRight: present + 1, Home: 0, End: times.length - 1 }[event.key];
    if (event.key === 'Escape' && pointed !== null) moveTo(null);
    else if (next === undefined || !times.length) return;
    else moveTo(times[Math.max(0, Math.min(times.length - 1, next))] * 1000);
    event.preventDefault();
    event.stopPropagation();
  });
  space.addEventListener('blur', () => moveTo(null));

  rows.addEventListener('pointerover', ({ target }) => {
    const row = target.closest('.event');
    if (box.hidden || !row || row.dataset.channel !== channel) return;
    moveTo(new Date(row.querySelector('time').dateTime).getTime());
  });
  rows.addEventListener('pointerleave', () => { if (!box.hidden) moveTo(null); });

  // ---- changes around it ----

  whenColoursChange(() => {
    plotted = '';
    draw();
  });
  new ResizeObserver(draw).observe(box);
  setInterval(() => { if (!box.hidden && hasPlot) draw(); }, TICK_MS);

  return {
    /** Shows the values of a channel. @param {import('./values.js').ChannelValues} [next] */
    show(name, next) {
      if (values === next && channel === name) return;
      [channel, values, names, plotted, pointed] = [name, next, '', '', null];
      title.textContent = title.title = name;
      box.hidden = !values?.names.length;
      chips.replaceChildren();
      fill();
      draw();
    },
    /** Called when the channel has new values. */
    changed(of) {
      if (of === values) draw();
    },
  };
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A scale with some room, not collapsed if all values are equal. */
function rangeOf(_, least, greatest) {
  if (least === null) return [0, 1];
  const room = (greatest - least) * 0.12 || Math.abs(greatest) * 0.05 || 1;
  return [least - room, greatest + room];
}

/** The decimals that tell the labels of an axis apart. */
function stepDecimals(splits) {
  const step = Math.abs(splits[1] - splits[0]);
  return step < 1 ? Math.ceil(-Math.log10(step)) : 0;
}
