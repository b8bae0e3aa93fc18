// Tests of subscriptions: order, recovery, gaps and epochs.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { build, buildOpen, event, flushPromises, ModelServer, publish, reconnect, recorder, subscribe } from './fakes.mjs';

/** Reconnects, and replies to the subscription. */
function resume(world, reply) {
  reconnect(world);
  world.socket.reply('subscribe', reply);
}

/** An open client with a subscriber of `kitchen`, which has `head` events. */
function buildSubscribed(head = 10, options = {}) {
  const world = buildOpen();
  const subscriber = subscribe(world, options);
  world.socket.reply('subscribe', { channel: 'kitchen', offset: head, epoch: 'e1' });
  return { world, subscriber, subscription: subscriber.subscription };
}

test('sends only the requested options', () => {
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

test('subscribes after the welcome, once', () => {
  const world = build();
  world.client.subscribe('kitchen', () => {});
  world.socket.welcome();
  assert.equal(world.socket.all('subscribe').length, 1);
});

test('resolves ready with offset, epoch and recovery', async () => {
  const { world, subscription } = buildSubscribed(17);
  assert.deepEqual(await subscription.ready, { offset: 17, epoch: 'e1', missed: 0 });
  const resumed = world.client.subscribe('garden', () => {}, { since: 12, epoch: 'e1' });
  world.socket.reply('subscribe', { offset: 17, epoch: 'e1', recovered: true });
  assert.deepEqual(await resumed.ready, { offset: 17, epoch: 'e1', recovered: true, missed: 5 });
});

test('accepts replies in any order', async () => {
  const world = buildOpen();
  const kitchen = world.client.subscribe('kitchen', () => {});
  const garden = world.client.subscribe('garden', () => {});
  const [first, second] = world.socket.all('subscribe');
  world.socket.deliver({ type: 'ok', id: second.id, channel: 'garden', offset: 2, epoch: 'g' });
  world.socket.deliver({ type: 'ok', id: first.id, channel: 'kitchen', offset: 1, epoch: 'k' });
  assert.equal((await kitchen.ready).epoch, 'k');
  assert.equal((await garden.ready).epoch, 'g');
});

test('delivers bytes as an array of their own to each subscriber', () => {
  const { world } = buildSubscribed(0);
  const received = [];
  const channel = world.socket.all('subscribe')[0].channel;
  world.client.subscribe(channel, ({ data }) => received.push(data));
  world.socket.reply('subscribe', { offset: 0, epoch: 'e1' });
  world.client.subscribe(channel, ({ data }) => received.push(data));
  world.socket.reply('subscribe', { offset: 0, epoch: 'e1' });
  for (const [offset, base64] of [[1, '/9g='], [2, '']]) {
    world.socket.deliver({ type: 'event', channel, offset, time: 5, from: 'ann', name: 'photo', base64 });
  }
  assert.deepEqual(received, [Uint8Array.of(255, 216), Uint8Array.of(255, 216), new Uint8Array(), new Uint8Array()]);
  assert.notEqual(received[0], received[1]);
});

test('ends a rejected subscription', async () => {
  const world = buildOpen();
  const subscriber = subscribe(world);
  world.socket.reject('subscribe', 'forbidden', 'not for you');
  await assert.rejects(subscriber.subscription.ready, { name: 'SockbridgeError', code: 'forbidden', message: 'not for you' });
  assert.deepEqual(subscriber.calls, [['refused', 'forbidden']]);
  reconnect(world);
  assert.equal(world.socket.all('subscribe').length, 0);
});

test('does not cause an unhandled rejection if ready is not used', async (t) => {
  const unhandled = t.mock.fn();
  process.once('unhandledRejection', unhandled);
  t.after(() => process.off('unhandledRejection', unhandled));
  const world = buildOpen();
  world.client.subscribe('a b', () => {});
  world.socket.reject('subscribe', 'bad-channel');
  await flushPromises();
  assert.equal(unhandled.mock.callCount(), 0);
});

test('dispatches an error for a rejection that the program does not handle', async () => {
  const refusals = [
    ['before the first answer', ({ client }) => client.subscribe('kitchen', () => {}), true],
    ['onRefused', ({ client }) => client.subscribe('kitchen', () => {}, { onRefused() {} }), false],
    ['ready', ({ client }) => { client.subscribe('kitchen', () => {}).ready.catch(() => {}); }, false],
  ];
  for (const [way, subscribe, dispatched] of refusals) {
    const world = buildOpen();
    subscribe(world);
    world.socket.reject('subscribe', 'forbidden', 'not for you');
    await flushPromises();
    const errors = world.states.filter(([type]) => type === 'error').map(([, { code, message, channel }]) => [code, message, channel]);
    assert.deepEqual(errors, dispatched ? [['forbidden', 'not for you', 'kitchen']] : [], way);
  }
});

test('dispatches an error for a later rejection even if ready was used', async () => {
  for (const end of [
    (world) => world.socket.deliver({ type: 'notice', text: 'no longer', code: 'forbidden', channel: 'kitchen' }),
    (world) => { reconnect(world); world.socket.reject('subscribe', 'forbidden'); },
  ]) {
    const world = buildOpen();
    const { ready } = world.client.subscribe('kitchen', () => {});
    world.socket.reply('subscribe', { channel: 'kitchen', offset: 0, epoch: 'e1' });
    await ready;
    end(world);
    await flushPromises();
    assert.deepEqual(world.states.filter(([type]) => type === 'error').map(([, { code, channel }]) => [code, channel]), [['forbidden', 'kitchen']]);
  }
});

test('dispatches no error when a subscription or the client is closed', async () => {
  const world = buildOpen();
  world.client.subscribe('kitchen', () => {}).unsubscribe();
  world.client.subscribe('garden', () => {});
  world.client.close();
  await flushPromises();
  assert.deepEqual(world.states.filter(([type]) => type === 'error'), []);
});

test('writes errors without a listener to the console', async (t) => {
  const written = t.mock.method(console, 'error', () => {});
  const world = buildOpen({ listen: false });
  world.client.subscribe('a b', () => {});
  world.socket.reject('subscribe', 'bad-channel', 'no white space');
  await flushPromises();
  assert.equal(written.mock.callCount(), 1);
  assert.equal(written.mock.calls[0].arguments[0].code, 'bad-channel');
  world.client.addEventListener('error', () => {});
  world.client.subscribe('a b', () => {});
  world.socket.reject('subscribe', 'bad-channel', 'no white space');
  await flushPromises();
  assert.equal(written.mock.callCount(), 1);
});

test('passes only the declared fields of events', () => {
  const { world, subscriber } = buildSubscribed(0);
  const events = [];
  world.client.subscribe('garden', (event) => events.push(event));
  world.socket.reply('subscribe', { channel: 'garden', offset: 0, epoch: 'e1' });
  world.socket.deliver({ ...event('garden', 1), later: 'a field of a later protocol' });
  assert.deepEqual(events, [{ channel: 'garden', offset: 1, time: 1_800_000_000_001, from: 'ann', name: 'message', data: 'garden 1' }]);
  assert.deepEqual(subscriber.offsets(), []);
});

test('rejects since without epoch and epoch without since', async () => {
  const world = buildOpen();
  for (const options of [{ since: 3 }, { epoch: 'e1' }]) {
    await assert.rejects(world.client.subscribe('kitchen', () => {}, options).ready, { code: 'bad-argument' });
  }
  assert.equal(world.socket.sent.length, 0);
});

test('rejects subscriptions of a closed client', async () => {
  const world = buildOpen();
  world.client.close();
  await assert.rejects(world.client.subscribe('kitchen', () => {}).ready, { code: 'closed' });
});

test('rejects pending subscriptions when the client is closed', async () => {
  const world = build();
  const { ready } = world.client.subscribe('kitchen', () => {});
  world.client.close();
  await assert.rejects(ready, { code: 'closed' });
});

test('delivers events of the channel in order and at most once', () => {
  const { world, subscriber } = buildSubscribed(10);
  world.socket.events('kitchen', 11, 12, 12, 11, 13);
  world.socket.deliver(event('garden', 14));
  assert.deepEqual(subscriber.offsets(), [11, 12, 13]);
});

test('delivers the events requested by last and reports no gap before them', () => {
  const world = buildOpen();
  const subscriber = subscribe(world, { last: 3 });
  world.socket.reply('subscribe', { offset: 10, epoch: 'e1' });
  world.socket.events('kitchen', 8, 9, 10, 11);
  assert.deepEqual(subscriber.offsets(), [8, 9, 10, 11]);
});

test('delivers an event that arrives directly after the reply', () => {
  const world = buildOpen();
  const seen = [];
  world.client.subscribe('kitchen', ({ offset }) => seen.push(offset), { last: 1 });
  world.socket.reply('subscribe', { offset: 7, epoch: 'e1' });
  world.socket.events('kitchen', 7); // in the same turn, before promises are settled
  assert.deepEqual(seen, [7]);
});

test('resumes after the last offset when reconnected', () => {
  const { world, subscriber } = buildSubscribed(10);
  world.socket.events('kitchen', 11, 12);
  reconnect(world);
  const { since, epoch, last } = world.socket.last('subscribe');
  assert.deepEqual({ since, epoch, last }, { since: 12, epoch: 'e1', last: undefined });
  world.socket.reply('subscribe', { offset: 14, epoch: 'e1', recovered: true });
  world.socket.events('kitchen', 12, 13, 14, 15);
  assert.deepEqual(subscriber.offsets(), [11, 12, 13, 14, 15]);
  assert.deepEqual(subscriber.calls[3], ['subscribed', { offset: 14, epoch: 'e1', recovered: true, missed: 2 }]);
});

test('resumes from the confirmed offset if no event was received', () => {
  const { world } = buildSubscribed(10);
  reconnect(world);
  assert.equal(world.socket.last('subscribe').since, 10);
});

test('resumes within the replay of last', () => {
  const { world, subscriber } = buildSubscribed(10, { last: 5 });
  world.socket.events('kitchen', 6);
  reconnect(world);
  assert.equal(world.socket.last('subscribe').since, 6);
  world.socket.reply('subscribe', { offset: 10, epoch: 'e1', recovered: true });
  world.socket.events('kitchen', 7, 8, 9, 10);
  assert.deepEqual(subscriber.offsets(), [6, 7, 8, 9, 10]);
});

test('repeats the request if the connection was lost before the reply', () => {
  const world = buildOpen();
  world.client.subscribe('kitchen', () => {}, { last: 5 });
  reconnect(world);
  assert.equal(world.socket.last('subscribe').last, 5);
  assert.equal(world.socket.last('subscribe').since, undefined);
});

test('reports events that are no longer in the history, then delivers the rest', () => {
  const { world, subscriber } = buildSubscribed(10);
  resume(world, { offset: 20, epoch: 'e1', recovered: false });
  world.socket.deliver({ type: 'lost', channel: 'kitchen', first: 11, last: 18 });
  world.socket.events('kitchen', 19, 20);
  assert.deepEqual(subscriber.calls.slice(1), [
    ['subscribed', { offset: 20, epoch: 'e1', recovered: false, missed: 10 }],
    ['lost', 'log', 11, 18],
    ['event', 19, 'kitchen 19'],
    ['event', 20, 'kitchen 20'],
  ]);
});

test('reports the events that a slow subscriber lost, and resumes after the gap', () => {
  const { world, subscriber } = buildSubscribed(10);
  world.socket.deliver({ type: 'lost', channel: 'kitchen', first: 11, last: 500 });
  assert.deepEqual(subscriber.calls.at(-1), ['lost', 'log', 11, 500]);
  reconnect(world);
  assert.equal(world.socket.last('subscribe').since, 500);
});

test('reports channel and epoch of a gap', () => {
  const gaps = [];
  const { world } = buildSubscribed(10, { onLost: (gap) => gaps.push(gap) });
  world.socket.deliver({ type: 'lost', channel: 'kitchen', first: 11, last: 12 });
  resume(world, { offset: 0, epoch: 'e2', recovered: false });
  assert.deepEqual(gaps, [
    { channel: 'kitchen', epoch: 'e1', reason: 'log', first: 11, last: 12 },
    { channel: 'kitchen', epoch: 'e1', reason: 'epoch', first: 13 },
  ]);
});

test('reports a new epoch and delivers it from the first event', () => {
  const { world, subscriber } = buildSubscribed(10);
  resume(world, { offset: 2, epoch: 'e2', recovered: false });
  const again = world.socket.last('subscribe');
  assert.deepEqual({ since: again.since, epoch: again.epoch }, { since: 0, epoch: 'e2' });
  world.socket.events('kitchen', 3); // live, before the second reply, which replays it
  world.socket.reply('subscribe', { offset: 3, epoch: 'e2', recovered: true });
  world.socket.events('kitchen', 1, 2, 3, 4);
  assert.deepEqual(subscriber.calls.slice(1), [
    ['lost', 'epoch', 11, undefined],
    ['subscribed', { offset: 3, epoch: 'e2', recovered: false, missed: 3 }],
    ...[1, 2, 3, 4].map((offset) => ['event', offset, `kitchen ${offset}`]),
  ]);
  resume(world, { offset: 4, epoch: 'e2', recovered: true });
  assert.deepEqual(subscriber.calls.at(-1), ['subscribed', { offset: 4, epoch: 'e2', recovered: true, missed: 0 }]);
});

test('continues if the connection is lost between the two requests after a new epoch', () => {
  const { world, subscriber } = buildSubscribed(10);
  resume(world, { offset: 2, epoch: 'e2', recovered: false });
  reconnect(world);
  assert.equal(world.socket.last('subscribe').since, 0);
  world.socket.reply('subscribe', { offset: 2, epoch: 'e2', recovered: true });
  world.socket.events('kitchen', 1);
  assert.deepEqual(subscriber.calls.slice(1).map(([what]) => what), ['lost', 'subscribed', 'event']);
  assert.equal(subscriber.calls[2][1].recovered, false);
});

test('reports a decreased offset within an epoch and continues there', () => {
  const { world, subscriber } = buildSubscribed(10);
  resume(world, { offset: 4, epoch: 'e1', recovered: false });
  assert.deepEqual(subscriber.calls.at(-1), ['lost', 'epoch', 11, undefined]);
  assert.equal(world.socket.last('subscribe').since, 4);
  world.socket.reply('subscribe', { offset: 5, epoch: 'e1', recovered: true });
  world.socket.events('kitchen', 5);
  assert.deepEqual(subscriber.offsets(), [5]);
});

test('reports a gap for a stored position of another epoch', async () => {
  const world = buildOpen();
  const subscriber = subscribe(world, { since: 40, epoch: 'old' });
  world.socket.reply('subscribe', { offset: 1, epoch: 'e1', recovered: false });
  world.socket.reply('subscribe', { offset: 1, epoch: 'e1', recovered: true });
  world.socket.events('kitchen', 1);
  assert.deepEqual(await subscriber.subscription.ready, { offset: 1, epoch: 'e1', recovered: false, missed: 1 });
  assert.deepEqual(subscriber.calls[0], ['lost', 'epoch', 41, undefined]);
  assert.deepEqual(subscriber.offsets(), [1]);
});

const reset = (epoch, good, offset) => ({ type: 'reset', channel: 'kitchen', epoch, good, offset });

test('moves to a new epoch on an open connection', () => {
  for (const [offset, next] of [[9, [10, 11]], [0, [1, 2]]]) { // the offsets continue, or begin again
    const { world, subscriber, subscription } = buildSubscribed(10);
    world.socket.events('kitchen', 11);
    world.socket.deliver(reset('e2', 9, offset));
    assert.deepEqual([subscription.epoch, subscription.position], ['e2', offset]);
    world.socket.events('kitchen', ...next);
    assert.deepEqual(subscriber.calls.slice(2), [
      ['reset', { channel: 'kitchen', epoch: 'e2', good: 9, offset }],
      ...next.map((number) => ['event', number, `kitchen ${number}`]),
    ]);
    reconnect(world);
    const { since, epoch } = world.socket.last('subscribe');
    assert.deepEqual([since, epoch], [next[1], 'e2']);
  }
});

test('moves all subscribers of a channel to a new epoch, and forgets their own events of the old one', () => {
  const { world, subscriber } = buildSubscribed(10, { echo: false });
  const second = subscribe(world, { echo: false });
  world.socket.reply('subscribe', { offset: 10, epoch: 'e1', recovered: true });
  publish(world, 12);
  world.socket.deliver(reset('e2', 10, 10));
  world.socket.events('kitchen', 11, 12);
  for (const { calls, offsets } of [subscriber, second]) {
    assert.deepEqual(calls.filter(([what]) => what === 'reset').length, 1);
    assert.deepEqual(offsets(), [11, 12]);
  }
});

test('reports the events of the old epoch that are missing before the reset', () => {
  const { world, subscriber } = buildSubscribed(10);
  world.socket.deliver({ type: 'lost', channel: 'kitchen', first: 11, last: 12 });
  world.socket.deliver(reset('e2', 10, 0));
  world.socket.events('kitchen', 1);
  assert.deepEqual(subscriber.calls.slice(1).map(([what, value]) => [what, value.good ?? value]), [['lost', 'log'], ['reset', 10], ['event', 1]]);
});

test('asks again if a reset arrives before the reply to a request', () => {
  const { world, subscriber } = buildSubscribed(10);
  const second = subscribe(world);
  world.socket.deliver(reset('e2', 9, 9));
  world.socket.events('kitchen', 10); // replayed by the next reply
  world.socket.reply('subscribe', { offset: 10, epoch: 'e2', recovered: false });
  const { since, epoch } = world.socket.last('subscribe');
  assert.deepEqual([since, epoch], [9, 'e2']);
  world.socket.reply('subscribe', { offset: 10, epoch: 'e2', recovered: true });
  world.socket.events('kitchen', 10);
  world.socket.reply('subscribe', { offset: 10, epoch: 'e2', recovered: true });
  world.socket.events('kitchen', 11);
  assert.deepEqual([subscriber.offsets(), second.offsets()], [[10, 11], [11]]);
});

test('ignores a reset of a channel without subscribers', () => {
  const { world, subscription } = buildSubscribed(10);
  subscription.unsubscribe();
  world.socket.deliver(reset('e2', 9, 9));
  assert.equal(world.client.state, 'open');
});

test('moves to a new epoch after a reconnection if the server knows the old one', () => {
  const cases = [
    [10, [11, 12]], // the offsets continue
    [0, [1, 2]], // the offsets begin again
  ];
  for (const [since, next] of cases) {
    const { world, subscriber } = buildSubscribed(10);
    resume(world, { offset: next.at(-1), epoch: 'e2', recovered: true, since });
    world.socket.events('kitchen', ...next);
    assert.deepEqual(subscriber.calls.slice(1), [
      ['reset', { channel: 'kitchen', epoch: 'e2', good: 10, offset: since }],
      ['subscribed', { offset: next.at(-1), epoch: 'e2', recovered: true, missed: next.length }],
      ...next.map((number) => ['event', number, `kitchen ${number}`]),
    ]);
    assert.equal(world.socket.all('subscribe').length, 1);
  }
});

test('begins a new epoch anew for subscribers that are ahead of the position that the server found valid', () => {
  const { world, subscriber } = buildSubscribed(10);
  const ahead = subscribe(world, { since: 12, epoch: 'e1' });
  world.socket.reply('subscribe', { offset: 12, epoch: 'e1', recovered: true });
  resume(world, { offset: 10, epoch: 'e2', recovered: true, since: 10 });
  assert.deepEqual(subscriber.calls.slice(1).map(([what]) => what), ['reset', 'subscribed']);
  assert.deepEqual(ahead.calls.slice(1), [['lost', 'epoch', 13, undefined]]);
  assert.equal(world.socket.last('subscribe').since, 0);
});

test('exposes position and epoch for storage', () => {
  const { world, subscription } = buildSubscribed(10);
  world.socket.events('kitchen', 11);
  assert.deepEqual([subscription.position, subscription.epoch], [11, 'e1']);
});

test('retries temporary errors after a reconnection from the same position', () => {
  for (const code of ['rate', 'unavailable', 'internal']) {
    const { world, subscriber } = buildSubscribed(10);
    reconnect(world);
    world.socket.reject('subscribe', code);
    assert.equal(world.socket.all('subscribe').length, 1);
    world.clock.advance(25_000);
    assert.equal(world.socket.all('subscribe').length, 2);
    assert.equal(world.socket.last('subscribe').since, 10);
    world.socket.reply('subscribe', { offset: 11, epoch: 'e1', recovered: true });
    world.socket.events('kitchen', 11);
    assert.deepEqual(subscriber.offsets(), [11]);
  }
});

test('ends a subscription that is rejected after a reconnection', () => {
  const { world, subscriber } = buildSubscribed(10);
  reconnect(world);
  world.socket.reject('subscribe', 'unauthorized');
  assert.deepEqual(subscriber.calls.at(-1), ['refused', 'unauthorized']);
  world.clock.advance(25_000);
  assert.equal(world.socket.all('subscribe').length, 1);
});

test('shares one subscription between two subscribers', () => {
  const { world, subscriber } = buildSubscribed(10);
  const second = subscribe(world);
  assert.equal(world.socket.last('subscribe').since, 10);
  world.socket.events('kitchen', 11); // in flight before the second reply
  world.socket.reply('subscribe', { offset: 11, epoch: 'e1', recovered: true });
  world.socket.events('kitchen', 11); // replayed because of `since`
  world.socket.events('kitchen', 12);
  assert.deepEqual(subscriber.offsets(), [11, 12]);
  assert.deepEqual(second.offsets(), [12]);
  assert.deepEqual(second.calls[0], ['subscribed', { offset: 11, epoch: 'e1', missed: 0 }]);
  assert.equal(subscriber.calls.filter(([what]) => what === 'subscribed').length, 1, 'confirmed once');
});

test('replays the last events of a second subscriber to it alone', () => {
  const { world, subscriber } = buildSubscribed(10);
  const second = subscribe(world, { last: 4 });
  assert.equal(world.socket.last('subscribe').since, 6);
  world.socket.reply('subscribe', { offset: 11, epoch: 'e1', recovered: false });
  world.socket.deliver({ type: 'lost', channel: 'kitchen', first: 7, last: 8 });
  world.socket.events('kitchen', 9, 10, 11, 12);
  assert.deepEqual(subscriber.calls.slice(1).map(([what, offset]) => [what, offset]), [['event', 11], ['event', 12]]);
  assert.deepEqual(second.offsets(), [9, 10, 11, 12]);
  assert.equal(second.calls.filter(([what]) => what === 'lost').length, 0);
});

test('replays from the older position of a second subscriber and reports the gap to it alone', () => {
  const { world, subscriber } = buildSubscribed(10);
  const second = subscribe(world, { since: 2, epoch: 'e1' });
  assert.equal(world.socket.last('subscribe').since, 2);
  world.socket.reply('subscribe', { offset: 10, epoch: 'e1', recovered: false });
  world.socket.deliver({ type: 'lost', channel: 'kitchen', first: 3, last: 8 });
  world.socket.events('kitchen', 9, 10);
  assert.deepEqual(subscriber.calls.slice(1), []);
  assert.deepEqual(second.calls.slice(1), [['lost', 'log', 3, 8], ['event', 9, 'kitchen 9'], ['event', 10, 'kitchen 10']]);
});

test('reports a live gap to each subscriber from its own position', () => {
  const { world, subscriber } = buildSubscribed(10);
  const behind = subscribe(world, { since: 5, epoch: 'e1' });
  world.socket.reply('subscribe', { offset: 10, epoch: 'e1', recovered: false });
  world.socket.deliver({ type: 'lost', channel: 'kitchen', first: 6, last: 12 });
  assert.deepEqual(subscriber.calls.at(-1), ['lost', 'log', 11, 12]);
  assert.deepEqual(behind.calls.at(-1), ['lost', 'log', 6, 12]);
});

test('requests two new subscribers one after the other', async () => {
  const world = buildOpen();
  const first = world.client.subscribe('kitchen', () => {}, { last: 2 });
  const second = world.client.subscribe('kitchen', () => {}, { since: 3, epoch: 'e1' });
  assert.equal(world.socket.all('subscribe').length, 1);
  world.socket.reply('subscribe', { offset: 10, epoch: 'e1' });
  assert.equal(world.socket.all('subscribe').length, 2);
  assert.equal(world.socket.last('subscribe').since, 3);
  world.socket.reply('subscribe', { offset: 10, epoch: 'e1', recovered: true });
  assert.equal((await first.ready).missed, 0);
  assert.equal((await second.ready).missed, 7);
});

test('keeps the present subscriber when another one is rejected', () => {
  const { world, subscriber } = buildSubscribed(10);
  const second = subscribe(world, { presence: true });
  world.socket.reject('subscribe', 'limit');
  assert.deepEqual(second.calls, [['refused', 'limit']]);
  world.socket.events('kitchen', 11);
  assert.deepEqual(subscriber.offsets(), [11]);
});

test('rejects new subscribers also for temporary errors', () => {
  const world = buildOpen();
  const subscriber = subscribe(world);
  world.socket.reject('subscribe', 'unavailable');
  assert.deepEqual(subscriber.calls, [['refused', 'unavailable']]);
});

test('continues with the next new subscriber after a rejection', async () => {
  const world = buildOpen();
  world.client.subscribe('kitchen', () => {}, { last: 1 });
  const second = world.client.subscribe('kitchen', () => {}, { last: 2 });
  world.socket.reject('subscribe', 'limit');
  assert.equal(world.socket.last('subscribe').last, 2);
  world.socket.reply('subscribe', { offset: 4, epoch: 'e1' });
  assert.equal((await second.ready).offset, 4);
});

test('restarts all subscribers when the epoch changes on a live connection', async () => {
  const { world, subscriber } = buildSubscribed(10);
  const second = subscribe(world, { last: 1 });
  world.socket.reply('subscribe', { offset: 3, epoch: 'e2', recovered: false });
  world.socket.events('kitchen', 4); // replayed by the next reply
  world.socket.reply('subscribe', { offset: 4, epoch: 'e2', recovered: true });
  world.socket.events('kitchen', 1, 2, 3, 4);
  world.socket.reply('subscribe', { offset: 4, epoch: 'e2', recovered: true });
  world.socket.events('kitchen', 4);
  assert.deepEqual(subscriber.offsets(), [1, 2, 3, 4]);
  assert.deepEqual(second.offsets(), [4]);
  assert.equal((await second.subscription.ready).epoch, 'e2');
});

test('recovers a stored position of the epoch to which the server changes', () => {
  const { world } = buildSubscribed(10);
  world.socket.drop();
  const second = subscribe(world, { since: 3, epoch: 'e2' });
  world.client.retry();
  world.socket.welcome();
  world.socket.reply('subscribe', { offset: 5, epoch: 'e2', recovered: false });
  world.socket.reply('subscribe', { offset: 5, epoch: 'e2', recovered: true });
  world.socket.events('kitchen', 1, 2, 3, 4, 5);
  assert.deepEqual(second.calls[0], ['subscribed', { offset: 5, epoch: 'e2', recovered: true, missed: 2 }]);
  assert.deepEqual(second.offsets(), [4, 5]);
});

test('unsubscribes from the server with the last subscriber', () => {
  const { world, subscriber, subscription } = buildSubscribed(10);
  const second = subscribe(world);
  world.socket.reply('subscribe', { offset: 10, epoch: 'e1', recovered: true });
  subscription.unsubscribe();
  world.socket.events('kitchen', 11);
  assert.deepEqual(subscriber.offsets(), []);
  assert.deepEqual(second.offsets(), [11]);
  assert.equal(world.socket.all('unsubscribe').length, 0);
  second.subscription.unsubscribe();
  assert.equal(world.socket.last('unsubscribe').channel, 'kitchen');
  world.socket.events('kitchen', 12);
  assert.deepEqual(second.offsets(), [11]);
});

test('ignores repeated unsubscribing and its errors', async () => {
  const { world, subscription } = buildSubscribed(10);
  subscription.unsubscribe();
  subscription.unsubscribe();
  assert.equal(world.socket.all('unsubscribe').length, 1);
  world.socket.reject('unsubscribe', 'not-subscribed');
  await flushPromises();
});

test('does not resubscribe to a channel that was unsubscribed while disconnected', () => {
  const { world, subscription } = buildSubscribed(10);
  world.client.subscribe('garden', () => {});
  world.socket.drop();
  subscription.unsubscribe();
  world.client.retry();
  world.socket.welcome();
  assert.deepEqual(world.socket.sent.map(({ type, channel }) => [type, channel]), [['subscribe', 'garden']]);
});

test('rejects ready and ignores the reply after unsubscribing early', async () => {
  const world = buildOpen();
  const subscriber = subscribe(world);
  subscriber.subscription.unsubscribe();
  world.socket.reply('subscribe', { offset: 10, epoch: 'e1' });
  world.socket.events('kitchen', 11);
  await assert.rejects(subscriber.subscription.ready, { code: 'unsubscribed' });
  assert.deepEqual(subscriber.calls, []);
});

test('ignores events of the old subscription after resubscribing at once', () => {
  const { world, subscription } = buildSubscribed(10);
  subscription.unsubscribe();
  const again = subscribe(world);
  world.socket.events('kitchen', 11);
  world.socket.reply('unsubscribe');
  world.socket.reply('subscribe', { offset: 12, epoch: 'e1' });
  world.socket.events('kitchen', 13);
  assert.deepEqual(again.offsets(), [13]);
});

test('allows unsubscribing in a callback', () => {
  const world = buildOpen();
  const seen = [];
  const subscription = world.client.subscribe('kitchen', ({ offset }) => {
    seen.push(offset);
    subscription.unsubscribe();
  });
  world.socket.reply('subscribe', { offset: 0, epoch: 'e1' });
  world.socket.events('kitchen', 1, 2);
  assert.deepEqual(seen, [1]);
});

test('delivers joins and leaves to subscribers with presence', () => {
  const { world, subscriber } = buildSubscribed(10);
  const curious = subscribe(world, { presence: true });
  assert.equal(world.socket.last('subscribe').presence, true);
  world.socket.reply('subscribe', { offset: 10, epoch: 'e1', recovered: true });
  world.socket.deliver({ type: 'join', channel: 'kitchen', peer: { id: 'a', nick: 'ann' } });
  world.socket.deliver({ type: 'leave', channel: 'kitchen', peer: { id: 'a', nick: 'ann' } });
  assert.deepEqual(curious.calls.slice(1), [['join', 'a'], ['leave', 'a']]);
  assert.equal(subscriber.calls.length, 1);
});

test('requests echo if any subscriber wants it, and hides own events from the others', async () => {
  const { world, subscriber } = buildSubscribed(10, { echo: false });
  assert.equal(world.socket.last('subscribe').echo, false);
  const second = subscribe(world);
  assert.equal(world.socket.last('subscribe').echo, true);
  world.socket.reply('subscribe', { offset: 10, epoch: 'e1', recovered: true });
  publish(world, 11);
  world.socket.events('kitchen', 11, 12);
  assert.deepEqual(subscriber.offsets(), [12]);
  assert.deepEqual(second.offsets(), [11, 12]);
});

test('hides own events that recovery replays', () => {
  const { world, subscriber } = buildSubscribed(10, { echo: false });
  publish(world, 11); // no event is missing before it: the position advances
  world.socket.events('kitchen', 12);
  publish(world, 14); // confirmed before event 13, which is lost with the connection
  reconnect(world);
  assert.equal(world.socket.last('subscribe').since, 12);
  world.socket.reply('subscribe', { offset: 15, epoch: 'e1', recovered: true });
  world.socket.events('kitchen', 13, 14, 15);
  assert.deepEqual(subscriber.offsets(), [12, 13, 15]);
  reconnect(world);
  assert.equal(world.socket.last('subscribe').since, 15);
});

test('advances the position over own events once the events before them have arrived', () => {
  const { world, subscription } = buildSubscribed(10, { echo: false });
  publish(world, 12);
  assert.equal(subscription.position, 10);
  world.socket.events('kitchen', 11);
  assert.equal(subscription.position, 12);
});

test('forgets own offsets of an old epoch', () => {
  const { world, subscriber } = buildSubscribed(10, { echo: false });
  publish(world, 12);
  resume(world, { offset: 12, epoch: 'e2', recovered: false });
  world.socket.reply('subscribe', { offset: 12, epoch: 'e2', recovered: true });
  world.socket.events('kitchen', 12);
  assert.deepEqual(subscriber.offsets(), [12]);
});

test('limits the number of stored own offsets', () => {
  const { world, subscriber } = buildSubscribed(10, { echo: false });
  for (let offset = 12; offset < 12 + 1030; offset += 1) { // event 11 has another publisher and has not arrived yet
    publish(world, offset);
  }
  resume(world, { offset: 1041, epoch: 'e1', recovered: true });
  for (let offset = 11; offset <= 1041; offset += 1) world.socket.deliver(event('kitchen', offset));
  assert.deepEqual(subscriber.offsets(), [11, 12, 13, 14, 15, 16, 17], 'the six oldest offsets are forgotten, so their events are delivered');
});

test('advances the position over ten thousand own events', () => {
  const { world, subscription } = buildSubscribed(0, { echo: false });
  for (let offset = 1; offset <= 10_000; offset += 1) {
    publish(world, offset);
  }
  assert.equal(subscription.position, 10_000);
});

/** A repeatable random number generator. */
function chance(seed) {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

/**
 * A subscriber that checks that each offset of an epoch is delivered or reported as lost, once and in order, and that a reset
 * names the events that are void.
 */
function checkingSubscriber(world, server, last, fail) {
  let next; // the next expected offset, if known
  const subscription = world.client.subscribe('kitchen', ({ offset, data }) => {
    if (data !== server.published.get(subscription.epoch)[offset]) fail(`${data} received as ${subscription.epoch}/${offset}`);
    if (next !== undefined && offset !== next) fail(`${offset} received instead of ${next}`);
    next = offset + 1;
  }, {
    last,
    onLost: ({ reason, first, last: end }) => {
      if (next !== undefined && first !== next) fail(`lost from ${first} instead of ${next}`);
      next = reason === 'log' ? end + 1 : 1;
    },
    onReset: ({ epoch, good, offset }) => {
      if (next !== undefined && good > next - 1) fail(`${good} is said to be valid, but ${next} is expected`);
      if (next !== undefined && good < next - 1 && good !== server.goodBefore.get(epoch)) fail(`${good} is said to be the last valid event`);
      next = offset + 1;
    },
    onSubscribed: ({ offset, recovered }) => {
      if (recovered === undefined && last === 0) next = offset + 1; // with `last`, the history determines the start
    },
  });
  return { subscription, next: () => next };
}

test('delivers every event or reports it as lost, once and in order, whatever happens', () => {
  const faults = [];
  for (let seed = 1; seed <= 400; seed += 1) {
    const draw = chance(seed);
    const world = build();
    const server = new ModelServer(world.net);
    const fail = (message) => faults.push(`seed ${seed}: ${message}`);
    const subscribers = [checkingSubscriber(world, server, draw(4), fail)];
    const actions = {
      drop() { world.socket.drop(); server.cut(); },
      restart() { world.socket.drop(); server.restart(); },
      forget() { server.forget(draw(4)); },
      join() { if (subscribers.length < 4) subscribers.push(checkingSubscriber(world, server, draw(4), fail)); },
      leave() { if (subscribers.length > 1) subscribers.splice(draw(subscribers.length), 1)[0].subscription.unsubscribe(); },
      deliver() { server.deliver(draw(5)); },
      publish() { server.append(`e${server.epoch}/${server.head + 1}`); },
      continueInNewEpoch() { server.reset(draw(3), true); },
      beginNewEpoch() { server.reset(draw(3), false); },
    };
    const often = [...Object.keys(actions), 'deliver', 'deliver', 'publish', 'publish', 'publish', 'publish', 'join', 'drop'];
    for (let step = 0; step < 150; step += 1) {
      actions[often[draw(often.length)]]();
      world.client.retry();
      if (world.client.state === 'connecting') world.socket.welcome();
    }
    server.deliver();
    for (const { subscription, next } of subscribers) {
      if (!subscription.current) fail('a subscription was not confirmed');
      if (next() !== undefined && next() !== server.head + 1) fail(`expects ${next()}, but the last offset is ${server.head}`);
    }
  }
  assert.deepEqual(faults.slice(0, 5), []);
});
