/**
 * Values of channels: the numbers in payloads, kept as one series per field. The number of fields and points is limited,
 * whatever clients publish. Uses no DOM.
 */

import { describeBytes, isBytes } from './bytes.js';
import { jsonText } from './payloads.js';

/** Maximum number of fields kept per channel. */
export const MAX_FIELDS = 12;

/** Maximum number of points kept per field: as many as the server keeps events of a channel by default. */
export const MAX_POINTS = 10_000;

/** The field of payloads that are a number as a whole, such as `21.5`. */
export const WHOLE = 'value';

/** Limits on one payload, because clients can publish 64 KiB of nested JSON. */
const MAX_FIELDS_PER_EVENT = 24;
const MAX_NODES = 500;
const MAX_DEPTH = 8;
const MAX_FIELD_CHARACTERS = 80;

/** A field that is missing in this many events loses its place to a new one. */
const FORGET_AFTER_EVENTS = 50;

/** More decimals than this are not shown. */
const MAX_DECIMALS = 4;

/** Number of recent points that determine the decimals and the usual interval. */
const RECENT_POINTS = 20;

/** A series is silent after this multiple of its usual interval, which counts as at least a second. */
const SILENT_FACTOR = 3;
const MIN_INTERVAL_MS = 1000;

/** A line is interrupted after this multiple of the usual interval: irregular series must not fall into pieces. */
const GAP_FACTOR = 10;

/** Larger numbers are ignored, so that differences of values are finite. JSON can contain 1e400, which is read as Infinity. */
const MAX_SIZE = 1e300;
const isShown = (value) => Math.abs(value) <= MAX_SIZE;

const NUMBER = /^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?$/i;
const MAX_NUMBER_CHARACTERS = 40;

/**
 * Returns the numbers in a payload as [field, value] pairs: `{"celsius": 21.5, "limits": {"max": 30}}` has the fields
 * `celsius` and `limits.max`, and the text `21.5` has the field `value`. Numbers beyond the limits are ignored.
 * @returns {[string, number][]}
 */
export function numbersIn(data) {
  if (isBytes(data)) return [];
  if (typeof data === 'string') {
    const text = data.length <= MAX_NUMBER_CHARACTERS ? data.trim() : '';
    return NUMBER.test(text) && isShown(Number(text)) ? [[WHOLE, Number(text)]] : [];
  }
  const found = [];
  let nodes = 0;
  const walk = (node, path, depth) => {
    nodes += 1;
    if (typeof node === 'number' && isShown(node) && path.length <= MAX_FIELD_CHARACTERS) found.push([path || WHOLE, node]);
    if (node === null || typeof node !== 'object' || depth > MAX_DEPTH) return;
    for (const key of Object.keys(node)) {
      if (nodes >= MAX_NODES || found.length >= MAX_FIELDS_PER_EVENT) return;
      walk(node[key], path ? `${path}.${key}` : key, depth + 1);
    }
  };
  walk(data, '', 0);
  return found;
}

/** The values of one field: `times` in milliseconds, ascending, and `values`. */
export class Series {
  times = [];
  values = [];
  /** The number of events of the channel at the last value. */
  updatedAt = 0;
  #max;

  constructor(max) {
    this.#max = max;
  }

  get latest() { return this.values.at(-1); }

  get latestTime() { return this.times.at(-1); }

  push(time, value) {
    this.times.push(this.times.length ? Math.max(time, this.times.at(-1)) : time); // the clock can have been set back
    this.values.push(value);
    const excess = this.times.length - this.#max;
    if (excess > this.#max / 10) this.#drop(excess); // in batches, because it moves all points
  }

  /** Adds points before the first one. */
  prepend(times, values) {
    const first = this.times[0] ?? Infinity;
    this.times = [...times.map((time) => Math.min(time, first)), ...this.times];
    this.values = [...values, ...this.values];
    this.#drop(Math.max(0, this.times.length - this.#max));
  }

  #drop(count) {
    this.times.splice(0, count);
    this.values.splice(0, count);
  }

