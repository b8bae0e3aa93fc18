// Channels: what a reader is given, in which order, and what it is told when the connection, the log or the epoch goes.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { build, buildOpen, event, ModelServer, reconnect, recorder, settle } from './fakes.mjs';

/** An open world with one reader of `kitchen` at the given head. */
function buildReading(head = 10, options = {}) {
  const world = buildOpen();
  const reader = recorder();
  const subscription = world.client.subscribe('kitchen', reader.onEvent, { ...reader.options, ...options });
  world.socket.answer('subscribe', { channel: 'kitchen', offset: head, epoch: 'e1' });
  return { world, reader, subscription };
}

test('subscribing asks the server for what was wished, and no more', () => {
  const world = buildOpen();
  world.client.subscribe('kitchen', () => {}, { last: 5, presence: true, echo: false });
  world.client.subscribe('garden', () => {});
  world.client.subscribe('cellar', () => {}, { since: 12, epoch: 'e1' });
  assert.deepEqual(world.socket.all('subscribe'), [
    { type: 'subscribe', id: 1, channel: 'kitchen', last: 5, presence: true, echo: false },
    { type: 'subscribe', id: 2, channel: 'garden', presence: false, echo: true },
    { type: 'subscribe', id: 3, channel: 'cellar', since: 12, epoch: 'e1', presence: false, echo: true },
  ]);
});

test('a subscription made before the connection is open is asked for then, once', () => {
  const world = build();
  world.client.subscribe('kitchen', () => {});
  world.socket.welcome();
  assert.equal(world.socket.all('subscribe').length, 1);
});

test('ready tells the offset and the epoch, and for a resumed position whether all was recovered', async () => {
  const { world, subscription } = buildReading(17);
  assert.deepEqual(await subscription.ready, { offset: 17, epoch: 'e1', missed: 0 });
  const resumed = world.client.subscribe('garden', () => {}, { since: 12, epoch: 'e1' });
  world.socket.answer('subscribe', { offset: 17, epoch: 'e1', recovered: true });
  assert.deepEqual(await resumed.ready, { offset: 17, epoch: 'e1', recovered: true, missed: 5 });
});

test('answers may come in another order than the questions', async () => {
  const world = buildOpen();
  const kitchen = world.client.subscribe('kitchen', () => {});
  const garden = world.client.subscribe('garden', () => {});
  const [first, second] = world.socket.all('subscribe');
  world.socket.say({ type: 'ok', id: second.id, channel: 'garden', offset: 2, epoch: 'g' });
  world.socket.say({ type: 'ok', id: first.id, channel: 'kitchen', offset: 1, epoch: 'k' });
  assert.equal((await kitchen.ready).epoch, 'k');
  assert.equal((await garden.ready).epoch, 'g');
});

test('a refused subscription ends: ready rejects, onRefused is called, nothing is asked again', async () => {
  const world = buildOpen();
  const reader = recorder();
  const { ready } = world.client.subscribe('kitchen', reader.onEvent, reader.options);
  world.socket.refuse('subscribe', 'forbidden', 'not for you');
  await assert.rejects(ready, { name: 'SockbridgeError', code: 'forbidden', message: 'not for you' });
  assert.deepEqual(reader.told, [['refused', 'forbidden']]);
  reconnect(world);
  assert.equal(world.socket.all('subscribe').length, 0);
});

test('nobody has to look at ready: its rejection is not an unhandled one', async (t) => {
  const unhandled = t.mock.fn();
  process.once('unhandledRejection', unhandled);
  t.after(() => process.off('unhandledRejection', unhandled));
  const world = buildOpen();
  world.client.subscribe('a b', () => {});
  world.socket.refuse('subscribe', 'bad-channel');
  await settle();
  assert.equal(unhandled.mock.callCount(), 0);
});

test('a refusal that the program does not look at is dispatched as an error', async () => {
  const refusals = [
    ['before the first answer', ({ client }) => client.subscribe('kitchen', () => {}), true],
    ['onRefused', ({ client }) => client.subscribe('kitchen', () => {}, { onRefused() {} }), false],
    ['ready', ({ client }) => { client.subscribe('kitchen', () => {}).ready.catch(() => {}); }, false],
  ];
  for (const [way, subscribe, dispatched] of refusals) {
    const world = buildOpen();
    subscribe(world);
    world.socket.refuse('subscribe', 'forbidden', 'not for you');
    await settle();
    const errors = world.states.filter(([type]) => type === 'error').map(([, { code, message, channel }]) => [code, message, channel]);
    assert.deepEqual(errors, dispatched ? [['forbidden', 'not for you', 'kitchen']] : [], way);
  }
});

