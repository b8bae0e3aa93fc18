// What the page reads and says, without a browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  CHANNEL_BYTES, CHANNELS_LIMIT, clockTime, describeError, describeGap, describeIdentity, describePresence, describeAccessError,
  describeTimeLeft, isAccessError, jsonError, jsonTokens, nameError, plural, readHash, readPayload, readToken, tokenError,
  tokenInHash, withoutToken, writeHash,
} from '../../twistedsock/static/format.js';
import { describeNoEndpoint, lineEndpointOf, terminalCommands } from '../../twistedsock/static/line-endpoints.js';

const drawn = (value, pretty = false, budget = Infinity) => jsonTokens(value, pretty, budget).tokens.map(([, text]) => text).join('');

test('an address names channels, and gives them back', () => {
  assert.deepEqual(readHash('#kitchen,garden'), ['kitchen', 'garden']);
  assert.deepEqual(readHash(''), []);
  assert.deepEqual(readHash('#'), []);
  for (const names of [['kitchen'], ['a,b', 'c'], ['küche', '温室', 'a/b', 'a%b', 'a&b="c"']]) {
    assert.deepEqual(readHash(writeHash(names)), names);
  }
});

test('an address that is odd, hostile or too long opens what can be opened', () => {
  assert.deepEqual(readHash('#kitchen,,kitchen,gar den,a*b,100%'), ['kitchen', '100%']);
  assert.equal(readHash(`#${Array.from({ length: 1000 }, (_, index) => `channel${index}`).join(',')}`).length, CHANNELS_LIMIT);
});

test('a token in an address is found, and is never a channel', () => {
  const token = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl-_';
  for (const [hash, rest] of [[`#token=${token}`, []], [`#kitchen,token=${token}`, ['kitchen']], [`#token=${token},kitchen,garden`, ['kitchen', 'garden']]]) {
    assert.equal(tokenInHash(hash), token);
    assert.deepEqual(readHash(hash), rest);
    assert.equal(withoutToken(hash), writeHash(rest));
  }
  // Half a token is one, too; a channel that only looks a little like it is a channel.
  assert.deepEqual(readHash('#token=a.b.'), []);
  for (const hash of ['#kitchen', '#token', '#token=', '#token=a.b', '#my-token=a.b.c']) {
    assert.equal(tokenInHash(hash), undefined);
    assert.equal(withoutToken(hash), hash);
  }
});

test('a token is read as it was meant, and what cannot be one is refused', () => {
  for (const text of ['a.b-.c_', ' a.b-.c_\n', 'AUTH a.b-.c_', 'auth  a.b-.c_', 'Bearer a.b-.c_', 'token=a.b-.c_', '"a.b-.c_"', 'a.b\n-.\r\n  c_']) {
    assert.equal(readToken(text), 'a.b-.c_', text);
  }
  assert.equal(tokenError('a.b-.c_'), '');
  assert.match(tokenError(''), /first/);
  for (const text of ['a', 'a.b', 'a.b.', 'a.b.c.d', 'a.b.c=', 'é.b.c']) assert.match(tokenError(text), /no token/, text);
});

test('what is not allowed, who one is, and how long a token lasts are sentences', () => {
  assert.ok(isAccessError({ code: 'unauthorized' }) && isAccessError({ code: 'forbidden' }) && !isAccessError({ code: 'limit' }));
  assert.equal(describeAccessError('read', 'kitchen', 'unauthorized', 'ann'), 'It takes a token to read kitchen.');
  assert.equal(describeAccessError('publish on', 'kitchen', 'forbidden', 'ann'), 'As ann, you may not publish on kitchen.');
  assert.equal(describeAccessError('read', 'kitchen', 'forbidden'), 'You may not read kitchen.');
  assert.equal(describeIdentity('~bob', 'k3x9'), 'Others see you as ~bob. The ~ says that no token proves it.');
  assert.equal(describeIdentity('k3x9', 'k3x9'), 'Others see you as k3x9.');
  assert.equal(describeIdentity('ann', 'k3x9'), 'You are ann, and others can rely on it.');
  for (const [seconds, words] of [
    [-1, 'less than a minute'], [59, 'less than a minute'], [60, '1 minute'], [3599, '59 minutes'], [7199, '119 minutes'], [7200, '2 hours'],
    [172_799, '47 hours'], [172_800, '2 days'], [31_536_000, '365 days'],
  ]) assert.equal(describeTimeLeft(seconds), `The bridge has taken it. It runs out in ${words}.`);
  assert.match(describeTimeLeft(undefined), /does not run out/);
});

