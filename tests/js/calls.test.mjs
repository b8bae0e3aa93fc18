// Tests of the limits of single calls, and of publications with a key, which survive a lost connection.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { build, buildOpen, flushPromises, ModelServer, reconnect } from './fakes.mjs';

const CALLS = {
  publish: (client, limits) => client.publish('kitchen', 1, limits),
  who: (client, limits) => client.who('kitchen', limits),
  history: (client, limits) => client.history('kitchen', limits),
  nick: (client, limits) => client.nick('ann', limits),
  auth: (client, limits) => client.authenticate('eyJ', limits),
  ping: (client, limits) => client.ping(limits),
  info: (client, limits) => client.info(limits),
};

for (const [type, call] of Object.entries(CALLS)) {
  test(`${type} can have a timeout and a signal`, async () => {
    const world = buildOpen();
    const controller = new AbortController();
    const late = call(world.client, { timeout: 500 });
    const aborted = call(world.client, { signal: controller.signal });
    assert.ok(world.socket.all(type).every((message) => !('timeout' in message) && !('signal' in message)));
    world.clock.advance(499);
    await flushPromises();
    world.clock.advance(1);
    await assert.rejects(late, { code: 'timeout' });
    controller.abort(new Error('enough'));
    await assert.rejects(aborted, { message: 'enough' });
    await assert.rejects(call(world.client, { signal: controller.signal }), { message: 'enough' });
    assert.equal(world.socket.all(type).length, 2);
  });
}

test('does not send a queued call that was aborted', async () => {
  const world = build();
  const controller = new AbortController();
  const aborted = world.client.publish('kitchen', 1, { signal: controller.signal });
  const kept = world.client.publish('kitchen', 2);
  controller.abort();
  await assert.rejects(aborted, { name: 'AbortError' });
  world.socket.welcome();
  assert.deepEqual(world.socket.all('publish').map(({ data }) => data), [2]);
  world.socket.reply('publish', { offset: 7 });
  assert.equal(await kept, 7);
});

test('ignores all replies to an abandoned call', async () => {
  const { client, socket, states } = buildOpen();
  const controller = new AbortController();
  const calls = [1, 2].map((data) => client.publish('kitchen', data, { signal: controller.signal }));
  const [first, second] = socket.all('publish');
  controller.abort();
  for (const call of calls) await assert.rejects(call, { name: 'AbortError' });
  socket.deliver({ type: 'ok', id: first.id, offset: 1 });
  socket.deliver({ type: 'error', id: second.id, code: 'forbidden', message: 'no' });
  assert.deepEqual(states.map(([type]) => type), ['open']);
});

test('an abort after the reply changes nothing, and signals keep no settled calls', async () => {
  const { client, socket } = buildOpen();
  const listeners = new Set();
  const signal = { addEventListener: (type, listener) => listeners.add(listener), removeEventListener: (type, listener) => listeners.delete(listener) };
  const offset = client.publish('kitchen', 1, { signal });
  const subscription = client.subscribe('kitchen', () => {}, { signal });
  assert.equal(listeners.size, 2);
  socket.reply('publish', { offset: 7 });
  subscription.unsubscribe();
  assert.equal(await offset, 7);
  assert.equal(listeners.size, 0);
});

test('a short timeout does not wait for a longer one', async () => {
  const world = buildOpen();
  const long = world.client.who('kitchen');
  const short = world.client.ping({ timeout: 100 });
  world.clock.advance(100);
  await assert.rejects(short, { code: 'timeout' });
  world.socket.reply('who', { members: [] });
  assert.deepEqual(await long, []);
});

test('a call can wait without a limit', async () => {
  const world = buildOpen();
  const { size } = world.clock.timers;
  const asked = world.client.who('kitchen', { timeout: Infinity }); // setTimeout would call back at once
  assert.equal(world.clock.timers.size, size);
  world.socket.reply('who', { members: [] });
  assert.deepEqual(await asked, []);
});

test('sends a key, and repeats the publication first after a lost connection', async () => {
  const world = buildOpen();
  const once = world.client.publish('kitchen', 1, { key: 'k1', name: 'reading' });
  const plain = world.client.publish('kitchen', 2);
  const sent = world.socket.last('publish').id - 1;
  assert.equal(world.socket.all('publish')[0].key, 'k1');
  world.socket.drop();
  await assert.rejects(plain, { code: 'disconnected' });
  world.client.publish('kitchen', 3).catch(() => {});
  world.client.retry();
  world.socket.welcome();
  assert.deepEqual(world.socket.all('publish').map(({ id, data, key }) => [id, data, key]), [[sent, 1, 'k1'], [sent + 2, 3, undefined]]);
  world.socket.deliver({ type: 'ok', id: sent, offset: 7, repeated: true });
  assert.equal(await once, 7);
  reconnect(world);
  assert.equal(world.socket.all('publish').length, 0);
});

test('publishes each event with a key exactly once, wherever the connection breaks', async () => {
  for (let cut = 0; cut < 16; cut += 1) {
    const world = buildOpen();
    const server = new ModelServer(world.net);
    const received = [];
    world.client.subscribe('kitchen', ({ data }) => received.push(data));
    server.deliver(1);
    const offsets = [1, 2, 3].map((data) => world.client.publish('kitchen', data, { key: `k${data}` }));
    for (let round = 0; round < 4; round += 1) {
      server.deliver((cut >> round) & 3);
      world.socket.drop();
      server.cut();
      world.client.retry();
      world.socket.welcome();
    }
    server.deliver();
    assert.deepEqual(await Promise.all(offsets), [1, 2, 3], `cut ${cut}`);
    assert.equal(server.head, 3);
    assert.deepEqual(received, [1, 2, 3]);
  }
});

test('rejects a publication with a key when the client is closed or its time is over', async () => {
  const world = buildOpen();
  const late = world.client.publish('kitchen', 1, { key: 'k1', timeout: 10_000 });
  world.socket.drop();
  world.clock.advance(1);
  const closed = world.client.publish('kitchen', 2, { key: 'k2' });
  const forgotten = world.client.publish('kitchen', 3, { key: 'k3', timeout: 3_600_000 });
  for (let second = 0; second < 10; second += 1) world.clock.advance(1_000);
  await assert.rejects(late, { code: 'timeout', message: /may or may not/ });
  world.client.nick('ann').catch(() => {});
  world.clock.advance(50_000);
  await assert.rejects(closed, { code: 'timeout', message: /was not sent/ });
  world.clock.advance(480_000);
  await assert.rejects(forgotten, { code: 'timeout' });
  const last = world.client.publish('kitchen', 4, { key: 'k4' });
  world.client.close();
  await assert.rejects(last, { code: 'closed' });
});
