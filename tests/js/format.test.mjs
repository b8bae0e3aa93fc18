// Tests of format.js and line-endpoints.js, without a browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  CHANNEL_BYTES, CHANNELS_LIMIT, clockTime, describeAccessError, describeCaughtUp, describeError, describeGap, describeIdentity,
  describePresence, describeReset, describeTimeLeft, exactTime, isAccessError, jsonError, jsonTokens, nameError, plural, readBound,
  readHash, readPayload, readToken, timeSince, tokenError, tokenInHash, toSentence, withoutToken, writeHash,
} from '../../twistedsock/static/format.js';
import { describeNoEndpoint, lineEndpointOf, terminalCommands } from '../../twistedsock/static/line-endpoints.js';

const drawn = (value, pretty = false, budget = Infinity) => jsonTokens(value, pretty, budget).tokens.map(([, text]) => text).join('');

test('converts channels to a URL hash and back', () => {
  assert.deepEqual(readHash('#kitchen,garden'), ['kitchen', 'garden']);
  assert.deepEqual(readHash(''), []);
  assert.deepEqual(readHash('#'), []);
  for (const names of [['kitchen'], ['a,b', 'c'], ['küche', '温室', 'a/b', 'a%b', 'a&b="c"']]) {
    assert.deepEqual(readHash(writeHash(names)), names);
  }
});

test('ignores invalid, repeated and excess channels in a URL hash', () => {
  assert.deepEqual(readHash('#kitchen,,kitchen,gar den,a*b,100%'), ['kitchen', '100%']);
  assert.equal(readHash(`#${Array.from({ length: 1000 }, (_, index) => `channel${index}`).join(',')}`).length, CHANNELS_LIMIT);
});

test('finds a token in a URL hash and does not treat it as a channel', () => {
  const token = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl-_';
  for (const [hash, rest] of [[`#token=${token}`, []], [`#kitchen,token=${token}`, ['kitchen']], [`#token=${token},kitchen,garden`, ['kitchen', 'garden']]]) {
    assert.equal(tokenInHash(hash), token);
    assert.deepEqual(readHash(hash), rest);
    assert.equal(withoutToken(hash), writeHash(rest));
  }
  // An unsigned token counts as a token. Names that only resemble one are channels.
  assert.deepEqual(readHash('#token=a.b.'), []);
  for (const hash of ['#kitchen', '#token', '#token=', '#token=a.b', '#my-token=a.b.c']) {
    assert.equal(tokenInHash(hash), undefined);
    assert.equal(withoutToken(hash), hash);
  }
});

test('cleans up pasted tokens and rejects text that cannot be one', () => {
  for (const text of ['a.b-.c_', ' a.b-.c_\n', 'AUTH a.b-.c_', 'auth  a.b-.c_', 'Bearer a.b-.c_', 'token=a.b-.c_', '"a.b-.c_"', 'a.b\n-.\r\n  c_']) {
    assert.equal(readToken(text), 'a.b-.c_', text);
  }
  assert.equal(tokenError('a.b-.c_'), '');
  assert.match(tokenError(''), /first/);
  for (const text of ['a', 'a.b', 'a.b.', 'a.b.c.d', 'a.b.c=', 'é.b.c']) assert.match(tokenError(text), /doesn’t look like a token/, text);
});

test('describes missing rights, identities and the lifetime of tokens', () => {
  assert.ok(isAccessError({ code: 'unauthorized' }) && isAccessError({ code: 'forbidden' }) && !isAccessError({ code: 'limit' }));
  assert.equal(describeAccessError('read', 'kitchen', 'unauthorized', 'ann'), 'A token is required to read kitchen.');
  assert.equal(describeAccessError('publish on', 'kitchen', 'forbidden', 'ann'), 'As ann, you can’t publish on kitchen.');
  assert.equal(describeAccessError('read', 'kitchen', 'forbidden'), 'You can’t read kitchen.');
  assert.equal(describeIdentity('~bob', 'k3x9'), 'Other people see you as ~bob. ~ marks an unverified name.');
  assert.equal(describeIdentity('k3x9', 'k3x9'), 'Other people see you as k3x9.');
  assert.equal(describeIdentity('ann', 'k3x9'), 'Verified as ann.');
  for (const [seconds, words] of [
    [-1, 'less than a minute'], [59, 'less than a minute'], [60, '1 minute'], [3599, '59 minutes'], [7199, '119 minutes'], [7200, '2 hours'],
    [172_799, '47 hours'], [172_800, '2 days'], [31_536_000, '365 days'],
  ]) assert.equal(describeTimeLeft(seconds), `Accepted. Expires in ${words}.`);
  assert.match(describeTimeLeft(undefined), /Never expires/);
});

