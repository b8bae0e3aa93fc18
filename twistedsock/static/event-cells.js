/** Cells of event rows: time, sender and payload. JSON is coloured. */

import { make, makeButton } from './dom.js';
import { clockTime, jsonTokens, UNVERIFIED, UNVERIFIED_HINT } from './format.js';

/** Characters of a payload that are shown before "Show all". A payload can have 65,536. */
const CHARACTERS_SHOWN = 2000;

export function timeCell(at, title) {
  const time = make('time', 'time', clockTime(at));
  time.dateTime = at.toISOString();
  time.title = title;
  return time;
}

export function fromCell({ from }) {
  const cell = make('span', 'from', from);
  if (from.startsWith(UNVERIFIED)) cell.title = UNVERIFIED_HINT;
  return cell;
}

export function payloadCell({ name, data }, pretty, budget = CHARACTERS_SHOWN) {
  const cell = make('div', 'payload');
  if (name !== 'message') cell.append(make('span', 'name', name), ' ');
  const isText = typeof data === 'string';
  const body = make('code', isText ? 'text' : 'json');
  const { tokens, cut } = isText ? { tokens: [['plain', data.slice(0, budget)]], cut: data.length > budget } : jsonTokens(data, pretty, budget);
  for (const [kind, characters] of tokens) body.append(['plain', 'mark'].includes(kind) ? characters : make('span', kind, characters));
  cell.append(body);
  if (cut) cell.append('… ', makeButton('plain', 'Show all', () => cell.replaceWith(payloadCell({ name, data }, pretty, Infinity))));
  return cell;
}
