// Tests of the modules behind the list of events: filter, earlier events, copies and files.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';

import { describeBytes, pictureIn, withBytes } from '../../twistedsock/static/bytes.js';
import { describeBeginning, EarlierEvents } from '../../twistedsock/static/earlier-events.js';
import { readFilter } from '../../twistedsock/static/event-filter.js';
import { curlCommand, eventJson, fileName, pubLine, toCsv, toJson } from '../../twistedsock/static/event-formats.js';
import { jsonTokens } from '../../twistedsock/static/format.js';
import { differences, fieldsOf, jsonText, numberIn, payloadText } from '../../twistedsock/static/payloads.js';

const eventOf = (data, more = {}) => ({ channel: 'kitchen', offset: 3, time: Date.UTC(2026, 10, 29, 22, 30), from: 'ann', name: 'message', data, ...more });

// ---- payloads ----

test('lists the fields of a payload by path', () => {
  assert.deepEqual(fieldsOf({ celsius: 21.5, limits: { max: 30, min: null }, list: [1, { a: 2 }], none: {} }), [
    ['celsius', 21.5], ['limits.max', 30], ['limits.min', null], ['list.0', 1], ['list.1.a', 2], ['none', {}],
  ]);
  for (const data of ['21.5', 21.5, true, null]) assert.deepEqual(fieldsOf(data), [['value', data]]);
  assert.equal(fieldsOf(Array(5000).fill(0)).length, 1000);
});

test('reads numbers, also from text', () => {
  assert.deepEqual([21.5, '21.5', ' -3 ', '.5', '1e3'].map(numberIn), [21.5, 21.5, -3, 0.5, 1000]);
  for (const value of ['', ' ', 'x', '21 °C', true, null, undefined, []]) assert.ok(Number.isNaN(numberIn(value)), String(value));
});

test('finds the differences between two payloads', () => {
  assert.deepEqual(differences({ a: 1, b: { c: 2 }, d: 3 }, { b: { c: 4 }, a: 1, e: 5 }), [
    { path: 'b.c', before: 2, after: 4 }, { path: 'e', after: 5 }, { path: 'd', before: 3 },
  ]);
  assert.deepEqual(differences({ a: [1] }, { a: [1] }), []);
  assert.deepEqual(differences('on', 'off'), [{ path: 'value', before: 'on', after: 'off' }]);
});

