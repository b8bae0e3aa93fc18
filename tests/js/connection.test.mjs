// Tests of the connection: opening, reconnecting, closing, and detecting dead connections.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { connect, DEFAULT_TIMES } from '../../twistedsock/static/sockbridge.js';
import { build, buildOpen, event, FakeWindow, reconnect, recorder, flushPromises } from './fakes.mjs';

const delays = (world) => world.states.filter(([type]) => type === 'waiting').map(([, detail]) => detail.delay);

test('connects at once with the subprotocol', () => {
  const { client, socket } = build();
  assert.equal(client.state, 'connecting');
  assert.equal(socket.url, 'ws://bridge.test/ws');
  assert.deepEqual(socket.protocols, ['sockbridge.v1.json']);
});

test('uses /ws on the host of the page by default', (t) => {
  t.after(() => { delete globalThis.location; });
  const addresses = [];
  class WebSocket { constructor(url) { addresses.push(url); } close() {} }
  for (const href of ['http://127.0.0.1:8082/#kitchen', 'https://bridge.test/some/page']) {
    globalThis.location = { href };
    connect(undefined, { WebSocket }).close();
  }
  assert.deepEqual(addresses, ['ws://127.0.0.1:8082/ws', 'wss://bridge.test/ws']);
});

test('throws for invalid URLs without leaving listeners', () => {
  const window = new FakeWindow();
  class WebSocket { constructor() { throw new SyntaxError('bad address'); } }
  window.addEventListener = () => assert.fail('still listening');
  assert.throws(() => connect('ws://bridge.test/', { WebSocket, window }), /bad address/);
});

test('dispatches the first connecting after connect has returned', async () => {
  const { client, socket, states } = build();
  assert.equal(client.state, 'connecting');
  assert.deepEqual(states, []);
  await flushPromises();
  assert.deepEqual(states, [['connecting', null]]);
  socket.welcome('k3x9');
  assert.deepEqual(states.map(([type]) => type), ['connecting', 'open']);
  const closed = build();
  closed.client.close();
  await flushPromises();
  assert.deepEqual(closed.states.map(([type]) => type), ['closed'], 'a past state is not dispatched');
});

test('opens with the welcome and exposes both addresses', () => {
  const { client, socket, states } = build();
  assert.equal(client.peer, null);
  socket.onopen?.({});
  assert.equal(client.state, 'connecting');
  socket.welcome('k3x9');
  const peer = { id: 'k3x9', from: '127.0.0.1:53124', to: '127.0.0.1:8082' };
  assert.equal(client.state, 'open');
  assert.deepEqual(client.peer, peer);
  assert.deepEqual(states, [['open', { ...peer, transport: 'websocket' }]]);
});

test('closes for good if the server has another protocol version', () => {
  const { client, socket, states, clock, net } = build();
  socket.deliver({ type: 'welcome', protocol: 2, id: 'k3x9' });
  assert.equal(client.state, 'closed');
  assert.match(states.at(-1)[1].reason, /version 2/);
  assert.equal(socket.closedByClient, 1000);
  clock.advance(600_000);
  assert.equal(net.sockets.length, 1);
});

test('reconnects without a welcome in time and ignores the late socket', () => {
  const world = build({ openTimeout: 10_000 });
  const first = world.socket;
  world.clock.advance(9_999);
  assert.equal(world.client.state, 'connecting');
  world.clock.advance(1);
  assert.equal(world.client.state, 'waiting');
  assert.equal(first.closedByClient, 1000);
  first.welcome();
  assert.equal(world.client.state, 'waiting');
  first.drop();
  assert.equal(delays(world).length, 1);
});