test('a subscription that is refused later is an error too, although ready was looked at', async () => {
  for (const end of [
    (world) => world.socket.say({ type: 'notice', text: 'no longer', code: 'forbidden', channel: 'kitchen' }),
    (world) => { reconnect(world); world.socket.refuse('subscribe', 'forbidden'); },
  ]) {
    const world = buildOpen();
    const { ready } = world.client.subscribe('kitchen', () => {});
    world.socket.answer('subscribe', { channel: 'kitchen', offset: 0, epoch: 'e1' });
    await ready;
    end(world);
    await settle();
    assert.deepEqual(world.states.filter(([type]) => type === 'error').map(([, { code, channel }]) => [code, channel]), [['forbidden', 'kitchen']]);
  }
});

test('ending a subscription, or the client, is no error', async () => {
  const world = buildOpen();
  world.client.subscribe('kitchen', () => {}).unsubscribe();
  world.client.subscribe('garden', () => {});
  world.client.close();
  await settle();
  assert.deepEqual(world.states.filter(([type]) => type === 'error'), []);
});

test('an error that nobody listens to is written to the console', async (t) => {
  const written = t.mock.method(console, 'error', () => {});
  const world = buildOpen({ listen: false });
  world.client.subscribe('a b', () => {});
  world.socket.refuse('subscribe', 'bad-channel', 'no white space');
  await settle();
  assert.equal(written.mock.callCount(), 1);
  assert.equal(written.mock.calls[0].arguments[0].code, 'bad-channel');
  world.client.addEventListener('error', () => {});
  world.client.subscribe('a b', () => {});
  world.socket.refuse('subscribe', 'bad-channel', 'no white space');
  await settle();
  assert.equal(written.mock.callCount(), 1);
});

test('a reader is given events as the types describe them, and nothing of the protocol', () => {
  const { world, reader } = buildReading(0);
  const events = [];
  world.client.subscribe('garden', (event) => events.push(event));
  world.socket.answer('subscribe', { channel: 'garden', offset: 0, epoch: 'e1' });
  world.socket.say({ ...event('garden', 1), later: 'a field of a later protocol' });
  assert.deepEqual(events, [{ channel: 'garden', offset: 1, from: 'ann', name: 'message', data: 'garden 1' }]);
  assert.deepEqual(reader.offsets(), []);
});

test('since without epoch, or epoch without since, is refused at once', async () => {
  const world = buildOpen();
  for (const options of [{ since: 3 }, { epoch: 'e1' }]) {
    await assert.rejects(world.client.subscribe('kitchen', () => {}, options).ready, { code: 'bad-argument' });
  }
  assert.equal(world.socket.sent.length, 0);
});

test('subscribing with a closed client is refused', async () => {
  const world = buildOpen();
  world.client.close();
  await assert.rejects(world.client.subscribe('kitchen', () => {}).ready, { code: 'closed' });
});

test('a subscription that waits when the client is closed learns it', async () => {
  const world = build();
  const { ready } = world.client.subscribe('kitchen', () => {});
  world.client.close();
  await assert.rejects(ready, { code: 'closed' });
});

test('events come to the reader of their channel, in order, the same offset never twice', () => {
  const { world, reader } = buildReading(10);
  for (const offset of [11, 12, 12, 11, 13]) world.socket.say(event('kitchen', offset));
  world.socket.say(event('garden', 14));
  assert.deepEqual(reader.offsets(), [11, 12, 13]);
});

test('what `last` asks for is given, and what lies before it is not called lost', () => {
  const world = buildOpen();
  const reader = recorder();
  world.client.subscribe('kitchen', reader.onEvent, { ...reader.options, last: 3 });
  world.socket.answer('subscribe', { offset: 10, epoch: 'e1' });
  for (const offset of [8, 9, 10, 11]) world.socket.say(event('kitchen', offset));
  assert.deepEqual(reader.offsets(), [8, 9, 10, 11]);
});

