// Tests of commands: replies, errors, the queue while disconnected, and lost connections.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { MESSAGE_LIMIT, QUEUE_LIMIT, RawJson, SockbridgeError, UNANSWERED_LIMIT } from '../../twistedsock/static/sockbridge.js';
import { build, buildOpen, reconnect, flushPromises } from './fakes.mjs';

test('publishes text and JSON unchanged and resolves with the offset', async () => {
  const world = buildOpen();
  const offset = world.client.publish('kitchen', { celsius: 21.5 }, { name: 'reading' });
  assert.deepEqual(world.socket.sent, [{ type: 'publish', id: 1, channel: 'kitchen', data: { celsius: 21.5 }, name: 'reading' }]);
  world.socket.reply('publish', { offset: 18 });
  assert.equal(await offset, 18);
  for (const data of ['', '21.5', '{"a":1}', 0, false, null, []]) {
    world.client.publish('kitchen', data).catch(() => {});
    assert.deepEqual(world.socket.last('publish').data, data);
    assert.ok(!('name' in world.socket.last('publish')));
  }
});

test('publishes bytes as base64', () => {
  const { client, socket } = buildOpen();
  const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
  const part = new DataView(bytes.buffer, 254, 2);
  for (const [data, base64] of [
    [bytes, Buffer.from(bytes).toString('base64')], [bytes.subarray(1, 3), 'AQI='], [bytes.buffer.slice(0, 1), 'AA=='], [part, '/v8='],
    [new Uint16Array([258]), 'AgE='], [new Uint8Array(), ''],
  ]) {
    client.publish('kitchen', data, { name: 'photo' }).catch(() => {});
    const { id, ...message } = socket.last('publish');
    assert.deepEqual(message, { type: 'publish', channel: 'kitchen', base64, name: 'photo' });
  }
});

test('rejects bytes whose base64 is too long', async () => {
  const { client } = buildOpen();
  client.publish('kitchen', new Uint8Array(49_000)).catch(() => {});
  await assert.rejects(client.publish('kitchen', new Uint8Array(49_200)), { code: 'too-long' });
});

test('assigns replies to their commands in any order', async () => {
  const world = buildOpen();
  const results = ['a', 'b', 'c'].map((data) => world.client.publish('kitchen', data));
  const ids = world.socket.all('publish').map(({ id }) => id);
  assert.equal(new Set(ids).size, 3);
  for (const index of [2, 0, 1]) world.socket.deliver({ type: 'ok', id: ids[index], offset: 100 + index });
  assert.deepEqual(await Promise.all(results), [100, 101, 102]);
});

test('requests histories between offsets and times', () => {
  const { client, socket } = buildOpen();
  const cases = [
    [{ after: 17, before: 20 }, { after: 17, before: 20 }],
    [{ after: new Date(1_764_394_200_123), before: '-5m' }, { after: '2025-11-29T05:30:00.123Z', before: '-5m' }],
    [{ after: 999_999_999_999 }, { after: 999_999_999_999 }],
  ];
  for (const [options, sent] of cases) {
    client.history('kitchen', options).catch(() => {});
    const { type, id, channel, ...bounds } = socket.last('history');
    assert.deepEqual(bounds, sent);
  }
});

test('rejects the milliseconds of a time as an offset', async () => {
  const { client, socket } = buildOpen();
  for (const name of ['since', 'after', 'before']) {
    const words = `${name}: a number is an offset. For a time use new Date(1764394200123)`;
    await assert.rejects(client.history('kitchen', { [name]: 1_764_394_200_123 }), { code: 'bad-argument', message: words });
  }
  assert.equal(socket.sent.length, 0);
});

