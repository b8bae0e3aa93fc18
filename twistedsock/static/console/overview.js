/** The overview: current metrics, charts of the last five minutes, and recent disconnections. */

import { copyFrom } from '../copy.js';
import { byId, make } from '../dom.js';
import { clockTime, exactTime } from '../format.js';
import { buildCharts } from './charts.js';
import { identityWords, protocolOf } from './peers.js';
import { writeRoute } from './routes.js';
import { Series, SPAN_SECONDS } from './series.js';
import { write } from './table.js';
import { age, bytes, count, duration, percent, rate } from './units.js';

/** @type {import('./charts.js').Chart[]} */
const CHARTS = [
  { title: 'Events/s', format: rate, lines: [['delivered', 'delivered', '--copper'], ['published', 'published', '--verdigris']], filled: true, least: 5 },
  { title: 'Bytes/s', format: bytes, lines: [['sent', 'sent', '--copper'], ['received', 'received', '--verdigris']], filled: true, of: 'bytes', least: 1024 },
  { title: 'Clients', format: count, lines: [['line', 'lines', '--hue-0'], ['json', 'JSON', '--hue-2'], ['events', 'SSE', '--hue-3']], of: 'things', least: 5 },
  { title: 'Slow subscribers', format: count, lines: [['behind', 'falling behind', '--copper']], filled: true, of: 'things', least: 4 },
  { title: 'Processing time per batch', format: duration, lines: [['longest', 'longest', '--copper'], ['turn', 'mean', '--verdigris']], filled: true, least: 0.005 },
  { title: 'CPU', format: percent, lines: [['cpu', 'of one core', '--verdigris']], filled: true, least: 10 },
  { title: 'Memory', format: bytes, lines: [['memory', 'process', '--hue-2'], ['log', 'history', '--hue-4']], filled: true, of: 'bytes', least: 1024 * 1024 },
  { title: 'Lost events and rejections/s', format: rate, lines: [['lost', 'events lost', '--alarm'], ['refused', 'rejections', '--hue-4']], least: 2 },
];

/** The metrics above the charts: name, value and tooltip. */
const FACTS = [
  ['Uptime', ({ uptime }) => age(uptime), 'Time since the server was started'],
  ['Clients', ({ peers }) => count(peers.total), 'Clients with an open session'],
  ['Connections', ({ connections }) => count(connections), 'Open sockets, including those of plain HTTP requests'],
  ['Channels', ({ channels }) => count(channels), 'Channels with subscribers or a history'],
  ['Subscriptions', ({ subscriptions }) => count(subscriptions), 'Subscriptions of all clients'],
  ['Published', ({ published }) => count(published), 'Events published since the start'],
  ['Delivered', ({ delivered }) => count(delivered), 'Events delivered since the start, counted once per subscriber'],
  ['Lost', ({ lost }) => count(lost), 'Events that left the history before a slow subscriber could receive them. Each subscriber is notified.'],
  ['History', ({ log_bytes: size }) => bytes(size), 'Size of the stored events of all channels'],
];

/** Describes the traffic of a connection. Unix sockets do not count it. */
function traffic(sent, received) {
  if (sent === null || received === null) return 'bytes not counted';
  return `sent ${bytes(sent)}, received ${bytes(received)}`;
}

/** Describes why a connection ended. */
export function describeReason(by, why) {
  if (why === 'broken') return 'connection lost';
  if (why === 'aborted') return 'aborted by the server';
  const reason = why && why !== 'cleanly' ? ` (${why})` : '';
  return `closed by the ${by === 'server' ? 'server' : 'client'}${reason}`;
}

function buildRow(end, key) {
  const { id, nick, from, seconds, sent, received, by, why, at } = end;
  const row = make('li');
  row.dataset.key = key;
  const date = new Date(at * 1000);
  const time = make('time', 'time', clockTime(date));
  time.dateTime = date.toISOString();
  time.title = exactTime(date);
  const link = make('a', 'id', nick || id);
  link.href = writeRoute({ view: 'peer', id });
  const source = make('span', 'source', [identityWords(end), protocolOf(end), from].filter(Boolean).join(', '));
  source.title = source.textContent;
  row.append(time, link, source, make('span', 'reason', `connected ${duration(seconds)} · ${traffic(sent, received)} · ${describeReason(by, why)}`));
  return row;
}

export function buildOverview({ sysChannels, snippets }) {
  const series = new Series();
  const charts = buildCharts(byId('charts'), CHARTS, series);
  const facts = FACTS.map(([name, , title]) => {
    const entry = make('div');
    const value = make('dd');
    entry.title = title;
    entry.append(make('dt', '', name), value);
    byId('facts').append(entry);
    return value;
  });
  const rejected = make('dd');
  const rejectedEntry = make('div', 'wide');
  rejectedEntry.title = 'Rejected connections, requests and commands, by error code';
  rejectedEntry.append(make('dt', '', 'Rejected'), rejected);
  byId('facts').append(rejectedEntry);

  function showMetrics(data) {
    if (!data?.peers) return;
    series.add(data);
    byId('overview-loading').hidden = true;
    byId('facts').hidden = byId('charts').hidden = false;
    for (const [index, [, read]] of FACTS.entries()) write(facts[index], read(data));
    const codes = Object.entries(data.refused ?? {}).filter(([, times]) => times).sort(([, a], [, b]) => b - a);
    rejectedEntry.hidden = !codes.length;
    write(rejected, codes.map(([code, times]) => `${code} ${count(times)}`).join(', '));
    showIdle(data.peers.total <= 1);
    charts.draw();
  }

  function showIdle(is) {
    const lines = snippets.terminal();
    byId('idle').hidden = !is || !lines;
    if (!is || !lines) return;
    snippets.show(byId('idle-lines'), lines);
  }

  byId('idle-copy').addEventListener('click', () => copyFrom(byId('idle-copy'), snippets.terminal().join('\n'), byId('idle-lines')));

  /** Shows the latest disconnections. Rows that are already shown keep their element, and so the focus. */
  function showDisconnections(data) {
    if (!data?.closed) return;
    const keyOf = ({ id, at }) => `${id} ${at}`;
    const listed = new Map([...byId('disconnects-list').children].map((row) => [row.dataset.key, row]));
    const rows = data.closed.map((end) => listed.get(keyOf(end)) ?? buildRow(end, keyOf(end)));
    for (const row of listed.values()) if (!rows.includes(row)) row.remove();
    for (const [index, row] of rows.entries()) {
      if (byId('disconnects-list').children[index] !== row) byId('disconnects-list').insertBefore(row, byId('disconnects-list').children[index] ?? null);
    }
    byId('disconnects-list').hidden = !rows.length;
    byId('disconnects-none').hidden = Boolean(rows.length);
  }

  let stops = [];
  return {
    title: () => 'Overview',
    open() {
      stops = [sysChannels.subscribe('$sys/figures', showMetrics, SPAN_SECONDS), sysChannels.subscribe('$sys/closed/0', showDisconnections, 1, true)];
      charts.draw();
    },
    close() {
      for (const stop of stops) stop();
    },
  };
}
