/** The panel with snippets (snippets.js): a selection of tools, and copy buttons. */

import { copyFrom } from '../copy.js';
import { byId, make, makeButton, memory } from '../dom.js';
import { terminalCommands } from '../line-endpoints.js';
import { snippetsFor } from './snippets.js';

export function buildSnippetPanel({ identity, loaded }) {
  let server = { lines: [] };
  let channel = '';

  async function load() {
    try {
      const reply = await fetch('/bridge.json');
      if (!reply.ok) return;
      server = { lines: [], ...await reply.json() };
      byId('version').textContent = server.version ?? '';
      if (channel) show();
      loaded();
    } catch { /* the connection bar shows that the server is not reachable */ }
  }

  function show() {
    const all = snippetsFor({ lines: server.lines, origin: location.origin, channel, token: identity.hasToken });
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
    byId('snippets').replaceChildren(...parts.map(({ description, text, typed }) => {
      const box = make('div', 'snippet');
      box.dataset.kind = kind;
      const sample = make('pre', 'lines');
      sample.tabIndex = 0;
      sample.setAttribute('role', 'region');
      sample.setAttribute('aria-label', `${title}: ${description}`);
      if (typed) showLines(sample, text.split('\n'));
      else sample.textContent = text;
      box.append(make('p', 'muted', description), sample, makeButton('', 'Copy', ({ currentTarget }) => copyFrom(currentTarget, text, sample)));
      return box;
    }));
    if (identity.hasToken) byId('snippets').append(make('p', 'muted', 'Set TOKEN to your token in the environment first. When typing, replace your-token with it.'));
  }

  return {
    load,
    /** Example commands for views without a channel. */
    terminal: () => terminalCommands(server, location.hostname, 'kitchen', identity.hasToken),
    show: showLines,
    showFor(name) {
      channel = name;
      show();
    },
    refresh() { if (channel) show(); },
  };
}

/** Shows a shell command and the lines to type into it. */
function showLines(sample, lines) {
  if (sample.childElementCount === lines.length && sample.textContent === lines.join('')) return;
  sample.replaceChildren(...lines.map((line, index) => make('span', index ? 'typed' : 'call', line)));
}
