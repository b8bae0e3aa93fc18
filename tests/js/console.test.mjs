// Tests of the modules of the console, without a browser.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';

import './fakes.mjs'; // polyfills for old versions of Node.js
import { oncePerFrame } from '../../twistedsock/static/dom.js';
import { lineEndpointOf } from '../../twistedsock/static/line-endpoints.js';
import { age, bytes, count, duration, percent, rate } from '../../twistedsock/static/console/units.js';
import { buildSysChannels, UNSUBSCRIBE_AFTER_MS } from '../../twistedsock/static/console/sys-channels.js';
import {
  BUSY_BATCH_SECONDS, BUSY_CPU, describeHealth, MAX_SILENCE_SECONDS,
} from '../../twistedsock/static/console/health.js';
import { describeEntry, describeReason, titleOfEntry } from '../../twistedsock/static/console/log.js';
import { identityWords } from '../../twistedsock/static/console/peers.js';
import { inWords } from '../../twistedsock/static/console/processes.js';
import { loadOf, pointBetween, Series, SPAN_SECONDS } from '../../twistedsock/static/console/series.js';
import { CHANNEL_ORDERS, channelOf, searchError, PEER_ORDERS, readRoute, writeRoute } from '../../twistedsock/static/console/routes.js';
import { snippetsFor } from '../../twistedsock/static/console/snippets.js';
import { intervalBetween, timelineText, titleOf } from '../../twistedsock/static/console/timeline.js';

const plain = (text) => text.replaceAll('\u202f', ' ');

// ---- processes ----

test('computes the load of each process, except of those that were started again', () => {
  const processes = (...all) => all.map(([name, uptime, cpu, runs = true]) => ({ name, uptime, cpu_seconds: cpu, is_running: runs }));
  const before = { time: 10, processes: processes(['1', 50, 5], ['2', 50, 5], ['3', 50, 5]) };
  const after = { time: 12, processes: processes(['1', 52, 6], ['2', 1, 0.5], ['3', 0, 0, false], ['hub', 52, 1]) };
  assert.deepEqual([...loadOf(before, after)], [['1', 50], ['2', undefined], ['3', undefined], ['hub', undefined]]);
  assert.deepEqual([...loadOf(undefined, after).values()], [undefined, undefined, undefined, undefined]);
});

test('adds up the load of processes without the CPU time from before they were known', () => {
  const figures = (time, all) => ({
    time, uptime: time, published: 0, delivered: 0, lost: 0, received_bytes: 0, sent_bytes: 0, refused: {}, peers: {}, turns: 0,
    cpu_seconds: all.reduce((total, one) => total + one.cpu_seconds, 0), processes: all,
  });
  const one = (name, uptime, cpu) => ({ name, uptime, cpu_seconds: cpu, is_running: true });
  const { cpu, busiest } = pointBetween(figures(10, [one('1', 9, 1), one('2', 9, 1)]), figures(12, [one('1', 11, 2), one('2', 11, 1.5), one('hub', 1, 3)]));
  assert.deepEqual([cpu, busiest], [75, 50]);
});

test('does not take the totals of a process that is back, or away, for a rate', () => {
  const one = (name, uptime, runs = true) => ({ name, uptime, cpu_seconds: 0, is_running: runs });
  const point = (before, after) => pointBetween(figures(10, { processes: before }), figures(11, { processes: after }));
  assert.equal(point([one('a', 9)], [one('a', 10)]).published, 10);
  assert.equal(point([one('a', 9)], [one('a', 10), one('b', 1)]).published, 10, 'b was started');
  assert.equal(point([one('a', 9), one('b', 0, false)], [one('a', 10), one('b', 90)]), undefined);
  assert.equal(point([one('a', 9), one('b', 90)], [one('a', 10), one('b', 0, false)]), undefined);
  assert.equal(point(undefined, [one('a', 10)]), undefined, 'only the first were those of one server');
});