test('replies and events in one burst: the event right behind the answer is not missed', () => {
  const world = buildOpen();
  const seen = [];
  world.client.subscribe('kitchen', ({ offset }) => seen.push(offset), { last: 1 });
  world.socket.answer('subscribe', { offset: 7, epoch: 'e1' });
  world.socket.say(event('kitchen', 7)); // in the same turn: no promise has run since
  assert.deepEqual(seen, [7]);
});

test('after a reconnection it asks from the last offset seen: no gap, no double', () => {
  const { world, reader } = buildReading(10);
  world.socket.say(event('kitchen', 11));
  world.socket.say(event('kitchen', 12));
  reconnect(world);
  const { since, epoch, last } = world.socket.last('subscribe');
  assert.deepEqual({ since, epoch, last }, { since: 12, epoch: 'e1', last: undefined });
  world.socket.answer('subscribe', { offset: 14, epoch: 'e1', recovered: true });
  for (const offset of [12, 13, 14, 15]) world.socket.say(event('kitchen', offset));
  assert.deepEqual(reader.offsets(), [11, 12, 13, 14, 15]);
  assert.deepEqual(reader.told[3], ['subscribed', { offset: 14, epoch: 'e1', recovered: true, missed: 2 }]);
});

test('a subscription that never saw an event resumes from the head it was told', () => {
  const { world } = buildReading(10);
  reconnect(world);
  assert.equal(world.socket.last('subscribe').since, 10);
});

test('a connection that breaks amid the replay of `last` resumes within it', () => {
  const { world, reader } = buildReading(10, { last: 5 });
  world.socket.say(event('kitchen', 6));
  reconnect(world);
  assert.equal(world.socket.last('subscribe').since, 6);
  world.socket.answer('subscribe', { offset: 10, epoch: 'e1', recovered: true });
  for (const offset of [7, 8, 9, 10]) world.socket.say(event('kitchen', offset));
  assert.deepEqual(reader.offsets(), [6, 7, 8, 9, 10]);
});

test('a connection that breaks before the answer asks the same again', () => {
  const world = buildOpen();
  world.client.subscribe('kitchen', () => {}, { last: 5 });
  reconnect(world);
  assert.equal(world.socket.last('subscribe').last, 5);
  assert.equal(world.socket.last('subscribe').since, undefined);
});

test('a log that no longer reaches back: the gap is named, then what is left comes', () => {
  const { world, reader } = buildReading(10);
  reconnect(world);
  world.socket.answer('subscribe', { offset: 20, epoch: 'e1', recovered: false });
  world.socket.say({ type: 'lost', channel: 'kitchen', first: 11, last: 18 });
  world.socket.say(event('kitchen', 19));
  world.socket.say(event('kitchen', 20));
  assert.deepEqual(reader.told.slice(1), [
    ['subscribed', { offset: 20, epoch: 'e1', recovered: false, missed: 10 }],
    ['lost', 'log', 11, 18],
    ['event', 19, 'kitchen 19'],
    ['event', 20, 'kitchen 20'],
  ]);
});

test('a slow reader is told what it lost, and resumes behind the gap', () => {
  const { world, reader } = buildReading(10);
  world.socket.say({ type: 'lost', channel: 'kitchen', first: 11, last: 500 });
  assert.deepEqual(reader.told.at(-1), ['lost', 'log', 11, 500]);
  reconnect(world);
  assert.equal(world.socket.last('subscribe').since, 500);
});

test('lost names the channel and the epoch', () => {
  const gaps = [];
  const { world } = buildReading(10, { onLost: (gap) => gaps.push(gap) });
  world.socket.say({ type: 'lost', channel: 'kitchen', first: 11, last: 12 });
  reconnect(world);
  world.socket.answer('subscribe', { offset: 0, epoch: 'e2', recovered: false });
  assert.deepEqual(gaps, [
    { channel: 'kitchen', epoch: 'e1', reason: 'log', first: 11, last: 12 },
    { channel: 'kitchen', epoch: 'e1', reason: 'epoch', first: 13 },
  ]);
});

