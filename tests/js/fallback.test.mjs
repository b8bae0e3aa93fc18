// Tests of the choice between WebSocket and the stream.

import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';

import { DEFAULT_TIMES } from '../../twistedsock/static/sockbridge.js';
import '../../twistedsock/static/stream.js'; // so that the import of the client completes in the same turn
import { build, event, FakeWindow, flushPromises, subscribe } from './fakes.mjs';

const paths = (world) => world.net.requests.map(({ address }) => new URL(address).pathname);
const waits = (world) => world.states.filter(([type]) => type === 'waiting').map(([, detail]) => detail);

/** Lets the stream end, and advances the clock to the next attempt. */
async function endAndRetry(world, stream = world.request) {
  stream.end();
  await flushPromises();
  await retry(world);
}

/** Drops the WebSocket. `answer` responds to the HTTP check that follows, if any. */
async function failSocket(world, answer) {
  world.socket.drop();
  await flushPromises();
  if (answer) answer(world.request);
  await flushPromises();
}

const allows = (allowed) => (request) => request.respond(200, { allowed });
const succeeds = allows(true);
const fails = (request) => request.fail();

/** Advances the clock to the next attempt. */
async function retry(world) {
  world.clock.advance(waits(world).at(-1).delay);
  await flushPromises();
}

async function failAndRetry(world, answer) {
  await failSocket(world, answer);
  await retry(world);
}

async function openStream(request) {
  request.begin();
  request.welcome();
  await flushPromises();
}

/** A client whose WebSocket is blocked, so that it has requested the stream. */
async function buildBlocked(options) {
  const world = build(options);
  await failAndRetry(world);
  await failAndRetry(world, succeeds);
  return world;
}

async function buildStreaming(options) {
  const world = await buildBlocked(options);
  await openStream(world.request);
  return world;
}

test('uses the stream after two failures of WebSocket if HTTP works', async () => {
  const world = build();
  const published = world.client.publish('kitchen', 21.5);
  await failSocket(world);
  assert.deepEqual(paths(world), [], 'one failure is not enough');
  await retry(world);
  await failSocket(world, succeeds);
  assert.deepEqual(world.net.requests[0].address, 'http://bridge.test/origin');
  assert.equal(world.client.transport, 'websocket');
  await retry(world);
  assert.deepEqual([world.net.sockets.length, world.request.address], [2, 'http://bridge.test/stream']);
  assert.deepEqual([world.client.state, world.client.transport], ['connecting', 'stream']);

  const stream = world.request;
  stream.begin();
  stream.welcome('k3x9');
  await flushPromises();
  const peer = { id: 'k3x9', from: '127.0.0.1:53124', to: '127.0.0.1:8082' };
  assert.deepEqual(world.states.at(-1), ['open', { ...peer, transport: 'stream' }]);
  assert.deepEqual(world.client.peer, peer);
  assert.ok(!JSON.stringify([world.states, world.client.peer]).includes('secret'));
  assert.deepEqual(world.request.messages, [{ type: 'publish', channel: 'kitchen', data: 21.5, id: 1 }]);
  world.request.respond(204);
  stream.deliver({ type: 'ok', id: 1, offset: 7 });
  assert.equal(await published, 7);
});

test('keeps trying WebSocket while the server is down', async () => {
  const world = build();
  for (let failure = 1; failure <= 6; failure += 1) {
    await failAndRetry(world, failure >= 2 && fails);
    assert.equal(world.client.transport, 'websocket');
  }
  assert.deepEqual([world.net.sockets.length, world.net.requests.length], [7, 5]);
  world.socket.welcome();
  assert.equal(world.client.state, 'open');
});

test('ignores the answer of another server', async () => {
  const world = build();
  await failAndRetry(world);
  for (const [status, body] of [[404, {}], [200, null], [200, {}]]) await failAndRetry(world, (request) => request.respond(status, body));
  assert.deepEqual([world.client.transport, world.net.sockets.length], ['websocket', 5]);
});

test('does not count broken WebSockets that were open', async () => {
  const world = build();
  for (let index = 0; index < 5; index += 1) {
    world.socket.welcome();
    await failAndRetry(world);
  }
  assert.deepEqual(world.net.requests, []);
});