test('shows the metrics of all servers as soon as there are some, and not those of one in between', () => {
  const processes = [{ name: 'a', uptime: 90, cpu_seconds: 0, is_running: true }];
  const series = new Series();
  for (const time of [1, 2, 3]) series.add(figures(time));
  for (const time of [4, 5]) series.add(figures(time, { processes, memory_bytes: 60 }));
  assert.deepEqual(series.columns(['memory']), [[5], [60]]);
  assert.equal(series.add(figures(6)), false);
  series.add(figures(7, { processes, memory_bytes: 60 }));
  assert.deepEqual(series.columns(['memory']), [[5, 7], [60, 60]]);
  for (let time = 8; time <= 8 + SPAN_SECONDS; time += 1) series.add(figures(time));
  assert.equal(series.figures.processes, undefined, 'there is one server now');
});

test('names processes as people do', () => {
  assert.deepEqual(['1', 'a', 'hub'].map((name) => inWords({ name })), ['worker 1', 'worker a', 'hub']);
  assert.deepEqual([inWords({ name: 'k7m2qa', host: 'tokyo' }), inWords({ name: 'k7m2qa', host: '' })], ['k7m2qa on tokyo', 'k7m2qa']);
});

// ---- routes ----

test('converts routes to URL hashes and back', () => {
  for (const [hash, route] of [
    ['#/', { view: 'overview' }],
    ['#/channels', { view: 'channels', order: 'rate', page: 0, find: '' }],
    ['#/channels?order=name&page=3', { view: 'channels', order: 'name', page: 2, find: '' }],
    ['#/channels?find=k%C3%BCche', { view: 'channels', order: 'rate', page: 0, find: 'küche' }],
    ['#/channels/a%2Fb%3Fc', { view: 'channel', name: 'a/b?c' }],
    ['#/peers', { view: 'peers', order: 'newest', page: 0, find: '' }],
    ['#/peers?order=lag&page=2', { view: 'peers', order: 'lag', page: 1, find: '' }],
    ['#/peers/k3x9p', { view: 'peer', id: 'k3x9p' }],
    ['#/log', { view: 'log', order: 'all', page: 0, find: '' }],
    ['#/log?kind=refused&page=2', { view: 'log', order: 'refused', page: 1, find: '' }],
    ['#/log?find=ann', { view: 'log', order: 'all', page: 0, find: 'ann' }],
  ]) {
    assert.deepEqual(readRoute(hash), route);
    assert.equal(writeRoute(route), hash);
  }
});

test('maps invalid URL hashes to a default view', () => {
  for (const hash of ['', '#', '#/nowhere', '#kitchen', '#/overview?x=1']) assert.deepEqual(readRoute(hash), { view: 'overview' });
  assert.deepEqual(readRoute('#/channels/'), { view: 'channels', order: CHANNEL_ORDERS[0], page: 0, find: '' });
  assert.deepEqual(readRoute('#/peers?order=height&page=-1'), { view: 'peers', order: PEER_ORDERS[0], page: 0, find: '' });
  for (const page of ['0', '1.5', 'x', '1e99', '']) assert.equal(readRoute(`#/channels?page=${page}`).page, 0);
  assert.deepEqual(readRoute('#/channels/100%'), { view: 'channel', name: '100%' });
});

test('maps lists to $sys/ channels and rejects invalid searches', () => {
  assert.equal(channelOf({ view: 'channels', order: 'rate', page: 2, find: '' }), '$sys/channels/rate/2');
  assert.equal(channelOf({ view: 'log', order: 'end', page: 1, find: '' }), '$sys/log/end/1');
  assert.equal(channelOf({ view: 'peers', order: 'lag', page: 0, find: 'ann' }), '$sys/peers/find/ann');
  for (const text of ['kitchen', 'a/b', 'küche', '127.0.0.1:8081']) assert.equal(searchError(text), '');
  assert.match(searchError('a*'), /“\*”/);
  assert.match(searchError('a b'), /space/);
  assert.match(searchError('ü'.repeat(51)), /Too long/);
});

// ---- units and series ----

