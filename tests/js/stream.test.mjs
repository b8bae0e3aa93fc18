// The stream that stands in for a WebSocket: what it reads, however it was cut; what it sends, in which order; how it ends.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { MESSAGE_CHARACTERS_LIMIT, EventStreamDecoder, CLOSE_TIMEOUT_MS, QUEUE_BYTES_LIMIT, REQUEST_BYTES_LIMIT, StreamSocket } from '../../twistedsock/static/stream.js';
import { FakeClock, fakeFetch, settle } from './fakes.mjs';

const ADDRESS = 'http://bridge.test/stream';
const pieces = (text, size) => text.match(new RegExp(`[\\s\\S]{1,${size}}`, 'g'));

/** A stream whose request waits for its answer; `told` is what it says. */
function build() {
  const clock = new FakeClock();
  const { fetch, requests } = fakeFetch();
  const socket = new StreamSocket(ADDRESS, { fetch, setTimeout: clock.setTimeout, clearTimeout: clock.clearTimeout });
  const told = [];
  socket.onmessage = ({ data }) => told.push(JSON.parse(data));
  socket.onclose = ({ code, reason }) => told.push(['close', code, reason]);
  const [answer] = requests;
  return { socket, clock, requests, answer, told, posts: () => requests.slice(1) };
}

async function buildOpen() {
  const world = build();
  world.answer.begin();
  world.answer.welcome();
  await settle();
  world.told.length = 0;
  return world;
}

test('events are read wherever the stream is cut, and whatever ends its lines', () => {
  const stream = ': comment\n\nretry: 2000\n\nevent: welcome\ndata: {"a":1}\n\nid: e1:18\ndata: one\ndata:two\ndata\n\nevent: nothing\n\ndata: last\nfuture: field\n\n';
  const expected = [{ type: 'welcome', data: '{"a":1}' }, { type: 'message', data: 'one\ntwo\n' }, { type: 'message', data: 'last' }];
  for (const end of ['\n', '\r\n', '\r']) {
    const text = stream.replaceAll('\n', end);
    for (const size of [1, 2, 3, 5, 7, 1000]) {
      const decoder = new EventStreamDecoder();
      assert.deepEqual(pieces(text, size).flatMap((piece) => decoder.decode(piece)), expected, `${JSON.stringify(end)} by ${size}`);
    }
  }
});

test('an event whose end is missing is none', () => {
  assert.deepEqual(new EventStreamDecoder().decode('data: cut off\n'), []);
  assert.deepEqual(new EventStreamDecoder().decode(''), []);
});

test('an event that does not end has a bound, and comments do not add to it', () => {
  const decoder = new EventStreamDecoder();
  const mega = 'x'.repeat(2 ** 22);
  for (let index = 0; index < 2 * MESSAGE_CHARACTERS_LIMIT / mega.length; index += 1) decoder.decode(`data: ${mega}\n\n`);
  assert.throws(() => { for (let index = 0; index <= MESSAGE_CHARACTERS_LIMIT / mega.length; index += 1) decoder.decode(mega); }, { code: 1009 });
});

test('it asks for an event stream, and gives its messages as they are, cut within letters too', async () => {
  const { answer, told } = build();
  assert.deepEqual([answer.address, answer.method, answer.headers], [ADDRESS, 'GET', { Accept: 'text/event-stream' }]);
  answer.begin();
  const bytes = new TextEncoder().encode('event: welcome\ndata: {"type":"welcome","key":"s"}\n\n:\n\ndata: {"data":"½ € 😀"}\n\n');
  for (const byte of bytes) answer.send(Uint8Array.of(byte));
  await settle();
  assert.deepEqual(told, [{ type: 'welcome', key: 's' }, { data: '½ € 😀' }]);
});

test('nothing is sent before the welcome; then what one turn says goes in one request', async () => {
  const { socket, answer, posts } = build();
  socket.send('{"n":1}');
  socket.send('{"n":"é"}');
  answer.begin();
  await settle();
  assert.equal(posts().length, 0);
  answer.welcome('k3x9', 'the key');
  await settle();
  assert.equal(posts().length, 0, 'the client speaks when it has the welcome');
  socket.send('{"n":3}');
  await settle();
  const [post] = posts();
  assert.deepEqual([post.address, post.method], [ADDRESS, 'POST']);
  assert.deepEqual(post.headers, { 'Sockbridge-Stream': 'the key', 'Content-Type': 'application/x-ndjson' });
  assert.equal(post.body, '{"n":1}\n{"n":"é"}\n{"n":3}\n');
});

test('one request at a time, in order', async () => {
  const { socket, posts } = await buildOpen();
  socket.send('1');
  await settle();
  socket.send('2');
  socket.send('3');
  await settle();
  assert.deepEqual(posts().map(({ body }) => body), ['1\n']);
  posts()[0].answer(204);
  await settle();
  assert.deepEqual(posts().map(({ body }) => body), ['1\n', '2\n3\n']);
});

