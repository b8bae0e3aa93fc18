/** The snippets of snippets.js in the document: kinds to choose from, and for each its pieces, with a button to copy. */

import { copyFrom } from '../copy.js';
import { byId, make, makeButton, memory } from '../dom.js';
import { terminalCommands } from '../line-endpoints.js';
import { snippetsFor } from './snippets.js';

export function buildSnippetPanel({ identity, told }) {
  let bridge = { lines: [] };
  let channel = '';

  async function read() {
    try {
      const reply = await fetch('/bridge.json');
      if (!reply.ok) return;
      bridge = { lines: [], ...await reply.json() };
      byId('version').textContent = bridge.version ?? '';
      if (channel) show();
      told();
    } catch { /* the strip about the connection tells */ }
  }

  function show() {
    const all = snippetsFor({ lines: bridge.lines, origin: location.origin, channel, token: identity.holdsToken });
    const remembered = memory.get('snippet');
    const chosen = all.find(({ kind }) => kind === remembered) ?? all[0];
    const focused = byId('snippet-kinds').contains(document.activeElement);
    const choices = all.map(({ kind, title }) => {
      const label = make('label');
      const radio = make('input');
      Object.assign(radio, { type: 'radio', name: 'snippet', value: kind, checked: kind === chosen.kind });
      radio.addEventListener('change', () => {
        memory.set('snippet', kind);
        showParts(all.find((one) => one.kind === kind));
      });
      label.append(radio, make('span', '', title));
      return label;
    });
    byId('snippet-kinds').replaceChildren(byId('snippet-kinds').querySelector('legend'), ...choices);
    if (focused) byId('snippet-kinds').querySelector(':checked').focus();
    showParts(chosen);
  }

  function showParts({ kind, title, parts }) {
    byId('snippets').replaceChildren(...parts.map(({ words, text, typed }) => {
      const box = make('div', 'snippet');
      box.dataset.kind = kind;
      const sample = make('pre', 'lines');
      sample.tabIndex = 0;
      sample.setAttribute('role', 'region');
      sample.setAttribute('aria-label', `${title}: ${words}`);
      if (typed) showLines(sample, text.split('\n'));
      else sample.textContent = text;
      box.append(make('p', 'muted', words), sample, makeButton('', 'Copy', ({ currentTarget }) => copyFrom(currentTarget, text, sample)));
      return box;
    }));
    if (identity.holdsToken) byId('snippets').append(make('p', 'muted', 'Put your token into the environment first, as TOKEN; where you type, say it instead of your-token.'));
  }

  return {
    read,
    /** For a lesson, where no channel has been chosen. */
    terminal: () => terminalCommands(bridge, location.hostname, 'kitchen', identity.holdsToken),
    show: showLines,
    showFor(name) {
      channel = name;
      show();
    },
    again() { if (channel) show(); },
  };
}

/** A command, and what is typed to it. */
function showLines(sample, lines) {
  if (sample.childElementCount === lines.length && sample.textContent === lines.join('')) return;
  sample.replaceChildren(...lines.map((line, index) => make('span', index ? 'typed' : 'call', line)));
}
