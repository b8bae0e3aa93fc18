/** The state of the connection in the header, and a banner below it during an outage. */

import { announce, byId } from './dom.js';
import { toSentence } from './format.js';

/** The banner appears only for longer outages, so that it does not flash. */
const BANNER_DELAY_MS = 900;

const LABELS = { open: 'connected', waiting: 'reconnecting' };

/**
 * @param {object} page
 * @param {import('./sockbridge.js').Client} page.client
 * @param {() => void} page.changed called when the state changes
 */
export function buildConnectionBar({ client, changed }) {
  let countdown;
  let outageTimer;

  function show() {
    byId('state').textContent = LABELS[client.state] ?? client.state;
    byId('state').dataset.state = client.state;
    byId('connection-bar').dataset.state = client.state;
    changed();
  }

  /** The server is connected, but cannot reach what orders its events. */
  function showBackplane(isAway) {
    byId('outage-title').textContent = isAway ? 'The server cannot reach its backplane.' : 'Not connected.';
    byId('outage-detail').textContent = isAway ? 'Events are delayed.' : '';
    byId('retry').hidden = isAway;
    byId('outage').hidden = !isAway;
    announce(isAway ? 'The server cannot reach its backplane. Events are delayed.' : 'The server reaches its backplane again.');
  }

  client.addEventListener('notice', ({ detail: { code } }) => {
    if (code === 'backplane-away' || code === 'backplane-back') showBackplane(code === 'backplane-away');
  });

  client.addEventListener('connecting', () => {
    byId('outage-title').textContent = 'Not connected.';
    byId('retry').hidden = false;
    clearInterval(countdown);
    byId('outage-detail').textContent = 'Connecting…';
    show();
  });

  client.addEventListener('waiting', ({ detail: { delay } }) => {
    const until = performance.now() + delay;
    const tick = () => {
      const seconds = Math.ceil((until - performance.now()) / 1000);
      byId('outage-detail').textContent = seconds > 0 ? `Next attempt in ${seconds} s.` : 'Connecting…';
    };
    countdown = setInterval(tick, 250);
    tick();
    outageTimer ??= setTimeout(() => {
      byId('outage').hidden = false;
      announce('Connection lost. Reconnecting…');
    }, BANNER_DELAY_MS);
    show();
  });

  client.addEventListener('open', ({ detail: { id, from, to } }) => {
    clearTimeout(outageTimer);
    outageTimer = undefined;
    if (!byId('outage').hidden) announce('Reconnected.');
    byId('outage').hidden = true;
    byId('peer-id').textContent = id;
    byId('address-from').textContent = from;
    byId('address-to').textContent = to;
    show();
  });

  client.addEventListener('closed', ({ detail: { code, reason } }) => {
    clearTimeout(outageTimer);
    clearInterval(countdown);
    byId('outage-title').textContent = 'Disconnected by the server.';
    byId('outage-detail').textContent = toSentence(`${reason || 'no reason given'} (${code})`);
    byId('retry').textContent = 'Reload the page';
    byId('outage').hidden = false;
    announce('Disconnected by the server.');
    show();
  });

  byId('retry').addEventListener('click', () => {
    if (client.state === 'closed') location.reload();
    else client.retry();
  });

  byId('pulse').addEventListener('animationend', () => { delete byId('pulse').dataset.direction; });

  return {
    show,
    /** Animates an event that is received ('in') or sent ('out'), one at a time. */
    pulse(direction) {
      if (!byId('pulse').dataset.direction) byId('pulse').dataset.direction = direction;
    },
  };
}