test('a name is refused in words for what the protocol refuses', () => {
  for (const name of ['kitchen', 'a,b', 'küche', '温室', 'a.b/c:d', 'x'.repeat(200)]) assert.equal(nameError(name, CHANNEL_BYTES), '', name);
  assert.match(nameError('', CHANNEL_BYTES), /first/);
  for (const name of ['a b', 'a\tb', 'a\nb', 'a\u00a0b', 'a\u2003b', 'a\u0000b', 'a\u007fb', 'a\u0085b']) assert.match(nameError(name, CHANNEL_BYTES), /spaces/);
  for (const [sign, number] of [
    ['\u00ad', '00AD'], ['\u200b', '200B'], ['\u200d', '200D'], ['\u202e', '202E'], ['\u3164', '3164'], ['\u2800', '2800'], ['\ufe0f', 'FE0F'],
    ['\u{e0041}', 'E0041'],
  ]) assert.equal(nameError(`alerts${sign}`, CHANNEL_BYTES), `There is an invisible character in it: U+${number}.`);
  for (const name of ['a*', '>', '#a', 'a+b', 'a?']) assert.match(nameError(name, CHANNEL_BYTES), /patterns/);
  assert.match(nameError('x'.repeat(201), CHANNEL_BYTES), /200 bytes/);
  assert.match(nameError('é'.repeat(101), CHANNEL_BYTES), /200 bytes/, 'bytes count, not letters');
});

test('a payload is JSON where a line would make it JSON', () => {
  assert.deepEqual(readPayload('{"a": 1}'), { json: true, value: { a: 1 } });
  assert.deepEqual(readPayload('[1]\n'), { json: true, value: [1] });
  assert.deepEqual(readPayload('"text"'), { json: true, value: 'text' });
  for (const text of ['', '21.5', 'true', 'null', 'hello', 'a {"a": 1}']) assert.deepEqual(readPayload(text), { json: false, beginsLikeJson: false });
  for (const text of ['{"a": 1', '[ok]', '"open', '{}{}']) assert.equal(readPayload(text).beginsLikeJson, true, text);
  assert.equal(jsonError('21.5'), '');
  assert.match(jsonError('21.5.'), /Not JSON/);
});

test('the terminal is told the host and port the bridge tells, or the usual ones', () => {
  const lines = (bridge, host = 'bridge.test') => terminalCommands(bridge, host, 'kitchen');
  assert.deepEqual(lines({ lines: [{ kind: 'tcp', host: '127.0.0.1', port: 9000 }] }, '127.0.0.1'), ['telnet 127.0.0.1 9000', 'SUB kitchen', 'PUB kitchen 21.5']);
  assert.equal(lines({ lines: [{ kind: 'tcp', host: '0.0.0.0', port: 9000 }] })[0], 'telnet bridge.test 9000');
  assert.equal(lines({ lines: [{ kind: 'tcp', host: '::', port: 9000 }] }, '[fe80::1]')[0], 'telnet fe80::1 9000');
  assert.equal(lines({ lines: [{ kind: 'unix', path: '/run/bridge' }] }, 'localhost')[0], 'nc -U /run/bridge');
  assert.equal(lines({ lines: [{ kind: 'unix', path: '/run/bridge' }, { kind: 'tcp', host: '::1', port: 1 }] }, '[::1]')[0], 'telnet ::1 1');
  assert.equal(lines({ lines: [{ kind: 'unix', path: '/run/bridge' }, { kind: 'ssl', host: '0.0.0.0', port: 1 }] })[0], 'openssl s_client -quiet -connect bridge.test:1');
  assert.equal(lines({ lines: [{ kind: 'ssl', host: '::1', port: 1 }] }, 'localhost')[0], 'openssl s_client -quiet -connect [::1]:1');
  assert.deepEqual(terminalCommands(undefined, 'bridge.test', 'kitchen', true)[1], 'AUTH your-token');
  // Who pastes them may meet a shell: a link that names such a channel must not become a command.
  for (const name of ['$(reboot)', 'a;b', '`a`', 'a|b', 'a&b', "a'b"]) assert.equal(terminalCommands(undefined, 'bridge.test', name), undefined);
  assert.equal(lines(undefined)[0], 'telnet bridge.test 8081');
  assert.equal(lines({ lines: [] }), undefined);
  assert.equal(lines({}), undefined);
  assert.equal(lines({ lines: [{ kind: 'unix', path: '/run/my bridge' }] }, 'localhost')[0], "nc -U '/run/my bridge'");
});

