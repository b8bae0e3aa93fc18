// The connection's life: opening, trying again, giving up, noticing that the other side has died.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { connect, DEFAULT_TIMES } from '../../twistedsock/static/sockbridge.js';
import { build, buildOpen, event, FakeWindow, reconnect, recorder, settle } from './fakes.mjs';

const delays = (world) => world.states.filter(([type]) => type === 'waiting').map(([, detail]) => detail.delay);

test('it connects at once, with the subprotocol', () => {
  const { client, socket } = build();
  assert.equal(client.state, 'connecting');
  assert.equal(socket.url, 'ws://bridge.test/ws');
  assert.deepEqual(socket.protocols, ['sockbridge.v1.json']);
});

test('the default address is /ws on the page\'s own host, by the page\'s own protocol', (t) => {
  t.after(() => { delete globalThis.location; });
  const addresses = [];
  class WebSocket { constructor(url) { addresses.push(url); } close() {} }
  for (const href of ['http://127.0.0.1:8082/#kitchen', 'https://bridge.test/some/page']) {
    globalThis.location = { href };
    connect(undefined, { WebSocket }).close();
  }
  assert.deepEqual(addresses, ['ws://127.0.0.1:8082/ws', 'wss://bridge.test/ws']);
});

test('an address no WebSocket takes is told to the caller, and leaves no listener behind', () => {
  const window = new FakeWindow();
  class WebSocket { constructor() { throw new SyntaxError('bad address'); } }
  window.addEventListener = () => assert.fail('still listening');
  assert.throws(() => connect('ws://bridge.test/', { WebSocket, window }), /bad address/);
});

test('a program that listens right after connect hears the first connecting', async () => {
  const { client, socket, states } = build();
  assert.equal(client.state, 'connecting');
  assert.deepEqual(states, []);
  await settle();
  assert.deepEqual(states, [['connecting', null]]);
  socket.welcome('k3x9');
  assert.deepEqual(states.map(([type]) => type), ['connecting', 'open']);
  const closed = build();
  closed.client.close();
  await settle();
  assert.deepEqual(closed.states.map(([type]) => type), ['closed'], 'what is over is not told');
});

