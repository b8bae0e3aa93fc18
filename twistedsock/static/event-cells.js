/** Cells of event rows: time, sender and payload. JSON is coloured, and bytes are described. */

import { describeBytes, isBytes } from './bytes.js';
import { make, makeButton } from './dom.js';
import { clockTime, exactTime, jsonTokens, timeSince, UNVERIFIED, UNVERIFIED_HINT } from './format.js';

/** Characters of a payload that are shown before "Show all". A payload can have 65,536. */
const CHARACTERS_SHOWN = 2000;

/** A local time, for events of the history also how long ago it was. The tooltip has the date and milliseconds. */
export function timeCell(date, replayed = false) {
  const cell = make('time', 'time');
  cell.dateTime = date.toISOString();
  cell.title = `${exactTime(date)}${replayed ? ', from the history' : ''}`;
  if (replayed) cell.append(make('span', 'since'), ' ');
  cell.append(make('span', 'clock'));
  updateTimeCell(cell, new Date());
  return cell;
}

/** Writes the texts that depend on the present time. */
export function updateTimeCell(cell, now) {
  const date = new Date(cell.dateTime);
  for (const [name, text] of [['since', timeSince(date, now)], ['clock', clockTime(date, now)]]) {
    const part = cell.querySelector(`.${name}`);
    if (part && part.textContent !== text) part.textContent = text;
  }
}

export function fromCell({ from }) {
  const cell = make('span', 'from', from);
  if (from.startsWith(UNVERIFIED)) cell.title = UNVERIFIED_HINT;
  return cell;
}

export function payloadCell({ name, data }, pretty, budget = CHARACTERS_SHOWN) {
  const cell = make('div', 'payload');
  if (name !== 'message') cell.append(make('span', 'name', name), ' ');
  if (isBytes(data)) {
    cell.append(make('code', 'bytes', describeBytes(data)));
    return cell;
  }
  const isText = typeof data === 'string';
  const body = make('code', isText ? 'text' : 'json');
  const { tokens, cut } = isText ? { tokens: [['plain', data.slice(0, budget)]], cut: data.length > budget } : jsonTokens(data, pretty, budget);
  for (const [kind, characters] of tokens) body.append(['plain', 'mark'].includes(kind) ? characters : make('span', kind, characters));
  cell.append(body);
  if (cut) cell.append('… ', makeButton('plain', 'Show all', () => cell.replaceWith(payloadCell({ name, data }, pretty, Infinity))));
  return cell;
}