test('a browser on another machine is shown no line port that it cannot reach', () => {
  const loopback = [{ kind: 'tcp', host: '127.0.0.1', port: 1 }, { kind: 'tcp', host: '[::1]', port: 2 }, { kind: 'unix', path: '/run/bridge' }];
  const open = { kind: 'ssl', host: '', port: 3 };
  for (const host of ['bridge.test', '192.0.2.1', '[2001:db8::1]']) {
    assert.equal(lineEndpointOf(loopback, host), undefined, host);
    assert.equal(lineEndpointOf([...loopback, open], host).port, 3, host);
  }
  for (const host of ['localhost', 'a.localhost', '127.0.0.1', '127.1.2.3', '[::1]', '[::ffff:127.0.0.1]']) {
    assert.equal(lineEndpointOf(loopback, host).port, 1, host);
  }
  assert.match(describeNoEndpoint(loopback), /its own machine only/);
  assert.match(describeNoEndpoint([]), /no line port open/);
});

test('JSON is drawn whole, compact or pretty, and reads back as itself', () => {
  const value = { celsius: 21.5, on: true, off: null, list: [1, [], {}, 'a"b'], deep: { a: { b: [{ c: -1e-7 }] } } };
  assert.equal(drawn({ a: 1, b: [true, null] }), '{"a": 1, "b": [true, null]}');
  assert.equal(drawn({ a: [1] }, true), '{\n  "a": [\n    1\n  ]\n}');
  assert.deepEqual(JSON.parse(drawn(value)), value);
  assert.deepEqual(JSON.parse(drawn(value, true)), value);
  for (const scalar of [0, -1.5, true, null]) assert.equal(drawn(scalar), String(scalar));
});

test('each kind of token has its own colour', () => {
  assert.deepEqual(jsonTokens({ a: 'b', c: 1, d: null }, false, 100).tokens, [
    ['mark', '{'], ['key', '"a"'], ['mark', ': '], ['string', '"b"'], ['mark', ', '], ['key', '"c"'], ['mark', ': '], ['number', '1'],
    ['mark', ', '], ['key', '"d"'], ['mark', ': '], ['word', 'null'], ['mark', '}'],
  ]);
});

test('drawing stops at its budget, and says so', () => {
  const long = Array.from({ length: 10_000 }, (_, index) => index);
  assert.equal(drawn(long, false, 50).length, 50);
  assert.equal(jsonTokens(long, false, 50).cut, true);
  assert.equal(jsonTokens([1], false, 3).cut, false);
  assert.equal(jsonTokens([1], false, 2).cut, true);
  assert.equal(jsonTokens('x'.repeat(60_000), true, 50).cut, true);
});

test('nesting without end does not take the page down', () => {
  const deep = JSON.parse('['.repeat(30_000) + ']'.repeat(30_000));
  assert.ok(drawn(deep, true).includes('[…]'));
});

test('gaps, faults, joins and counts are sentences', () => {
  assert.equal(describeGap({ channel: 'kitchen', reason: 'log', first: 3, last: 9 }), 'Lost on kitchen: events 3 to 9. The bridge no longer keeps them.');
  assert.equal(describeGap({ channel: 'kitchen', reason: 'log', first: 3, last: 3 }), 'Lost on kitchen: event 3. The bridge no longer keeps it.');
  assert.match(describeGap({ channel: 'kitchen', reason: 'epoch', first: 13 }), /after event 12 may be missing/);
  assert.match(describeGap({ channel: 'kitchen', reason: 'epoch', first: 1 }), /earlier may be missing/);
  assert.match(describeError({ code: 'disconnected', message: '' }), /may or may not/);
  assert.match(describeError({ code: 'queue-full', message: '' }), /waiting/);
  assert.equal(describeError({ code: 'forbidden', message: 'not for you' }), 'not for you (forbidden)');
  assert.equal(describePresence('join', 'kitchen', ['ann'], 1), 'ann joined kitchen');
  assert.equal(describePresence('leave', 'kitchen', ['ann', 'bo'], 2), 'ann and bo left kitchen');
  assert.equal(describePresence('join', 'kitchen', ['ann', 'bo', 'cy'], 1004), 'ann, bo, cy and 1,001 others joined kitchen');
  assert.equal(plural(1, 'event'), '1 event');
  assert.equal(plural(1200, 'event'), '1,200 events');
  assert.equal(clockTime(new Date(2026, 0, 2, 3, 4, 5)), '03:04:05');
});
