// Tests of stream.js: decoding, sending and closing.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  CLOSE_TIMEOUT_MS, EventStreamDecoder, MESSAGE_CHARACTERS_LIMIT, QUEUE_BYTES_LIMIT, REQUEST_BYTES_LIMIT, StreamSocket,
} from '../../twistedsock/static/stream.js';
import { FakeClock, fakeFetch, flushPromises } from './fakes.mjs';

const ADDRESS = 'http://bridge.test/stream';
const chunks = (text, size) => text.match(new RegExp(`[\\s\\S]{1,${size}}`, 'g'));

/** A StreamSocket whose request waits for a response. `received` contains its messages and its end. */
function build() {
  const clock = new FakeClock();
  const { fetch, requests } = fakeFetch();
  const socket = new StreamSocket(ADDRESS, { fetch, setTimeout: clock.setTimeout, clearTimeout: clock.clearTimeout });
  const received = [];
  socket.onmessage = ({ data }) => received.push(JSON.parse(data));
  socket.onclose = ({ code, reason }) => received.push(['close', code, reason]);
  const [stream] = requests;
  return { socket, clock, requests, stream, received, posts: () => requests.slice(1) };
}

async function buildOpen() {
  const world = build();
  world.stream.begin();
  world.stream.welcome();
  await flushPromises();
  world.received.length = 0;
  return world;
}

test('decodes events in chunks of any size and with any line ends', () => {
  const text = ': comment\n\nretry: 2000\n\nevent: welcome\ndata: {"a":1}\n\nid: e1:18\ndata: one\ndata:two\ndata\n\nevent: nothing\n\ndata: last\nfuture: field\n\n';
  const expected = [{ type: 'welcome', data: '{"a":1}' }, { type: 'message', data: 'one\ntwo\n' }, { type: 'message', data: 'last' }];
  for (const end of ['\n', '\r\n', '\r']) {
    const body = text.replaceAll('\n', end);
    for (const size of [1, 2, 3, 5, 7, 1000]) {
      const decoder = new EventStreamDecoder();
      assert.deepEqual(chunks(body, size).flatMap((piece) => decoder.decode(piece)), expected, `${JSON.stringify(end)} by ${size}`);
    }
  }
});

test('ignores incomplete events', () => {
  assert.deepEqual(new EventStreamDecoder().decode('data: cut off\n'), []);
  assert.deepEqual(new EventStreamDecoder().decode(''), []);
});

test('limits the size of an event, not counting comments', () => {
  const decoder = new EventStreamDecoder();
  const mega = 'x'.repeat(2 ** 22);
  for (let index = 0; index < 2 * MESSAGE_CHARACTERS_LIMIT / mega.length; index += 1) decoder.decode(`data: ${mega}\n\n`);
  assert.throws(() => { for (let index = 0; index <= MESSAGE_CHARACTERS_LIMIT / mega.length; index += 1) decoder.decode(mega); }, { code: 1009 });
});

test('requests an event stream and decodes characters that were split', async () => {
  const { stream, received } = build();
  assert.deepEqual([stream.address, stream.method, stream.headers], [ADDRESS, 'GET', { Accept: 'text/event-stream' }]);
  stream.begin();
  const bytes = new TextEncoder().encode('event: welcome\ndata: {"type":"welcome","key":"s"}\n\n:\n\ndata: {"data":"½ € 😀"}\n\n');
  for (const byte of bytes) stream.send(Uint8Array.of(byte));
  await flushPromises();
  assert.deepEqual(received, [{ type: 'welcome', key: 's' }, { data: '½ € 😀' }]);
});

test('sends nothing before the welcome, then one request per turn', async () => {
  const { socket, stream, posts } = build();
  socket.send('{"n":1}');
  socket.send('{"n":"é"}');
  stream.begin();
  await flushPromises();
  assert.equal(posts().length, 0);
  stream.welcome('k3x9', 'the key');
  await flushPromises();
  assert.equal(posts().length, 0, 'the client sends after it has received the welcome');
  socket.send('{"n":3}');
  await flushPromises();
  const [post] = posts();
  assert.deepEqual([post.address, post.method], [ADDRESS, 'POST']);
  assert.deepEqual(post.headers, { 'Sockbridge-Stream': 'the key', 'Content-Type': 'application/x-ndjson' });
  assert.equal(post.body, '{"n":1}\n{"n":"é"}\n{"n":3}\n');
});

test('sends one request at a time, in order', async () => {
  const { socket, posts } = await buildOpen();
  socket.send('1');
  await flushPromises();
  socket.send('2');
  socket.send('3');
  await flushPromises();
  assert.deepEqual(posts().map(({ body }) => body), ['1\n']);
  posts()[0].respond(204);
  await flushPromises();
  assert.deepEqual(posts().map(({ body }) => body), ['1\n', '2\n3\n']);
});

