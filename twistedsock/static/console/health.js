/** The state of the server in one sentence. The rules are also in docs/how-to/console.md. */

import { plural } from '../format.js';
import { writeRoute } from './routes.js';
import { age, count, duration, percent } from './units.js';

/** Statistics arrive each second. Without any for this many seconds, the state is unknown. */
export const MAX_SILENCE_SECONDS = 5;

/** Events that were lost concern the present state for this many seconds. */
export const LOSS_SECONDS = 60;

/** Load is measured over this many seconds, so that one busy second does not change the state. */
export const LOAD_SECONDS = 10;

/** Mean CPU in percent of one core. With more, latency grows quickly. */
export const BUSY_CPU = 80;

/** A batch of this many seconds delays all clients noticeably. */
export const BUSY_BATCH_SECONDS = 0.1;

/** Slow clients that are named. */
const MAX_NAMES = 2;

/**
 * @typedef {object} Observed
 * @property {number} silence seconds since the last statistics
 * @property {number} clients
 * @property {number} slow clients that are behind
 * @property {{id: string, nick: string}[]} slowest those that are furthest behind
 * @property {number} lost events that were lost in the last minute
 * @property {number} cpu mean of the busiest process in the last ten seconds, in percent of one core
 * @property {string[]} [away] processes that do not answer
 * @property {number} longest the longest batch of the last ten seconds, in seconds
 */

/**
 * @param {Observed} observed
 * @returns {{level: 'good' | 'warning' | 'bad', parts: {text: string, href?: string}[][]}} the parts of the sentence; each
 *   consists of texts, some of which are links
 */
export function describeHealth({ silence, clients, slow, slowest, lost, cpu, longest, away = [] }) {
  if (silence >= MAX_SILENCE_SECONDS) {
    return { level: 'bad', parts: [[{ text: 'Not responding' }], [{ text: `no statistics for ${age(silence)}` }]] };
  }
  const busy = cpu >= BUSY_CPU || longest >= BUSY_BATCH_SECONDS;
  const [level, state] = lost ? ['bad', 'Losing events'] : away.length ? ['warning', 'Incomplete'] : busy ? ['warning', 'Busy'] : ['good', 'Healthy'];
  const parts = [[{ text: state }], [{ text: plural(clients, 'client'), href: writeRoute({ view: 'peers' }) }]];
  if (slow) parts.push(describeSlow(slow, slowest));
  if (lost) parts.push([{ text: `${count(lost)} lost in the last minute`, href: writeRoute({ view: 'log', order: 'lost' }) }]);
  if (away.length) parts.push([{ text: `no answer from ${away.join(', ')}` }]);
  if (cpu >= BUSY_CPU) parts.push([{ text: `CPU ${percent(cpu)}` }]);
  if (longest >= BUSY_BATCH_SECONDS) parts.push([{ text: `a batch took ${duration(longest)}` }]);
  return { level, parts };
}

function describeSlow(slow, slowest) {
  const texts = [{ text: `${count(slow)} slow`, href: writeRoute({ view: 'peers', order: 'lag' }) }];
  for (const [index, { id, nick }] of slowest.slice(0, Math.min(slow, MAX_NAMES)).entries()) {
    texts.push({ text: index ? ', ' : ': ' }, { text: nick || id, href: writeRoute({ view: 'peer', id }) });
  }
  const named = (texts.length - 1) / 2;
  if (named && slow > named) texts.push({ text: ` and ${count(slow - named)} more` });
  return texts;
}