  /** The index of the first point at or after a time. */
  indexAt(time) {
    let low = 0;
    let high = this.times.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.times[middle] < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The index of the point that is nearest to a time, or -1. */
  nearest(time) {
    const after = this.indexAt(time);
    if (after === 0) return this.times.length ? 0 : -1;
    if (after === this.times.length) return after - 1;
    return this.times[after] - time < time - this.times[after - 1] ? after : after - 1;
  }

  /** The points since a time, and the one before, so that the line begins at the edge. */
  since(time) {
    const start = Math.max(0, this.indexAt(time) - 1);
    return start ? { times: this.times.slice(start), values: this.values.slice(start) } : { times: this.times, values: this.values };
  }

  /** The minimum and maximum since a time, or undefined. @returns {[number, number] | undefined} */
  extremes(since = -Infinity) {
    let [minimum, maximum] = [Infinity, -Infinity];
    for (let index = this.indexAt(since); index < this.values.length; index += 1) {
      const value = this.values[index];
      if (value < minimum) minimum = value;
      if (value > maximum) maximum = value;
    }
    return maximum < minimum ? undefined : [minimum, maximum];
  }

  /** The number of decimals with which all recent values are shown, so that 22 between 21.5 and 22.5 is `22.0`. */
  get decimals() {
    return Math.max(0, ...this.values.slice(-RECENT_POINTS).map(decimalsOf));
  }
}

/** The values of one channel. */
export class ChannelValues {
  /** All events since this time are loaded. */
  filledSince = Infinity;
  #fields = new Map();
  #max;
  #events = 0;
  #first;
  #last;

  constructor(maxPoints = MAX_POINTS) {
    this.#max = maxPoints;
  }

