/** The history of a channel, by offset. */

import { byId, make } from '../dom.js';
import { fromCell, payloadCell, timeCell } from '../event-cells.js';
import { describeError } from '../format.js';

/** Maximum number of events shown. */
const MAX_EVENTS = 100;

export function buildHistory({ client }) {
  let channel = '';

  async function load() {
    const text = byId('history-since').value.trim();
    const invalid = /^\d{0,15}$/.test(text) ? '' : 'Enter a number.';
    byId('history-error').textContent = invalid;
    byId('history-since').toggleAttribute('aria-invalid', Boolean(invalid));
    if (invalid) return;
    const requested = channel;
    try {
      // With `since`, the events directly after it are needed. `last` would select the newest ones.
      const { events, offset } = await client.history(requested, text ? { since: Number(text) } : { last: MAX_EVENTS });
      if (requested === channel) show(events.slice(0, MAX_EVENTS), events.length, offset, text);
    } catch (error) {
      byId('history-error').textContent = describeError(error);
    }
  }

  function show(events, found, head, since) {
    byId('history').hidden = !events.length;
    byId('history').replaceChildren(...events.map((event) => {
      const row = make('li', 'history-row');
      row.append(make('span', 'offset', event.offset), timeCell(new Date(event.time)), fromCell(event), payloadCell(event, false));
      return row;
    }));
    byId('history').scrollTop = 0;
    byId('history-summary').textContent = describe(events, found, head, since);
  }

  byId('history-form').addEventListener('submit', (event) => {
    event.preventDefault();
    load();
  });

  return {
    reset(name) {
      channel = name;
      byId('history-since').value = '';
      byId('history-error').textContent = '';
      byId('history').hidden = true;
      byId('history').replaceChildren();
      byId('history-summary').textContent = `Leave empty for the last ${MAX_EVENTS} events.`;
    },
  };
}

function describe(events, found, head, since) {
  if (!head) return 'Nothing has been published here.';
  if (!events.length) return since ? `No events after ${since}. The last offset is ${head.toLocaleString('en')}.` : 'All events have expired.';
  const range = `${events[0].offset.toLocaleString('en')}–${events.at(-1).offset.toLocaleString('en')} of ${head.toLocaleString('en')}`;
  const newer = found > events.length ? ` · ${(found - events.length).toLocaleString('en')} newer` : '';
  return `${range}${newer}`;
}
