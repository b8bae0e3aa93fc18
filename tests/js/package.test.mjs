// Tests of the npm package in clients/js. tests/end_to_end/test_client.py installs and uses it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { brotliCompressSync, gzipSync } from 'node:zlib';

import { minified } from '../../clients/js/minify.mjs';
import * as client from '../../twistedsock/static/sockbridge.js';
import * as small from '../../twistedsock/static/sockbridge.min.js';

const checkout = fileURLToPath(new URL('../..', import.meta.url));
const read = (name) => readFileSync(join(checkout, name), 'utf8');
const about = JSON.parse(read('clients/js/package.json'));

test('has the version of the server', () => {
  assert.equal(about.version, read('setup.cfg').match(/^version = (.*)$/m)[1]);
});

test('contains no copied files in the repository', () => {
  const kept = readdirSync(join(checkout, 'clients/js')).sort();
  assert.deepEqual(kept, ['README.md', 'copy.mjs', 'minify.mjs', 'package.json']);
});

test('packs the files that the server serves and removes the copies', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'sockbridge-'));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const name of ['LICENSE', 'clients/js', 'twistedsock/static']) cpSync(join(checkout, name), join(folder, name), { recursive: true });
  const copy = (...words) => promisify(execFile)(process.execPath, [join(folder, 'clients/js/copy.mjs'), ...words]);
  await copy();
  for (const name of about.files) {
    assert.equal(readFileSync(join(folder, 'clients/js', name), 'utf8'), read(`twistedsock/static/${name}`));
  }
  assert.ok(existsSync(join(folder, 'clients/js/LICENSE')));
  await copy('--remove');
  assert.deepEqual(readdirSync(join(folder, 'clients/js')).sort(), ['README.md', 'copy.mjs', 'minify.mjs', 'package.json']);
});

test('contains the minified client of this version', async () => {
  assert.equal(read('twistedsock/static/sockbridge.min.js'), await minified(), 'run `npm run minify`');
});

test('the minified client has the exports of the client, and passes its tests', async (t) => {
  assert.deepEqual(Object.keys(small), Object.keys(client));
  const folder = mkdtempSync(join(tmpdir(), 'sockbridge-'));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const name of ['tests/js', 'twistedsock/static']) cpSync(join(checkout, name), join(folder, name), { recursive: true });
  cpSync(join(folder, 'twistedsock/static/sockbridge.min.js'), join(folder, 'twistedsock/static/sockbridge.js'));
  const subjects = ['calls', 'commands', 'connection', 'events', 'fallback', 'iteration', 'subscriptions', 'tokens'];
  const files = subjects.map((name) => join(folder, `tests/js/${name}.test.mjs`));
  // Without the variable by which the runner of this test would take these tests for a part of it.
  const env = { ...process.env, NODE_TEST_CONTEXT: undefined };
  const { stdout } = await promisify(execFile)(process.execPath, ['--test', '--test-reporter=tap', ...files], { env });
  assert.ok(Number(stdout.match(/^# pass (\d+)$/m)[1]) > 100);
});

/** Maximum sizes of the minified client as the server delivers it, and with Brotli, as a proxy can deliver it. */
const MAX_GZIP_BYTES = 6_500;
const MAX_BROTLI_BYTES = 5_900;

test('stays as small as the documentation says', () => {
  const code = read('twistedsock/static/sockbridge.min.js');
  const sizes = [gzipSync(code, { level: 9 }).length, brotliCompressSync(code).length];
  assert.ok(sizes[0] <= MAX_GZIP_BYTES && sizes[1] <= MAX_BROTLI_BYTES, `${sizes} bytes`);
  const [gzip, brotli] = sizes.map((size) => (size / 1000).toFixed(1));
  assert.ok(read('docs/reference/javascript-client.md').includes(`${gzip} kB compressed with gzip, ${brotli} kB with Brotli`), `${sizes} bytes`);
});

test('contains all files that it imports and exports', () => {
  const named = [about.types, about.exports['.'].types, about.exports['.'].default];
  for (const name of about.files) {
    const source = read(`twistedsock/static/${name}`).replace(/\/\*[^]*?\*\/|^\/\/.*$/gm, '');
    named.push(...[...source.matchAll(/(?:from|import\()\s*'(\.[^']*)'/g)].map(([, path]) => path));
  }
  assert.ok(named.includes('./stream.js'));
  for (const name of named) assert.ok(about.files.includes(name.replace('./', '')), name);
});
