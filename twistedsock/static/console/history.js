/** The history of a channel, by offset or time. */

import { byId, make } from '../dom.js';
import { fromCell, payloadCell, timeCell } from '../event-cells.js';
import { BOUND_HINT, describeError, readBound } from '../format.js';

/** Maximum number of events shown. */
const MAX_EVENTS = 100;

const EXAMPLES = `For example 18, 14:30 or -10m. Leave empty for the last ${MAX_EVENTS} events.`;

export function buildHistory({ client }) {
  let channel = '';

  async function load() {
    const text = byId('history-after').value.trim();
    const after = readBound(text);
    const invalid = text && after === undefined ? BOUND_HINT : '';
    byId('history-error').textContent = invalid;
    byId('history-after').toggleAttribute('aria-invalid', Boolean(invalid));
    if (invalid) return;
    const requested = channel;
    try {
      // With `after`, the events directly after it are needed. `last` would select the newest ones.
      const found = await client.history(requested, text ? { after } : { last: MAX_EVENTS });
      if (requested === channel) show(found, text);
    } catch (error) {
      byId('history-error').textContent = describeError(error);
    }
  }

  function show(found, after) {
    const events = found.events.slice(0, MAX_EVENTS);
    byId('history').hidden = !events.length;
    byId('history').replaceChildren(...events.map((event) => {
      const row = make('li', 'history-row');
      row.append(make('span', 'offset', event.offset), timeCell(new Date(event.time)), fromCell(event), payloadCell(event, false));
      return row;
    }));
    byId('history').scrollTop = 0;
    byId('history-summary').textContent = describe(events, found, after);
  }

  byId('history-form').addEventListener('submit', (event) => {
    event.preventDefault();
    load();
  });

  return {
    reset(name) {
      channel = name;
      byId('history-after').value = '';
      byId('history-error').textContent = '';
      byId('history').hidden = true;
      byId('history').replaceChildren();
      byId('history-summary').textContent = EXAMPLES;
    },
  };
}

function describe(shown, { events, offset, lost = [] }, after) {
  const number = (value) => value.toLocaleString('en');
  const range = (first, last) => (first === last ? number(first) : `${number(first)}–${number(last)}`);
  if (!offset) return 'Nothing has been published here.';
  const expired = lost.map(({ first, last }) => ` · ${range(first, last)} expired`).join('');
  if (!shown.length) return after ? `No events after ${after}. The last offset is ${number(offset)}${expired}.` : 'All events have expired.';
  const newer = events.length > shown.length ? ` · ${number(events.length - shown.length)} newer` : '';
  return `${range(shown[0].offset, shown.at(-1).offset)} of ${number(offset)}${newer}${expired}`;
}