test('resolves who, history, info, nick and ping with the values of the server', async () => {
  const world = buildOpen();
  const { client, socket, clock } = world;
  const members = [{ id: 'k3x9', nick: 'ann' }];
  const events = [{ channel: 'kitchen', offset: 3, time: 1_800_000_000_003, from: 'ann', name: 'message', data: 'x' }];
  const wireEvents = events.map((event) => ({ type: 'event', ...event, later: 'a field of a later protocol' }));

  const who = client.who('kitchen');
  socket.reply('who', { members });
  assert.deepEqual(await who, members);

  const history = client.history('kitchen', { last: 1, since: 2 });
  assert.deepEqual(socket.last('history'), { type: 'history', id: 2, channel: 'kitchen', last: 1, since: 2 });
  socket.reply('history', { events: wireEvents, offset: 3, epoch: 'e1' });
  assert.deepEqual(await history, { events, offset: 3, epoch: 'e1' });

  const gappy = client.history('kitchen', { since: 0 });
  socket.reply('history', { events: wireEvents, offset: 3, epoch: 'e1', lost: { first: 1, last: 1 }, gaps: [{ first: 2, last: 2 }] });
  assert.deepEqual(await gappy, { events, offset: 3, epoch: 'e1', lost: [{ first: 1, last: 1 }, { first: 2, last: 2 }] });

  client.history('kitchen').catch(() => {});
  assert.deepEqual(socket.last('history'), { type: 'history', id: 4, channel: 'kitchen' });

  const info = client.info();
  socket.reply('info', { peer: members[0], channels: 2, version: '0.1.0' });
  assert.deepEqual(await info, { peer: members[0], channels: 2, version: '0.1.0' });

  const nick = client.nick('ann');
  socket.reply('nick', { nick: 'ann' });
  assert.equal(await nick, 'ann');

  const ping = client.ping();
  clock.advance(42);
  socket.deliver({ type: 'pong', id: socket.last('ping').id });
  assert.equal(await ping, 42);
});

test('rejects with the code and the message of the server', async () => {
  const world = buildOpen();
  const failing = world.client.publish('a b', 1);
  world.socket.reject('publish', 'bad-channel', 'a channel has no white space');
  const error = await failing.catch((reason) => reason);
  assert.ok(error instanceof SockbridgeError && error instanceof Error);
  assert.equal(error.code, 'bad-channel');
  assert.equal(error.message, 'a channel has no white space');
});

test('rejects values that are not JSON before sending', async () => {
  const world = buildOpen();
  const circle = {};
  circle.self = circle;
  for (const data of [undefined, () => {}, Symbol('s'), 10n, circle]) {
    await assert.rejects(world.client.publish('kitchen', data), { code: 'bad-argument' });
  }
  assert.equal(world.socket.sent.length, 0);
});

test('rejects messages over the limit, after which the server would close the connection', async () => {
  const world = buildOpen();
  const rest = JSON.stringify({ type: 'publish', channel: 'kitchen', data: '', id: 1 }).length;
  world.client.publish('kitchen', 'x'.repeat(MESSAGE_LIMIT - rest)).catch(() => {});
  assert.equal(world.socket.sent.length, 1);
  await assert.rejects(world.client.publish('kitchen', 'x'.repeat(MESSAGE_LIMIT - rest + 1)), { code: 'too-long' });
  await assert.rejects(world.client.publish('kitchen', 'é'.repeat(MESSAGE_LIMIT / 2)), { code: 'too-long' }, 'the limit counts bytes');
  assert.equal(world.socket.sent.length, 1);
});

test('sends commands queued while disconnected in order after the welcome', async () => {
  const world = build();
  const first = world.client.publish('kitchen', 1);
  const who = world.client.who('kitchen');
  world.socket.drop();
  world.client.publish('kitchen', 2).catch(() => {});
  world.client.retry();
  assert.equal(world.net.sockets[0].sent.length, 0);
  world.socket.welcome();
  assert.deepEqual(world.socket.sent.map(({ type, data }) => data ?? type), [1, 'who', 2]);
  world.socket.deliver({ type: 'ok', id: world.socket.sent[0].id, offset: 5 });
  world.socket.reply('who', { members: [] });
  assert.equal(await first, 5);
  assert.deepEqual(await who, []);
});

test('queues the value at the time of the call', () => {
  const world = build();
  const reading = { celsius: 21.5 };
  world.client.publish('kitchen', reading).catch(() => {});
  reading.celsius = 99;
  world.socket.welcome();
  assert.equal(world.socket.last('publish').data.celsius, 21.5);
});