test('shortens numbers, bytes, rates and percentages', () => {
  const shown = [0, 7, 999, 1000, 1234, 9999, 12_345, 99_949, 99_950, 678_000, 999_499, 999_500, 1_200_000, 3e12, 3e15, -1500].map(count).map(plain);
  assert.deepEqual(shown, ['0', '7', '999', '1.0 k', '1.2 k', '10.0 k', '12.3 k', '99.9 k', '100 k', '678 k', '999 k', '1.0 M', '1.2 M', '3.0 T', '3000 T', '−1.5 k']);
  assert.deepEqual([0, 512, 1023, 1024, 3.4 * 2 ** 20, 2 ** 30, 150 * 2 ** 20].map(bytes).map(plain), ['0 B', '512 B', '1023 B', '1.0 KiB', '3.4 MiB', '1.0 GiB', '150 MiB']);
  assert.deepEqual([0, 0.01, 0.5, 3, 9.96, 10.4, 4321].map(rate).map(plain), ['0', '< 0.1', '0.5', '3', '10', '10', '4.3 k']);
  assert.deepEqual([0, 3.14, 99.6].map(percent).map(plain), ['0.0 %', '3.1 %', '100 %']);
});

test('formats durations in a suitable unit', () => {
  const seconds = [0, 0.000_023, 0.000_08, 0.0012, 0.25, 4.2, 12, 59.7, 200, 7500, 100_000, 86_400 * 40];
  assert.deepEqual(seconds.map(duration).map(plain), ['0', '23 µs', '80 µs', '1.2 ms', '250 ms', '4.2 s', '12 s', '1 min', '3 min 20 s', '2 h 5 min', '1 d 3 h', '40 d']);
  assert.deepEqual([0, 0.4, 60, 3600, -5].map(age).map(plain), ['0 s', '0 s', '1 min', '1 h', '0 s']);
});

const figures = (time, more = {}) => ({
  time, uptime: time, peers: { total: 3, line: 2, json: 1, events: 0 }, behind: 0, published: 10 * time, delivered: 40 * time, lost: 0,
  received_bytes: 100 * time, sent_bytes: 400 * time, refused: {}, log_bytes: 5, memory_bytes: 6, cpu_seconds: time / 4, turns: 100 * time,
  turn_seconds: time / 10, turn_longest: 0.02, ...more,
});

test('computes rates from consecutive metrics', () => {
  const point = pointBetween(figures(10, { refused: { rate: 1 } }), figures(12, { refused: { rate: 4, limit: 1 } }));
  assert.deepEqual(
    [point.published, point.delivered, point.received, point.sent, point.cpu, point.refused, point.longest, point.line, point.events],
    [10, 40, 100, 400, 25, 2, 0.02, 2, 0],
  );
  assert.ok(Math.abs(point.turn - 0.001) < 1e-9);
  assert.equal(pointBetween(figures(10), figures(10)), undefined);
  assert.equal(pointBetween(figures(10), figures(11, { uptime: 1 })), undefined);
  assert.equal(pointBetween(figures(10), figures(11, { turns: 1000 })).turn, 0);
});

test('keeps five minutes of points, ignores repeated metrics, and interrupts lines at gaps', () => {
  const series = new Series();
  assert.equal(series.point(), undefined);
  assert.equal(series.extremes('published'), undefined);
  for (let time = 1; time <= 400; time += 1) series.add(figures(time));
  assert.equal(series.length, SPAN_SECONDS + 1);
  assert.equal(series.add(figures(400)), false);
  assert.equal(series.add(figures(399)), false);
  const [times, published] = series.columns(['published']);
  assert.deepEqual([times[0], times.at(-1), published[0]], [400 - SPAN_SECONDS, 400, 10]);

  series.add(figures(410));
  const [later, rates] = series.columns(['published']);
  assert.deepEqual([later.at(-2), rates.at(-2), rates.at(-1)], [405, null, 10]);
  // The server has restarted.
  assert.equal(series.add(figures(420, { uptime: 1, published: 0 })), false);
  series.add(figures(421, { uptime: 2, published: 30 }));
  assert.equal(series.point().published, 30);
  assert.deepEqual(series.extremes('published'), [10, 30]);
  assert.equal(series.figures.uptime, 2);
  // The clock was set back by an hour.
  series.add(figures(421 - 3600, { uptime: 3 }));
  assert.equal(series.length, 0);
  series.add(figures(422 - 3600, { uptime: 4 }));
  assert.equal(series.length, 1);
});

