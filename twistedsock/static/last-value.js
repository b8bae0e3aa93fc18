/** The last value of a channel, with its age and a sparkline; for channels without numbers the last payload. */

import { make } from './dom.js';
import { drawSparkline, makeSparkline, sparklinePoints } from './sparkline.js';
import { formatAge, formatValue, isSilent, summarize, WHOLE } from './values.js';

const SPARK = { width: 88, height: 26, count: 60 };

/** Number of further fields that are listed. The others are counted. */
const MORE_FIELDS = 3;

/** @returns {HTMLElement} an empty one, for `drawLastValue` */
export function buildLastValue() {
  const box = make('div', 'last');
  const value = make('p', 'last-value');
  value.append(make('strong'), ' ', make('span'));
  const spark = makeSparkline(SPARK.width, SPARK.height);
  spark.classList.add('sparkline');
  box.append(value, spark, make('p', 'last-more'), make('p', 'last-age'));
  box.hidden = true;
  return box;
}

/**
 * @param {HTMLElement} box
 * @param {object} channel
 * @param {import('./values.js').ChannelValues} channel.values
 * @param {{data: any, time: number}} [channel.last] the newest event
 * @param {number} channel.now
 */
export function drawLastValue(box, { values, last, now }) {
  box.hidden = !last;
  if (!last) return;
  const [value, spark, more, age] = box.children;
  const [name, ...others] = values.names;
  const series = values.series(name);
  write(value.firstChild, series ? formatValue(series.latest, series.decimals) : '');
  write(value.lastChild, series ? labelOf(name) : summarize(last.data));
  value.title = value.textContent.trim();
  spark.toggleAttribute('hidden', !series);
  if (series) drawSparkline(spark, sparklinePoints(series.values, SPARK));
  const listed = others.slice(0, MORE_FIELDS).map((one) => `${one}\u00a0${formatValue(values.series(one).latest, values.series(one).decimals)}`);
  if (others.length > listed.length) listed.push(`${others.length - listed.length} more`);
  write(more, listed.join(' · '));
  more.title = more.textContent;
  write(age, formatAge(now - last.time));
  box.toggleAttribute('data-silent', Boolean(series) && isSilent(series.times, now));
}

/** Payloads that are a number as a whole need no name. */
const labelOf = (field) => (field === WHOLE ? '' : field);

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