test('a new epoch: told as lost, then the new run from its first event, in order', () => {
  const { world, reader } = buildReading(10);
  reconnect(world);
  world.socket.answer('subscribe', { offset: 2, epoch: 'e2', recovered: false });
  const again = world.socket.last('subscribe');
  assert.deepEqual({ since: again.since, epoch: again.epoch }, { since: 0, epoch: 'e2' });
  world.socket.say(event('kitchen', 3)); // live, before the second answer: it is part of what that one replays
  world.socket.answer('subscribe', { offset: 3, epoch: 'e2', recovered: true });
  for (const offset of [1, 2, 3, 4]) world.socket.say(event('kitchen', offset));
  assert.deepEqual(reader.told.slice(1), [
    ['lost', 'epoch', 11, undefined],
    ['subscribed', { offset: 3, epoch: 'e2', recovered: false, missed: 3 }],
    ...[1, 2, 3, 4].map((offset) => ['event', offset, `kitchen ${offset}`]),
  ]);
  reconnect(world);
  world.socket.answer('subscribe', { offset: 4, epoch: 'e2', recovered: true });
  assert.deepEqual(reader.told.at(-1), ['subscribed', { offset: 4, epoch: 'e2', recovered: true, missed: 0 }]);
});

test('the connection may break between the two questions after a new epoch', () => {
  const { world, reader } = buildReading(10);
  reconnect(world);
  world.socket.answer('subscribe', { offset: 2, epoch: 'e2', recovered: false });
  reconnect(world);
  assert.equal(world.socket.last('subscribe').since, 0);
  world.socket.answer('subscribe', { offset: 2, epoch: 'e2', recovered: true });
  world.socket.say(event('kitchen', 1));
  assert.deepEqual(reader.told.slice(1).map(([what]) => what), ['lost', 'subscribed', 'event']);
  assert.equal(reader.told[2][1].recovered, false);
});

test('a head that went back within the same epoch: told, and it goes on from there', () => {
  const { world, reader } = buildReading(10);
  reconnect(world);
  world.socket.answer('subscribe', { offset: 4, epoch: 'e1', recovered: false });
  assert.deepEqual(reader.told.at(-1), ['lost', 'epoch', 11, undefined]);
  assert.equal(world.socket.last('subscribe').since, 4);
  world.socket.answer('subscribe', { offset: 5, epoch: 'e1', recovered: true });
  world.socket.say(event('kitchen', 5));
  assert.deepEqual(reader.offsets(), [5]);
});

test('a stored position of another epoch is told as lost', async () => {
  const world = buildOpen();
  const reader = recorder();
  const { ready } = world.client.subscribe('kitchen', reader.onEvent, { ...reader.options, since: 40, epoch: 'old' });
  world.socket.answer('subscribe', { offset: 1, epoch: 'e1', recovered: false });
  world.socket.answer('subscribe', { offset: 1, epoch: 'e1', recovered: true });
  world.socket.say(event('kitchen', 1));
  assert.deepEqual(await ready, { offset: 1, epoch: 'e1', recovered: false, missed: 1 });
  assert.deepEqual(reader.told[0], ['lost', 'epoch', 41, undefined]);
  assert.deepEqual(reader.offsets(), [1]);
});

test('position and epoch can be stored and given back', () => {
  const { world, subscription } = buildReading(10);
  world.socket.say(event('kitchen', 11));
  assert.deepEqual([subscription.position, subscription.epoch], [11, 'e1']);
});

test('after a reconnection the server may refuse for the time being: it is asked again, from the same place', () => {
  for (const code of ['rate', 'unavailable', 'internal']) {
    const { world, reader } = buildReading(10);
    reconnect(world);
    world.socket.refuse('subscribe', code);
    assert.equal(world.socket.all('subscribe').length, 1);
    world.clock.advance(25_000);
    assert.equal(world.socket.all('subscribe').length, 2);
    assert.equal(world.socket.last('subscribe').since, 10);
    world.socket.answer('subscribe', { offset: 11, epoch: 'e1', recovered: true });
    world.socket.say(event('kitchen', 11));
    assert.deepEqual(reader.offsets(), [11]);
  }
});

test('after a reconnection the server may refuse for good: the reader is told', () => {
  const { world, reader } = buildReading(10);
  reconnect(world);
  world.socket.refuse('subscribe', 'unauthorized');
  assert.deepEqual(reader.told.at(-1), ['refused', 'unauthorized']);
  world.clock.advance(25_000);
  assert.equal(world.socket.all('subscribe').length, 1);
});

