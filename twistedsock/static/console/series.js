/** The data of the charts: points computed from pairs of consecutive metrics, for the last five minutes. */

/** Length of the charts in seconds; the server keeps its metrics for the same time. */
export const SPAN_SECONDS = 300;

/** After a longer silence in seconds, points are missing, and the line is interrupted. */
const MAX_INTERVAL_SECONDS = 4;

const sum = (counts) => Object.values(counts ?? {}).reduce((total, one) => total + one, 0);

/** The CPU of each process between two metrics, in percent of one core; undefined if the process was started again. */
export function loadOf(before, after) {
  const seconds = after.time - (before?.time ?? after.time);
  const former = new Map(before?.processes?.map((one) => [one.name, one]));
  return new Map(after.processes.map(({ name, cpu_seconds: now, uptime, is_running: runs }) => {
    const known = former.get(name);
    const isSame = runs && known?.is_running && uptime >= known.uptime && seconds > 0;
    return [name, isSame ? 100 * Math.max(0, now - known.cpu_seconds) / seconds : undefined];
  }));
}

/**
 * Whether the totals of two metrics are those of the same processes. One that has been started meanwhile began with zeros;
 * one that did not answer before brings the totals of its whole life.
 */
function areSameProcesses(before, after, seconds) {
  if (!before.processes || !after.processes) return !before.processes === !after.processes;
  const running = ({ processes }) => new Map(processes.filter((one) => one.is_running).map((one) => [one.name, one]));
  const [former, present] = [running(before), running(after)];
  return [...former.keys()].every((name) => present.has(name))
    && [...present].every(([name, { uptime }]) => former.has(name) || uptime <= seconds + 1);
}

/**
 * Computes a point: rates from the difference of two consecutive metrics, states from the later ones.
 * Returns undefined if they are not consecutive, for example after a restart of the server, or not of the same processes.
 */
export function pointBetween(before, after) {
  const seconds = after.time - before.time;
  if (!(seconds > 0) || after.uptime < before.uptime || !areSameProcesses(before, after, seconds)) return undefined;
  const each = (name) => Math.max(0, (after[name] - before[name]) / seconds);
  const turns = after.turns - before.turns;
  const loads = after.processes ? [...loadOf(before, after).values()].map((one) => one ?? 0) : [100 * each('cpu_seconds')];
  const { line = 0, json = 0, events = 0, total = 0 } = after.peers;
  return {
    time: after.time,
    published: each('published'),
    delivered: each('delivered'),
    lost: each('lost'),
    received: each('received_bytes'),
    sent: each('sent_bytes'),
    refused: Math.max(0, (sum(after.refused) - sum(before.refused)) / seconds),
    peers: total,
    line,
    json,
    events,
    behind: after.behind,
    turn: turns > 0 ? (after.turn_seconds - before.turn_seconds) / turns : 0,
    longest: after.turn_longest,
    cpu: sum(loads), // a process that is new or back has used its CPU time before
    busiest: Math.max(0, ...loads),
    memory: after.memory_bytes,
    log: after.log_bytes,
  };
}

/** The points of the last five minutes. */
export class Series {
  #points = [];
  #last;
  #ignored = 0;

  /** @returns {boolean} true if there is a new point */
  add(figures) {
    if (this.#last && figures.time < this.#last.time - SPAN_SECONDS) this.#reset(); // the clock was set back
    if (this.#last && figures.time <= this.#last.time) return false; // repeated after a reconnection
    if (this.isOfOneOf(figures)) {
      this.#ignored += 1;
      return false;
    }
    if (figures.processes && this.#last && !this.#last.processes) this.#reset();
    this.#ignored = 0;
    const point = this.#last && pointBetween(this.#last, figures);
    const silent = this.#last ? figures.time - this.#last.time : 0;
    this.#last = figures;
    if (!point) {
      if (this.#points.length) this.#points.push({ time: figures.time });
      return false;
    }
    if (silent > MAX_INTERVAL_SECONDS) this.#points.push({ time: figures.time - silent / 2 });
    this.#points.push(point);
    while (this.#points[0].time < figures.time - SPAN_SECONDS) this.#points.shift();
    return true;
  }

  /**
   * Whether metrics are only those of one of several servers: they ask each other only while a client looks. After five
   * minutes of these, there is only one server.
   */
  isOfOneOf(figures) { return Boolean(!figures.processes && this.#last?.processes) && this.#ignored < SPAN_SECONDS; }

  #reset() {
    this.#points = [];
    this.#last = undefined;
  }

  /** The latest metrics as received. */
  get figures() { return this.#last; }

  get length() { return this.#points.length; }

  /** @param {number} [index] default: the latest point */
  point(index = this.#points.length - 1) { return this.#points[index]; }

  /** The number, mean and maximum of a rate in the last `seconds`. */
  over(name, seconds) {
    const start = (this.#last?.time ?? 0) - seconds;
    let total = 0;
    let duration = 0;
    let maximum = 0;
    for (const [index, { time, [name]: value }] of this.#points.entries()) {
      if (value === undefined || time <= start) continue;
      const interval = Math.min(MAX_INTERVAL_SECONDS, time - (this.#points[index - 1]?.time ?? time - 1));
      total += value * interval;
      duration += interval;
      maximum = Math.max(maximum, value);
    }
    return { total: Math.round(total), mean: duration ? total / duration : 0, maximum };
  }

  /** Returns the times and, for each name, its values, with null for missing ones. */
  columns(names) {
    return [this.#points.map(({ time }) => time), ...names.map((name) => this.#points.map((point) => point[name] ?? null))];
  }

  /** @returns {[number, number] | undefined} the minimum and maximum */
  extremes(name) {
    let minimum = Infinity;
    let maximum = -Infinity;
    for (const { [name]: value } of this.#points) {
      if (value === undefined) continue;
      minimum = Math.min(minimum, value);
      maximum = Math.max(maximum, value);
    }
    return maximum < minimum ? undefined : [minimum, maximum];
  }
}