test('limits the queue and keeps the queued commands', async () => {
  const world = build();
  for (let index = 0; index < QUEUE_LIMIT; index += 1) world.client.publish('kitchen', index).catch(() => {});
  await assert.rejects(world.client.publish('kitchen', 'too many'), { code: 'queue-full' });
  world.socket.welcome();
  assert.equal(world.socket.all('publish').length, QUEUE_LIMIT);
  world.client.publish('kitchen', 'now').catch(() => {});
  assert.equal(world.socket.all('publish').length, QUEUE_LIMIT + 1);
});

test('limits the number of unanswered commands', async () => {
  const world = buildOpen();
  for (let index = 0; index < UNANSWERED_LIMIT; index += 1) world.client.publish('kitchen', index).catch(() => {});
  await assert.rejects(world.client.publish('kitchen', 'too many'), { code: 'queue-full' });
  world.socket.reply('publish', { offset: 1 });
  world.client.publish('kitchen', 'room again').catch(() => {});
  assert.equal(world.socket.last('publish').data, 'room again');
});

test('resets the limit of unanswered commands when the connection is lost', () => {
  const world = buildOpen();
  for (let index = 0; index < UNANSWERED_LIMIT; index += 1) world.client.publish('kitchen', index).catch(() => {});
  reconnect(world);
  world.client.publish('kitchen', 'room again').catch(() => {});
  assert.equal(world.socket.last('publish').data, 'room again');
});

test('rejects unanswered commands when the connection is lost and never sends them again', async () => {
  const world = buildOpen();
  const publish = world.client.publish('kitchen', 1);
  const who = world.client.who('kitchen');
  world.socket.drop();
  await assert.rejects(publish, (error) => error.code === 'disconnected' && /may or may not/.test(error.message));
  await assert.rejects(who, { code: 'disconnected' });
  world.client.retry();
  world.socket.welcome();
  assert.equal(world.socket.sent.length, 0);
});

test('ignores replies on an old connection', async () => {
  const world = buildOpen({ quietAfter: 1000, answerTimeout: 1000 });
  const old = world.socket;
  const publish = world.client.publish('kitchen', 1);
  world.clock.advance(2000);
  assert.equal(world.client.state, 'waiting');
  old.reply('publish', { offset: 9 });
  await assert.rejects(publish, { code: 'disconnected' });
});

test('rejects unanswered, queued and later commands when closed', async () => {
  const open = buildOpen();
  const underWay = open.client.publish('kitchen', 1);
  open.client.close();
  await assert.rejects(underWay, { code: 'closed' });
  await assert.rejects(open.client.publish('kitchen', 2), { code: 'closed' });

  const waiting = build();
  const queued = waiting.client.publish('kitchen', 1);
  waiting.client.close();
  await assert.rejects(queued, { code: 'closed' });
});

test('rejects queued commands with the reason of a final close', async () => {
  const world = buildOpen();
  const underWay = world.client.publish('kitchen', 1);
  world.socket.drop(1008, 'too many connections');
  await assert.rejects(underWay, /too many connections/);
});

test('sends a queued name once, before subscribing', async () => {
  const world = build();
  world.client.subscribe('kitchen', () => {});
  const nick = world.client.nick('ann');
  world.socket.welcome();
  assert.deepEqual(world.socket.sent.map(({ type }) => type), ['nick', 'subscribe']);
  world.socket.reply('nick', { nick: 'ann' });
  assert.equal(await nick, 'ann');
});

test('restores the previous name if the server rejects the new one', async () => {
  const world = buildOpen();
  const first = world.client.nick('ann');
  world.socket.reply('nick', { nick: 'ann' });
  await first;
  const second = world.client.nick('a b');
  world.socket.reject('nick', 'bad-name');
  await assert.rejects(second, { code: 'bad-name' });
  reconnect(world);
  assert.equal(world.socket.last('nick').nick, 'ann');
});

