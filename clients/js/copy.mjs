// Copies the files that the server serves into the package before it is packed, and removes them afterwards (--remove).

import { copyFileSync, rmSync } from 'node:fs';

const served = new URL('../../twistedsock/static/', import.meta.url);
const licence = new URL('../../LICENSE', import.meta.url);
const sources = ['sockbridge.js', 'sockbridge.min.js', 'sockbridge.d.ts', 'stream.js'].map((name) => new URL(name, served)).concat(licence);

for (const source of sources) {
  const copy = new URL(source.pathname.split('/').at(-1), import.meta.url);
  if (process.argv.includes('--remove')) rmSync(copy, { force: true });
  else copyFileSync(source, copy);
}