test('a request has no more bytes than the server takes', async () => {
  const { socket, posts } = await buildOpen();
  const half = 'é'.repeat(REQUEST_BYTES_LIMIT / 4 - 1); // with its line end, one byte less than a half
  for (const text of [half, half, half]) socket.send(text);
  await settle();
  posts()[0].answer(204);
  await settle();
  assert.deepEqual(posts().map(({ body }) => new TextEncoder().encode(body).length), [REQUEST_BYTES_LIMIT - 2, REQUEST_BYTES_LIMIT / 2 - 1]);
});

test('what waits to be sent is bounded', async () => {
  const { socket, answer, told } = await buildOpen();
  const text = 'x'.repeat(65_535);
  for (let index = 0; index < QUEUE_BYTES_LIMIT / 65_536; index += 1) socket.send(text);
  await settle();
  assert.deepEqual(told, []);
  for (let index = 0; index < 5; index += 1) socket.send(text); // the first four are on their way
  socket.send(text);
  assert.deepEqual(told, [], 'onclose does not come in the midst of send');
  await settle();
  assert.deepEqual(told.map(([type, code]) => [type, code]), [['close', 1006]]);
  assert.ok(answer.aborted);
});

test('the server ends it with a code and a reason, and nothing is said after it', async () => {
  const { socket, answer, told, posts } = await buildOpen();
  answer.send('event: close\ndata: {"type":"close","code":1008,"reason":"an operator has ended this connection"}\n\ndata: {"late":1}\n\n');
  await settle();
  socket.send('late');
  await settle();
  assert.deepEqual(told, [['close', 1008, 'an operator has ended this connection']]);
  assert.ok(answer.aborted);
  assert.equal(posts().length, 0);
});

test('a stream that breaks, ends, or is no UTF-8, is a lost connection', async () => {
  const endings = {
    breaks: [(answer) => answer.fail('network changed'), /network changed/],
    ends: [(answer) => answer.end(), /ended unexpectedly/],
    garbled: [(answer) => answer.send(Uint8Array.of(0x64, 0xff, 0xff)), /./],
    'no close': [(answer) => answer.send('event: close\ndata: nonsense\n\n'), /JSON/],
  };
  for (const [name, [act, words]] of Object.entries(endings)) {
    const { answer, told } = await buildOpen();
    act(answer);
    await settle();
    const [[, code, reason]] = told;
    assert.deepEqual([name, told.length, code], [name, 1, 1006]);
    assert.match(reason, words);
  }
});

test('a refusal is told in the words of the server; one that has too much to do is given time, who is not let in stays away', async () => {
  for (const [status, body, code, reason] of [
    [403, { detail: 'pages of that origin may not connect' }, 1006, 'the server replied 403: pages of that origin may not connect'],
    [401, { detail: 'the token has expired' }, 1008, 'the server replied 401: the token has expired'],
    [404, 'nothing here', 1006, 'the server replied 404'],
    [502, null, 1006, 'the server replied 502'],
    [503, { detail: 'too many connections' }, 1013, 'the server replied 503: too many connections'],
    [429, {}, 1013, 'the server replied 429'],
  ]) {
    const { answer, told } = build();
    answer.answer(status, body);
    await settle();
    assert.deepEqual(told, [['close', code, reason]]);
  }
});

test('a page in place of the stream is not taken for it', async () => {
  const { answer, told } = build();
  answer.begin('text/html');
  await settle();
  assert.deepEqual(told, [['close', 1002, 'not an event stream']]);
});

test('a request that cannot be sent, or is refused, ends it: whether it was carried out is not known', async () => {
  for (const act of [(post) => post.fail('offline'), (post) => post.answer(404, { detail: 'there is no such stream' })]) {
    const { socket, told, answer, posts } = await buildOpen();
    socket.send('1');
    await settle();
    socket.send('2');
    act(posts()[0]);
    await settle();
    assert.deepEqual(told.map(([type, code]) => [type, code]), [['close', 1006]]);
    assert.ok(answer.aborted);
    assert.equal(posts().length, 1, 'what waited is not sent');
  }
});

test('close sends what was said before it, then lets go', async () => {
  const { socket, answer, told, posts, clock } = await buildOpen();
  socket.send('1');
  await settle();
  socket.send('2');
  socket.close();
  socket.close();
  socket.send('3');
  posts()[0].answer(204);
  await settle();
  assert.deepEqual(posts().map(({ body }) => body), ['1\n', '2\n']);
  assert.ok(!answer.aborted);
  posts()[1].answer(204);
  await settle();
  assert.ok(answer.aborted);
  assert.deepEqual(told, [['close', 1000, '']]);
  assert.equal(clock.timers.size, 0);
});

test('close waits for no answer longer than its farewell', async () => {
  const { socket, answer, told, clock } = await buildOpen();
  socket.send('1');
  socket.close();
  await settle();
  clock.advance(CLOSE_TIMEOUT_MS - 1);
  assert.ok(!answer.aborted);
  clock.advance(1);
  await settle();
  assert.ok(answer.aborted);
  assert.deepEqual(told, [['close', 1000, '']]);
});

test('closed before it was welcomed, it lets go at once', async () => {
  const { socket, answer, told, posts } = build();
  socket.send('1');
  socket.close();
  await settle();
  assert.ok(answer.aborted);
  assert.deepEqual([posts().length, told], [0, [['close', 1000, '']]]);
});