// ---- snippets ----

const LINE_PORT = { kind: 'tcp', host: '127.0.0.1', port: 8081 };
const about = { lines: [LINE_PORT], origin: 'http://127.0.0.1:8082', channel: 'kitchen', token: false };
const textsOf = (more) => Object.fromEntries(snippetsFor({ ...about, ...more }).map(({ kind, parts }) => [kind, parts.map(({ text }) => text)]));

test('inserts channel, host and port into each snippet', () => {
  const texts = textsOf({});
  assert.deepEqual(Object.keys(texts), ['telnet', 'nc', 'curl', 'browser', 'python', 'node']);
  assert.equal(texts.telnet[0], 'telnet 127.0.0.1 8081\nSUB kitchen\nPUB kitchen 21.5');
  assert.deepEqual(texts.nc, [
    "{ printf '%s\\n' 'SUB kitchen'; cat; } | nc 127.0.0.1 8081",
    "printf '%s\\n' 'PUB kitchen 21.5' | nc -N 127.0.0.1 8081",
  ]);
  assert.equal(texts.curl[0], 'curl -d 21.5 http://127.0.0.1:8082/channels/kitchen/events');
  for (const kind of ['browser', 'python', 'node']) assert.match(texts[kind][0], /kitchen/);
});

test('offers no lines to type for channels with a special meaning in shells', () => {
  for (const channel of ['a;reboot', 'a|b', '`a`', '$(a)', 'a&b', "a'b", 'a"b', '{a,b}', '~a', '!a', '[a]', '\\a', 'a<b', '^a^b']) {
    assert.equal(textsOf({ channel }).telnet, undefined, channel);
  }
  for (const channel of ['küche/1', 'a.b-c_d:e=f,g@h%i']) assert.match(textsOf({ channel }).telnet[0], /^telnet/);
});

test('quotes special characters for each tool', () => {
  const texts = textsOf({ channel: 'it\'s/"a"$x`y`</script>&%' });
  assert.ok(texts.nc[1].startsWith("printf '%s\\n' 'PUB it'\\''s/\"a\"$x`y`</script>&% 21.5' |"));
  assert.ok(texts.curl[0].includes("'http://127.0.0.1:8082/channels/it'\\''s/%22a%22%24x%60y%60%3C/script%3E%26%25/events'"));
  assert.equal(texts.browser[0].match(/<\/script>/g).length, 1);
  assert.ok(texts.node[0].includes('\\"a\\"'));
});

test('sends the name of the channel unchanged through a shell', () => {
  const env = { ...process.env, TOKEN: 'a\\nb%s' };
  for (const channel of ['a\\nPUB\\tb', 'a\\c', '%s%d%n', '-n', "it's", '$HOME', '`id`', '\\', 'a\\0101']) {
    for (const token of [false, true]) {
      const [subscribe, publish] = textsOf({ channel, token }).nc;
      const sent = (text) => execFileSync('sh', ['-c', text.slice(0, text.lastIndexOf(' | nc '))], { env, input: '', encoding: 'utf8' });
      const auth = token ? 'AUTH a\\nb%s\n' : '';
      assert.equal(sent(subscribe), `${auth}SUB ${channel}\n`);
      assert.equal(sent(publish), `${auth}PUB ${channel} 21.5\n`);
    }
  }
});

test('reads tokens from the environment', () => {
  const texts = textsOf({ token: true });
  assert.match(texts.telnet[0], /AUTH your-token\n/);
  assert.ok(texts.nc.every((text) => text.includes(`printf '%s\\n' "AUTH $TOKEN" '`)));
  assert.ok(texts.curl.every((text) => text.includes('"Authorization: Bearer $TOKEN"')));
  assert.match(texts.python[0], /os\.environ\["TOKEN"\]/);
  assert.match(texts.node[0], /process\.env\.TOKEN/);
});