test('doubles the delay up to the maximum, with jitter', () => {
  const world = build({ firstDelay: 500, longestDelay: 30_000 });
  for (let index = 0; index < 9; index += 1) {
    world.socket.drop();
    world.clock.advance(delays(world).at(-1));
    assert.equal(world.client.state, 'connecting');
  }
  assert.deepEqual(delays(world), [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);
});

test('draws the delay from the whole window', () => {
  for (const [random, delay] of [[0, 0], [0.25, 125], [0.999, 500]]) {
    const world = build({ random: () => random });
    world.socket.drop();
    assert.deepEqual(delays(world), [delay]);
  }
});

test('keeps the delay within its limit after two thousand failures', () => {
  const world = build({ random: () => 1 });
  for (let index = 0; index < 2000; index += 1) {
    world.socket.drop();
    world.client.retry();
  }
  assert.equal(delays(world).at(-1), 30_000);
});

test('resets the delay after a stable connection only', () => {
  const world = build({ stableAfter: 10_000 });
  for (let index = 0; index < 4; index += 1) {
    world.socket.drop();
    world.client.retry();
  }
  world.socket.welcome();
  world.clock.advance(9_999);
  world.socket.drop();
  assert.equal(delays(world).at(-1), 4000);
  world.clock.advance(4000);
  world.socket.welcome();
  world.clock.advance(10_000);
  world.socket.drop();
  assert.equal(delays(world).at(-1), 250);
});

test('reports delay, attempt and reason while waiting', () => {
  const world = buildOpen();
  world.socket.drop(1001, 'restarting');
  assert.deepEqual(world.states.at(-1), ['waiting', { delay: 250, attempt: 1, code: 1001, reason: 'restarting' }]);
  assert.equal(world.client.peer, null);
});

for (const code of [1001, 1002, 1003, 1006, 1007, 1009, 1011, 1012, 1013, 4000]) {
  test(`close code ${code} is followed by another try`, () => {
    const world = buildOpen();
    reconnect(world, code);
    assert.equal(world.client.state, 'open');
    assert.equal(world.net.sockets.length, 2);
  });
}

for (const code of [1000, 1008]) {
  test(`close code ${code} is final`, () => {
    const world = buildOpen();
    world.socket.drop(code, 'no');
    assert.deepEqual(world.states.at(-1), ['closed', { code, reason: 'no' }]);
    world.clock.advance(600_000);
    world.window.dispatchEvent(new Event('online'));
    assert.equal(world.net.sockets.length, 1);
    assert.equal(world.clock.timers.size, 0);
  });
}

test('waits longer after close code 1013 (overloaded)', () => {
  const world = buildOpen();
  world.socket.drop(1013);
  assert.deepEqual(delays(world), [2000]);
});

test('closes the socket with 1000, once', () => {
  const world = buildOpen();
  world.client.close();
  world.client.close();
  assert.equal(world.socket.closedByClient, 1000);
  assert.deepEqual(world.states.slice(1), [['closed', { code: 1000, reason: 'closed by this client' }]]);
  assert.equal(world.clock.timers.size, 0);
  world.socket.drop(1006);
  world.window.dispatchEvent(new Event('online'));
  assert.equal(world.client.state, 'closed');
});

test('removes its listeners from the window when closed', (t) => {
  const window = new FakeWindow();
  const added = t.mock.method(window, 'addEventListener');
  const removed = t.mock.method(window, 'removeEventListener');
  buildOpen({ window }).client.close();
  assert.deepEqual(removed.mock.calls.map((call) => call.arguments), added.mock.calls.map((call) => call.arguments));
  assert.equal(added.mock.callCount(), 1);
});

test('cancels the next attempt when closed', () => {
  const world = buildOpen();
  world.socket.drop();
  world.client.close();
  world.clock.advance(600_000);
  assert.equal(world.net.sockets.length, 1);
});

test('reconnects at once on retry() and online', () => {
  for (const now of [(world) => world.client.retry(), (world) => world.window.dispatchEvent(new Event('online'))]) {
    const world = buildOpen();
    world.socket.drop();
    now(world);
    assert.equal(world.client.state, 'connecting');
    assert.equal(world.net.sockets.length, 2);
    world.clock.advance(1000);
    assert.equal(world.net.sockets.length, 2, 'the cancelled attempt was made');
  }
});

test('ignores retry() while open or connecting', () => {
  const world = build();
  world.client.retry();
  world.socket.welcome();
  world.client.retry();
  assert.equal(world.net.sockets.length, 1);
});

test('reconnects when the page becomes visible', () => {
  const world = buildOpen();
  world.socket.drop();
  world.window.document.visibilityState = 'hidden';
  world.window.document.dispatchEvent(new Event('visibilitychange'));
  assert.equal(world.client.state, 'waiting');
  world.window.becomesVisible();
  assert.equal(world.client.state, 'connecting');
});

test('sends a ping after silence and reconnects without a reply', () => {
  const world = buildOpen({ quietAfter: 25_000, answerTimeout: 10_000 });
  const first = world.socket;
  world.clock.advance(24_999);
  assert.equal(first.all('ping').length, 0);
  world.clock.advance(1);
  assert.deepEqual(first.all('ping'), [{ type: 'ping' }]);
  world.clock.advance(9_999);
  assert.equal(world.client.state, 'open');
  world.clock.advance(1);
  assert.equal(world.client.state, 'waiting');
  assert.deepEqual(world.states.at(-1)[1], { delay: 250, attempt: 1, code: 1006, reason: 'the server does not respond' });
  assert.equal(first.closedByClient, 1000);
});

test('treats any message as a sign of life', () => {
  const world = buildOpen();
  world.clock.advance(20_000);
  world.socket.deliver({ type: 'notice', text: 'hello' });
  world.clock.advance(24_999);
  assert.equal(world.socket.all('ping').length, 0);
  world.clock.advance(1);
  assert.equal(world.socket.all('ping').length, 1);
  world.socket.deliver({ type: 'pong' });
  world.clock.advance(34_999);
  assert.equal(world.client.state, 'open');
  assert.equal(world.socket.all('ping').length, 2);
});

test('checks an open connection when back online', () => {
  const world = buildOpen();
  world.window.dispatchEvent(new Event('online'));
  assert.equal(world.socket.all('ping').length, 1);
  world.clock.advance(10_000);
  assert.equal(world.client.state, 'waiting');
});

test('starts no timers for received messages', () => {
  const world = buildOpen();
  for (let index = 0; index < 1000; index += 1) world.socket.deliver(event('kitchen', index));
  assert.equal(world.clock.timers.size, 1);
});

test('reconnects after invalid JSON', () => {
  const world = buildOpen();
  world.socket.deliver('<html>');
  assert.equal(world.client.state, 'waiting');
  assert.equal(world.states.at(-1)[1].code, 1002);
});

test('ignores unknown messages', () => {
  const world = buildOpen();
  for (const message of [{ type: 'future' }, {}, 'null', '[]', '7']) world.socket.deliver(message);
  world.socket.deliver({ type: 'ok', id: 99 });
  world.socket.deliver(event('nobody-reads-this', 1));
  assert.equal(world.client.state, 'open');
});

test('dispatches notices and errors without a command', () => {
  const world = buildOpen();
  world.socket.deliver({ type: 'notice', text: 'restarting soon' });
  world.socket.deliver({ type: 'error', code: 'bad-json', message: 'not one JSON object' });
  const [, notice, error] = world.states;
  assert.deepEqual(notice, ['notice', { text: 'restarting soon' }]);
  assert.equal(error[0], 'error');
  assert.equal(error[1].code, 'bad-json');
});

test('restores name, subscriptions and queue in this order', () => {
  const world = buildOpen();
  world.client.nick('ann');
  world.socket.reply('nick', { nick: 'ann' });
  world.client.subscribe('kitchen', () => {});
  world.socket.reply('subscribe', { channel: 'kitchen', offset: 0, epoch: 'e1' });
  world.socket.drop();
  world.client.publish('kitchen', 1);
  world.client.retry();
  world.socket.welcome();
  assert.deepEqual(world.socket.sent.map(({ type }) => type), ['nick', 'subscribe', 'publish']);
  assert.equal(world.socket.last('nick').nick, 'ann');
});

test('sends commands of an open listener after the queue', () => {
  const world = build();
  world.client.publish('kitchen', 'queued');
  world.client.addEventListener('open', () => world.client.publish('kitchen', 'now'));
  world.socket.welcome();
  assert.deepEqual(world.socket.all('publish').map(({ data }) => data), ['queued', 'now']);
});

test('has consistent default timeouts', () => {
  assert.ok(DEFAULT_TIMES.quietAfter < 30_000, 'proxies close silent connections after 30 s');
  assert.ok(DEFAULT_TIMES.firstDelay < DEFAULT_TIMES.longestDelay);
});

test('isolates exceptions of callbacks', (t) => {
  const world = buildOpen();
  const later = t.mock.method(globalThis, 'queueMicrotask', () => {});
  const other = recorder();
  world.client.subscribe('kitchen', () => { throw new Error('callback failed'); });
  world.client.subscribe('kitchen', other.onEvent);
  world.socket.reply('subscribe', { offset: 0, epoch: 'e1' });
  world.socket.reply('subscribe', { offset: 0, epoch: 'e1', recovered: true });
  world.socket.deliver(event('kitchen', 1));
  assert.deepEqual(other.offsets(), [1]);
  assert.equal(later.mock.callCount(), 1);
  assert.throws(later.mock.calls[0].arguments[0], /callback failed/);
});
