// Tests of the values of channels: fields, limits, intervals and formats.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import './fakes.mjs'; // polyfills for old versions of Node.js
import { matches, splitName } from '../../twistedsock/static/board.js';
import { isBoardHash, readHash, writeHash } from '../../twistedsock/static/format.js';
import { axisWidth, labelledTimes, timeLabel } from '../../twistedsock/static/plot.js';
import { sparklinePoints } from '../../twistedsock/static/sparkline.js';
import {
  alignSeries, ChannelValues, formatAge, formatRange, formatValue, gapLength, isSilent, MAX_FIELDS, numbersIn, Series, ServerClock, summarize,
  usualInterval,
} from '../../twistedsock/static/values.js';

const plain = (text) => text.replaceAll('\u202f', ' ');

/** Values of events with offsets from 1 on and one second between them. */
function valuesOf(payloads, maxPoints) {
  const values = new ChannelValues(maxPoints);
  for (const [index, data] of payloads.entries()) values.add({ offset: index + 1, time: 1000 * (index + 1), data });
  return values;
}

// ---- fields ----

test('finds numbers in texts, numbers and nested JSON', () => {
  assert.deepEqual(numbersIn({ celsius: 21.5, limits: { max: 30, name: 'x' }, list: [1, { a: 2 }], on: true, none: null }), [
    ['celsius', 21.5], ['limits.max', 30], ['list.0', 1], ['list.1.a', 2],
  ]);
  for (const [text, number] of [['21.5', 21.5], [' -3 ', -3], ['+.5', 0.5], ['1e3', 1000], ['7.', 7]]) assert.deepEqual(numbersIn(text), [['value', number]]);
  assert.deepEqual(numbersIn(4), [['value', 4]]);
});

test('finds no numbers in other payloads', () => {
  for (const data of ['', ' ', 'hello', '21.5 °C', '0x10', 'Infinity', 'NaN', '1e999', '1,5', '1'.repeat(41), null, true, {}, [], { a: '5' }, new Uint8Array(3)]) assert.deepEqual(numbersIn(data), []);
});

test('ignores numbers beyond the limits of a payload', () => {
  assert.equal(numbersIn(Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`f${index}`, index]))).length, 24);
  assert.deepEqual(numbersIn({ ['x'.repeat(81)]: 1 }), []);
  assert.deepEqual(numbersIn(JSON.parse(`${'['.repeat(90)}1${']'.repeat(90)}`)), []);
  assert.deepEqual(numbersIn([...Array(1000).fill('text'), 1]), []);
  assert.deepEqual(numbersIn(JSON.parse('{"__proto__": 1, "constructor": {"name": 2}}')), [['__proto__', 1], ['constructor.name', 2]]);
});

test('ignores numbers whose differences are not finite', () => {
  assert.deepEqual(numbersIn(JSON.parse('{"a": 1e400, "b": -1e308, "c": 1e300}')), [['c', 1e300]]);
  assert.deepEqual(numbersIn('1e301'), []);
});

// ---- channels ----

test('keeps one series per field, in the order of appearance', () => {
  const values = valuesOf(['hello', { celsius: 21 }, { humidity: 40, celsius: 22 }]);
  assert.deepEqual(values.names, ['celsius', 'humidity']);
  const { times, latest, latestTime } = values.series('celsius');
  assert.deepEqual([times, latest, latestTime], [[2000, 3000], 22, 3000]);
  assert.equal(values.series('pressure'), undefined);
});

test('tells whether an event has numbers and ignores repeated events', () => {
  const values = new ChannelValues();
  assert.equal(values.add({ offset: 5, time: 1, data: '1' }), true);
  assert.equal(values.add({ offset: 6, time: 2, data: 'text' }), false);
  assert.equal(values.add({ offset: 5, time: 1, data: '1' }), false);
  assert.deepEqual(values.series('value').values, [1]);
  assert.equal(values.first, 5);
});

test('counts a field once per event', () => {
  const values = valuesOf([{ a: { b: 1 }, 'a.b': 2 }, { a: { b: 3 }, 'a.b': 4 }]);
  assert.deepEqual(values.series('a.b').values, [1, 3]);
});

test('keeps present fields, and replaces those that have disappeared', () => {
  const many = Object.fromEntries(Array.from({ length: MAX_FIELDS + 3 }, (_, index) => [`f${index}`, index]));
  const values = valuesOf(Array(100).fill(many));
  assert.deepEqual(values.names, Object.keys(many).slice(0, MAX_FIELDS));
  for (let offset = 101; offset <= 160; offset += 1) values.add({ offset, time: 1000 * offset, data: { ...many, f0: 'gone' } });
  assert.deepEqual(values.names, [...Object.keys(many).slice(1, MAX_FIELDS), `f${MAX_FIELDS}`]);
});