test('adapts the snippets to TLS, Unix sockets and missing line ports', () => {
  const secure = textsOf({ lines: [{ ...LINE_PORT, kind: 'ssl', host: '::1' }] });
  assert.match(secure.telnet[0], /^openssl s_client -quiet -connect \[::1\]:8081\n/);
  assert.match(secure.python[0], /wrap_socket/);
  assert.match(secure.node[0], /node:tls/);
  const unix = textsOf({ lines: [{ kind: 'unix', path: '/run/bridge' }] });
  assert.match(unix.nc[1], /nc -NU \/run\/bridge$/);
  assert.match(unix.python[0], /AF_UNIX/);
  assert.match(unix.node[0], /connect\("\/run\/bridge"\)/);
  const without = textsOf({ lines: [] });
  assert.deepEqual(Object.keys(without), ['curl', 'browser', 'python', 'node']);
  assert.match(without.python[0], /text\/event-stream/);
  assert.equal(lineEndpointOf([], 'x'), undefined);
  assert.equal(lineEndpointOf([{ ...LINE_PORT, host: '' }], 'bridge.test').host, 'bridge.test');
  assert.equal(lineEndpointOf([{ ...LINE_PORT, host: '0.0.0.0' }], '[::1]').host, '::1');
});

// ---- timelines ----

test('shows titles of steps and the time between them', () => {
  assert.equal(titleOf({ step: 'accepted' }), 'Accepted');
  assert.equal(titleOf({ step: 'closing', by: 'server' }), 'Closing, by the server');
  assert.equal(titleOf({ step: 'closed', by: 'peer' }), 'Closed, by the client');
  assert.equal(titleOf({ step: 'closed', by: 'cleanly' }), 'Closed');
  assert.equal(titleOf({ step: 'handshake', detail: 'WebSocket' }), 'WebSocket handshake');
  assert.equal(titleOf({ step: 'gone-for-lunch' }), 'Gone for lunch');
  assert.equal(plain(intervalBetween({ at: 1 }, { at: 3.5 })), '2.5 s later');
  assert.equal(intervalBetween({ at: 1 }, { at: 1 }), 'immediately');
});

// ---- health ----

const calm = { silence: 0, clients: 40, slow: 0, slowest: [], lost: 0, cpu: 12, longest: 0.002 };
const clientsNamed = (...nicks) => nicks.map((nick, index) => ({ id: `id${index}`, nick }));

/** The level, and the sentence with its links in brackets. */
function health(observed) {
  const { level, parts } = describeHealth({ ...calm, ...observed });
  const sentence = parts.map((texts) => texts.map(({ text, href }) => (href ? `[${text}](${href})` : text)).join('')).join(' · ');
  return [level, plain(sentence)];
}

test('describes a healthy server and names its slow clients', () => {
  assert.deepEqual(health({}), ['good', 'Healthy · [40 clients](#/peers)']);
  assert.deepEqual(health({ clients: 1 }), ['good', 'Healthy · [1 client](#/peers)']);
  const slow = '[1 slow](#/peers?order=lag): [old-tablet](#/peers/id0)';
  assert.deepEqual(health({ slow: 1, slowest: clientsNamed('old-tablet') }), ['good', `Healthy · [40 clients](#/peers) · ${slow}`]);
});

test('names the processes that do not answer', () => {
  assert.deepEqual(health({ away: ['worker 2', 'hub'] }), ['warning', 'Incomplete · [40 clients](#/peers) · no answer from worker 2, hub']);
});

test('names at most two slow clients, and none that it does not know', () => {
  const end = ({ slow, slowest }) => health({ slow, slowest })[1].split(' · ').at(-1);
  assert.equal(end({ slow: 5, slowest: clientsNamed('a', 'b', 'c') }), '[5 slow](#/peers?order=lag): [a](#/peers/id0), [b](#/peers/id1) and 3 more');
  assert.equal(end({ slow: 2, slowest: clientsNamed('a', 'b') }), '[2 slow](#/peers?order=lag): [a](#/peers/id0), [b](#/peers/id1)');
  assert.equal(end({ slow: 3, slowest: [] }), '[3 slow](#/peers?order=lag)');
  assert.equal(end({ slow: 1, slowest: clientsNamed('a', 'b') }), '[1 slow](#/peers?order=lag): [a](#/peers/id0)', 'one has caught up');
  assert.equal(end({ slow: 1, slowest: [{ id: 'k3x9p', nick: '' }] }), '[1 slow](#/peers?order=lag): [k3x9p](#/peers/k3x9p)');
});