test('two readers of a channel share one subscription and both see every event', () => {
  const { world, reader } = buildReading(10);
  const second = recorder();
  world.client.subscribe('kitchen', second.onEvent, second.options);
  assert.equal(world.socket.last('subscribe').since, 10);
  world.socket.say(event('kitchen', 11)); // under way before the second answer
  world.socket.answer('subscribe', { offset: 11, epoch: 'e1', recovered: true });
  world.socket.say(event('kitchen', 11)); // replayed because of `since`
  world.socket.say(event('kitchen', 12));
  assert.deepEqual(reader.offsets(), [11, 12]);
  assert.deepEqual(second.offsets(), [12]);
  assert.deepEqual(second.told[0], ['subscribed', { offset: 11, epoch: 'e1', missed: 0 }]);
  assert.equal(reader.told.filter(([what]) => what === 'subscribed').length, 1, 'the first reader was disturbed');
});

test('a second reader\'s `last` is replayed to it alone', () => {
  const { world, reader } = buildReading(10);
  const second = recorder();
  world.client.subscribe('kitchen', second.onEvent, { ...second.options, last: 4 });
  assert.equal(world.socket.last('subscribe').since, 6);
  world.socket.answer('subscribe', { offset: 11, epoch: 'e1', recovered: false });
  world.socket.say({ type: 'lost', channel: 'kitchen', first: 7, last: 8 });
  for (const offset of [9, 10, 11, 12]) world.socket.say(event('kitchen', offset));
  assert.deepEqual(reader.told.slice(1).map(([what, offset]) => [what, offset]), [['event', 11], ['event', 12]]);
  assert.deepEqual(second.offsets(), [9, 10, 11, 12]);
  assert.equal(second.told.filter(([what]) => what === 'lost').length, 0);
});

test('a second reader\'s older position replays to it, and the gap before the log is its own', () => {
  const { world, reader } = buildReading(10);
  const second = recorder();
  world.client.subscribe('kitchen', second.onEvent, { ...second.options, since: 2, epoch: 'e1' });
  assert.equal(world.socket.last('subscribe').since, 2);
  world.socket.answer('subscribe', { offset: 10, epoch: 'e1', recovered: false });
  world.socket.say({ type: 'lost', channel: 'kitchen', first: 3, last: 8 });
  for (const offset of [9, 10]) world.socket.say(event('kitchen', offset));
  assert.deepEqual(reader.told.slice(1), []);
  assert.deepEqual(second.told.slice(1), [['lost', 'log', 3, 8], ['event', 9, 'kitchen 9'], ['event', 10, 'kitchen 10']]);
});

test('a gap on the live connection is told to each reader from its own position', () => {
  const { world, reader } = buildReading(10);
  const behind = recorder();
  world.client.subscribe('kitchen', behind.onEvent, { ...behind.options, since: 5, epoch: 'e1' });
  world.socket.answer('subscribe', { offset: 10, epoch: 'e1', recovered: false });
  world.socket.say({ type: 'lost', channel: 'kitchen', first: 6, last: 12 });
  assert.deepEqual(reader.told.at(-1), ['lost', 'log', 11, 12]);
  assert.deepEqual(behind.told.at(-1), ['lost', 'log', 6, 12]);
});

test('two readers made before the first answer are asked for one after the other', async () => {
  const world = buildOpen();
  const first = world.client.subscribe('kitchen', () => {}, { last: 2 });
  const second = world.client.subscribe('kitchen', () => {}, { since: 3, epoch: 'e1' });
  assert.equal(world.socket.all('subscribe').length, 1);
  world.socket.answer('subscribe', { offset: 10, epoch: 'e1' });
  assert.equal(world.socket.all('subscribe').length, 2);
  assert.equal(world.socket.last('subscribe').since, 3);
  world.socket.answer('subscribe', { offset: 10, epoch: 'e1', recovered: true });
  assert.equal((await first.ready).missed, 0);
  assert.equal((await second.ready).missed, 7);
});

test('a refused newcomer leaves the present reader alone', () => {
  const { world, reader } = buildReading(10);
  const second = recorder();
  world.client.subscribe('kitchen', second.onEvent, { ...second.options, presence: true });
  world.socket.refuse('subscribe', 'limit');
  assert.deepEqual(second.told, [['refused', 'limit']]);
  world.socket.say(event('kitchen', 11));
  assert.deepEqual(reader.offsets(), [11]);
});