test('does not count failures before and after a welcome together', async () => {
  const world = build();
  await failAndRetry(world);
  world.socket.welcome();
  await failAndRetry(world);
  await failSocket(world);
  assert.deepEqual(world.net.requests, []);
});

test('counts a silent WebSocket as a failure', async () => {
  const world = build({ openTimeout: 10_000 });
  world.clock.advance(10_000);
  await retry(world);
  world.clock.advance(10_000);
  await flushPromises();
  succeeds(world.request);
  await flushPromises();
  await retry(world);
  assert.equal(world.client.transport, 'stream');
});

test('limits the HTTP check and ignores its result after a welcome', async () => {
  const slow = build({ openTimeout: 10_000 });
  await failAndRetry(slow);
  await failSocket(slow);
  const check = slow.request;
  await retry(slow);
  slow.socket.welcome();
  succeeds(check);
  await flushPromises();
  await failAndRetry(slow);
  assert.deepEqual([slow.client.transport, slow.net.sockets.length], ['websocket', 4]);

  const silent = build({ openTimeout: 10_000 });
  await failAndRetry(silent);
  await failAndRetry(silent);
  await failSocket(silent);
  assert.equal(silent.net.requests.length, 1, 'one check at a time');
  silent.clock.advance(10_000);
  await flushPromises();
  assert.ok(silent.request.aborted);
});

test('stops the timer of the HTTP check when closed', async () => {
  const world = build();
  await failAndRetry(world);
  await failSocket(world);
  assert.equal(world.clock.timers.size, 2);
  world.client.close();
  await flushPromises();
  assert.ok(world.request.aborted);
  assert.equal(world.clock.timers.size, 0);
});

// ---- pages of another origin ----

const LOCAL = 'http://localhost:5173';
const errors = (world) => world.states.filter(([type]) => type === 'error').map(([, { code, message }]) => [code, message]);
/** A client of a page of another origin, after two failures. `answer` responds to the request for that origin. */
async function buildForeign(answer, options) {
  const world = build({ window: Object.assign(new FakeWindow(), { origin: LOCAL }), ...options });
  await failAndRetry(world);
  await failSocket(world, answer);
  return world;
}

test('reports once that the server rejects the origin of the page, and keeps trying', async () => {
  const world = await buildForeign(allows(false));
  const message = `the server rejects pages of ${LOCAL}: start the server with --allow-origin ${LOCAL}`;
  assert.deepEqual(errors(world), [['origin', message]]);
  for (let failure = 3; failure <= 5; failure += 1) {
    await retry(world);
    await failSocket(world, allows(false));
  }
  assert.deepEqual(paths(world), Array(4).fill('/origin'), 'nothing else is requested');
  assert.equal(errors(world).length, 1);
  await retry(world);
  world.socket.welcome(); // the server was started again with the option
  await failAndRetry(world); // and later without it
  await failAndRetry(world);
  await failSocket(world, allows(false));
  assert.equal(errors(world).length, 2);
});

test('reports a rejected origin if the transport is fixed', async () => {
  const world = await buildForeign(allows(false), { transport: 'websocket' });
  assert.equal(errors(world).length, 1);
  const allowed = await buildForeign(allows(true), { transport: 'websocket' });
  assert.deepEqual([errors(allowed), paths(allowed)], [[], ['/origin']]);
});

test('uses the stream if the origin is allowed', async () => {
  const world = await buildForeign(allows(true));
  await retry(world);
  assert.deepEqual([errors(world), world.client.transport], [[], 'stream']);
});

test('ignores the answer about the origin after a welcome or a close', async () => {
  const opened = await buildForeign();
  await retry(opened);
  opened.socket.welcome();
  allows(false)(opened.request);
  const closed = await buildForeign();
  closed.client.close();
  allows(false)(closed.request);
  await flushPromises();
  assert.deepEqual([errors(opened), errors(closed)], [[], []]);
});

