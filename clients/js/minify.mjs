// Writes twistedsock/static/sockbridge.min.js, which is in the repository so that the server needs no npm: `npm run minify`.
// tests/js/package.test.mjs checks that it is up to date.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { minify } from 'terser';

const served = (name) => new URL(`../../twistedsock/static/${name}`, import.meta.url);
const BANNER = '// sockbridge, MIT licence. The source is sockbridge.js.\n';

/** Returns the minified client. Its platforms are those of the source. */
export async function minified() {
  const options = { module: true, ecma: 2020, compress: { passes: 3 }, format: { comments: false } };
  const { code } = await minify(readFileSync(served('sockbridge.js'), 'utf8'), options);
  return `${BANNER}${code}\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(served('sockbridge.min.js'), await minified());
