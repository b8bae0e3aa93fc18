/** What a channel's log still holds, looked up by number. */

import { byId, make } from '../dom.js';
import { fromCell, payloadCell } from '../event-cells.js';
import { describeError } from '../format.js';

/** Events shown of one look-up. */
const SHOWN = 100;

export function buildHistory({ client }) {
  let channel = '';

  async function look() {
    const text = byId('history-since').value.trim();
    const fault = /^\d{0,15}$/.test(text) ? '' : 'A number, please.';
    byId('history-error').textContent = fault;
    byId('history-since').toggleAttribute('aria-invalid', Boolean(fault));
    if (fault) return;
    const asked = channel;
    try {
      // `last` alone would give the newest ones: what comes after a number begins right behind it.
      const { events, offset } = await client.history(asked, text ? { since: Number(text) } : { last: SHOWN });
      if (asked === channel) show(events.slice(0, SHOWN), events.length, offset, text);
    } catch (error) {
      byId('history-error').textContent = describeError(error);
    }
  }

  function show(events, found, head, since) {
    byId('history').hidden = !events.length;
    byId('history').replaceChildren(...events.map((event) => {
      const row = make('li', 'history-row');
      row.append(make('span', 'offset', event.offset), fromCell(event), payloadCell(event, false));
      return row;
    }));
    byId('history').scrollTop = 0;
    byId('history-summary').textContent = describe(events, found, head, since);
  }

  byId('history-form').addEventListener('submit', (event) => {
    event.preventDefault();
    look();
  });

  return {
    begin(name) {
      channel = name;
      byId('history-since').value = '';
      byId('history-error').textContent = '';
      byId('history').hidden = true;
      byId('history').replaceChildren();
      byId('history-summary').textContent = `The bridge keeps the newest events. Leave it empty for the last ${SHOWN}.`;
    },
  };
}

function describe(events, found, head, since) {
  if (!head) return 'Nothing has been published here.';
  if (!events.length) return since ? `Nothing after number ${since}; the newest has number ${head.toLocaleString('en')}.` : 'All events were too old, and are gone.';
  const range = `${events[0].offset.toLocaleString('en')} to ${events.at(-1).offset.toLocaleString('en')} of ${head.toLocaleString('en')}`;
  const more = found > events.length ? ` ${(found - events.length).toLocaleString('en')} more after them.` : '';
  return `Numbers ${range}.${more}`;
}