test('writes numbers beyond the range of JavaScript as numbers', () => {
  const data = JSON.parse('{"x":1e400,"list":[-1e999,null,"null","1e400"]}');
  assert.equal(jsonText(data), '{"x":1e400,"list":[-1e400,null,"null","1e400"]}');
  assert.equal(jsonText({ a: null }, 2), '{\n  "a": null\n}');
  assert.equal(payloadText(Infinity), '1e400');
  assert.deepEqual(differences({ x: 1 }, data).slice(0, 1), [{ path: 'x', before: 1, after: Infinity }]);
  assert.equal(differences({ x: null }, { x: Infinity }).length, 1);
  assert.match(pubLine(eventOf(data)), / \{"x":1e400,/);
  assert.match(curlCommand(eventOf(data), 'http://h', false), /"x":1e400,/);
  for (const text of [toJson([eventOf(data)]), eventJson(eventOf(data)), toCsv([eventOf(data)])]) assert.match(text, /x"*: ?1e400,/);
  assert.deepEqual(jsonTokens({ x: Infinity }, false, 100).tokens.filter(([kind]) => kind === 'number'), [['number', '1e400']]);
});

// ---- bytes ----

const PNG = Uint8Array.from(Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAoAAAAHgCAYAAAA=', 'base64')); // 640 × 480, cut off
const LINE = Uint8Array.from([0, 255, 10]);

const withSize = (head, ...rest) => Uint8Array.from([...Buffer.from(head, 'latin1'), ...rest]);

test('recognises pictures and their size', () => {
  const jpeg = withSize('\xff\xd8\xff\xe0\x00\x04ab\xff\xc4\x00\x02\xff\xc2\x00\x11\x08', 1, 0xe0, 2, 0x80);
  for (const [bytes, type, width, height] of [
    [PNG, 'image/png', 640, 480],
    [withSize('GIF89a', 0x80, 2, 0xe0, 1), 'image/gif', 640, 480],
    [jpeg, 'image/jpeg', 640, 480],
    [withSize('RIFF....WEBPVP8 ....\x00\x00\x00\x9d\x01\x2a', 0x80, 2, 0xe0, 0x41), 'image/webp', 640, 480],
    [withSize('RIFF....WEBPVP8L....\x2f', 0x7f, 0xc2, 0x77, 0), 'image/webp', 640, 480],
    [withSize('RIFF....WEBPVP8X....\x10\x00\x00\x00', 0x7f, 2, 0, 0xdf, 1, 0), 'image/webp', 640, 480],
  ]) {
    const picture = pictureIn(bytes);
    assert.deepEqual([picture.type, picture.width, picture.height, picture.shown], [type, width, height, true]);
  }
});

test('shows no picture that is too large, has no size or could run a script', () => {
  const large = PNG.slice();
  large.set([0, 0, 0x4e, 0x20], 16); // 20,000 pixels wide
  assert.equal(pictureIn(large.slice()).shown, true);
  large.set([0, 0, 0x4e, 0x20], 20);
  assert.equal(pictureIn(large).shown, false);
  for (const bytes of [PNG.subarray(0, 18), withSize('GIF89a'), withSize('\xff\xd8\xff'), withSize('\xff\xd8\xff\xe0\x00\x04ab\x00'), withSize('RIFF....WEBPVP8 ')]) {
    assert.equal(pictureIn(bytes).shown, false);
  }
  for (const text of ['<svg xmlns="http://www.w3.org/2000/svg">', '<html>', '%PDF-1.7', 'BM', '', 'RIFF....WAVEfmt ']) assert.equal(pictureIn(withSize(text)), undefined);
});

test('describes bytes', () => {
  assert.equal(describeBytes(LINE), '3 bytes');
  assert.equal(describeBytes(LINE.subarray(0, 1)), '1 byte');
  assert.equal(describeBytes(new Uint8Array(12_345)), '12.3 kB');
  assert.equal(describeBytes(PNG), 'PNG image, 640 × 480, 29 bytes');
  assert.equal(describeBytes(withSize('GIF89a')), 'GIF image, 6 bytes');
  assert.equal(payloadText(LINE), '3 bytes');
  assert.deepEqual(fieldsOf(LINE), [['size', 3]]);
});

test('finds the differences between bytes', () => {
  assert.deepEqual(differences(LINE, LINE.slice()), []);
  const other = Uint8Array.from([1, 2, 3]);
  assert.deepEqual(differences(LINE, other), [{ path: 'bytes', before: LINE, after: other }]);
  assert.deepEqual(differences(LINE, PNG), [{ path: 'size', before: 3, after: PNG.length }]);
});

test('filters bytes by their description and size', () => {
  for (const [text, wanted] of [['png', true], ['size>20', true], ['size>2000', false], ['gif', false]]) assert.equal(readFilter(text).matches(eventOf(PNG)), wanted);
});

test('copies and saves bytes as base64', () => {
  const event = eventOf(LINE, { name: 'photo' });
  assert.equal(pubLine(event), 'PUBBIN kitchen AP8K');
  assert.equal(curlCommand(event, 'http://h', false), "printf %s 'AP8K' | base64 -d | curl -H 'Content-Type: application/octet-stream' --data-binary @- 'http://h/channels/kitchen/events?name=photo'");
  const { base64, data } = JSON.parse(eventJson(event));
  assert.deepEqual([base64, data], ['AP8K', undefined]);
  assert.equal(toCsv([event]), 'time,channel,offset,from,name,data\r\n2026-11-29T22:30:00.000Z,kitchen,3,ann,photo,AP8K\r\n');
  assert.match(toCsv([eventOf(new Uint8Array([0xfb, 0xef, 0xbe]))]), /,'\+\+\+\+\r\n$/);
});

test('reads events of the HTTP API', () => {
  assert.deepEqual(withBytes({ offset: 3, base64: 'AP8K' }), { offset: 3, data: LINE });
  assert.deepEqual(withBytes({ offset: 3, data: null }), { offset: 3, data: null });
});

// ---- filter ----

const READING = eventOf({ celsius: 22.5, limits: { max: 30 }, list: [1, 50], state: 'on fire', on: true });

for (const [text, wanted] of [
  ['', undefined], ['  ', undefined], ['kitchen', true], ['ANN', true], ['celsius', true], ['cellar', false], ['kitchen cellar', false],
  ['!cellar', true], ['!kitchen', false], ['"on fire"', true], ['"fire on"', false], ['!', false],
  ['celsius>22', true], ['celsius > 22', true], ['celsius>22.5', false], ['celsius>=22.5', true], ['celsius<-1', false], ['celsius<=1e2', true],
  ['celsius=22.5', true], ['celsius=22.50', true], ['celsius!=22.5', false], ['limits.max=30', true], ['max<31', true], ['CELSIUS>22', true],
  ['list>40', true], ['list.0>40', false], ['state="on fire"', true], ['state!=off', true], ['state>1', false], ['on=true', true], ['gone!=1', false],
  ['!celsius>30', true], ['celsius>22 max>31', false], ['from=ann', true], ['offset>=3', true], ['channel=attic', false],
]) test(`the filter ${JSON.stringify(text)} ${wanted === undefined ? 'is empty' : wanted ? 'matches' : 'does not match'}`, () => {
  const { matches, error } = readFilter(text);
  assert.equal(error, '');
  assert.equal(matches?.(READING), wanted);
});

test('filters payloads that are a number or a text', () => {
  for (const data of [21.5, '21.5']) {
    assert.ok(readFilter('value>21').matches(eventOf(data)));
    assert.ok(!readFilter('value>22').matches(eventOf(data)));
  }
  assert.ok(readFilter('bread').matches(eventOf('the Bread is ready')));
  assert.ok(!readFilter('value>1').matches(eventOf('bread')));
});

for (const [text, hint] of [
  ['celsius>', /Write a value after “celsius>”, such as celsius>22/],
  ['celsius > ', /Write a value/],
  ['>22', /Write a field before “>”.*quotation marks: ">22"/],
  ['<img', /quotation marks: "<img"/],
  ['celsius>warm', /“warm” is not a number/],
  ['celsius>""', /is not a number/],
  ['"open', /Close the quotation marks: "open"/],
  ['kitchen max<=x', /“x” is not a number: <= compares numbers/],
]) test(`explains the filter ${text}`, () => {
  const { matches, error } = readFilter(text);
  assert.equal(matches, undefined);
  assert.match(error, hint);
});

// ---- copies ----

/** Payloads that run a command, read a file or move the cursor if they are pasted without care. */
const HOSTILE = [
  '$(touch owned)', '`touch owned`', '; touch owned', '| touch owned', '&& touch owned', '" ; touch owned ; "', "'; touch owned; '",
  'two\ntouch owned', '\u0015touch owned\r', '\u001b[201~touch owned\n', '\u009b201~touch owned', '@/etc/passwd', '\\', '!touch', '~ * ? %s', '\u2028', '\u202eevil', ' padded ', '{"no json', '[', '"',
  '', '-d', '#', '<(touch owned)', '温室 🌡',
];

const readLine = (line) => {
  const payload = line.replace(/^PUB \S+ /, '');
  try {
    return /^[{["]/.test(payload) ? JSON.parse(payload) : payload;
  } catch {
    return payload;
  }
};

test('copied PUB lines publish exactly the payload and do nothing in a shell', () => {
  for (const text of HOSTILE) for (const data of [text, { [text]: [text, -1.5e300, null] }]) {
    const line = pubLine(eventOf(data));
    assert.deepEqual(readLine(line), data);
    assert.ok(!/[\p{C}\u2028]/u.test(line), line);
    // The shell finds one command with that name and nothing else.
    const ran = execFileSync('bash', ['--norc', '-c', `PUB() { :; }; touch() { echo touched; }; ${line}\necho end`], { encoding: 'utf8', stdio: 'pipe' });
    assert.equal(ran, 'end\n', line);
  }
  assert.equal(pubLine(eventOf('21.5')), 'PUB kitchen 21.5');
  assert.equal(pubLine(eventOf({ celsius: 21.5 })), 'PUB kitchen {"celsius":21.5}');
});

test('copied curl commands send exactly the payload', () => {
  for (const text of HOSTILE) for (const data of [text, { [text]: text }]) {
    const command = curlCommand(eventOf(data, { channel: "a/it's b", name: 'two & more' }), 'http://127.0.0.1:8082', true);
    const words = execFileSync('bash', ['-c', `curl() { printf '%s\\0' "$@"; }; ${command}`], { encoding: 'utf8', env: { ...process.env, TOKEN: 't' } }).split('\0');
    const body = words[words.indexOf('--data-raw') + 1];
    assert.deepEqual(words[3] === 'Content-Type: application/json' ? JSON.parse(body) : body, data);
    assert.deepEqual(words.slice(0, 3), ['-H', 'Authorization: Bearer t', '-H']);
    assert.equal(words.at(-2), 'http://127.0.0.1:8082/channels/a/it\'s%20b/events?name=two%20%26%20more');
    assert.ok(!/[\p{C}\u2028]/u.test(command), command);
  }
  assert.equal(curlCommand(eventOf('21.5'), 'http://h', false), "curl -H 'Content-Type: text/plain' --data-raw 21.5 http://h/channels/kitchen/events");
});

// ---- files ----

test('exports JSON with one event a line', () => {
  const events = [eventOf('a'), eventOf({ celsius: 21.5 }, { offset: 4 })];
  const exported = JSON.parse(toJson(events));
  assert.deepEqual(exported[1], { channel: 'kitchen', offset: 4, time: '2026-11-29T22:30:00.000Z', from: 'ann', name: 'message', data: { celsius: 21.5 } });
  assert.equal(toJson(events).split('\n').length, 5);
  assert.deepEqual(JSON.parse(toJson([])), []);
  assert.deepEqual(JSON.parse(eventJson(events[0])), exported[0]);
});

test('exports CSV with a column for each field', () => {
  const csv = toCsv([eventOf({ celsius: -2, note: 'a, "b"\nc' }), eventOf('21.5', { offset: 4 }), eventOf({ on: true, celsius: null }, { offset: 5 })]);
  assert.equal(csv, [
    'time,channel,offset,from,name,data,celsius,note,on',
    '2026-11-29T22:30:00.000Z,kitchen,3,ann,message,"{""celsius"":-2,""note"":""a, \\""b\\""\\nc""}",-2,"a, ""b""\nc",',
    '2026-11-29T22:30:00.000Z,kitchen,4,ann,message,21.5,,,',
    '2026-11-29T22:30:00.000Z,kitchen,5,ann,message,"{""on"":true,""celsius"":null}",,,true',
    '',
  ].join('\r\n'));
});

test('exports no formula in CSV, but leaves numbers as they are', () => {
  for (const formula of ['=1+1', '+cmd|calc', '-2+3', '@SUM(A1)', '\t=1', '\r=1', ' =1', '＝1', '|x']) {
    const [heads, row] = toCsv([eventOf({ [formula]: formula }, { from: formula.trim() })]).split(/\r\n(?=\d|$)/);
    for (const cell of [heads.split(',').slice(6).join(','), row.split(',')[3]]) assert.match(cell, /^"?'/, JSON.stringify(formula));
  }
  assert.match(toCsv([eventOf('-5.5e-3')]), /,-5.5e-3\r\n$/);
});

test('names files safely', () => {
  const date = new Date(Date.UTC(2026, 10, 29, 22, 30, 5));
  assert.equal(fileName(['home/kitchen'], date, 'csv'), 'sockbridge-home-kitchen-2026-11-29T22-30-05.csv');
  assert.equal(fileName(['a', 'b'], date, 'json'), 'sockbridge-2-channels-2026-11-29T22-30-05.json');
  assert.equal(fileName(['../../.bashrc'], date, 'csv'), 'sockbridge-bashrc-2026-11-29T22-30-05.csv');
  assert.equal(fileName(['温室'], date, 'csv'), 'sockbridge-温室-2026-11-29T22-30-05.csv');
  for (const name of ['..', '\\', 'con:', 'a"b', `${'x'.repeat(300)}`]) assert.match(fileName([name], date, 'csv'), /^sockbridge-[\w-]{1,100}\.csv$/);
});

// ---- earlier events ----

/** The histories of some channels: offsets with their times, of which those up to `gone` have been deleted. */
function historiesOf(channels) {
  const requests = [];
  const history = async (name, { since, before = Infinity, last }) => {
    requests.push(name);
    const { times, gone = 0, epoch = 'e1', error } = channels[name];
    if (error) throw error;
    const wanted = times.map((time, index) => ({ channel: name, offset: index + 1, time })).filter(({ offset }) => offset > since && offset < before);
    const events = wanted.filter(({ offset }) => offset > gone).slice(-last);
    const missing = wanted.slice(-last).filter(({ offset }) => offset <= gone);
    return { events, offset: times.length, epoch, ...(missing.length ? { lost: [{ first: 1, last: gone }] } : {}) };
  };
  return { history, requests };
}

const steps = (count, step, start = 0) => Array.from({ length: count }, (_, index) => start + index * step);

async function readAll(earlier) {
  const pages = [];
  while (!earlier.done) pages.push(await earlier.next());
  return pages;
}

test('reads the histories of several channels backwards in one order by time', async () => {
  const { history } = historiesOf({ fast: { times: steps(50, 1, 150) }, slow: { times: steps(20, 10) } });
  const pages = await readAll(new EarlierEvents(history, [{ name: 'fast', before: 41 }, { name: 'slow' }], 10));
  const events = [...pages].reverse().flat();
  assert.equal(events.length, 60);
  assert.deepEqual(events.map(({ time }) => time), events.map(({ time }) => time).sort((a, b) => a - b));
  assert.equal(new Set(events.map(({ channel, offset }) => `${channel} ${offset}`)).size, 60);
  assert.ok(pages.every((page) => page.length <= 10));
});

test('reports what the histories no longer contain', async () => {
  const { history } = historiesOf({ whole: { times: steps(5, 1) }, cut: { times: steps(30, 1), gone: 12 }, once: { times: steps(3, 1), gone: 1 }, empty: { times: [] } });
  const end = async (...sources) => {
    const earlier = new EarlierEvents(history, sources, 10);
    await readAll(earlier);
    return describeBeginning(earlier);
  };
  assert.equal(await end({ name: 'whole', before: 3 }), 'There are no earlier events.');
  assert.equal(await end({ name: 'empty' }), 'There are no earlier events.');
  assert.equal(await end({ name: 'cut' }, { name: 'whole' }), 'Events 1–12 of cut are no longer in the history.');
  assert.equal(await end({ name: 'cut', before: 13 }), 'Events 1–12 of cut are no longer in the history.');
  assert.equal(await end({ name: 'once' }), 'Event 1 of once is no longer in the history.');
  assert.match(await end(...Array(5).fill({ name: 'cut' })), /The same is true for 2 more\.$/);
});

test('reads nothing before the first event or before a reset', async () => {
  const { history, requests } = historiesOf({ whole: { times: steps(5, 1) } });
  const earlier = new EarlierEvents(history, [{ name: 'whole', before: 1 }, { name: 'reset', before: 7, former: true }]);
  assert.ok(earlier.done);
  assert.deepEqual(requests, []);
  assert.equal(describeBeginning(earlier), 'Events of reset before its reset are no longer in the history.');
});

test('reads the events of a gap, and no earlier ones', async () => {
  const { history } = historiesOf({ fast: { times: steps(50, 1) }, slow: { times: steps(20, 10) }, cut: { times: steps(30, 1), gone: 12 } });
  const pages = await readAll(new EarlierEvents(history, [{ name: 'fast', first: 5, before: 36 }, { name: 'slow', first: 3, before: 4 }], 10));
  const events = [...pages].reverse().flat();
  assert.deepEqual(events.filter(({ channel }) => channel === 'fast').map(({ offset }) => offset), steps(31, 1, 5));
  assert.deepEqual(events.filter(({ channel }) => channel === 'slow').map(({ offset }) => offset), [3]);
  const cut = new EarlierEvents(history, [{ name: 'cut', first: 6, before: 20 }], 10);
  assert.deepEqual((await readAll(cut)).flat().map(({ offset }) => offset), steps(7, 1, 13));
  assert.equal(describeBeginning(cut), 'Events 1–12 of cut are no longer in the history.');
});

test('stops at a new epoch, and at a missing right', async () => {
  const channels = { kitchen: { times: steps(30, 1) }, locked: { error: Object.assign(new Error('no'), { code: 'forbidden' }) } };
  const earlier = new EarlierEvents(historiesOf(channels).history, [{ name: 'kitchen' }, { name: 'locked' }], 10);
  await earlier.next();
  channels.kitchen.epoch = 'e2';
  assert.deepEqual(await earlier.next(), []);
  assert.ok(earlier.done);
  assert.equal(describeBeginning(earlier), 'Events of kitchen before its reset are no longer in the history. You can’t read the history of locked.');
});

test('continues after a lost connection', async () => {
  const channels = { kitchen: { times: steps(30, 1) } };
  const earlier = new EarlierEvents(historiesOf(channels).history, [{ name: 'kitchen' }], 10);
  await earlier.next();
  channels.kitchen.error = Object.assign(new Error('gone'), { code: 'disconnected' });
  await assert.rejects(earlier.next(), { code: 'disconnected' });
  channels.kitchen.error = undefined;
  assert.equal((await earlier.next())[0].offset, 11);
});