test('a newcomer is refused also for what may pass: whoever made it is there to decide', () => {
  const world = buildOpen();
  const reader = recorder();
  world.client.subscribe('kitchen', reader.onEvent, reader.options);
  world.socket.refuse('subscribe', 'unavailable');
  assert.deepEqual(reader.told, [['refused', 'unavailable']]);
});

test('a refused newcomer does not hold up the next one', async () => {
  const world = buildOpen();
  world.client.subscribe('kitchen', () => {}, { last: 1 });
  const second = world.client.subscribe('kitchen', () => {}, { last: 2 });
  world.socket.refuse('subscribe', 'limit');
  assert.equal(world.socket.last('subscribe').last, 2);
  world.socket.answer('subscribe', { offset: 4, epoch: 'e1' });
  assert.equal((await second.ready).offset, 4);
});

test('an epoch that changes under a live connection: everybody starts over, the newcomer is asked for again', async () => {
  const { world, reader } = buildReading(10);
  const second = recorder();
  const { ready } = world.client.subscribe('kitchen', second.onEvent, { ...second.options, last: 1 });
  world.socket.answer('subscribe', { offset: 3, epoch: 'e2', recovered: false });
  world.socket.say(event('kitchen', 4)); // part of what the next answer replays
  world.socket.answer('subscribe', { offset: 4, epoch: 'e2', recovered: true });
  for (const offset of [1, 2, 3, 4]) world.socket.say(event('kitchen', offset));
  world.socket.answer('subscribe', { offset: 4, epoch: 'e2', recovered: true });
  world.socket.say(event('kitchen', 4));
  assert.deepEqual(reader.offsets(), [1, 2, 3, 4]);
  assert.deepEqual(second.offsets(), [4]);
  assert.equal((await ready).epoch, 'e2');
});

test('a stored position of the very epoch the server changes to is recovered, not settled by the answer for another', () => {
  const { world } = buildReading(10);
  world.socket.drop();
  const second = recorder();
  world.client.subscribe('kitchen', second.onEvent, { ...second.options, since: 3, epoch: 'e2' });
  world.client.retry();
  world.socket.welcome();
  world.socket.answer('subscribe', { offset: 5, epoch: 'e2', recovered: false });
  world.socket.answer('subscribe', { offset: 5, epoch: 'e2', recovered: true });
  for (const offset of [1, 2, 3, 4, 5]) world.socket.say(event('kitchen', offset));
  assert.deepEqual(second.told[0], ['subscribed', { offset: 5, epoch: 'e2', recovered: true, missed: 2 }]);
  assert.deepEqual(second.offsets(), [4, 5]);
});

test('a reader less: the other stays subscribed; the last one ends it on the wire', () => {
  const { world, reader, subscription } = buildReading(10);
  const second = recorder();
  const other = world.client.subscribe('kitchen', second.onEvent);
  world.socket.answer('subscribe', { offset: 10, epoch: 'e1', recovered: true });
  subscription.unsubscribe();
  world.socket.say(event('kitchen', 11));
  assert.deepEqual(reader.offsets(), []);
  assert.deepEqual(second.offsets(), [11]);
  assert.equal(world.socket.all('unsubscribe').length, 0);
  other.unsubscribe();
  assert.equal(world.socket.last('unsubscribe').channel, 'kitchen');
  world.socket.say(event('kitchen', 12));
  assert.deepEqual(second.offsets(), [11]);
});

test('unsubscribing twice, or with an error for an answer, does no harm', async () => {
  const { world, subscription } = buildReading(10);
  subscription.unsubscribe();
  subscription.unsubscribe();
  assert.equal(world.socket.all('unsubscribe').length, 1);
  world.socket.refuse('unsubscribe', 'not-subscribed');
  await settle();
});

test('unsubscribed while disconnected, a channel is not asked for again', () => {
  const { world, subscription } = buildReading(10);
  world.client.subscribe('garden', () => {});
  world.socket.drop();
  subscription.unsubscribe();
  world.client.retry();
  world.socket.welcome();
  assert.deepEqual(world.socket.sent.map(({ type, channel }) => [type, channel]), [['subscribe', 'garden']]);
});

