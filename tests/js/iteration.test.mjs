// Tests of `for await` loops over subscriptions, of `opened`, and of `using`.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { connect, ITERATION_LIMIT } from '../../twistedsock/static/sockbridge.js';
import { build, buildOpen, event, flushPromises, ModelServer, reconnect } from './fakes.mjs';

const SUBSCRIBED = { channel: 'kitchen', offset: 0, epoch: 'e1' };

/** Reads a subscription with a loop that ends after `most` events. Resolves with their offsets. */
async function read(subscription, most = Infinity) {
  const offsets = [];
  for await (const { offset } of subscription) if (offsets.push(offset) >= most) break;
  return offsets;
}

test('yields the events in order, also those that arrive before the loop begins', async () => {
  const { client, socket } = buildOpen();
  const subscription = client.subscribe('kitchen', { last: 2 });
  assert.equal(socket.last('subscribe').last, 2);
  socket.reply('subscribe', SUBSCRIBED);
  socket.events('kitchen', 1, 2);
  const offsets = read(subscription, 4);
  await flushPromises();
  socket.events('kitchen', 3, 4);
  assert.deepEqual(await offsets, [1, 2, 3, 4]);
});

test('unsubscribes when the loop is left', async () => {
  const { client, socket } = buildOpen();
  const subscription = client.subscribe('kitchen');
  socket.reply('subscribe', SUBSCRIBED);
  socket.events('kitchen', 1);
  await read(subscription, 1);
  assert.equal(socket.last('unsubscribe').channel, 'kitchen');
  await assert.rejects(async () => {
    const again = client.subscribe('garden');
    socket.reply('subscribe', { ...SUBSCRIBED, channel: 'garden' });
    socket.events('garden', 1);
    for await (const { channel } of again) throw new Error(channel);
  }, { message: 'garden' });
  assert.equal(socket.last('unsubscribe').channel, 'garden');
});

test('continues after a reconnection', async () => {
  const world = buildOpen();
  const offsets = read(world.client.subscribe('kitchen'), 2);
  world.socket.reply('subscribe', SUBSCRIBED);
  world.socket.events('kitchen', 1);
  reconnect(world);
  world.socket.reply('subscribe', { ...SUBSCRIBED, offset: 2, recovered: true });
  world.socket.events('kitchen', 2);
  assert.deepEqual(await offsets, [1, 2]);
});

test('yields to a loop beside a callback from the start of the loop on', async () => {
  const { client, socket } = buildOpen();
  const called = [];
  const subscription = client.subscribe('kitchen', ({ offset }) => called.push(offset));
  socket.reply('subscribe', SUBSCRIBED);
  socket.events('kitchen', 1);
  const offsets = read(subscription, 1);
  socket.events('kitchen', 2);
  assert.deepEqual([await offsets, called], [[2], [1, 2]]);
});

test('ends the loop when the program unsubscribes or closes the client', async () => {
  const { client, socket } = buildOpen();
  const [kitchen, garden] = ['kitchen', 'garden'].map((channel) => client.subscribe(channel));
  const loops = [read(kitchen), read(garden)];
  socket.reply('subscribe', { ...SUBSCRIBED, channel: 'garden' });
  socket.events('garden', 1);
  await flushPromises();
  kitchen.unsubscribe();
  client.close();
  assert.deepEqual(await Promise.all(loops), [[], [1]]);
});

test('throws the error of a rejected subscription, of one that the server ends, and of a rejected client', async () => {
  const { client, socket, states } = buildOpen();
  const [kitchen, garden, cellar] = ['kitchen', 'garden', 'cellar'].map((channel) => client.subscribe(channel));
  for (const { id, channel } of socket.all('subscribe').slice(0, 2)) socket.deliver({ type: 'ok', id, ...SUBSCRIBED, channel });
  socket.reject('subscribe', 'forbidden');
  socket.events('kitchen', 1);
  socket.deliver({ type: 'notice', text: 'right lost', code: 'forbidden', channel: 'kitchen' });
  await assert.rejects(read(cellar), { code: 'forbidden', channel: 'cellar' });
  const loop = kitchen[Symbol.asyncIterator]();
  assert.equal((await loop.next()).value.offset, 1);
  await assert.rejects(loop.next(), { code: 'forbidden', message: 'right lost' });
  socket.drop(1008, 'token expired');
  await assert.rejects(read(garden), { code: 'closed', message: 'token expired' });
  assert.ok(!states.some(([type]) => type === 'error'));
});