test('sends a name again if the connection was lost before the reply', async () => {
  const world = buildOpen();
  const nick = world.client.nick('ann');
  world.socket.drop();
  await assert.rejects(nick, { code: 'disconnected' });
  world.client.retry();
  world.socket.welcome();
  assert.equal(world.socket.last('nick').nick, 'ann');
});

test('reports a name that the server rejects after a reconnection', async () => {
  const world = buildOpen();
  world.client.nick('ann');
  world.socket.reply('nick', { nick: 'ann' });
  reconnect(world);
  world.socket.reject('nick', 'bad-name');
  await flushPromises();
  const [type, error] = world.states.at(-1);
  assert.deepEqual([type, error.code], ['error', 'bad-name']);
});

test('replaces lone surrogates with U+FFFD everywhere', async () => {
  const world = buildOpen();
  const { client, socket } = world;
  const sent = [];
  socket.send = (text) => sent.push(text);
  for (const data of ['\ud83d', 'a\ude00b', '\ud83d\ud83d\ude00', { '\ud83d': ['\ude00'] }, '\\ud83d', '\\\ud83d', '"\\ud83d"', '😀', '\n\u0000']) {
    client.publish('kitchen', data).catch(() => {});
    const whole = JSON.parse(JSON.stringify(data).replace(/(?<!\\)((?:\\\\)*)\\ud[89a-f]../g, '$1\ufffd'));
    assert.deepEqual(JSON.parse(sent.at(-1)).data, whole);
    assert.ok(!/(?<!\\)(?:\\\\)*\\ud/.test(sent.at(-1)), sent.at(-1));
  }
  for (const ask of [
    () => client.publish('\ud83d', 1, { name: '\ud83d' }), () => client.who('\ud83d'), () => client.history('\ud83d'), () => client.nick('\ud83d'),
    () => client.authenticate('\ud83d'), () => client.subscribe('\ud83d', () => {}).ready,
  ]) {
    ask().catch(() => {});
    assert.ok(sent.at(-1).includes('\ufffd') && !sent.at(-1).includes('\\ud'), sent.at(-1));
  }
});

test('sends raw JSON as it is written', async () => {
  const { client, socket } = buildOpen();
  const sent = [];
  socket.send = (text) => sent.push(text);
  for (const text of ['1e400', '{"a":1,"a":2}', '{"id": 12345678901234567890}', '-0', ' "x" ', '21.50', '[1e-7]']) {
    client.publish('kitchen', new RawJson(text), { name: 'reading' }).catch(() => {});
    assert.ok(sent.at(-1).endsWith(`,"data":${text}}`), sent.at(-1));
    const { type, channel, name } = JSON.parse(sent.at(-1));
    assert.deepEqual([type, channel, name], ['publish', 'kitchen', 'reading']);
  }
  client.publish('kitchen', new RawJson('{\r\n"a": "\\n\\ud83d"\n}')).catch(() => {});
  assert.ok(sent.at(-1).endsWith('{  "a": "\\n\ufffd" }}'), sent.at(-1)); // the stream sends one message a line
  for (const text of ['', '{"a":', '1} {', 'NaN', '1,"type":"who"']) assert.throws(() => new RawJson(text), SyntaxError);
  const raw = new RawJson('1');
  assert.throws(() => { raw.text = '},{'; }, TypeError);
  await assert.rejects(client.publish('kitchen', new RawJson(`"${'x'.repeat(70_000)}"`)), { code: 'too-long' });
});

test('delivers events of a channel whose name contained a lone surrogate', () => {
  const world = buildOpen();
  const received = [];
  const subscription = world.client.subscribe('a\ud83d', ({ data }) => received.push(data));
  assert.equal(subscription.channel, 'a\ufffd');
  world.socket.reply('subscribe', { channel: 'a\ufffd', offset: 0, epoch: 'e1' });
  world.socket.deliver({ type: 'event', channel: 'a\ufffd', offset: 1, from: 'ann', name: 'message', data: 1 });
  assert.deepEqual(received, [1]);
});

