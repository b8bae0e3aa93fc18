/** What a channel's log still holds, looked up by number. */

import { byId, make } from '../elements.js';
import { fromCell, payloadCell } from '../rows.js';
import { describeFault } from '../words.js';

/** Events shown of one look-up. */
const SHOWN = 100;

export function buildLog({ client }) {
  let channel = '';

  async function look() {
    const text = byId('log-since').value.trim();
    const fault = /^\d{0,15}$/.test(text) ? '' : 'A number, please.';
    byId('log-fault').textContent = fault;
    byId('log-since').toggleAttribute('aria-invalid', Boolean(fault));
    if (fault) return;
    const asked = channel;
    try {
      // `last` alone would give the newest ones: what comes after a number begins right behind it.
      const { events, offset } = await client.history(asked, text ? { since: Number(text) } : { last: SHOWN });
      if (asked === channel) show(events.slice(0, SHOWN), events.length, offset, text);
    } catch (error) {
      byId('log-fault').textContent = describeFault(error);
    }
  }

  function show(events, found, head, since) {
    byId('log').hidden = !events.length;
    byId('log').replaceChildren(...events.map((event) => {
      const row = make('li', 'log-row');
      row.append(make('span', 'offset', event.offset), fromCell(event), payloadCell(event, false));
      return row;
    }));
    byId('log').scrollTop = 0;
    byId('log-words').textContent = describe(events, found, head, since);
  }

  byId('log-form').addEventListener('submit', (event) => {
    event.preventDefault();
    look();
  });

  return {
    begin(name) {
      channel = name;
      byId('log-since').value = '';
      byId('log-fault').textContent = '';
      byId('log').hidden = true;
      byId('log').replaceChildren();
      byId('log-words').textContent = `The bridge keeps the newest events. Leave it empty for the last ${SHOWN}.`;
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