test('explains why a name is invalid', () => {
  for (const name of ['kitchen', 'a,b', 'küche', '温室', 'a.b/c:d', 'x'.repeat(200)]) assert.equal(nameError(name, CHANNEL_BYTES), '', name);
  assert.match(nameError('', CHANNEL_BYTES), /first/);
  for (const name of ['a b', 'a\tb', 'a\nb', 'a\u00a0b', 'a\u2003b', 'a\u0000b', 'a\u007fb', 'a\u0085b']) assert.match(nameError(name, CHANNEL_BYTES), /spaces/);
  for (const [sign, number] of [
    ['\u00ad', '00AD'], ['\u200b', '200B'], ['\u200d', '200D'], ['\u202e', '202E'], ['\u3164', '3164'], ['\u2800', '2800'], ['\ufe0f', 'FE0F'],
    ['\u{e0041}', 'E0041'],
  ]) assert.equal(nameError(`alerts${sign}`, CHANNEL_BYTES), `Names can’t contain the invisible character U+${number}.`);
  for (const name of ['a*', '>', '#a', 'a+b', 'a?']) assert.match(nameError(name, CHANNEL_BYTES), /patterns/);
  assert.match(nameError('x'.repeat(201), CHANNEL_BYTES), /200 bytes/);
  assert.match(nameError('é'.repeat(101), CHANNEL_BYTES), /200 bytes/, 'the limit counts bytes');
});

test('detects JSON payloads like the line protocol', () => {
  assert.deepEqual(readPayload('{"a": 1}'), { json: true, value: { a: 1 } });
  assert.deepEqual(readPayload('[1]\n'), { json: true, value: [1] });
  assert.deepEqual(readPayload('"text"'), { json: true, value: 'text' });
  for (const text of ['', '21.5', 'true', 'null', 'hello', 'a {"a": 1}']) assert.deepEqual(readPayload(text), { json: false, beginsLikeJson: false });
  for (const text of ['{"a": 1', '[ok]', '"open', '{}{}']) assert.equal(readPayload(text).beginsLikeJson, true, text);
  assert.equal(jsonError('21.5'), '');
  assert.match(jsonError('21.5.'), /Not valid JSON/);
});

test('shows terminal commands for the reported line port, or for the default port', () => {
  const lines = (server, host = 'bridge.test') => terminalCommands(server, host, 'kitchen');
  assert.deepEqual(lines({ lines: [{ kind: 'tcp', host: '127.0.0.1', port: 9000 }] }, '127.0.0.1'), ['telnet 127.0.0.1 9000', 'SUB kitchen', 'PUB kitchen 21.5']);
  assert.equal(lines({ lines: [{ kind: 'tcp', host: '0.0.0.0', port: 9000 }] })[0], 'telnet bridge.test 9000');
  assert.equal(lines({ lines: [{ kind: 'tcp', host: '::', port: 9000 }] }, '[fe80::1]')[0], 'telnet fe80::1 9000');
  assert.equal(lines({ lines: [{ kind: 'unix', path: '/run/bridge' }] }, 'localhost')[0], 'nc -U /run/bridge');
  assert.equal(lines({ lines: [{ kind: 'unix', path: '/run/bridge' }, { kind: 'tcp', host: '::1', port: 1 }] }, '[::1]')[0], 'telnet ::1 1');
  assert.equal(lines({ lines: [{ kind: 'unix', path: '/run/bridge' }, { kind: 'ssl', host: '0.0.0.0', port: 1 }] })[0], 'openssl s_client -quiet -connect bridge.test:1');
  assert.equal(lines({ lines: [{ kind: 'ssl', host: '::1', port: 1 }] }, 'localhost')[0], 'openssl s_client -quiet -connect [::1]:1');
  assert.deepEqual(terminalCommands(undefined, 'bridge.test', 'kitchen', true)[1], 'AUTH your-token');
  // Commands can be pasted into a shell: a link with such a channel must not execute anything.
  for (const name of ['$(reboot)', 'a;b', '`a`', 'a|b', 'a&b', "a'b"]) assert.equal(terminalCommands(undefined, 'bridge.test', name), undefined);
  assert.equal(lines(undefined)[0], 'telnet bridge.test 8081');
  assert.equal(lines({ lines: [] }), undefined);
  assert.equal(lines({}), undefined);
  assert.equal(lines({ lines: [{ kind: 'unix', path: '/run/my bridge' }] }, 'localhost')[0], "nc -U '/run/my bridge'");
});