const CALLS = {
  publish: (client) => client.publish('kitchen', 1),
  who: (client) => client.who('kitchen'),
  history: (client) => client.history('kitchen'),
  nick: (client) => client.nick('ann'),
  authenticate: (client) => client.authenticate('secret'),
  ping: (client) => client.ping(),
  info: (client) => client.info(),
  subscribe: (client) => client.subscribe('kitchen', () => {}).ready,
};

test('rejects every call with a timeout if no reply arrives', async () => {
  for (const [name, call] of Object.entries(CALLS)) {
    const world = buildOpen({ commandTimeout: 5_000 });
    const asked = call(world.client);
    world.clock.advance(4_999);
    assert.equal(await Promise.race([asked.catch(() => 'settled'), flushPromises()]), undefined, name);
    world.clock.advance(1);
    await assert.rejects(asked, { code: 'timeout', message: /may or may not/ }, name);
    world.client.close();
    assert.equal(world.clock.timers.size, 0);
  }
});

test('rejects every call with a timeout if there is no connection', async () => {
  for (const [name, call] of Object.entries(CALLS)) {
    if (name === 'subscribe') continue;
    const world = build({ commandTimeout: 5_000 });
    const asked = call(world.client);
    world.clock.advance(5_000);
    await assert.rejects(asked, { code: 'timeout', message: /was not sent/ }, name);
    world.socket.welcome();
    if (name !== 'nick') assert.deepEqual(world.socket.sent, [], name);
    world.client.close();
  }
});

test('keeps ready pending while disconnected', async () => {
  const world = build({ commandTimeout: 5_000 });
  const { ready } = world.client.subscribe('kitchen', () => {});
  world.clock.advance(9_000);
  world.socket.welcome();
  world.socket.reply('subscribe', { channel: 'kitchen', offset: 3, epoch: 'e1' });
  assert.equal((await ready).offset, 3);
});

test('repeats a subscription without a reply', () => {
  const world = buildOpen({ commandTimeout: 5_000, quietAfter: 7_000 });
  world.client.subscribe('kitchen', () => {}, { since: 3, epoch: 'e1' });
  world.clock.advance(7_000);
  assert.equal(world.socket.all('subscribe').length, 2);
});

test('frees the room of calls that timed out', async () => {
  const world = buildOpen();
  const lost = Array.from({ length: UNANSWERED_LIMIT }, () => world.client.publish('kitchen', 1).catch(({ code }) => code));
  await assert.rejects(world.client.publish('kitchen', 2), { code: 'queue-full' });
  world.socket.deliver({ type: 'error', code: 'bad-json', message: 'without an id' });
  for (let waited = 0; waited < 60; waited += 1) {
    world.clock.advance(1_000);
    world.socket.deliver({ type: 'event', channel: 'other', offset: waited, from: 'ann', name: 'message', data: 0 });
  }
  assert.deepEqual(new Set(await Promise.all(lost)), new Set(['timeout']));
  const next = world.client.publish('kitchen', 3);
  world.socket.reply('publish', { offset: 9 });
  assert.equal(await next, 9);
});

test('survives late and unreadable replies', async () => {
  const world = buildOpen({ commandTimeout: 5_000 });
  const late = world.client.publish('kitchen', 1);
  world.clock.advance(5_000);
  await assert.rejects(late, { code: 'timeout' });
  world.socket.reply('publish', { offset: 1 });
  const history = world.client.history('kitchen');
  world.socket.reply('history', {});
  await assert.rejects(history, { code: 'bad-answer' });
  assert.equal(world.client.state, 'open');
});

test('stops timers of settled calls and times out each call separately', async () => {
  const world = buildOpen({ commandTimeout: 5_000 });
  const first = world.client.who('a');
  world.clock.advance(3_000);
  const second = world.client.who('b');
  const [{ id }] = world.socket.all('who');
  world.socket.deliver({ type: 'ok', id, members: [] });
  assert.deepEqual(await first, []);
  world.clock.advance(4_999);
  assert.equal(await Promise.race([second.catch(() => 'settled'), flushPromises()]), undefined);
  world.clock.advance(1);
  await assert.rejects(second, { code: 'timeout' });
  assert.equal(world.clock.timers.size, 1, 'only the timer of the liveness check remains');
});