test('is busy from a limit of CPU or batch time on', () => {
  assert.deepEqual(health({ cpu: BUSY_CPU - 0.1, longest: BUSY_BATCH_SECONDS - 0.001 })[0], 'good');
  assert.deepEqual(health({ cpu: BUSY_CPU }), ['warning', 'Busy · [40 clients](#/peers) · CPU 80 %']);
  assert.deepEqual(health({ longest: 0.25 }), ['warning', 'Busy · [40 clients](#/peers) · a batch took 250 ms']);
});

test('is bad if events are lost or the statistics stop', () => {
  assert.deepEqual(health({ lost: 12, cpu: 90 }), ['bad', 'Losing events · [40 clients](#/peers) · [12 lost in the last minute](#/log?kind=lost) · CPU 90 %']);
  assert.equal(health({ silence: MAX_SILENCE_SECONDS - 1 })[0], 'good');
  assert.deepEqual(health({ silence: 65, lost: 12 }), ['bad', 'Not responding · no statistics for 1 min 5 s']);
});

test('sums, averages and limits a rate over the last seconds', () => {
  const series = new Series();
  assert.deepEqual(series.over('lost', 60), { total: 0, mean: 0, maximum: 0 });
  for (let time = 1; time <= 100; time += 1) series.add(figures(time, { lost: time > 50 ? 20 : 10, cpu_seconds: time / 2 }));
  assert.deepEqual(series.over('lost', 60), { total: 10, mean: 10 / 60, maximum: 10 });
  assert.equal(series.over('lost', 10).total, 0);
  assert.equal(Math.round(series.over('cpu', 10).mean), 50);
});

// ---- the connection log ----

test('describes entries of the connection log', () => {
  const describe = (entry) => [plain(titleOfEntry(entry)), plain(describeEntry(entry))];
  assert.deepEqual(describe({ kind: 'connect', dialect: 'line' }), ['Connected', 'lines']);
  assert.deepEqual(describe({ kind: 'behind', detail: 'kitchen from 17', times: 3, seconds: 4.2 }), ['Slow ×3', 'kitchen from 17 · for 4.2 s']);
  assert.deepEqual(describe({ kind: 'behind', detail: 'kitchen from 17' }), ['Slow', 'kitchen from 17']);
  assert.deepEqual(describe({ kind: 'lost', detail: 'kitchen 2 to 7' }), ['Lost events', 'kitchen 2 to 7']);
  assert.deepEqual(
    describe({ kind: 'end', detail: 'QUIT', by: 'peer', seconds: 12, sent: 1024, received: 5 }),
    ['Disconnected', 'closed by the client (QUIT) · connected 12 s · sent 1.0 KiB, received 5 B'],
  );
  assert.match(describeEntry({ kind: 'end', detail: 'broken', seconds: 1 }), /^connection lost · connected .* · bytes not counted$/);
  assert.deepEqual(describe({ kind: 'refused', detail: 'too fast', times: 12_345 }), ['Rejected ×12.3 k', 'too fast']);
  assert.equal(titleOfEntry({ kind: 'teleported' }), 'teleported');
});

test('writes a timeline as text', () => {
  const peer = { id: 'k3x9p', nick: 'ann', from: '127.0.0.1:5', to: '127.0.0.1:8081', dialect: 'line' };
  const steps = [{ at: 0, step: 'open' }, { at: 1.5, step: 'closing', by: 'peer', detail: 'QUIT' }];
  assert.equal(timelineText(peer, steps), [
    'ann (k3x9p) 127.0.0.1:5 → 127.0.0.1:8081, line',
    '1970-01-01T00:00:00.000Z Open',
    '1970-01-01T00:00:01.500Z Closing, by the client: QUIT',
  ].join('\n'));
  assert.equal(timelineText(undefined, []), '');
});

test('describes why a connection ended', () => {
  assert.equal(describeReason('peer', 'QUIT'), 'closed by the client (QUIT)');
  assert.equal(describeReason('peer', 'cleanly'), 'closed by the client');
  assert.equal(describeReason('server', 'it did not read'), 'closed by the server (it did not read)');
  assert.equal(describeReason('peer', 'broken'), 'connection lost');
  assert.equal(describeReason('server', 'aborted'), 'aborted by the server');
});

