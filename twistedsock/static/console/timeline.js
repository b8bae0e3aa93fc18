/** The connection timeline: each step with an explanation, and the time between steps. */

import { make } from '../dom.js';
import { clockTime, exactTime } from '../format.js';
import { write } from './table.js';
import { duration } from './units.js';

const TITLES = {
  accepted: 'Accepted',
  proxied: 'Proxied',
  handshake: 'Handshake done',
  open: 'Open',
  authenticated: 'Authenticated',
  subscribed: 'Subscribed',
  behind: 'Behind',
  'caught-up': 'Caught up',
  lost: 'Lost events',
  closing: 'Closing',
  closed: 'Closed',
};

const HANDSHAKES = { TLS: 'TLS handshake', WebSocket: 'WebSocket handshake', events: 'Stream started' };

/** The title of a step. Later servers can send steps that are unknown here. */
export function titleOf({ step, by, detail }) {
  const known = (step === 'handshake' && HANDSHAKES[detail]) || TITLES[step];
  const title = known ?? step.charAt(0).toUpperCase() + step.slice(1).replaceAll('-', ' ');
  const actor = { server: 'the server', peer: 'the client' }[by];
  return actor ? `${title}, by ${actor}` : title;
}

/** The time between two steps. */
export function intervalBetween(before, after) {
  const seconds = after.at - before.at;
  return seconds < 0.000_05 ? 'immediately' : `${duration(seconds)} later`;
}

/** The timeline as text, for a report: a line about the client, and one for each step. */
export function timelineText(peer, steps) {
  const client = peer ? [`${peer.nick || peer.id} (${peer.id}) ${peer.from} → ${peer.to}, ${peer.dialect}`] : [];
  const lines = steps.map((step) => `${new Date(step.at * 1000).toISOString()} ${titleOf(step)}${step.detail ? `: ${step.detail}` : ''}`);
  return [...client, ...lines].join('\n');
}

/** Draws steps into a list. Steps that are already drawn keep their elements. */
export function drawSteps(list, steps) {
  const keyOf = ({ at, step }) => `${at} ${step}`;
  const keys = steps.map(keyOf);
  for (const row of [...list.children]) if (!keys.includes(row.dataset.key)) row.remove();
  for (const [index, step] of steps.entries()) {
    let row = list.children[index];
    if (row?.dataset.key !== keys[index]) {
      row = buildStep();
      row.dataset.key = keys[index];
      list.insertBefore(row, list.children[index] ?? null);
    }
    row.dataset.step = step.step;
    const [interval, title, time, text] = row.children;
    write(interval, index ? intervalBetween(steps[index - 1], step) : '');
    write(title, titleOf(step));
    const date = new Date(step.at * 1000);
    write(time, clockTime(date), exactTime(date));
    time.dateTime = date.toISOString();
    write(text, step.words ?? '');
    row.toggleAttribute('data-last', index === steps.length - 1);
  }
}

function buildStep() {
  const row = make('li', 'step');
  row.append(make('span', 'step-interval'), make('h3', 'step-title'), make('time', 'time'), make('p', 'step-text'));
  return row;
}
