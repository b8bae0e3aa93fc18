/** The list of channels with subscribers, rate and history. */

import { copyFrom } from '../copy.js';
import { byId, make, makeButton } from '../dom.js';
import { plural } from '../format.js';
import { drawSparkline, makeSparkline, sparklinePoints } from '../sparkline.js';
import { buildList } from './list-view.js';
import { writeRoute } from './routes.js';
import { write, writeLink } from './table.js';
import { bytes, count, rate } from './units.js';

/** Points of a sparkline, two seconds apart: one minute. */
const SPARK_POINTS = 30;

/** Maximum number of channels whose rates are stored: several pages, for going back and forth. */
const MAX_SPARKLINES = 1000;

/** The newest rate is on the right, and the highest at the top. */
const SPARK = { width: 60, height: 16, count: SPARK_POINTS, least: 0, room: 1 };

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
      holder.append(makeSparkline(SPARK.width, SPARK.height));
      cell.append(holder, make('span', 'figure'));
    }
    write(cell.lastChild, rate(now));
    drawSparkline(cell.querySelector('svg'), sparklinePoints(sparks.get(channel) ?? [now], SPARK));
  }

  const lines = Object.assign(make('pre', 'lines'), { id: 'channels-lines', tabIndex: 0 });
  lines.setAttribute('aria-label', 'Commands for a terminal');
  const copy = makeButton('', 'Copy', () => copyFrom(copy, snippets.terminal().join('\n'), lines));
  const sample = make('div', 'sample');
  sample.append(lines, copy);

  return buildList({
    view: 'channels',
    title: 'Channels',
    one: 'channel',
    sysChannels,
    keyOf: ({ channel }) => channel,
    orders: { rate: 'busiest first', name: 'by name', readers: 'most subscribers first' },
    placeholder: 'part of a name',
    sample: [sample],
    received: storeRates,
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
      const commands = found ? undefined : snippets.terminal();
      write(byId('channels-empty-title'), found ? `Nothing found for “${found}”` : 'No channels yet');
      write(byId('channels-empty-text'), error || (found ? 'No channel name contains this text.' : 'A channel is created by its first subscriber or event. Open a terminal and type:'));
      sample.hidden = !commands;
      if (commands) snippets.show(lines, commands);
    },
  });
}