test('unsubscribing before the answer rejects ready and ignores the answer', async () => {
  const world = buildOpen();
  const reader = recorder();
  const subscription = world.client.subscribe('kitchen', reader.onEvent, reader.options);
  subscription.unsubscribe();
  world.socket.answer('subscribe', { offset: 10, epoch: 'e1' });
  world.socket.say(event('kitchen', 11));
  await assert.rejects(subscription.ready, { code: 'unsubscribed' });
  assert.deepEqual(reader.told, []);
});

test('leaving and coming back at once: what was under way for the old subscription is not the new one\'s', () => {
  const { world, subscription } = buildReading(10);
  subscription.unsubscribe();
  const again = recorder();
  world.client.subscribe('kitchen', again.onEvent);
  world.socket.say(event('kitchen', 11));
  world.socket.answer('unsubscribe');
  world.socket.answer('subscribe', { offset: 12, epoch: 'e1' });
  world.socket.say(event('kitchen', 13));
  assert.deepEqual(again.offsets(), [13]);
});

test('a reader may unsubscribe from within its own callback', () => {
  const world = buildOpen();
  const seen = [];
  const subscription = world.client.subscribe('kitchen', ({ offset }) => {
    seen.push(offset);
    subscription.unsubscribe();
  });
  world.socket.answer('subscribe', { offset: 0, epoch: 'e1' });
  world.socket.say(event('kitchen', 1));
  world.socket.say(event('kitchen', 2));
  assert.deepEqual(seen, [1]);
});

test('joins and leaves go to those who asked for them', () => {
  const { world, reader } = buildReading(10);
  const curious = recorder();
  world.client.subscribe('kitchen', curious.onEvent, { ...curious.options, presence: true });
  assert.equal(world.socket.last('subscribe').presence, true);
  world.socket.answer('subscribe', { offset: 10, epoch: 'e1', recovered: true });
  world.socket.say({ type: 'join', channel: 'kitchen', peer: { id: 'a', nick: 'ann' } });
  world.socket.say({ type: 'leave', channel: 'kitchen', peer: { id: 'a', nick: 'ann' } });
  assert.deepEqual(curious.told.slice(1), [['join', 'a'], ['leave', 'a']]);
  assert.equal(reader.told.length, 1);
});

test('echo is off on the wire only when nobody wants it; who does not is spared its own events', async () => {
  const { world, reader } = buildReading(10, { echo: false });
  assert.equal(world.socket.last('subscribe').echo, false);
  const second = recorder();
  world.client.subscribe('kitchen', second.onEvent);
  assert.equal(world.socket.last('subscribe').echo, true);
  world.socket.answer('subscribe', { offset: 10, epoch: 'e1', recovered: true });
  world.client.publish('kitchen', 'mine');
  world.socket.answer('publish', { offset: 11 });
  world.socket.say(event('kitchen', 11));
  world.socket.say(event('kitchen', 12));
  assert.deepEqual(reader.offsets(), [12]);
  assert.deepEqual(second.offsets(), [11, 12]);
});

test('with echo off, one\'s own events do not come back through recovery', () => {
  const { world, reader } = buildReading(10, { echo: false });
  const publish = (offset) => {
    world.client.publish('kitchen', 'mine');
    world.socket.answer('publish', { offset });
  };
  publish(11); // nothing between: the position moves on with it
  world.socket.say(event('kitchen', 12));
  publish(14); // answered before the event 13, which never arrives on this connection
  reconnect(world);
  assert.equal(world.socket.last('subscribe').since, 12);
  world.socket.answer('subscribe', { offset: 15, epoch: 'e1', recovered: true });
  for (const offset of [13, 14, 15]) world.socket.say(event('kitchen', offset));
  assert.deepEqual(reader.offsets(), [12, 13, 15]);
  reconnect(world);
  assert.equal(world.socket.last('subscribe').since, 15);
});

test('with echo off, a position passes one\'s own events as soon as what lies before them has come', () => {
  const { world, subscription } = buildReading(10, { echo: false });
  world.client.publish('kitchen', 'mine');
  world.socket.answer('publish', { offset: 12 });
  assert.equal(subscription.position, 10);
  world.socket.say(event('kitchen', 11));
  assert.equal(subscription.position, 12);
});