test('hides line ports that a browser on another machine cannot reach', () => {
  const loopback = [{ kind: 'tcp', host: '127.0.0.1', port: 1 }, { kind: 'tcp', host: '[::1]', port: 2 }, { kind: 'unix', path: '/run/bridge' }];
  const open = { kind: 'ssl', host: '', port: 3 };
  for (const host of ['bridge.test', '192.0.2.1', '[2001:db8::1]']) {
    assert.equal(lineEndpointOf(loopback, host), undefined, host);
    assert.equal(lineEndpointOf([...loopback, open], host).port, 3, host);
  }
  for (const host of ['localhost', 'a.localhost', '127.0.0.1', '127.1.2.3', '[::1]', '[::ffff:127.0.0.1]']) {
    assert.equal(lineEndpointOf(loopback, host).port, 1, host);
  }
  assert.match(describeNoEndpoint(loopback), /from the same machine/);
  assert.match(describeNoEndpoint([]), /no line port/);
});

test('draws JSON compact and pretty without changing its value', () => {
  const value = { celsius: 21.5, on: true, off: null, list: [1, [], {}, 'a"b'], deep: { a: { b: [{ c: -1e-7 }] } } };
  assert.equal(drawn({ a: 1, b: [true, null] }), '{"a": 1, "b": [true, null]}');
  assert.equal(drawn({ a: [1] }, true), '{\n  "a": [\n    1\n  ]\n}');
  assert.deepEqual(JSON.parse(drawn(value)), value);
  assert.deepEqual(JSON.parse(drawn(value, true)), value);
  for (const scalar of [0, -1.5, true, null]) assert.equal(drawn(scalar), String(scalar));
});

test('distinguishes the kinds of JSON tokens', () => {
  assert.deepEqual(jsonTokens({ a: 'b', c: 1, d: null }, false, 100).tokens, [
    ['mark', '{'], ['key', '"a"'], ['mark', ': '], ['string', '"b"'], ['mark', ', '], ['key', '"c"'], ['mark', ': '], ['number', '1'],
    ['mark', ', '], ['key', '"d"'], ['mark', ': '], ['word', 'null'], ['mark', '}'],
  ]);
});

test('cuts JSON at the budget', () => {
  const long = Array.from({ length: 10_000 }, (_, index) => index);
  assert.equal(drawn(long, false, 50).length, 50);
  assert.equal(jsonTokens(long, false, 50).cut, true);
  assert.equal(jsonTokens([1], false, 3).cut, false);
  assert.equal(jsonTokens([1], false, 2).cut, true);
  assert.equal(jsonTokens('x'.repeat(60_000), true, 50).cut, true);
});

test('limits the depth of JSON', () => {
  const deep = JSON.parse('['.repeat(30_000) + ']'.repeat(30_000));
  assert.ok(drawn(deep, true).includes('[…]'));
});

