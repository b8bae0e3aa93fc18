/** The list of channels with subscribers, rate and history. */

import { copyFrom } from '../copy.js';
import { byId, make } from '../dom.js';
import { plural } from '../format.js';
import { buildList } from './list-view.js';
import { writeRoute } from './routes.js';
import { write, writeLink } from './table.js';
import { bytes, count, rate } from './units.js';

/** Points of a sparkline, two seconds apart: one minute. */
const SPARK_POINTS = 30;

/** Maximum number of channels whose rates are stored: several pages, for going back and forth. */
const MAX_SPARKLINES = 1000;

const SPARK_WIDTH = 60;
const SPARK_HEIGHT = 16;

export function buildChannels({ sysChannels, snippets }) {
  /** @type {Map<string, number[]>} */
  const sparks = new Map();

  function storeRates(rows) {
    for (const { channel, rate: now } of rows) {
      const rates = sparks.get(channel) ?? [];
      sparks.delete(channel);
      sparks.set(channel, rates); // the newest last
      rates.push(now);
      if (rates.length > SPARK_POINTS) rates.shift();
    }
    while (sparks.size > MAX_SPARKLINES) sparks.delete(sparks.keys().next().value);
  }

  function drawRate(cell, { channel, rate: now }) {
    if (!cell.firstChild) {
      const holder = make('span', 'spark');
      holder.append(makeSpark());
      cell.append(holder, make('span', 'figure'));
    }
    write(cell.lastChild, rate(now));
    const points = sparkPoints(sparks.get(channel) ?? [now]);
    const line = cell.querySelector('polyline');
    if (line.getAttribute('points') !== points) line.setAttribute('points', points);
  }

  byId('channels-copy').addEventListener('click', () => copyFrom(byId('channels-copy'), snippets.terminal().join('\n'), byId('channels-lines')));

  return buildList({
    view: 'channels',
    one: 'channel',
    sysChannels,
    keyOf: ({ channel }) => channel,
    orders: { rate: 'busiest first', name: 'by name', readers: 'most subscribers first' },
    arrived: storeRates,
    columns: [
      {
        title: 'Channel',
        name: 'name',
        order: 'name',
        rising: true,
        draw(cell, { channel }) { writeLink(cell, channel, writeRoute({ view: 'channel', name: channel })).title = channel; },
      },
      { title: 'Subscribers', name: 'number subscribers', order: 'readers', draw: (cell, { readers }) => write(cell, count(readers), String(readers)) },
      { title: 'Events/s', name: 'number rate', order: 'rate', draw: drawRate },
      { title: 'History', name: 'number less', draw: (cell, { events }) => write(cell, events ? plural(events, 'event') : 'empty') },
      { title: 'Size', name: 'number least', draw: (cell, { bytes: size }) => write(cell, bytes(size), `${size.toLocaleString('en')} bytes`) },
      { title: 'Last offset', name: 'number less', draw: (cell, { offset, epoch }) => write(cell, offset.toLocaleString('en'), `epoch ${epoch}`) },
    ],
    empty(found, error) {
      const lines = found ? undefined : snippets.terminal();
      write(byId('channels-empty-title'), found ? `Nothing found for “${found}”` : 'No channels yet');
      write(byId('channels-empty-text'), error || (found ? 'No channel name contains this text.' : 'A channel is created by its first subscriber or event. Open a terminal and type:'));
      byId('channels-sample').hidden = !lines;
      if (lines) snippets.show(byId('channels-lines'), lines);
    },
  });
}

function makeSpark() {
  const spark = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  spark.setAttribute('viewBox', `0 0 ${SPARK_WIDTH} ${SPARK_HEIGHT}`);
  spark.setAttribute('aria-hidden', 'true'); // the number is next to it
  spark.append(document.createElementNS('http://www.w3.org/2000/svg', 'polyline'));
  return spark;
}

/** The points of a polyline: the newest rate on the right, the highest at full height. */
function sparkPoints(rates) {
  const top = Math.max(1, ...rates);
  const step = SPARK_WIDTH / (SPARK_POINTS - 1);
  const height = (value) => (SPARK_HEIGHT - 1.5 - (value / top) * (SPARK_HEIGHT - 3)).toFixed(1);
  const shown = rates.length > 1 ? rates : [rates[0], rates[0]];
  return shown.map((value, index) => `${(SPARK_WIDTH - (shown.length - 1 - index) * step).toFixed(1)},${height(value)}`).join(' ');
}
