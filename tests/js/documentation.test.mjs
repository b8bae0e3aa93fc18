// Runs the programs of docs/reference/javascript-client.md and compares its tables with the code.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import * as client from '../../twistedsock/static/sockbridge.js';

const page = readFileSync(new URL('../../docs/reference/javascript-client.md', import.meta.url), 'utf8');
const module = new URL('../../twistedsock/static/sockbridge.js', import.meta.url).href;
const blocks = [...page.matchAll(/^```(\w*)\n(.*?)^```$/gms)].map(([, kind, text]) => ({ kind, text }));

/** Runs a program of the page as a module. Returns its output. */
async function run(text, t) {
  const printed = [];
  t.mock.method(console, 'log', (...words) => {
    printed.push(words.map((word) => (typeof word === 'string' ? word : `[ '${word.join("', '")}' ]`)).join(' '));
  });
  await import(`data:text/javascript,${encodeURIComponent(text.replace(/'[^']*sockbridge\.mjs'/, JSON.stringify(module)))}`);
  return printed.join('\n');
}

test('prints the output that the page shows', async (t) => {
  const program = blocks.find(({ text }) => text.includes('FakeWebSocket'));
  const shown = blocks[blocks.indexOf(program) + 1].text.trim();
  assert.equal(await run(program.text, t), shown);
});

test('parses every program of the page', () => {
  const programs = blocks.filter(({ kind }) => kind === 'js');
  assert.ok(programs.length >= 4);
  for (const { text } of programs) {
    const body = text.replace(/^import .*$/gm, '').replaceAll('await ', '');
    assert.doesNotThrow(() => new Function(body), text);
  }
});

test('documents each timeout with its default', () => {
  for (const [name, value] of Object.entries(client.DEFAULT_TIMES)) assert.ok(page.includes(`| \`${name}\` | ${value} |`), name);
});

test('documents the limits', () => {
  for (const name of ['QUEUE_LIMIT', 'UNANSWERED_LIMIT', 'MESSAGE_LIMIT', 'ITERATION_LIMIT']) {
    assert.match(page, new RegExp(`\`${name}\`.*\\| ${client[name]} \\|`));
  }
});

test('documents every error code', () => {
  const source = readFileSync(new URL(module), 'utf8');
  const codes = new Set([...source.matchAll(/SockbridgeError\('([a-z-]+)'/g)].map(([, code]) => code));
  assert.ok(codes.size >= 5);
  for (const code of [...codes, 'disconnected']) assert.ok(page.includes(`\n| \`${code}\` |`), code);
});

test('documents every member and event', () => {
  const members = Object.getOwnPropertyNames(client.Client.prototype).filter((name) => name !== 'constructor');
  assert.ok(members.length >= 10);
  for (const name of members) assert.ok(page.includes(`client.${name}`), name);
  for (const type of ['connecting', 'open', 'waiting', 'closed', 'notice', 'error']) assert.ok(page.includes(`\n| \`${type}\` |`), type);
});

test('reopens a failed EventSource at its position as shown in docs/reference/streams.md', () => {
  const streams = readFileSync(new URL('../../docs/reference/streams.md', import.meta.url), 'utf8');
  const [, program] = streams.match(/^```js\n(\/\*\* Follows.*?)^```$/ms);
  const opened = [];
  const timers = [];
  const printed = [];
  class FakeEventSource extends EventTarget {
    static CLOSED = 2;

    constructor(url) {
      super();
      this.url = String(url);
      this.readyState = 1;
      opened.push(this);
    }
  }
  new Function('EventSource', 'location', 'setTimeout', 'console', program)(
    FakeEventSource,
    { href: 'http://bridge.example/' },
    (call, delay) => timers.push({ call, delay }),
    { log: (...words) => printed.push(words) },
  );
  const [first] = opened;
  assert.equal(first.url, 'http://bridge.example/events?channel=kitchen');
  first.onmessage({ data: '{"offset":7,"data":"hot"}', lastEventId: 'e1:7' });
  assert.deepEqual(printed, [[7, 'hot']]);

  first.readyState = 0;
  first.onerror();
  assert.equal(timers.length, 0, 'the browser reopens it automatically');

  first.readyState = FakeEventSource.CLOSED;
  first.onerror();
  assert.ok(timers[0].delay >= 5000 && timers[0].delay < 10000);
  timers[0].call();
  assert.equal(opened[1].url, 'http://bridge.example/events?channel=kitchen&lastEventId=e1%3A7');
});
