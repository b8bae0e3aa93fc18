/** What charts are drawn of: two figures of the bridge make a point, and five minutes of points are kept. */

/** Seconds that the charts reach back; the bridge keeps its figures as long. */
export const SPAN = 300;

/** Seconds between two points of which one is missing: then the line is broken, as nobody knows what was between. */
const GAP = 4;

const sum = (counts) => Object.values(counts ?? {}).reduce((total, one) => total + one, 0);

/**
 * The point that two figures make: rates are their difference, states are the later one's.
 * Undefined where they are not one behind the other, as after a restart of the bridge.
 */
export function pointBetween(before, after) {
  const seconds = after.time - before.time;
  if (!(seconds > 0) || after.uptime < before.uptime) return undefined;
  const each = (name) => Math.max(0, (after[name] - before[name]) / seconds);
  const turns = after.turns - before.turns;
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
    cpu: 100 * each('cpu_seconds'),
    memory: after.memory_bytes,
    log: after.log_bytes,
  };
}

/** The points of the last minutes. */
export class Series {
  #points = [];
  #last;

  /** @returns {boolean} whether there is a new point */
  add(figures) {
    if (this.#last && figures.time < this.#last.time - SPAN) this.#forget(); // somebody has set the clock back
    if (this.#last && figures.time <= this.#last.time) return false; // told again, after a break
    const point = this.#last && pointBetween(this.#last, figures);
    const silent = this.#last ? figures.time - this.#last.time : 0;
    this.#last = figures;
    if (!point) {
      if (this.#points.length) this.#points.push({ time: figures.time });
      return false;
    }
    if (silent > GAP) this.#points.push({ time: figures.time - silent / 2 });
    this.#points.push(point);
    while (this.#points[0].time < figures.time - SPAN) this.#points.shift();
    return true;
  }

  #forget() {
    this.#points = [];
    this.#last = undefined;
  }

  /** The newest figures, as they came. */
  get figures() { return this.#last; }

  get length() { return this.#points.length; }

  /** @param {number} [index] of a point; the newest without it */
  point(index = this.#points.length - 1) { return this.#points[index]; }

  /** Times, and for each name its values; null where there is none. */
  columns(names) {
    return [this.#points.map(({ time }) => time), ...names.map((name) => this.#points.map((point) => point[name] ?? null))];
  }

  /** @returns {[number, number] | undefined} the least and the greatest value */
  extremes(name) {
    let least = Infinity;
    let greatest = -Infinity;
    for (const { [name]: value } of this.#points) {
      if (value === undefined) continue;
      least = Math.min(least, value);
      greatest = Math.max(greatest, value);
    }
    return greatest < least ? undefined : [least, greatest];
  }
}