test('does not ask about the origin of the server itself if the transport is fixed', async () => {
  const world = await buildForeign(undefined, { window: Object.assign(new FakeWindow(), { origin: 'http://bridge.test' }), transport: 'websocket' });
  assert.deepEqual(paths(world), []);
});

// ---- the stream ----

test('recovers on the stream', async () => {
  const world = build();
  const subscriber = subscribe(world);
  world.socket.welcome();
  world.socket.reply('subscribe', { channel: 'kitchen', offset: 10, epoch: 'e1' });
  world.socket.deliver(event('kitchen', 11));
  world.socket.drop();
  await retry(world);
  await failAndRetry(world);
  await failAndRetry(world, succeeds);
  const stream = world.request;
  await openStream(stream);
  assert.deepEqual(world.request.messages, [
    { type: 'subscribe', channel: 'kitchen', echo: true, presence: false, since: 11, epoch: 'e1', id: world.request.messages[0].id },
  ]);
  stream.deliver({ type: 'ok', id: world.request.messages[0].id, channel: 'kitchen', offset: 12, epoch: 'e1', recovered: true });
  stream.deliver(event('kitchen', 12));
  await flushPromises();
  assert.deepEqual(subscriber.offsets(), [11, 12]);
});

test('moves to a new epoch on the stream', async () => {
  const world = await buildStreaming();
  const subscriber = subscribe(world);
  await flushPromises();
  const stream = world.net.requests.find(({ controller }) => controller);
  stream.deliver({ type: 'ok', id: world.request.messages[0].id, channel: 'kitchen', offset: 10, epoch: 'e1' });
  stream.deliver({ type: 'reset', channel: 'kitchen', epoch: 'e2', good: 9, offset: 0 });
  stream.deliver(event('kitchen', 1));
  await flushPromises();
  assert.deepEqual(subscriber.calls.slice(1), [['reset', { channel: 'kitchen', epoch: 'e2', good: 9, offset: 0 }], ['event', 1, 'kitchen 1']]);
});

test('keeps the stream and tries WebSocket again after ten minutes', async () => {
  const world = await buildStreaming();
  const began = world.clock.now();
  assert.equal(DEFAULT_TIMES.websocketAgainAfter, 600_000);
  const reopen = () => endAndRetry(world, world.net.requests.findLast(({ controller }) => controller));
  await reopen();
  assert.equal(world.client.transport, 'stream');
  await openStream(world.request);
  // Messages keep it open.
  const stream = world.request;
  while (world.clock.now() < began + 600_000) {
    world.clock.advance(20_000);
    stream.deliver({ type: 'notice', text: 'still here' });
    await flushPromises();
  }
  assert.equal(world.net.sockets.length, 2);
  await reopen();
  assert.deepEqual([world.client.transport, world.net.sockets.length], ['websocket', 3]);
  await failAndRetry(world); // still blocked: the stream is used without another check
  assert.equal(world.client.transport, 'stream');
  await openStream(world.request);
  await endAndRetry(world);
  assert.equal(world.client.transport, 'stream', 'for ten more minutes');
});

test('keeps WebSocket once it works again', async () => {
  const world = await buildStreaming({ websocketAgainAfter: 0 });
  await endAndRetry(world);
  world.socket.welcome();
  assert.deepEqual(world.states.at(-1)[1].transport, 'websocket');
  await failAndRetry(world);
  await failAndRetry(world);
  assert.equal(world.client.transport, 'websocket');
});