  /** The names of the fields, in the order of their first appearance. */
  get names() { return [...this.#fields.keys()]; }

  /** The offset of the oldest event that was added, or undefined. */
  get first() { return this.#first; }

  /** @returns {Series | undefined} */
  series(name) { return this.#fields.get(name); }

  /**
   * Adds a new event. Events that were added before are ignored.
   * @returns {boolean} true if it contains numbers
   */
  add({ offset, time, data }) {
    if (offset <= this.#last) return false;
    this.#first ??= offset;
    this.#last = offset;
    this.#events += 1;
    const numbers = numbersIn(data);
    for (const isKnown of [true, false]) { // known fields first, so that they keep their places
      for (const [name, value] of numbers) {
        if ((this.#fields.has(name) && this.#fields.get(name).updatedAt < this.#events) === isKnown) this.#push(name, time, value, isKnown);
      }
    }
    return numbers.length > 0;
  }

  #push(name, time, value, isKnown) {
    if (!isKnown && this.#fields.has(name)) return; // twice in one event
    const series = this.#fields.get(name) ?? this.#newSeries(name);
    if (!series) return;
    series.push(time, value);
    series.updatedAt = this.#events;
  }

  /** Returns undefined if there is no place for another field. */
  #newSeries(name) {
    if (this.#fields.size >= MAX_FIELDS) {
      const [oldest, { updatedAt }] = [...this.#fields].reduce((one, other) => (other[1].updatedAt < one[1].updatedAt ? other : one));
      if (this.#events - updatedAt < FORGET_AFTER_EVENTS) return undefined;
      this.#fields.delete(oldest);
    }
    const series = new Series(this.#max);
    this.#fields.set(name, series);
    return series;
  }

  /** Adds events of the history that are older than those that were added, and in order. */
  fill(events) {
    const columns = new Map();
    for (const { offset, time, data } of events) {
      if (offset >= this.#first) continue;
      for (const [name, value] of numbersIn(data)) {
        const [times, values] = columns.get(name) ?? columns.set(name, [[], []]).get(name);
        times.push(time);
        values.push(value);
      }
    }
    for (const [name, [times, values]] of columns) (this.#fields.get(name) ?? this.#newSeries(name))?.prepend(times, values);
    const [{ offset: oldest } = {}] = events;
    if (oldest !== undefined) this.#first = Math.min(oldest, this.#first ?? oldest);
    this.#last ??= events.at(-1)?.offset;
  }

  /** A new epoch has begun: the events after this offset follow, and there are no older ones to load. */
  restart(offset) {
    this.#first = this.#last = offset;
    this.filledSince = -Infinity;
  }
}

/** Merges series for a chart: all times, and for each series its values, null where it has none. */
export function alignSeries(several) {
  const next = several.map(() => 0);
  const times = [];
  const columns = several.map(() => []);
  for (;;) {
    let time = Infinity;
    for (const [index, series] of several.entries()) time = Math.min(time, series.times[next[index]] ?? Infinity);
    if (time === Infinity) return [times, ...columns];
    times.push(time);
    for (const [index, series] of several.entries()) {
      const has = series.times[next[index]] === time;
      columns[index].push(has ? series.values[next[index]] : null);
      if (has) next[index] += 1;
    }
  }
}

/**
 * The usual interval in milliseconds: three quarters of the last ones are not longer, so that irregular series are not taken
 * for silent. Undefined if there are fewer than two.
 */
export function usualInterval(times) {
  const recent = times.slice(-RECENT_POINTS);
  if (recent.length < 3) return undefined;
  const intervals = recent.slice(1).map((time, index) => time - recent[index]).sort((one, other) => one - other);
  return Math.max(MIN_INTERVAL_MS, intervals[Math.floor(0.75 * (intervals.length - 1))]);
}

/** True if the last value is older than three times the usual interval. */
export function isSilent(times, now) {
  const interval = usualInterval(times);
  return interval !== undefined && now - times.at(-1) > SILENT_FACTOR * interval;
}

/** The length of a pause in milliseconds that interrupts a line. */
export function gapLength(times) {
  const interval = usualInterval(times);
  return interval === undefined ? Infinity : GAP_FACTOR * interval;
}

// ---- text ----

function decimalsOf(value) {
  const [, fraction = '', exponent = '0'] = String(value).match(/^-?\d+(?:\.(\d+))?(?:e([+-]\d+))?$/) ?? [];
  return Math.min(MAX_DECIMALS, Math.max(0, fraction.length - Number(exponent)));
}

const formats = Array.from({ length: MAX_DECIMALS + 1 }, (_, decimals) => new Intl.NumberFormat('en', { minimumFractionDigits: decimals, maximumFractionDigits: decimals }));

/** Formats a value: `21.50`, `1,013`, `1.234e+12`. Values between two others of the axis can need more decimals. */
export function formatValue(value, decimals = decimalsOf(value)) {
  const size = Math.abs(value);
  if (size >= 1e9 || (size > 0 && size < 10 ** -MAX_DECIMALS)) return value.toExponential(3).replace('-', '−');
  const text = formats[Math.min(decimals, MAX_DECIMALS)].format(value);
  return /[1-9]/.test(text) ? text.replace('-', '−') : text.replace('-', ''); // no −0
}

/** Formats a minimum and maximum: `20.1–23.4`, or `21.0` if they are equal. */
export function formatRange([minimum, maximum], decimals) {
  const [least, greatest] = [formatValue(minimum, decimals), formatValue(maximum, decimals)];
  return least === greatest ? least : `${least}${minimum < 0 || maximum < 0 ? ' to ' : '–'}${greatest}`;
}

/** Formats an age in milliseconds: `now`, `12 s ago`, `3 min ago`, `5 h ago`, `2 d ago` */
export function formatAge(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  if (Number.isNaN(seconds)) return ''; // events of old servers have no time
  if (seconds < 1) return 'now'; // also if the clock of the server is ahead
  const [size, unit] = [[86_400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']].find(([one]) => seconds >= one);
  return `${Math.floor(seconds / size)}\u202f${unit} ago`;
}

/** Shortens a payload to one line, for lists of last values. */
export function summarize(data, characters = 80) {
  if (isBytes(data)) return describeBytes(data);
  const text = (typeof data === 'string' ? data.slice(0, 4 * characters) : jsonText(data)).replace(/\s+/g, ' ').trim();
  return text.length > characters ? `${text.slice(0, characters - 1)}…` : text;
}

/** The clock of the server, estimated from live events, so that charts and ages are right if the clock here is wrong. */
export class ServerClock {
  #ahead = 0;

  /** A new event has arrived, not one of the history. */
  adjust(time, now = Date.now()) {
    const ahead = time - now;
    // Differences under a second are delays on the way.
    this.#ahead = Math.abs(ahead) < 1000 ? 0 : ahead;
  }

  now(local = Date.now()) { return local + this.#ahead; }
}
