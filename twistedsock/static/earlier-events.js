/**
 * Reads the histories of several channels backwards, page by page, in one order by time: an event is returned only when
 * every later one of all channels has been. Reports what the histories no longer contain. Uses no DOM.
 */

/** Events requested from one channel at a time, and returned at most by one call. */
const PAGE_EVENTS = 100;

/**
 * @typedef {object} Source
 * @property {string} name of the channel
 * @property {number} [before] the offset of the first event that is known. Without it, the newest events are read first.
 * @property {number} [first] the offset of the last event that is read: 1, unless only a gap is to be filled
 * @property {boolean} [former] true if the first known event is of a former epoch: no history contains earlier ones
 */

export class EarlierEvents {
  /**
   * @param {(channel: string, options: object) => Promise<object>} history that of the client
   * @param {Source[]} sources
   */
  constructor(history, sources, pageEvents = PAGE_EVENTS) {
    this.history = history;
    this.pageEvents = pageEvents;
    this.channels = sources.map(({ name, before, first = 1, former = false }) => ({
      name, before, first, waiting: [], complete: former || before <= first, gone: 0, reset: former, error: undefined, epoch: undefined,
    }));
  }

  get done() {
    return this.channels.every(({ complete, waiting }) => complete && !waiting.length);
  }

  /** Resolves with the next page: events that directly precede those returned so far, the oldest first. */
  async next() {
    await Promise.all(this.channels.filter(({ complete, waiting }) => !complete && !waiting.length).map((channel) => this.#read(channel)));
    // Of a channel that is not complete, events before its waiting ones are unknown.
    const cutoff = Math.max(-Infinity, ...this.channels.filter(({ complete }) => !complete).map(({ waiting }) => waiting[0].time));
    const known = this.channels.flatMap(({ waiting }) => waiting.filter(({ time }) => time >= cutoff));
    const page = known.sort((a, b) => a.time - b.time).slice(-this.pageEvents);
    const returned = new Set(page);
    for (const channel of this.channels) channel.waiting = channel.waiting.filter((event) => !returned.has(event));
    return page;
  }

  async #read(channel) {
    const { name, before, first } = channel;
    let found;
    try {
      found = await this.history(name, { since: first - 1, before, last: this.pageEvents });
    } catch (error) {
      if (!['unauthorized', 'forbidden'].includes(error.code)) throw error;
      Object.assign(channel, { complete: true, error: error.code });
      return;
    }
    if (channel.epoch !== undefined && channel.epoch !== found.epoch) {
      Object.assign(channel, { complete: true, reset: true }); // its offsets now mean other events
      return;
    }
    channel.epoch = found.epoch;
    channel.waiting = found.events;
    channel.before = found.events[0]?.offset ?? before;
    channel.gone = Math.max(0, ...(found.lost ?? []).map(({ last }) => last));
    channel.complete = found.events.length < this.pageEvents || channel.before <= first;
  }
}

/** Maximum number of sentences about channels whose beginning is reached. */
const MAX_SENTENCES = 3;

/** Describes why there are no earlier events, for an object whose `done` is true. */
export function describeBeginning({ channels }) {
  const gone = channels.flatMap(({ name, reset, error, gone: last }) => {
    if (error) return [`You can’t read the history of ${name}.`];
    if (reset) return [`Events of ${name} before its reset are no longer in the history.`];
    if (last) return [last === 1 ? `Event 1 of ${name} is no longer in the history.` : `Events 1–${last.toLocaleString('en')} of ${name} are no longer in the history.`];
    return [];
  });
  if (!gone.length) return 'There are no earlier events.';
  const more = gone.length - MAX_SENTENCES;
  return [...gone.slice(0, MAX_SENTENCES), ...(more > 0 ? [`The same is true for ${more} more.`] : [])].join(' ');
}