test('keeps at most ITERATION_LIMIT events, and requests the following ones when half of them are read', async () => {
  const world = buildOpen();
  const server = new ModelServer(world.net);
  const subscription = world.client.subscribe('kitchen');
  server.deliver();
  for (let number = 1; number <= 3 * ITERATION_LIMIT; number += 1) server.append(number);
  server.deliver();
  assert.equal(subscription.position, ITERATION_LIMIT);
  assert.equal(subscription.current, false);
  reconnect(world);
  assert.equal(world.socket.all('subscribe').length, 0);
  const offsets = [];
  const later = [];
  world.client.subscribe('kitchen', ({ offset }) => later.push(offset), { last: 1 });
  for await (const { offset } of subscription) {
    offsets.push(offset);
    if (offset === 3 * ITERATION_LIMIT) break;
    server.deliver();
    server.deliver();
  }
  assert.deepEqual(offsets, Array.from({ length: 3 * ITERATION_LIMIT }, (_, index) => index + 1));
  assert.deepEqual(later, [3 * ITERATION_LIMIT]);
});

test('does not confirm a subscription that has paused since the request', async () => {
  const world = buildOpen();
  const server = new ModelServer(world.net);
  const subscription = world.client.subscribe('kitchen');
  server.deliver();
  for (let number = 1; number <= ITERATION_LIMIT; number += 1) server.append(number);
  world.client.subscribe('kitchen', () => {});
  server.deliver();
  assert.equal(subscription.current, false);
  assert.equal((await read(subscription, ITERATION_LIMIT)).length, ITERATION_LIMIT);
});

test('ends with the reason of an aborted signal', async () => {
  const { client, socket } = buildOpen();
  const controller = new AbortController();
  const subscription = client.subscribe('kitchen', { signal: controller.signal });
  const [loop, { ready }] = [read(subscription), subscription];
  controller.abort(new Error('enough'));
  await assert.rejects(loop, { message: 'enough' });
  await assert.rejects(ready, { message: 'enough' });
  assert.equal(socket.last('unsubscribe').channel, 'kitchen');
  await assert.rejects(client.subscribe('garden', { signal: controller.signal }).ready, { message: 'enough' });
});

test('opened resolves at each opening and rejects when the client is closed for good', async () => {
  const world = build();
  const first = world.client.opened;
  assert.equal(first, world.client.opened);
  world.socket.welcome('k3x9');
  const expected = { id: 'k3x9', from: '127.0.0.1:53124', to: '127.0.0.1:8082', transport: 'websocket' };
  assert.deepEqual([await first, await world.client.opened], [expected, expected]);
  world.socket.drop();
  const second = world.client.opened;
  world.client.retry();
  world.socket.welcome('p2');
  assert.equal((await second).id, 'p2');
  world.socket.drop();
  const never = world.client.opened;
  world.client.close();
  await assert.rejects(never, { code: 'closed' });
  await assert.rejects(world.client.opened, { code: 'closed' });
});

test('an aborted signal closes the client', async () => {
  const controller = new AbortController();
  const world = buildOpen({ signal: controller.signal });
  controller.abort();
  assert.equal(world.client.state, 'closed');
  assert.equal(build({ signal: controller.signal }).client.state, 'closed');
});

test('unsubscribes and closes at the end of a block with using', { skip: !Symbol.dispose && 'this platform has no using' }, () => {
  const { client, socket } = buildOpen();
  const subscription = client.subscribe('kitchen', () => {});
  subscription[Symbol.dispose]();
  assert.equal(socket.last('unsubscribe').channel, 'kitchen');
  client[Symbol.dispose]();
  assert.equal(client.state, 'closed');
});

test('closes at the end of a block with await using when all calls are settled', { skip: !Symbol.asyncDispose && 'this platform has no using' }, async () => {
  const { client, socket } = buildOpen();
  const calls = [client.publish('kitchen', 1), client.who('kitchen')];
  const disposed = client[Symbol.asyncDispose]();
  socket.reply('publish', { offset: 7 });
  await flushPromises();
  assert.equal(client.state, 'open');
  socket.reply('who', { members: [] });
  await disposed;
  assert.equal(client.state, 'closed');
  assert.deepEqual(await Promise.all(calls), [7, []]);
  const idle = connect('ws://bridge.test/ws', { WebSocket: class { close() {} }, window: undefined });
  await idle[Symbol.asyncDispose]();
  assert.equal(idle.state, 'closed');
});

test('event objects of a loop have only the declared fields', async () => {
  const { client, socket } = buildOpen();
  const subscription = client.subscribe('kitchen');
  socket.reply('subscribe', SUBSCRIBED);
  socket.deliver({ ...event('kitchen', 1), later: 1 });
  for await (const received of subscription) {
    assert.deepEqual(Object.keys(received), ['channel', 'offset', 'time', 'from', 'name', 'data']);
    break;
  }
});
