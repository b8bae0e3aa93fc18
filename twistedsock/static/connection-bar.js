/** The connection, drawn as a wire between its two ends in the header, and the strip below it while there is none. */

import { announce, byId } from './dom.js';

/** Milliseconds. A shorter outage shows in the header only; a strip that flashes up tells nothing. */
const OUTAGE_SHOWN_AFTER = 900;

/**
 * @param {object} page
 * @param {import('./sockbridge.js').Client} page.client
 * @param {() => void} page.changed the connection is in another state
 */
export function buildConnectionBar({ client, changed }) {
  let countdown;
  let outageTimer;

  function show() {
    byId('state').textContent = client.state;
    byId('state').dataset.state = client.state;
    byId('connection-bar').dataset.state = client.state;
    changed();
  }

  client.addEventListener('connecting', () => {
    clearInterval(countdown);
    byId('outage-detail').textContent = 'Trying now…';
    show();
  });

  client.addEventListener('waiting', ({ detail: { delay } }) => {
    const until = performance.now() + delay;
    const tick = () => {
      const seconds = Math.ceil((until - performance.now()) / 1000);
      byId('outage-detail').textContent = seconds > 0 ? `Next try in ${seconds} s.` : 'Trying now…';
    };
    countdown = setInterval(tick, 250);
    tick();
    outageTimer ??= setTimeout(() => {
      byId('outage').hidden = false;
      announce('The connection is gone. Trying again.');
    }, OUTAGE_SHOWN_AFTER);
    show();
  });

  client.addEventListener('open', ({ detail: { id, from, to } }) => {
    clearTimeout(outageTimer);
    outageTimer = undefined;
    if (!byId('outage').hidden) announce('Connected again.');
    byId('outage').hidden = true;
    byId('peer-id').textContent = id;
    byId('address-from').textContent = from;
    byId('address-to').textContent = to;
    show();
  });

  client.addEventListener('closed', ({ detail: { code, reason } }) => {
    clearTimeout(outageTimer);
    clearInterval(countdown);
    byId('outage-title').textContent = 'The bridge has ended this connection.';
    byId('outage-detail').textContent = `${reason || 'It gave no reason'} (${code}).`;
    byId('retry').textContent = 'Reload the page';
    byId('outage').hidden = false;
    announce('The bridge has ended this connection.');
    show();
  });

  byId('retry').addEventListener('click', () => {
    if (client.state === 'closed') location.reload();
    else client.retry();
  });

  byId('pulse').addEventListener('animationend', () => { delete byId('pulse').dataset.direction; });

  return {
    show,
    /** One spark at a time travels the wire: into the page, or out of it. */
    pulse(way) {
      if (!byId('pulse').dataset.direction) byId('pulse').dataset.direction = way;
    },
  };
}