test('describes gaps, errors, joins and counts', () => {
  assert.equal(describeGap({ channel: 'kitchen', reason: 'log', first: 3, last: 9 }), 'Missed 7 events on kitchen (3–9): no longer in the history.');
  assert.equal(describeGap({ channel: 'kitchen', reason: 'log', first: 3, last: 3 }), 'Missed 1 event on kitchen (3): no longer in the history.');
  const epoch = { channel: 'kitchen', reason: 'epoch' };
  assert.equal(describeGap({ ...epoch, first: 13 }), 'The server has reset kitchen: events after 12 may be missing, and earlier ones may no longer be valid.');
  assert.equal(describeGap({ ...epoch, first: 1 }), 'The server has reset kitchen: earlier events may be missing.');
  for (const text of ['the server is shutting down', 'The server is shutting down.']) assert.equal(toSentence(text), 'The server is shutting down.');
  assert.equal(toSentence(''), '');
  assert.match(describeError({ code: 'disconnected', message: '' }), /may or may not/);
  assert.match(describeError({ code: 'queue-full', message: '' }), /queued/);
  assert.equal(describeError({ code: 'forbidden', message: 'not for you' }), 'not for you (forbidden)');
  assert.equal(describePresence('join', 'kitchen', ['ann'], 1), 'ann joined kitchen');
  assert.equal(describePresence('leave', 'kitchen', ['ann', 'bo'], 2), 'ann and bo left kitchen');
  assert.equal(describePresence('join', 'kitchen', ['ann', 'bo', 'cy'], 1004), 'ann, bo, cy and 1,001 more joined kitchen');
  assert.equal(plural(1, 'event'), '1 event');
  assert.equal(plural(1200, 'event'), '1,200 events');
});

test('parses bounds of a history', () => {
  const now = new Date(2026, 10, 29, 14, 30);
  const cases = [
    ['18', 18], ['0', 0], ['-10m', '-10m'], ['-1h', '-1h'], ['-500ms', '-500ms'],
    ['14:29', new Date(2026, 10, 29, 14, 29)], ['14:30:00.5', new Date(2026, 10, 28, 14, 30, 0, 500)], ['23:00', new Date(2026, 10, 28, 23)],
    ['2026-11-01', new Date(2026, 10, 1)], ['2026-11-01 05:06:07', new Date(2026, 10, 1, 5, 6, 7)], ['2026-11-01T05:06', new Date(2026, 10, 1, 5, 6)],
    ['2026-11-29T05:00:00Z', new Date(Date.UTC(2026, 10, 29, 5))], ['2026-11-29T05:00:00+01:00', new Date(Date.UTC(2026, 10, 29, 4))],
    ...['', 'many', '1764394200123', '-10', '10m', '25:00', '5:00', '2026-13-01', '05:00Z', '-1w', '1.5'].map((text) => [text, undefined]),
  ];
  for (const [text, bound] of cases) assert.deepEqual(readBound(text, now), bound, text);
});

test('describes new epochs', () => {
  const reset = { channel: 'kitchen', epoch: 'e2', good: 17, offset: 17 };
  assert.equal(describeReset(reset, 20), 'The server has reset kitchen: events 18–20 are no longer valid. New events continue at 18.');
  assert.equal(describeReset(reset, 18), 'The server has reset kitchen: event 18 is no longer valid. New events continue at 18.');
  assert.equal(describeReset({ ...reset, offset: 0 }, 17), 'The server has reset kitchen: no events were lost. Offsets begin again at 1.');
});

test('describes the events that were replayed after an outage', () => {
  assert.equal(describeCaughtUp([['kitchen', 1]]), 'Caught up: 1 missed event on kitchen.');
  assert.equal(describeCaughtUp([['kitchen', 1], ['chat', 3], ['attic', 2]]), 'Caught up: 1 missed event on kitchen, 3 missed events on chat and 2 missed events on attic.');
});

test('formats local times, with the date on other days', () => {
  const date = new Date(2026, 0, 2, 3, 4, 5, 6);
  assert.equal(clockTime(date), '03:04:05');
  assert.equal(clockTime(date, new Date(2026, 0, 2, 23, 59, 59)), '03:04:05');
  assert.equal(clockTime(date, new Date(2026, 0, 3)), 'Jan 2 03:04:05');
  assert.equal(exactTime(date), '2026-01-02 03:04:05.006');
});

test('formats the time since a date', () => {
  const now = new Date(2026, 0, 2, 3, 4, 5);
  const minute = 60_000;
  const cases = [
    [-5 * minute, 'just now'], [0, 'just now'], [minute - 1, 'just now'], [minute, '1 min ago'], [60 * minute - 1, '59 min ago'],
    [60 * minute, '1 h ago'], [24 * 60 * minute - 1, '23 h ago'], [24 * 60 * minute, '1 day ago'], [3 * 24 * 60 * minute, '3 days ago'],
  ];
  for (const [age, text] of cases) assert.equal(timeSince(new Date(now - age), now), text);
});