test('alternates between the transports with growing delays if both fail', async () => {
  const world = await buildBlocked({ firstDelay: 500, longestDelay: 30_000 });
  const transports = [];
  for (let index = 0; index < 6; index += 1) {
    transports.push(world.client.transport);
    if (world.client.transport === 'stream') {
      world.request.respond(403, { detail: 'not you' });
      await flushPromises();
    } else {
      await failSocket(world);
    }
    await retry(world);
  }
  assert.deepEqual(transports, ['stream', 'websocket', 'stream', 'websocket', 'stream', 'websocket']);
  assert.deepEqual(waits(world).map(({ delay }) => delay), [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
  assert.equal(waits(world)[2].reason, 'the server replied 403: not you');
  assert.equal(paths(world).filter((path) => path === '/origin').length, 1);
});

test('waits longer if the stream reports overload', async () => {
  const world = await buildBlocked();
  world.request.respond(503, { detail: 'too many connections' });
  await flushPromises();
  assert.deepEqual(waits(world).at(-1), { delay: 2000, attempt: 4, code: 1013, reason: 'the server replied 503: too many connections' });
});

test('detects a silent stream by a ping', async () => {
  const world = await buildStreaming({ quietAfter: 25_000, answerTimeout: 10_000 });
  const stream = world.request;
  world.clock.advance(25_000);
  await flushPromises();
  assert.deepEqual(world.request.messages, [{ type: 'ping' }]);
  world.clock.advance(10_000);
  assert.equal(waits(world).at(-1).reason, 'the server does not respond');
  world.clock.advance(5_000); // the close timeout
  await flushPromises();
  assert.ok(stream.aborted);
});

test('closes for good if the stream says so', async () => {
  const world = await buildStreaming();
  world.request.deliver({ type: 'close', code: 1008, reason: 'an operator has ended this connection' });
  await flushPromises();
  assert.deepEqual(world.states.at(-1), ['closed', { code: 1008, reason: 'an operator has ended this connection' }]);
  world.clock.advance(600_000);
  assert.equal(world.clock.timers.size, 0);
});

test('uses the transport that the options demand', async () => {
  const socket = build({ transport: 'websocket' });
  for (let index = 0; index < 4; index += 1) {
    await failAndRetry(socket);
  }
  assert.deepEqual([socket.net.sockets.length, socket.net.requests.length], [5, 0]);

  const stream = build({ transport: 'stream' });
  await flushPromises();
  for (let index = 0; index < 4; index += 1) {
    stream.request.fail();
    await flushPromises();
    await retry(stream);
  }
  assert.deepEqual([stream.net.sockets.length, paths(stream)], [0, Array(5).fill('/stream')]);
  assert.throws(() => build({ transport: 'pigeon' }), /invalid transport/);
});

test('uses the stream without a WebSocket class', async () => {
  const world = build({ WebSocket: undefined });
  await flushPromises();
  assert.deepEqual([world.client.transport, paths(world)], ['stream', ['/stream']]);
  assert.throws(() => build({ WebSocket: undefined, transport: 'websocket' }), /has no WebSocket/);
});

test('requests the stream from the folder of the WebSocket with the same query', async () => {
  const { connect } = await import('../../twistedsock/static/sockbridge.js');
  for (const [address, stream] of [
    ['wss://bridge.test/ws', 'https://bridge.test/stream'],
    ['http://bridge.test:8082/', 'http://bridge.test:8082/stream'],
    ['https://bridge.test/inside/ws?token=t1', 'https://bridge.test/inside/stream?token=t1'],
  ]) {
    const asked = [];
    const client = connect(address, { transport: 'stream', fetch: async (url) => { asked.push(url); throw new TypeError('no'); }, random: () => 1, window: undefined });
    await flushPromises();
    client.close();
    assert.deepEqual(asked, [stream]);
  }
});

test('aborts the stream when closed, also while it is loading', async () => {
  const open = await buildStreaming();
  open.client.close();
  await flushPromises();
  assert.ok(open.net.requests.at(-1).aborted);
  assert.equal(open.clock.timers.size, 0);

  const early = build({ transport: 'stream' });
  early.client.close(); // before stream.js is loaded
  await flushPromises();
  assert.deepEqual(early.net.requests, []);
});

test('reports that stream.js is missing', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'sockbridge-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const copy = join(folder, 'sockbridge.mjs');
  copyFileSync(new URL('../../twistedsock/static/sockbridge.js', import.meta.url), copy);
  const { connect } = await import(pathToFileURL(copy).href);
  const reasons = [];
  const client = connect('ws://bridge.test/ws', { transport: 'stream', random: () => 1, window: undefined });
  await new Promise((resolve) => {
    client.addEventListener('waiting', ({ detail }) => { reasons.push(detail.reason); resolve(); });
  });
  client.close();
  assert.deepEqual(reasons, ['cannot load stream.js']);
});
