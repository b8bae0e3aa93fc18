// Tests of the npm package in clients/js. tests/end_to_end/test_client.py installs and uses it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';

const checkout = fileURLToPath(new URL('../..', import.meta.url));
const read = (name) => readFileSync(join(checkout, name), 'utf8');
const about = JSON.parse(read('clients/js/package.json'));

test('has the version of the server', () => {
  assert.equal(about.version, read('setup.cfg').match(/^version = (.*)$/m)[1]);
});

test('contains no copied files in the repository', () => {
  const kept = readdirSync(join(checkout, 'clients/js')).sort();
  assert.deepEqual(kept, ['README.md', 'copy.mjs', 'package.json']);
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
  assert.deepEqual(readdirSync(join(folder, 'clients/js')).sort(), ['README.md', 'copy.mjs', 'package.json']);
});

/** Maximum size of the client without comments and indentation, compressed. A minifier leaves two thirds of it. */
const MAX_CLIENT_BYTES = 9_000;

test('stays as small as the documentation says', () => {
  const code = read('twistedsock/static/sockbridge.js').replace(/^\s*\/\*[^]*?\*\/\n|^\s*\/\/.*\n|^\s+/gm, '');
  assert.ok(code.startsWith('const utf8'));
  const size = gzipSync(code, { level: 9 }).length;
  assert.ok(size <= MAX_CLIENT_BYTES, `${size} bytes`);
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
