// Which way is taken: the WebSocket, or the stream where the WebSocket is blocked, and when it is asked for again.

import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';

import { DEFAULT_TIMES } from '../../twistedsock/static/sockbridge.js';
import '../../twistedsock/static/stream.js'; // so that the client's own import is over in the same turn
import { build, event, recorder, settle } from './fakes.mjs';

const paths = (world) => world.net.requests.map(({ address }) => new URL(address).pathname);
const waits = (world) => world.states.filter(([type]) => type === 'waiting').map(([, detail]) => detail);

/** The WebSocket fails; `healthz` is what becomes of the question that follows, if one does. */
async function failSocket(world, healthz) {
  world.socket.drop();
  await settle();
  if (healthz) healthz(world.request);
  await settle();
}

const answers = (request) => request.answer(200);
const isAway = (request) => request.fail();

/** The next try, as the clock brings it. */
async function retry(world) {
  world.clock.advance(waits(world).at(-1).delay);
  await settle();
}

/** A client on the stream, as one comes to be where the WebSocket is blocked. */
async function buildBlocked(options) {
  const world = build(options);
  await failSocket(world);
  await retry(world);
  await failSocket(world, answers);
  await retry(world);
  return world;
}

async function buildStreaming(options) {
  const world = await buildBlocked(options);
  world.request.begin();
  world.request.welcome();
  await settle();
  return world;
}

test('where the WebSocket fails twice although HTTP comes through, the stream is taken', async () => {
  const world = build();
  const published = world.client.publish('kitchen', 21.5);
  await failSocket(world);
  assert.deepEqual(paths(world), [], 'one failure says nothing');
  await retry(world);
  await failSocket(world, answers);
  assert.deepEqual(world.net.requests[0].address, 'http://bridge.test/healthz');
  assert.equal(world.client.transport, 'websocket');
  await retry(world);
  assert.deepEqual([world.net.sockets.length, world.request.address], [2, 'http://bridge.test/stream']);
  assert.deepEqual([world.client.state, world.client.transport], ['connecting', 'stream']);

  const stream = world.request;
  stream.begin();
  stream.welcome('k3x9');
  await settle();
  const peer = { id: 'k3x9', from: '127.0.0.1:53124', to: '127.0.0.1:8082' };
  assert.deepEqual(world.states.at(-1), ['open', { ...peer, transport: 'stream' }]);
  assert.deepEqual(world.client.peer, peer);
  assert.ok(!JSON.stringify([world.states, world.client.peer]).includes('secret'));
  assert.deepEqual(world.request.messages, [{ type: 'publish', channel: 'kitchen', data: 21.5, id: 1 }]);
  world.request.answer(204);
  stream.say({ type: 'ok', id: 1, offset: 7 });
  assert.equal(await published, 7);
});

test('a bridge that is away is not taken for one that is blocked', async () => {
  const world = build();
  for (let failure = 1; failure <= 6; failure += 1) {
    await failSocket(world, failure >= 2 && isAway);
    await retry(world);
    assert.equal(world.client.transport, 'websocket');
  }
  assert.deepEqual([world.net.sockets.length, world.net.requests.length], [7, 5]);
  world.socket.welcome();
  assert.equal(world.client.state, 'open');
});

test('an answer that is no 200 says nothing either: an older bridge has no stream', async () => {
  const world = build();
  await failSocket(world);
  await retry(world);
  await failSocket(world, (request) => request.answer(404));
  await retry(world);
  assert.equal(world.net.sockets.length, 3);
});

test('a WebSocket that was welcomed and breaks is not blocked', async () => {
  const world = build();
  for (let index = 0; index < 5; index += 1) {
    world.socket.welcome();
    await failSocket(world);
    await retry(world);
  }
  assert.deepEqual(world.net.requests, []);
});

test('failures before and after a welcome are not in a row', async () => {
  const world = build();
  await failSocket(world);
  await retry(world);
  world.socket.welcome();
  await failSocket(world);
  await retry(world);
  await failSocket(world);
  assert.deepEqual(world.net.requests, []);
});

test('a WebSocket that stays silent counts as one that fails', async () => {
  const world = build({ openTimeout: 10_000 });
  world.clock.advance(10_000);
  await retry(world);
  world.clock.advance(10_000);
  await settle();
  answers(world.request);
  await settle();
  await retry(world);
  assert.equal(world.client.transport, 'stream');
});

