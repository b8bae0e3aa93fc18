/** What a socket went through, as a line from top to bottom: each step with its words, and the time between two of them. */

import { make } from '../dom.js';
import { duration, exactTime } from './units.js';
import { write } from './table.js';

const TITLES = {
  accepted: 'Accepted',
  proxied: 'Told by a proxy',
  handshake: 'Handshake done',
  open: 'Open',
  authenticated: 'Known by a token',
  subscribed: 'Subscribed',
  behind: 'Behind',
  'caught-up': 'Caught up',
  lost: 'Lost events',
  closing: 'Closing',
  closed: 'Closed',
};

const HANDSHAKES = { TLS: 'TLS handshake', WebSocket: 'WebSocket handshake', events: 'Stream begun' };

/** What a step is called. Later bridges may know steps that we do not. */
export function titleOf({ step, by, detail }) {
  const known = (step === 'handshake' && HANDSHAKES[detail]) || TITLES[step];
  const title = known ?? step.charAt(0).toUpperCase() + step.slice(1).replaceAll('-', ' ');
  const whom = { server: 'the bridge', peer: 'the peer' }[by];
  return whom ? `${title}, by ${whom}` : title;
}

/** The words between a step and the one before it. */
export function spanBetween(before, after) {
  const seconds = after.at - before.at;
  return seconds < 0.000_05 ? 'at once' : `${duration(seconds)} later`;
}

/** Draws steps into a list; one that is drawn already stays as it is, so that nobody who reads is disturbed. */
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
    const [between, title, time, words] = row.children;
    write(between, index ? spanBetween(steps[index - 1], step) : '');
    write(title, titleOf(step));
    write(time, exactTime(step.at).slice(11, 19), exactTime(step.at));
    time.dateTime = new Date(step.at * 1000).toISOString();
    write(words, step.words ?? '');
    row.toggleAttribute('data-last', index === steps.length - 1);
  }
}

function buildStep() {
  const row = make('li', 'step');
  row.append(make('span', 'step-interval'), make('h3', 'step-title'), make('time', 'time'), make('p', 'step-text'));
  return row;
}
