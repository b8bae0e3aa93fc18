// Writes twistedsock/static/sockbridge.min.js, which is in the repository so that the server needs no npm: `npm run minify`.
// tests/js/package.test.mjs checks that it is up to date.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { minify } from 'terser';

const served = (name) => new URL(`../../twistedsock/static/${name}`, import.meta.url);
const BANNER = '// sockbridge, MIT licence\n';

/** Properties that only the classes of sockbridge.js use: no message, option or public object has one of this name. */
const INTERNAL = [
  'addOwn', 'call', 'choose', 'confirm', 'connected', 'deliver', 'end', 'fail', 'failed', 'gapsIgnoredUpTo', 'iterate',
  'options', 'paused', 'readyUsed', 'remove', 'report', 'reportGap', 'requestNext', 'restarted', 'resume', 'sent',
  'stopListening', 'subscribers',
];

/** One-letter names, first the letters that are frequent in the code anyway. */
const LETTERS = 'etsinorchaduplmfgbwkvyTSExAqOjRLINCUMPDWzJGFBHVQKXYZ';

/** Returns the minified client. Its platforms are those of the source. */
export async function minified() {
  const mangle = { properties: { regex: new RegExp(`^(${INTERNAL.join('|')})$`) } };
  const options = { module: true, ecma: 2020, compress: { passes: 3 }, mangle, format: { comments: false } };
  const { code } = await minify(readFileSync(served('sockbridge.js'), 'utf8'), options);
  return `${BANNER}${code.split(/(?=\bclass\b)/).map(shortenPrivateNames).join('')}\n`;
}

/** Gives the private names of one class one letter each, the most frequent first. terser numbers those of all classes. */
function shortenPrivateNames(code) {
  const counts = new Map();
  for (const [name] of code.matchAll(/#\w+/g)) counts.set(name, (counts.get(name) ?? 0) + 1);
  const ordered = [...counts.keys()].sort((one, other) => counts.get(other) - counts.get(one));
  const short = (name) => `#${LETTERS[ordered.indexOf(name)] ?? `${LETTERS[0]}${ordered.indexOf(name)}`}`;
  return code.replace(/#\w+/g, short);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(served('sockbridge.min.js'), await minified());