test('the question has its time; what it tells after a welcome is no news', async () => {
  const slow = build({ openTimeout: 10_000 });
  await failSocket(slow);
  await retry(slow);
  await failSocket(slow);
  const question = slow.request;
  await retry(slow);
  slow.socket.welcome();
  answers(question);
  await settle();
  await failSocket(slow);
  await retry(slow);
  assert.deepEqual([slow.client.transport, slow.net.sockets.length], ['websocket', 4]);

  const silent = build({ openTimeout: 10_000 });
  await failSocket(silent);
  await retry(silent);
  await failSocket(silent);
  await retry(silent);
  await failSocket(silent);
  assert.equal(silent.net.requests.length, 1, 'one question at a time');
  silent.clock.advance(10_000);
  await settle();
  assert.ok(silent.request.aborted);
});

test('a question that is over leaves no timer, nor does a client that is closed while it asks', async () => {
  const world = build();
  await failSocket(world);
  await retry(world);
  await failSocket(world);
  assert.equal(world.clock.timers.size, 2);
  world.client.close();
  await settle();
  assert.ok(world.request.aborted);
  assert.equal(world.clock.timers.size, 0);
});

test('the client recovers on the stream as on the WebSocket', async () => {
  const world = build();
  const reader = recorder();
  world.client.subscribe('kitchen', reader.onEvent, reader.options);
  world.socket.welcome();
  world.socket.answer('subscribe', { channel: 'kitchen', offset: 10, epoch: 'e1' });
  world.socket.say(event('kitchen', 11));
  world.socket.drop();
  await retry(world);
  await failSocket(world);
  await retry(world);
  await failSocket(world, answers);
  await retry(world);
  const stream = world.request;
  stream.begin();
  stream.welcome();
  await settle();
  assert.deepEqual(world.request.messages, [
    { type: 'subscribe', channel: 'kitchen', echo: true, presence: false, since: 11, epoch: 'e1', id: world.request.messages[0].id },
  ]);
  stream.say({ type: 'ok', id: world.request.messages[0].id, channel: 'kitchen', offset: 12, epoch: 'e1', recovered: true });
  stream.say(event('kitchen', 12));
  await settle();
  assert.deepEqual(reader.offsets(), [11, 12]);
});

test('the stream is remembered, and the WebSocket tried again at a reconnection after ten minutes', async () => {
  const world = await buildStreaming();
  const began = world.clock.now();
  assert.equal(DEFAULT_TIMES.websocketAgainAfter, 600_000);
  const reopen = async () => {
    world.net.requests.findLast(({ controller }) => controller).end();
    await settle();
    await retry(world);
  };
  await reopen();
  assert.equal(world.client.transport, 'stream');
  world.request.begin();
  world.request.welcome();
  await settle();
  // Pings keep it open meanwhile.
  const stream = world.request;
  while (world.clock.now() < began + 600_000) {
    world.clock.advance(20_000);
    stream.say({ type: 'notice', text: 'still here' });
    await settle();
  }
  assert.equal(world.net.sockets.length, 2);
  await reopen();
  assert.deepEqual([world.client.transport, world.net.sockets.length], ['websocket', 3]);
  await failSocket(world); // still blocked: no question, the stream is known
  await retry(world);
  assert.equal(world.client.transport, 'stream');
  world.request.begin();
  world.request.welcome();
  await settle();
  world.request.end();
  await settle();
  await retry(world);
  assert.equal(world.client.transport, 'stream', 'again for ten minutes');
});

test('a WebSocket that comes through again is stayed with', async () => {
  const world = await buildStreaming({ websocketAgainAfter: 0 });
  world.request.end();
  await settle();
  await retry(world);
  world.socket.welcome();
  assert.deepEqual(world.states.at(-1)[1].transport, 'websocket');
  await failSocket(world);
  await retry(world);
  await failSocket(world);
  await retry(world);
  assert.equal(world.client.transport, 'websocket');
});

