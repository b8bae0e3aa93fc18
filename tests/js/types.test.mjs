// Tests of sockbridge.d.ts with the TypeScript compiler, against correct and incorrect programs and against sockbridge.js.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import * as client from '../../twistedsock/static/sockbridge.js';

const checkout = fileURLToPath(new URL('../..', import.meta.url));
const compiler = join(checkout, 'node_modules/typescript/bin/tsc');
const strictly = [
  '--noEmit', '--strict', '--exactOptionalPropertyTypes', '--noUncheckedIndexedAccess', '--ignoreConfig',
  '--target', 'es2022', '--module', 'nodenext',
];
const browser = ['--lib', 'es2022,dom', '--types', ''];
const node = ['--lib', 'es2022', '--types', 'node', '--typeRoots', join(checkout, 'node_modules/@types')];

/** Returns the errors of the compiler. */
async function compile(files, world) {
  try {
    await promisify(execFile)(process.execPath, [compiler, ...strictly, ...world, ...files], { cwd: checkout });
    return '';
  } catch ({ stdout, stderr }) {
    return stdout + stderr;
  }
}

/** Creates a folder in which the package is installed. Returns a function that writes a program into it. */
function folderWithPackage(t) {
  const folder = mkdtempSync(join(checkout, 'node_modules/.types-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const installed = join(folder, 'node_modules/sockbridge');
  mkdirSync(installed, { recursive: true });
  copyFileSync(join(checkout, 'clients/js/package.json'), join(installed, 'package.json'));
  copyFileSync(join(checkout, 'twistedsock/static/sockbridge.d.ts'), join(installed, 'sockbridge.d.ts'));
  return (name, text) => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
}

test('compiles correct programs only, in browsers and in Node.js', async () => {
  for (const world of [browser, node]) assert.equal(await compile(['tests/js/types/uses.ts'], world), '');
});

test('declares the names of the client', async (t) => {
  const union = (names) => names.map((name) => `'${name}'`).join(' | ');
  const members = (kind) => union(Object.getOwnPropertyNames(kind.prototype).filter((name) => name !== 'constructor'));
  const made = client.connect('ws://bridge.test/ws', { WebSocket: class { close() {} }, window: undefined });
  const subscription = made.subscribe('kitchen', () => {});
  made.close();
  for (const object of [made, subscription]) assert.deepEqual(Object.keys(object), [], 'everything else is private');
  const program = `
    import * as declared from 'sockbridge';
    type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : [A, B];
    type Own<Kind> = Exclude<keyof Kind, keyof EventTarget | symbol>;
    const names: Same<keyof typeof declared, ${union(Object.keys(client))}> = true;
    const ofClient: Same<Own<declared.Client>, ${members(client.Client)}> = true;
    const ofSubscription: Same<Own<declared.Subscription>, ${members(client.Subscription)}> = true;
    const times: Same<keyof typeof declared.DEFAULT_TIMES, ${union(Object.keys(client.DEFAULT_TIMES))}> = true;
    const limits: [${client.MESSAGE_LIMIT}, ${client.QUEUE_LIMIT}, ${client.UNANSWERED_LIMIT}, ${client.ITERATION_LIMIT}] =
      [declared.MESSAGE_LIMIT, declared.QUEUE_LIMIT, declared.UNANSWERED_LIMIT, declared.ITERATION_LIMIT];
  `;
  assert.equal(await compile([folderWithPackage(t)('program.mts', program)], browser), '');
});

test('declares every code and event of the client', () => {
  const declared = readFileSync(new URL('../../twistedsock/static/sockbridge.d.ts', import.meta.url), 'utf8');
  const source = readFileSync(new URL('../../twistedsock/static/sockbridge.js', import.meta.url), 'utf8');
  const codesOf = (name) => [...declared.match(new RegExp(`type ${name} =([^;]*);`))[1].matchAll(/'([a-z-]+)'/g)].map(([, code]) => code).sort();
  const own = [...source.matchAll(/SockbridgeError\('([a-z-]+)'/g), ...source.matchAll(/#dropConnection\('([a-z-]+)'/g)];
  assert.deepEqual(codesOf('ClientCode'), [...new Set(own.map(([, code]) => code))].sort());
  const errors = readFileSync(new URL('../../docs/reference/errors.md', import.meta.url), 'utf8');
  assert.deepEqual(codesOf('ServerCode'), [...errors.matchAll(/^\| `([a-z-]+)` \| [^|]*JSON/gm)].map(([, code]) => code).sort());
  const dispatched = [...source.matchAll(/#(?:setState|dispatch)\('(\w+)'/g)].map(([, type]) => type);
  const events = [...declared.match(/interface ClientEvents \{([^]*?)\n\}/)[1].matchAll(/^ {2}(\w+): CustomEvent/gm)].map(([, type]) => type);
  assert.deepEqual([...new Set(dispatched)].sort(), [...events].sort());
});

test('compiles the programs of the documentation', async (t) => {
  const page = readFileSync(new URL('../../docs/reference/javascript-client.md', import.meta.url), 'utf8');
  const programs = [...page.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, text]) => text);
  assert.equal(programs.length, 3);
  const write = folderWithPackage(t);
  const files = [
    write('program.mts', programs[0]),
    write('home.mts', programs[1]),
    write('bridge.d.ts', programs[2]),
    write('by-url.mts', "import { connect, type State } from 'http://127.0.0.1:8082/sockbridge.js'; const state: State = connect().state;"),
  ];
  assert.equal(await compile(files, browser), '');
});
