/** The overview: what the bridge does now, and did in the last five minutes, and who leaves it. */

import { copyFrom } from '../copy.js';
import { byId, make } from '../dom.js';
import { clockTime, plural } from '../format.js';
import { buildCharts } from './charts.js';
import { age, bytes, count, duration, exactTime, percent, rate } from './units.js';
import { protocolOf, identityWords } from './peers.js';
import { Series, SPAN } from './series.js';
import { writeRoute } from './routes.js';
import { write } from './table.js';

/** @type {import('./charts.js').Chart[]} */
const CHARTS = [
  { title: 'Events a second', format: rate, lines: [['delivered', 'out', '--copper'], ['published', 'in', '--verdigris']], filled: true, least: 5 },
  { title: 'Bytes a second', format: bytes, lines: [['sent', 'sent', '--copper'], ['received', 'received', '--verdigris']], filled: true, of: 'bytes', least: 1024 },
  { title: 'Peers', format: count, lines: [['line', 'lines', '--hue-0'], ['json', 'JSON', '--hue-2'], ['events', 'SSE', '--hue-3']], of: 'things', least: 5 },
  { title: 'Readers behind', format: count, lines: [['behind', 'do not keep up', '--copper']], filled: true, of: 'things', least: 4 },
  { title: 'A turn of the broker', format: duration, lines: [['longest', 'longest', '--copper'], ['turn', 'mean', '--verdigris']], filled: true, least: 0.005 },
  { title: 'CPU', format: percent, lines: [['cpu', 'of one processor', '--verdigris']], filled: true, least: 10 },
  { title: 'Memory', format: bytes, lines: [['memory', 'process', '--hue-2'], ['log', 'logs', '--hue-4']], filled: true, of: 'bytes', least: 1024 * 1024 },
  { title: 'Lost and refused a second', format: rate, lines: [['lost', 'events lost', '--alarm'], ['refused', 'commands refused', '--hue-4']], least: 2 },
];

/** What stands above the charts: a name, its words, and what explains it. */
const FACTS = [
  ['Up', ({ uptime }) => age(uptime), 'How long this bridge has been running'],
  ['Peers', ({ peers }) => count(peers.total), 'Conversations: whoever has been welcomed and not left'],
  ['Connections', ({ connections }) => count(connections), 'Sockets, those included that only ask for a file'],
  ['Channels', ({ channels }) => count(channels), 'Channels that somebody reads, or whose log is not empty'],
  ['Subscriptions', ({ subscriptions }) => count(subscriptions), 'Peers times the channels that each reads'],
  ['Published', ({ published }) => count(published), 'Events that came in since the start'],
  ['Delivered', ({ delivered }) => count(delivered), 'Events that went out since the start: one for each reader'],
  ['Lost', ({ lost }) => count(lost), 'Events that the log had passed before a slow reader got them; each reader was told which'],
  ['In the logs', ({ log_bytes: size }) => bytes(size), 'What can still be read again'],
];

/** What went over a connection; a Unix socket does not tell. */
function traffic(sent, received) {
  if (sent === null || received === null) return 'bytes not counted';
  return `${bytes(sent)} to it, ${bytes(received)} from it`;
}

/** Who ended a connection, and why. */
export function describeEnd(by, why) {
  if (why === 'broken') return 'the connection broke';
  if (why === 'aborted') return 'the bridge cut it off';
  const reason = why && why !== 'cleanly' ? ` (${why})` : '';
  return `${by === 'server' ? 'the bridge ended it' : 'it left'}${reason}`;
}

function buildEnd(end, key) {
  const { id, nick, from, seconds, sent, received, by, why, at } = end;
  const row = make('li');
  row.dataset.key = key;
  const date = new Date(at * 1000);
  const time = make('time', 'time', clockTime(date));
  time.dateTime = date.toISOString();
  time.title = exactTime(at);
  const link = make('a', 'id', nick || id);
  link.href = writeRoute({ view: 'peer', id });
  const whence = make('span', 'source', [identityWords(end), protocolOf(end), from].filter(Boolean).join(', '));
  whence.title = whence.textContent;
  row.append(time, link, whence, make('span', 'reason', `after ${duration(seconds)}, ${traffic(sent, received)}: ${describeEnd(by, why)}`));
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
  const refused = make('dd');
  const refusedEntry = make('div', 'wide');
  refusedEntry.append(make('dt', '', 'Refused'), refused);
  byId('facts').append(refusedEntry);

  function figures(data) {
    if (!data?.peers) return;
    series.add(data);
    byId('overview-loading').hidden = true;
    byId('facts').hidden = byId('charts').hidden = false;
    for (const [index, [, read]] of FACTS.entries()) write(facts[index], read(data));
    const codes = Object.entries(data.refused ?? {}).filter(([, times]) => times).sort(([, a], [, b]) => b - a);
    refusedEntry.hidden = !codes.length;
    write(refused, codes.map(([code, times]) => `${code} ${count(times)}`).join(', '));
    alone(data.peers.total <= 1);
    charts.draw();
  }

  function alone(is) {
    const lines = snippets.terminal();
    byId('idle').hidden = !is || !lines;
    if (!is || !lines) return;
    snippets.show(byId('idle-lines'), lines);
  }

  byId('idle-copy').addEventListener('click', () => copyFrom(byId('idle-copy'), snippets.terminal().join('\n'), byId('idle-lines')));

  /** The newest page of the sessions that have ended. A row that is listed already keeps its element, and so the focus. */
  function showEnds(data) {
    if (!data?.closed) return;
    const keyOf = ({ id, at }) => `${id} ${at}`;
    const listed = new Map([...byId('disconnects-list').children].map((row) => [row.dataset.key, row]));
    const rows = data.closed.map((end) => listed.get(keyOf(end)) ?? buildEnd(end, keyOf(end)));
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
    enter() {
      stops = [sysChannels.follow('$sys/figures', figures, SPAN), sysChannels.follow('$sys/closed/0', showEnds, 1, true)];
      charts.draw();
    },
    leave() {
      for (const stop of stops) stop();
    },
    /** For the window's title: something to see in a row of tabs. */
    summary: () => (series.figures ? plural(series.figures.peers.total, 'peer') : ''),
  };
}