test('lists the id and the subject of a client unless they equal its name', () => {
  assert.equal(identityWords({ id: 'k3x9p', nick: 'k3x9p', subject: '' }), '');
  assert.equal(identityWords({ id: 'k3x9p', nick: 'ann', subject: 'ann' }), 'k3x9p');
  assert.equal(identityWords({ id: 'k3x9p', nick: 'balcony', subject: 'ann' }), 'k3x9p, ann');
});

// ---- subscriptions ----

function buildWorld() {
  const outcomes = [];
  const document = Object.assign(new EventTarget(), { visibilityState: 'visible' });
  const timers = [];
  const subscriptions = new Map();
  const client = {
    subscribe(channel, callback, options) {
      const subscription = { callback, options, unsubscribe: () => subscriptions.delete(channel) };
      subscriptions.set(channel, subscription);
      return subscription;
    },
  };
  const sysChannels = buildSysChannels({
    client,
    document,
    refused: (error) => outcomes.push(error.code),
    accepted: () => outcomes.push('accepted'),
    setTimeout: (then, delay) => timers.push({ then, delay }),
    clearTimeout: () => timers.splice(0),
  });
  const setVisibility = (state) => {
    document.visibilityState = state;
    document.dispatchEvent(new Event('visibilitychange'));
  };
  return { sysChannels, subscriptions, outcomes, timers, setVisibility };
}

test('unsubscribes in a hidden tab and subscribes again when it becomes visible', () => {
  const { sysChannels, subscriptions, timers, setVisibility } = buildWorld();
  const received = [];
  const stop = sysChannels.subscribe('$sys/figures', (data) => received.push(data), 300);
  assert.equal(subscriptions.get('$sys/figures').options.last, 300);
  subscriptions.get('$sys/figures').callback({ data: 1 });
  setVisibility('hidden');
  setVisibility('visible');
  assert.deepEqual([timers.length, subscriptions.size], [0, 1]);
  setVisibility('hidden');
  assert.equal(timers[0].delay, UNSUBSCRIBE_AFTER_MS);
  timers[0].then();
  assert.equal(subscriptions.size, 0);
  sysChannels.resume();
  sysChannels.subscribe('$sys/closed', () => {});
  assert.equal(subscriptions.size, 0);
  setVisibility('visible');
  assert.deepEqual([...subscriptions.keys()], ['$sys/figures', '$sys/closed']);
  stop();
  assert.deepEqual([...subscriptions.keys()], ['$sys/closed']);
  assert.deepEqual(received, [1]);
});

test('retries rejected subscriptions', () => {
  const { sysChannels, subscriptions, outcomes } = buildWorld();
  sysChannels.subscribe('$sys/figures', () => {});
  const first = subscriptions.get('$sys/figures');
  first.options.onRefused({ code: 'unauthorized' });
  sysChannels.resume();
  assert.notEqual(subscriptions.get('$sys/figures'), first);
  subscriptions.get('$sys/figures').options.onSubscribed();
  assert.deepEqual(outcomes, ['unauthorized', 'accepted']);
  sysChannels.subscribe('$sys/closed', () => {}, 0, true);
  subscriptions.get('$sys/closed').options.onRefused({ code: 'forbidden' });
  assert.equal(outcomes.length, 2);
  const second = subscriptions.get('$sys/figures');
  sysChannels.resume();
  assert.equal(subscriptions.get('$sys/figures'), second);
});

test('draws once per frame', (t) => {
  const frames = [];
  globalThis.requestAnimationFrame = (draw) => frames.push(draw);
  t.after(() => { delete globalThis.requestAnimationFrame; });
  let drawn = 0;
  const draw = oncePerFrame(() => { drawn += 1; });
  for (let index = 0; index < 1000; index += 1) draw();
  assert.equal(frames.length, 1);
  frames.shift()();
  assert.equal(drawn, 1);
  draw();
  assert.equal(frames.length, 1);
});