test('where both are refused, each has its turn, and the waits grow as ever', async () => {
  const world = await buildBlocked({ firstDelay: 500, longestDelay: 30_000 });
  const ways = [];
  for (let index = 0; index < 6; index += 1) {
    ways.push(world.client.transport);
    if (world.client.transport === 'stream') {
      world.request.answer(403, { detail: 'not you' });
      await settle();
    } else {
      await failSocket(world);
    }
    await retry(world);
  }
  assert.deepEqual(ways, ['stream', 'websocket', 'stream', 'websocket', 'stream', 'websocket']);
  assert.deepEqual(waits(world).map(({ delay }) => delay), [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
  assert.equal(waits(world)[2].reason, 'the server replied 403: not you');
  assert.equal(paths(world).filter((path) => path === '/healthz').length, 1);
});

test('a server that is overloaded is given time on the stream too', async () => {
  const world = await buildBlocked();
  world.request.answer(503, { detail: 'too many connections' });
  await settle();
  assert.deepEqual(waits(world).at(-1), { delay: 2000, attempt: 4, code: 1013, reason: 'the server replied 503: too many connections' });
});

test('a silent stream is noticed by a ping, as a WebSocket is', async () => {
  const world = await buildStreaming({ quietAfter: 25_000, answerTimeout: 10_000 });
  const stream = world.request;
  world.clock.advance(25_000);
  await settle();
  assert.deepEqual(world.request.messages, [{ type: 'ping' }]);
  world.clock.advance(10_000);
  assert.equal(waits(world).at(-1).reason, 'the server does not respond');
  world.clock.advance(5_000); // its farewell
  await settle();
  assert.ok(stream.aborted);
});

test('told to go for good, on the stream too', async () => {
  const world = await buildStreaming();
  world.request.say({ type: 'close', code: 1008, reason: 'an operator has ended this connection' });
  await settle();
  assert.deepEqual(world.states.at(-1), ['closed', { code: 1008, reason: 'an operator has ended this connection' }]);
  world.clock.advance(600_000);
  assert.equal(world.clock.timers.size, 0);
});

test('transport: one may be demanded', async () => {
  const socket = build({ transport: 'websocket' });
  for (let index = 0; index < 4; index += 1) {
    await failSocket(socket);
    await retry(socket);
  }
  assert.deepEqual([socket.net.sockets.length, socket.net.requests.length], [5, 0]);

  const stream = build({ transport: 'stream' });
  await settle();
  for (let index = 0; index < 4; index += 1) {
    stream.request.fail();
    await settle();
    await retry(stream);
  }
  assert.deepEqual([stream.net.sockets.length, paths(stream)], [0, Array(5).fill('/stream')]);
  assert.throws(() => build({ transport: 'pigeon' }), /invalid transport/);
});

test('without any WebSocket the stream is taken at once, unless the WebSocket was demanded', async () => {
  const world = build({ WebSocket: undefined });
  await settle();
  assert.deepEqual([world.client.transport, paths(world)], ['stream', ['/stream']]);
  assert.throws(() => build({ WebSocket: undefined, transport: 'websocket' }), /has no WebSocket/);
});

test('the stream lies beside the WebSocket, and what was asked there is asked here', async () => {
  const { connect } = await import('../../twistedsock/static/sockbridge.js');
  for (const [address, stream] of [
    ['wss://bridge.test/ws', 'https://bridge.test/stream'],
    ['http://bridge.test:8082/', 'http://bridge.test:8082/stream'],
    ['https://bridge.test/inside/ws?token=t1', 'https://bridge.test/inside/stream?token=t1'],
  ]) {
    const asked = [];
    const client = connect(address, { transport: 'stream', fetch: async (url) => { asked.push(url); throw new TypeError('no'); }, window: undefined });
    await settle();
    client.close();
    assert.deepEqual(asked, [stream]);
  }
});

test('a closed client lets the stream go, also one that is only on its way', async () => {
  const open = await buildStreaming();
  open.client.close();
  await settle();
  assert.ok(open.net.requests.at(-1).aborted);
  assert.equal(open.clock.timers.size, 0);

  const early = build({ transport: 'stream' });
  early.client.close(); // before stream.js has come
  await settle();
  assert.deepEqual(early.net.requests, []);
});

test('a copy of the client alone has no stream to fall back on, and says so', async (t) => {
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
  assert.deepEqual(reasons, ['stream.js could not be loaded from the folder of sockbridge.js']);
});
