/** The overview: the state in one sentence, current metrics, charts of the last five minutes, and who is busy, slow or gone. */

import { copyFrom } from '../copy.js';
import { byId, make } from '../dom.js';
import { clockTime, exactTime, plural } from '../format.js';
import { buildCharts } from './charts.js';
import { describeHealth, LOAD_SECONDS, LOSS_SECONDS } from './health.js';
import { describeReason, traffic } from './log.js';
import { counted, identityWords, nameOf, protocolOf } from './peers.js';
import { buildProcesses, inWords } from './processes.js';
import { writeRoute } from './routes.js';
import { Series, SPAN_SECONDS } from './series.js';
import { write, writeLink } from './table.js';
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

/** The metrics above the charts: name, value, tooltip, and the list with the details. */
const FACTS = [
  ['Uptime', ({ uptime }) => age(uptime), 'Time since the server was started'],
  ['Clients', ({ peers }) => count(peers.total), 'Clients with an open session', writeRoute({ view: 'peers' })],
  ['Connections', ({ connections }) => count(connections), 'Open sockets, including those of plain HTTP requests', writeRoute({ view: 'log', order: 'connect' })],
  ['Slow', ({ behind }) => count(behind), 'Clients that read more slowly than events arrive', writeRoute({ view: 'peers', order: 'lag' })],
  ['Channels', ({ channels }) => count(channels), 'Channels with subscribers or a history', writeRoute({ view: 'channels' })],
  ['Subscriptions', ({ subscriptions }) => count(subscriptions), 'Subscriptions of all clients', writeRoute({ view: 'channels', order: 'readers' })],
  ['Published', ({ published }) => count(published), 'Events published since the start', writeRoute({ view: 'channels' })],
  ['Delivered', ({ delivered }) => count(delivered), 'Events delivered since the start, counted once per subscriber', writeRoute({ view: 'peers', order: 'sent' })],
  ['Lost', ({ lost }) => count(lost), 'Events that left the history before a slow subscriber could receive them. Each subscriber is notified.', writeRoute({ view: 'log', order: 'lost' })],
  ['History', ({ log_bytes: size }) => bytes(size), 'Size of the stored events of all channels', writeRoute({ view: 'channels' })],
];

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

/** Adds a metric. The link covers the whole tile, and its name is the name of the metric. */
function buildTile(name, title, href) {
  const entry = make('div', href ? 'tile' : '');
  entry.dataset.fact = name;
  const term = make('dt');
  const value = make('dd');
  entry.title = title;
  if (href) writeLink(term, name, href);
  else term.textContent = name;
  entry.append(term, value);
  byId('facts').append(entry);
  return { entry, value };
}

/** Writes parts of a sentence, each a list of texts and links. Links keep their elements, and so the focus. */
function writeParts(place, parts) {
  const pieces = parts.flatMap((part, index) => (index ? [{ text: ' · ' }, ...part] : part));
  for (const [index, { text, href }] of pieces.entries()) {
    let node = place.children[index];
    if (node?.localName !== (href ? 'a' : 'span')) {
      const other = make(href ? 'a' : 'span');
      if (node) node.replaceWith(other);
      else place.append(other);
      node = other;
    }
    write(node, text);
    if (href && node.getAttribute('href') !== href) node.setAttribute('href', href);
  }
  while (place.children.length > pieces.length) place.lastChild.remove();
}

/** Draws rows of a link and two texts. Rows keep their elements. */
function drawRows(list, rows) {
  list.hidden = !rows.length;
  for (const [index, [name, href, ...texts]] of rows.entries()) {
    let row = list.children[index];
    if (!row) {
      row = make('li');
      row.append(make('span', 'id'), make('span', 'figure'), make('span', 'source'));
      list.append(row);
    }
    writeLink(row.firstChild, name, href).title = name;
    for (const [column, text] of texts.entries()) write(row.children[column + 1], text);
  }
  while (list.children.length > rows.length) list.lastChild.remove();
}