test('it is open with the welcome, not before, and knows both ends of the socket', () => {
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

test('a server of another protocol version is left for good', () => {
  const { client, socket, states, clock, net } = build();
  socket.say({ type: 'welcome', protocol: 2, id: 'k3x9' });
  assert.equal(client.state, 'closed');
  assert.match(states.at(-1)[1].reason, /version 2/);
  assert.equal(socket.closedByClient, 1000);
  clock.advance(600_000);
  assert.equal(net.sockets.length, 1);
});

test('without a welcome in time it tries again, and the late socket is not listened to', () => {
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

test('delays double up to the longest, with full jitter', () => {
  const world = build({ firstDelay: 500, longestDelay: 30_000 });
  for (let index = 0; index < 9; index += 1) {
    world.socket.drop();
    world.clock.advance(delays(world).at(-1));
    assert.equal(world.client.state, 'connecting');
  }
  assert.deepEqual(delays(world), [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);
});

test('the jitter spans the whole window', () => {
  for (const [random, delay] of [[0, 0], [0.25, 125], [0.999, 500]]) {
    const world = build({ random: () => random });
    world.socket.drop();
    assert.deepEqual(delays(world), [delay]);
  }
});

test('after two thousand failures the delay is still a number within its bound', () => {
  const world = build({ random: () => 1 });
  for (let index = 0; index < 2000; index += 1) {
    world.socket.drop();
    world.client.retry();
  }
  assert.equal(delays(world).at(-1), 30_000);
});

test('a stable connection resets the delays, a short one does not', () => {
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

test('waiting tells the delay, the attempt and why', () => {
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

test('an overloaded server (1013) is given more time at once', () => {
  const world = buildOpen();
  world.socket.drop(1013);
  assert.deepEqual(delays(world), [2000]);
});

test('close() closes the socket with 1000, once, and nothing of it remains', () => {
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

test('a closed client no longer listens to the window', (t) => {
  const window = new FakeWindow();
  const added = t.mock.method(window, 'addEventListener');
  const removed = t.mock.method(window, 'removeEventListener');
  buildOpen({ window }).client.close();
  assert.deepEqual(removed.mock.calls.map((call) => call.arguments), added.mock.calls.map((call) => call.arguments));
  assert.equal(added.mock.callCount(), 1);
});

test('close() while waiting cancels the next try', () => {
  const world = buildOpen();
  world.socket.drop();
  world.client.close();
  world.clock.advance(600_000);
  assert.equal(world.net.sockets.length, 1);
});

test('retry() and the online event end the wait at once', () => {
  for (const now of [(world) => world.client.retry(), (world) => world.window.dispatchEvent(new Event('online'))]) {
    const world = buildOpen();
    world.socket.drop();
    now(world);
    assert.equal(world.client.state, 'connecting');
    assert.equal(world.net.sockets.length, 2);
    world.clock.advance(1000);
    assert.equal(world.net.sockets.length, 2, 'the cancelled try came all the same');
  }
});

test('retry() while open or connecting does nothing', () => {
  const world = build();
  world.client.retry();
  world.socket.welcome();
  world.client.retry();
  assert.equal(world.net.sockets.length, 1);
});

test('a page that becomes visible ends the wait, one that is hidden does not', () => {
  const world = buildOpen();
  world.socket.drop();
  world.window.document.visibilityState = 'hidden';
  world.window.document.dispatchEvent(new Event('visibilitychange'));
  assert.equal(world.client.state, 'waiting');
  world.window.becomesVisible();
  assert.equal(world.client.state, 'connecting');
});

test('silence is answered by a ping, silence after it by a new connection', () => {
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

test('any message counts as a sign of life, before the ping and after it', () => {
  const world = buildOpen();
  world.clock.advance(20_000);
  world.socket.say({ type: 'notice', text: 'hello' });
  world.clock.advance(24_999);
  assert.equal(world.socket.all('ping').length, 0);
  world.clock.advance(1);
  assert.equal(world.socket.all('ping').length, 1);
  world.socket.say({ type: 'pong' });
  world.clock.advance(34_999);
  assert.equal(world.client.state, 'open');
  assert.equal(world.socket.all('ping').length, 2);
});

test('coming back online while open tests the old connection at once', () => {
  const world = buildOpen();
  world.window.dispatchEvent(new Event('online'));
  assert.equal(world.socket.all('ping').length, 1);
  world.clock.advance(10_000);
  assert.equal(world.client.state, 'waiting');
});

test('a flood of messages arms no timers', () => {
  const world = buildOpen();
  for (let index = 0; index < 1000; index += 1) world.socket.say(event('kitchen', index));
  assert.equal(world.clock.timers.size, 1);
});

test('something that is not JSON means that the conversation is lost: reconnect', () => {
  const world = buildOpen();
  world.socket.say('<html>');
  assert.equal(world.client.state, 'waiting');
  assert.equal(world.states.at(-1)[1].code, 1002);
});

test('messages of an unknown type, or of none, are passed over', () => {
  const world = buildOpen();
  for (const message of [{ type: 'future' }, {}, 'null', '[]', '7']) world.socket.say(message);
  world.socket.say({ type: 'ok', id: 99 });
  world.socket.say(event('nobody-reads-this', 1));
  assert.equal(world.client.state, 'open');
});

test('notices are dispatched, and so are errors that answer no command', () => {
  const world = buildOpen();
  world.socket.say({ type: 'notice', text: 'restarting soon' });
  world.socket.say({ type: 'error', code: 'bad-json', message: 'not one JSON object' });
  const [, notice, error] = world.states;
  assert.deepEqual(notice, ['notice', { text: 'restarting soon' }]);
  assert.equal(error[0], 'error');
  assert.equal(error[1].code, 'bad-json');
});

test('after a reconnection the name comes first, then the channels, then what was queued', () => {
  const world = buildOpen();
  world.client.nick('ann');
  world.socket.answer('nick', { nick: 'ann' });
  world.client.subscribe('kitchen', () => {});
  world.socket.answer('subscribe', { channel: 'kitchen', offset: 0, epoch: 'e1' });
  world.socket.drop();
  world.client.publish('kitchen', 1);
  world.client.retry();
  world.socket.welcome();
  assert.deepEqual(world.socket.sent.map(({ type }) => type), ['nick', 'subscribe', 'publish']);
  assert.equal(world.socket.last('nick').nick, 'ann');
});

test('a listener of "open" can use the client, behind what was queued', () => {
  const world = build();
  world.client.publish('kitchen', 'queued');
  world.client.addEventListener('open', () => world.client.publish('kitchen', 'now'));
  world.socket.welcome();
  assert.deepEqual(world.socket.all('publish').map(({ data }) => data), ['queued', 'now']);
});

test('the default times make sense together', () => {
  assert.ok(DEFAULT_TIMES.quietAfter < 30_000, 'proxies cut after 30 s');
  assert.ok(DEFAULT_TIMES.firstDelay < DEFAULT_TIMES.longestDelay);
});

test('a throwing reader takes nothing from the others, and its error is not swallowed', (t) => {
  const later = t.mock.method(globalThis, 'queueMicrotask', () => {});
  const world = buildOpen();
  const other = recorder();
  world.client.subscribe('kitchen', () => { throw new Error('reader broke'); });
  world.client.subscribe('kitchen', other.onEvent);
  world.socket.answer('subscribe', { offset: 0, epoch: 'e1' });
  world.socket.answer('subscribe', { offset: 0, epoch: 'e1', recovered: true });
  world.socket.say(event('kitchen', 1));
  assert.deepEqual(other.offsets(), [1]);
  assert.equal(later.mock.callCount(), 1);
  assert.throws(later.mock.calls[0].arguments[0], /reader broke/);
});