test('keeps a limited number of points', () => {
  const { times } = valuesOf(Array(1000).fill('1'), 100).series('value');
  assert.ok(times.length <= 110 && times.length >= 100, String(times.length));
  assert.equal(times.at(-1), 1_000_000);
});

test('fills older events from the history, without those that are there', () => {
  const values = new ChannelValues(5);
  values.add({ offset: 4, time: 4000, data: { a: 4 } });
  const history = [1, 2, 3, 4, 5].map((offset) => ({ offset, time: 1000 * offset, data: { a: offset, b: offset } }));
  values.fill(history);
  assert.deepEqual(values.series('a').values, [1, 2, 3, 4]);
  assert.deepEqual(values.series('b').times, [1000, 2000, 3000]);
  assert.equal(values.first, 1);
  values.fill([]);
  values.fill([-2, -1, 0].map((offset) => ({ offset, time: 9000, data: { a: offset } })));
  assert.deepEqual(values.series('a').values, [0, 1, 2, 3, 4]);
  assert.equal(values.series('a').times[0], 1000); // never later than the next one
});

test('can be filled before the first live event', () => {
  const values = new ChannelValues();
  values.fill([{ offset: 1, time: 1000, data: '1' }, { offset: 2, time: 2000, data: '2' }]);
  for (const offset of [2, 3]) values.add({ offset, time: 1000 * offset, data: String(offset) });
  assert.deepEqual(values.series('value').values, [1, 2, 3]);
});

test('continues after a new epoch with lower offsets, also if the clock was set back', () => {
  const values = valuesOf(['1', '2', '3']);
  values.restart(0);
  values.add({ offset: 1, time: 500, data: '4' });
  assert.deepEqual(values.series('value').values, [1, 2, 3, 4]);
  assert.deepEqual(values.series('value').times, [1000, 2000, 3000, 3000]);
  assert.equal(values.filledSince, -Infinity);
});

// ---- series ----

test('finds points by time', () => {
  const { a } = { a: valuesOf(['5', '3', '9']).series('value') };
  assert.deepEqual([0, 1000, 1400, 1600, 9999].map((time) => a.nearest(time)), [0, 0, 0, 1, 2]);
  assert.equal(new Series(1).nearest(1), -1);
  assert.deepEqual(a.extremes(), [3, 9]);
  assert.deepEqual(a.extremes(3000), [9, 9]);
  assert.equal(a.extremes(3001), undefined);
  assert.deepEqual(a.since(2500).values, [3, 9]);
  assert.deepEqual(a.since(0).values, [5, 3, 9]);
});

test('merges series by time', () => {
  assert.deepEqual(alignSeries([{ times: [1, 2, 2, 4], values: [10, 20, 21, 40] }, { times: [2, 3], values: [5, 6] }]), [
    [1, 2, 2, 3, 4], [10, 20, 21, null, 40], [null, 5, null, 6, null],
  ]);
  assert.deepEqual(alignSeries([]), [[]]);
});

test('knows the usual interval, and when a series is silent', () => {
  assert.equal(usualInterval([0, 5000]), undefined);
  assert.equal(usualInterval([0, 5000, 10_000, 60_000]), 5000);
  assert.equal(usualInterval([0, 1000, 2000, 4000, 8000, 12_000]), 4000); // irregular
  assert.equal(usualInterval([0, 1, 2, 3]), 1000);
  const times = [0, 10_000, 20_000, 30_000];
  assert.equal(isSilent(times, 60_000), false);
  assert.equal(isSilent(times, 60_001), true);
  assert.equal(isSilent([0], 1e9), false);
  assert.equal(gapLength(times), 100_000);
  assert.equal(gapLength([0]), Infinity);
});

// ---- text ----

test('formats values with the decimals of their series', () => {
  const { decimals } = valuesOf([{ c: 21.5 }, { c: 22 }]).series('c');
  assert.equal(formatValue(22, decimals), '22.0');
  assert.deepEqual([0, 1013, 0.1 + 0.2, -3.25, 1e-7, 5e12, 12345.678].map((value) => formatValue(value)), ['0', '1,013', '0.3000', '−3.25', '1.000e−7', '5.000e+12', '12,345.678']);
  assert.deepEqual([formatValue(-0, 4), formatValue(-0.0004, 2), formatValue(-0.04, 2)], ['0.0000', '0.00', '−0.04']);
  assert.equal(formatRange([20, 23.4], 1), '20.0–23.4');
  assert.equal(formatRange([-2, 3], 0), '−2 to 3');
  assert.equal(formatRange([1, 1], 0), '1');
});