test('limits the size of a request', async () => {
  const { socket, posts } = await buildOpen();
  const half = 'é'.repeat(REQUEST_BYTES_LIMIT / 4 - 1); // with its line end, one byte less than half
  for (const text of [half, half, half]) socket.send(text);
  await flushPromises();
  posts()[0].respond(204);
  await flushPromises();
  assert.deepEqual(posts().map(({ body }) => new TextEncoder().encode(body).length), [REQUEST_BYTES_LIMIT - 2, REQUEST_BYTES_LIMIT / 2 - 1]);
});

test('limits the queue', async () => {
  const { socket, stream, received } = await buildOpen();
  const text = 'x'.repeat(65_535);
  for (let index = 0; index < QUEUE_BYTES_LIMIT / 65_536; index += 1) socket.send(text);
  await flushPromises();
  assert.deepEqual(received, []);
  for (let index = 0; index < 5; index += 1) socket.send(text); // the first four are in flight
  socket.send(text);
  assert.deepEqual(received, [], 'onclose is not called during send');
  await flushPromises();
  assert.deepEqual(received.map(([type, code]) => [type, code]), [['close', 1006]]);
  assert.ok(stream.aborted);
});

test('ends with the code and the reason of the server', async () => {
  const { socket, stream, received, posts } = await buildOpen();
  stream.send('event: close\ndata: {"type":"close","code":1008,"reason":"an operator has ended this connection"}\n\ndata: {"late":1}\n\n');
  await flushPromises();
  socket.send('late');
  await flushPromises();
  assert.deepEqual(received, [['close', 1008, 'an operator has ended this connection']]);
  assert.ok(stream.aborted);
  assert.equal(posts().length, 0);
});

test('treats a broken, finished or invalid stream as a lost connection', async () => {
  const endings = {
    breaks: [(stream) => stream.fail('network changed'), /network changed/],
    ends: [(stream) => stream.end(), /ended unexpectedly/],
    garbled: [(stream) => stream.send(Uint8Array.of(0x64, 0xff, 0xff)), /./],
    'no close': [(stream) => stream.send('event: close\ndata: nonsense\n\n'), /JSON/],
  };
  for (const [name, [act, message]] of Object.entries(endings)) {
    const { stream, received } = await buildOpen();
    act(stream);
    await flushPromises();
    const [[, code, reason]] = received;
    assert.deepEqual([name, received.length, code], [name, 1, 1006]);
    assert.match(reason, message);
  }
});

test('converts error responses to close codes', async () => {
  for (const [status, body, code, reason] of [
    [403, { detail: 'pages of that origin may not connect' }, 1006, 'the server replied 403: pages of that origin may not connect'],
    [401, { detail: 'the token has expired' }, 1008, 'the server replied 401: the token has expired'],
    [404, 'nothing here', 1006, 'the server replied 404'],
    [502, null, 1006, 'the server replied 502'],
    [503, { detail: 'too many connections' }, 1013, 'the server replied 503: too many connections'],
    [429, {}, 1013, 'the server replied 429'],
  ]) {
    const { stream, received } = build();
    stream.respond(status, body);
    await flushPromises();
    assert.deepEqual(received, [['close', code, reason]]);
  }
});

test('rejects a response that is not an event stream', async () => {
  const { stream, received } = build();
  stream.begin('text/html');
  await flushPromises();
  assert.deepEqual(received, [['close', 1002, 'not an event stream']]);
});

test('ends if a request fails', async () => {
  for (const act of [(post) => post.fail('offline'), (post) => post.respond(404, { detail: 'there is no such stream' })]) {
    const { socket, received, stream, posts } = await buildOpen();
    socket.send('1');
    await flushPromises();
    socket.send('2');
    act(posts()[0]);
    await flushPromises();
    assert.deepEqual(received.map(([type, code]) => [type, code]), [['close', 1006]]);
    assert.ok(stream.aborted);
    assert.equal(posts().length, 1, 'queued messages are not sent');
  }
});

test('sends queued messages before closing', async () => {
  const { socket, stream, received, posts, clock } = await buildOpen();
  socket.send('1');
  await flushPromises();
  socket.send('2');
  socket.close();
  socket.close();
  socket.send('3');
  posts()[0].respond(204);
  await flushPromises();
  assert.deepEqual(posts().map(({ body }) => body), ['1\n', '2\n']);
  assert.ok(!stream.aborted);
  posts()[1].respond(204);
  await flushPromises();
  assert.ok(stream.aborted);
  assert.deepEqual(received, [['close', 1000, '']]);
  assert.equal(clock.timers.size, 0);
});

test('closes after a timeout without a response', async () => {
  const { socket, stream, received, clock } = await buildOpen();
  socket.send('1');
  socket.close();
  await flushPromises();
  clock.advance(CLOSE_TIMEOUT_MS - 1);
  assert.ok(!stream.aborted);
  clock.advance(1);
  await flushPromises();
  assert.ok(stream.aborted);
  assert.deepEqual(received, [['close', 1000, '']]);
});

test('closes at once before the welcome', async () => {
  const { socket, stream, received, posts } = build();
  socket.send('1');
  socket.close();
  await flushPromises();
  assert.ok(stream.aborted);
  assert.deepEqual([posts().length, received], [0, [['close', 1000, '']]]);
});