test('with echo off, one\'s own offsets of an old run hide nothing of the new one', () => {
  const { world, reader } = buildReading(10, { echo: false });
  world.client.publish('kitchen', 'mine');
  world.socket.answer('publish', { offset: 12 });
  reconnect(world);
  world.socket.answer('subscribe', { offset: 12, epoch: 'e2', recovered: false });
  world.socket.answer('subscribe', { offset: 12, epoch: 'e2', recovered: true });
  world.socket.say(event('kitchen', 12));
  assert.deepEqual(reader.offsets(), [12]);
});

test('with echo off, only so many of one\'s own offsets are remembered', () => {
  const { world, reader } = buildReading(10, { echo: false });
  for (let offset = 12; offset < 12 + 1030; offset += 1) { // 11 is somebody else's, and has not come yet
    world.client.publish('kitchen', 'mine');
    world.socket.answer('publish', { offset });
  }
  reconnect(world);
  world.socket.answer('subscribe', { offset: 1041, epoch: 'e1', recovered: true });
  for (let offset = 11; offset <= 1041; offset += 1) world.socket.say(event('kitchen', offset));
  assert.deepEqual(reader.offsets(), [11, 12, 13, 14, 15, 16, 17], 'the six oldest are forgotten and come back');
});

test('with echo off, ten thousand own events in a row leave the position at the head', () => {
  const { world, subscription } = buildReading(0, { echo: false });
  for (let offset = 1; offset <= 10_000; offset += 1) {
    world.client.publish('kitchen', offset);
    world.socket.answer('publish', { offset });
  }
  assert.equal(subscription.position, 10_000);
});

/** A repeatable source of chance. */
function chance(seed) {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

/** A reader that checks what it is told: within an epoch each offset is either an event or lost, once, in order. */
function checkingReader(world, last, fail) {
  let next; // the offset that must come next; undefined until it is known
  const subscription = world.client.subscribe('kitchen', ({ offset, data }) => {
    if (data !== `${subscription.epoch}/${offset}`) fail(`${data} came as ${subscription.epoch}/${offset}`);
    if (next !== undefined && offset !== next) fail(`${offset} came instead of ${next}`);
    next = offset + 1;
  }, {
    last,
    onLost: ({ reason, first, last: end }) => {
      if (next !== undefined && first !== next) fail(`lost from ${first} instead of ${next}`);
      next = reason === 'log' ? end + 1 : 1;
    },
    onSubscribed: ({ offset, recovered }) => {
      if (recovered === undefined && last === 0) next = offset + 1; // with `last`, the log decides where it begins
    },
  });
  return { subscription, next: () => next };
}

test('whatever happens, in whatever order: no gap untold, no double, no disorder', () => {
  const faults = [];
  for (let seed = 1; seed <= 400; seed += 1) {
    const draw = chance(seed);
    const world = build();
    const server = new ModelServer(world.net);
    const fail = (words) => faults.push(`seed ${seed}: ${words}`);
    const readers = [checkingReader(world, draw(4), fail)];
    const actions = {
      drop() { world.socket.drop(); server.cut(); },
      restart() { world.socket.drop(); server.restart(); },
      forget() { server.forget(draw(4)); },
      join() { if (readers.length < 4) readers.push(checkingReader(world, draw(4), fail)); },
      leave() { if (readers.length > 1) readers.splice(draw(readers.length), 1)[0].subscription.unsubscribe(); },
      deliver() { server.deliver(draw(5)); },
      publish() { server.append(`e${server.epoch}/${server.head + 1}`); },
    };
    const often = [...Object.keys(actions), 'deliver', 'deliver', 'publish', 'publish', 'publish', 'publish', 'join', 'drop'];
    for (let step = 0; step < 150; step += 1) {
      actions[often[draw(often.length)]]();
      world.client.retry();
      if (world.client.state === 'connecting') world.socket.welcome();
    }
    server.deliver();
    for (const { subscription, next } of readers) {
      if (!subscription.current) fail('a reader was left behind');
      if (next() !== undefined && next() !== server.head + 1) fail(`waits for ${next()}, the head is ${server.head}`);
    }
  }
  assert.deepEqual(faults.slice(0, 5), []);
});