test('formats ages and summaries', () => {
  assert.deepEqual([-5, NaN, 999, 12_000, 59_999, 200_000, 7_300_000, 200_000_000].map(formatAge).map(plain), ['now', '', 'now', '12 s ago', '59 s ago', '3 min ago', '2 h ago', '2 d ago']);
  assert.equal(summarize(' the bread\n is ready '), 'the bread is ready');
  assert.equal(summarize({ on: true }), '{"on":true}');
  assert.equal(summarize(new Uint8Array(3)), '3 bytes');
  assert.equal(summarize('x'.repeat(100), 10), `${'x'.repeat(9)}…`);
});

test('estimates the clock of the server', () => {
  const clock = new ServerClock();
  clock.adjust(5300, 5000);
  assert.equal(clock.now(100), 100);
  clock.adjust(65_000, 5000);
  assert.equal(clock.now(6000), 66_000);
});

// ---- charts ----

/** The labels of a time axis that ends now. */
const labels = (seconds, width) => labelledTimes(1000 - seconds, 1000, width).map((time) => plain(timeLabel(1000 - time)));

test('labels as many times of a chart as have room', () => {
  assert.deepEqual(labels(300, 600), ['−5 min', '−4 min', '−3 min', '−2 min', '−1 min', 'now']);
  assert.deepEqual(labels(300, 260), ['−4 min', '−2 min', 'now']);
  assert.deepEqual(labels(300, 50), ['−5 min', 'now']);
  assert.deepEqual(labels(90, 260), ['−1.5 min', '−1 min', '−30 s', 'now']);
});

test('labels the times of long histories', () => {
  assert.deepEqual(labels(7200, 320), ['−2 h', '−1.5 h', '−1 h', '−30 min', 'now']);
  assert.deepEqual(labels(3 * 86_400, 320), ['−3 d', '−2 d', '−1 d', 'now']);
  assert.equal(labels(100 * 604_800, 320).length, 5);
});

test('widens a vertical axis for long labels', () => {
  assert.deepEqual([null, ['21.5', '22.0'], ['0', '1.235e+19']].map(axisWidth), [54, 54, 69]);
});

// ---- sparklines and the board ----

test('draws the newest value of a sparkline on the right and the greatest at the top', () => {
  const size = { width: 30, height: 13, count: 4 };
  assert.equal(sparklinePoints([9, 1, 2, 3, 2], size), '0.0,11.5 10.0,6.5 20.0,1.5 30.0,6.5');
  assert.equal(sparklinePoints([5], size), '20.0,6.5 30.0,6.5');
  assert.equal(sparklinePoints([], size), '');
  const first = (values) => sparklinePoints(values, { width: 110, height: 13, count: 60 }).split(',')[0];
  assert.deepEqual([2, 12, 23, 60, 90].map((count) => first(Array(count).fill(1))), ['100.0', '0.0', '0.0', '0.0', '0.0']); // all fill the width, but a few do not
  assert.equal(sparklinePoints([1, 1], { ...size, least: 0, room: 2 }), '20.0,6.5 30.0,6.5');
});

test('groups channels by the part before the last slash', () => {
  assert.deepEqual(['home/attic/lamp', 'kitchen', '/x', 'a/', 'a//b'].map(splitName), [['home/attic', 'lamp'], ['', 'kitchen'], ['', '/x'], ['a', 'a/'], ['a/', 'b']]);
});

test('finds channels and fields that contain all words', () => {
  assert.ok(matches('HOME cel', 'home/kitchen celsius'));
  assert.ok(matches('', 'kitchen'));
  assert.ok(!matches('home attic', 'home/kitchen celsius'));
});

test('distinguishes the board from a channel with that name', () => {
  assert.deepEqual(['#board', '#board?find=x', '#board,', '#boards', '#kitchen,board', ''].map(isBoardHash), [true, true, false, false, false, false]);
  assert.equal(writeHash(['board']), '#board,');
  assert.deepEqual(readHash('#board,'), ['board']);
  assert.equal(writeHash(['board', 'kitchen']), '#board,kitchen');
});