export function buildOverview({ sysChannels, snippets }) {
  const series = new Series();
  const charts = buildCharts(byId('charts'), CHARTS, series);
  const tiles = FACTS.map(([name, , title, href]) => buildTile(name, title, href));
  const rejected = buildTile('Rejected', 'Rejected connections, requests and commands, by error code', writeRoute({ view: 'log', order: 'refused' }));
  const processes = buildProcesses();
  let slowest = [];
  let receivedAt = 0;
  let silenceTimer;

  function showHealth() {
    const { figures } = series;
    if (!figures) return;
    const load = series.over('busiest', LOAD_SECONDS);
    const { level, parts } = describeHealth({
      silence: Math.floor((performance.now() - receivedAt) / 1000),
      clients: figures.peers.total,
      slow: figures.behind,
      slowest,
      lost: series.over('lost', LOSS_SECONDS).total,
      cpu: load.mean,
      away: (figures.processes ?? []).filter((one) => one.is_running === false).map(inWords),
      longest: series.over('longest', LOAD_SECONDS).maximum,
    });
    byId('facts').dataset.level = level;
    byId('health').hidden = false;
    byId('health').dataset.level = level;
    writeParts(byId('health-text'), parts);
  }

  function showMetrics(data) {
    if (!data?.peers) return;
    const isPart = series.isOfOneOf(data);
    series.add(data);
    receivedAt = performance.now();
    if (isPart) return;
    clearInterval(silenceTimer);
    silenceTimer = setInterval(showHealth, 1000);
    byId('overview-loading').hidden = true;
    byId('facts').hidden = byId('charts').hidden = false;
    for (const [index, [, read]] of FACTS.entries()) write(tiles[index].value, read(data));
    const codes = Object.entries(data.refused ?? {}).filter(([, times]) => times).sort(([, a], [, b]) => b - a);
    rejected.entry.hidden = !codes.length;
    write(rejected.value, codes.map(([code, times]) => `${code} ${count(times)}`).join(', '));
    showHealth();
    showIdle(data.peers.total <= 1);
    processes.show(data);
    charts.draw();
  }

  function showIdle(is) {
    const lines = snippets.terminal();
    byId('idle').hidden = !is || !lines;
    if (!is || !lines) return;
    snippets.show(byId('idle-lines'), lines);
  }

  byId('idle-copy').addEventListener('click', () => copyFrom(byId('idle-copy'), snippets.terminal().join('\n'), byId('idle-lines')));

  /** Shows the busiest channels and the slowest clients. */
  function showTop(data) {
    if (!data?.channels) return;
    slowest = data.peers;
    showHealth();
    byId('busiest').hidden = byId('slowest').hidden = false;
    drawRows(byId('busiest-list'), data.channels.map(({ channel, rate: now, readers }) => (
      [channel, writeRoute({ view: 'channel', name: channel }), `${rate(now)}/s`, plural(readers, 'subscriber')])));
    byId('busiest-none').hidden = Boolean(data.channels.length);
    drawRows(byId('slowest-list'), slowest.map((peer) => (
      [nameOf(peer), writeRoute({ view: 'peer', id: peer.id }), `${count(peer.lag)} behind`, `${counted(peer.unsent, bytes)} unsent`])));
    byId('slowest-none').hidden = Boolean(slowest.length);
  }

  /** Shows the latest disconnections. Rows that are already shown keep their element, and so the focus. */
  function showDisconnections(data) {
    if (!data?.closed) return;
    byId('disconnects').hidden = false;
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
      stops = [sysChannels.subscribe('$sys/figures', showMetrics, SPAN_SECONDS), sysChannels.subscribe('$sys/closed/0', showDisconnections, 1, true), sysChannels.subscribe('$sys/top', showTop, 1, true)];
      charts.draw();
    },
    close() {
      clearInterval(silenceTimer);
      for (const stop of stops) stop();
    },
  };
}
