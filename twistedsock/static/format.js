/** Parses and formats text of the page: URL hashes, names, tokens, payloads and messages for people. Uses no DOM. */

import { jsonText } from './payloads.js';

/** Maximum number of channels on one page, so that a pasted URL cannot open thousands. The server has its own limit. */
export const CHANNELS_LIMIT = 32;

/** Maximum depth of JSON that is drawn, so that recursion cannot exhaust the stack. */
const DEPTH_SHOWN = 60;

/** Maximum length of names in bytes of UTF-8, as defined by the protocol. */
export const CHANNEL_BYTES = 200;
export const NAME_BYTES = 64;
export const NICK_BYTES = 32;

/** The prefix of nicks that no token verifies. */
export const UNVERIFIED = '~';
export const UNVERIFIED_HINT = '~ marks an unverified name. Names without it are verified by a token.';

/** A JSON Web Token in a URL, `#token=eyJ…` or `#kitchen,garden,token=eyJ…`. */
const TOKEN_PART = /^token=([\w-]+\.[\w-]+\.[\w-]*)$/;

function partsOf(hash) {
  return hash.replace(/^#/, '').split(',').filter(Boolean);
}

export function tokenInHash(hash) {
  return partsOf(hash).map((part) => part.match(TOKEN_PART)?.[1]).find(Boolean);
}

export function withoutToken(hash) {
  return `#${partsOf(hash).filter((part) => !TOKEN_PART.test(part)).join(',')}`;
}

/** Returns the channels of a URL hash such as `#kitchen,garden`. */
export function readHash(hash) {
  const parts = partsOf(withoutToken(hash));
  const names = parts.map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part; // contains an invalid % sequence
    }
  });
  return [...new Set(names)].filter((name) => !nameError(name, CHANNEL_BYTES)).slice(0, CHANNELS_LIMIT);
}

export function writeHash(names) {
  const hash = `#${names.map(encodeURIComponent).join(',')}`;
  return isBoardHash(hash) ? `${hash},` : hash;
}

/** True for the URL hash of the board: `#board`, or with a filter `#board?find=home`. `#board,` is the channel `board`. */
export function isBoardHash(hash) {
  return /^#board(?:\?|$)/.test(hash);
}

/** Invisible characters, which make different names look the same. The server rejects them (pubsub/names.py). */
const INVISIBLE = /[\p{Cf}\p{Default_Ignorable_Code_Point}\u2800]/u;

/** Returns an error message for an invalid name, otherwise an empty string. */
export function nameError(name, bytes) {
  if (!name) return 'Enter a name first.';
  if (/[\s\p{Cc}]/u.test(name)) return 'Names can’t contain spaces.';
  const invisible = name.match(INVISIBLE);
  if (invisible) return `Names can’t contain the invisible character U+${invisible[0].codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}.`;
  const reserved = name.match(/[*>#+?]/);
  if (reserved) return `Names can’t contain “${reserved[0]}”: * > # + ? are reserved for patterns.`;
  if (new TextEncoder().encode(name).length > bytes) return `Too long: the maximum is ${bytes} bytes.`;
  return '';
}

/** Cleans up a pasted token: removes line breaks of a terminal and a command or scheme in front of it. */
export function readToken(text) {
  return text.replace(/^\s*(AUTH|Bearer|token=)/i, '').replace(/[\s"']/g, '');
}

/** Returns an error message if a text cannot be a token, otherwise an empty string. */
export function tokenError(token) {
  if (!token) return 'Paste a token first.';
  if (!/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) return 'That doesn’t look like a token (three parts separated by dots).';
  return '';
}

/** Detects whether a typed payload is JSON, as the line protocol does, but ignores leading white space. */
export function readPayload(text) {
  if (!/^\s*[{["]/.test(text)) return { json: false, beginsLikeJson: false };
  try {
    return { json: true, value: JSON.parse(text) };
  } catch {
    return { json: false, beginsLikeJson: true };
  }
}

/**
 * Splits JSON into [kind, text] pairs for colouring, up to `budget` characters.
 * @returns {{tokens: [string, string][], cut: boolean}}
 */
export function jsonTokens(value, pretty, budget) {
  const tokens = [];
  let left = budget;
  let cut = false;
  const put = (kind, text) => {
    cut ||= text.length > left;
    if (left <= 0) return;
    const shown = text.slice(0, left);
    left -= text.length;
    const before = tokens.at(-1);
    if (before?.[0] === kind) before[1] += shown;
    else tokens.push([kind, shown]);
  };
  const walk = (node, depth) => {
    if (typeof node === 'string') return put('string', JSON.stringify(node));
    if (node === null || typeof node !== 'object') return put(typeof node === 'number' ? 'number' : 'word', jsonText(node));
    const list = Array.isArray(node);
    const [open, close] = list ? '[]' : '{}';
    const keys = Object.keys(node);
    if (!keys.length) return put('mark', open + close);
    if (depth >= DEPTH_SHOWN) return put('mark', `${open}…${close}`);
    const line = pretty ? `\n${'  '.repeat(depth + 1)}` : '';
    put('mark', open + line);
    for (const [index, key] of keys.entries()) {
      if (cut) return;
      if (index) put('mark', pretty ? `,${line}` : ', ');
      if (!list) {
        put('key', JSON.stringify(key));
        put('mark', ': ');
      }
      walk(node[key], depth + 1);
    }
    put('mark', (pretty ? `\n${'  '.repeat(depth)}` : '') + close);
  };
  walk(value, 0);
  return { tokens, cut };
}

export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString('en')} ${count === 1 ? one : many}`;
}

export function describeGap({ channel, reason, first, last }) {
  if (reason === 'log') {
    const range = first === last ? first : `${first}–${last}`;
    return `Missed ${plural(last - first + 1, 'event')} on ${channel} (${range}): no longer in the history.`;
  }
  const events = first > 1 ? `events after ${first - 1} may be missing, and earlier ones may no longer be valid` : 'earlier events may be missing';
  return `The server has reset ${channel}: ${events}.`;
}

/** Describes a new epoch. @param {number} newest the offset of the newest event shown, or 0 */
export function describeReset({ channel, good, offset }, newest) {
  let events = 'no events were lost';
  if (newest === good + 1) events = `event ${newest} is no longer valid`;
  else if (newest > good) events = `events ${good + 1}–${newest} are no longer valid`;
  return `The server has reset ${channel}: ${events}. ${offset === good ? 'New events continue' : 'Offsets begin again'} at ${offset + 1}.`;
}

/** Describes `count` joins or leaves, of which the first have `nicks`. */
export function describePresence(kind, channel, nicks, count) {
  const more = count - nicks.length;
  const names = more ? [...nicks, `${more.toLocaleString('en')} more`] : nicks;
  return `${enumerate(names)} ${kind === 'join' ? 'joined' : 'left'} ${channel}`;
}

/** Describes the events that were replayed after an outage. @param {[string, number][]} missed channels and their number of events */
export function describeCaughtUp(missed) {
  return `Caught up: ${enumerate(missed.map(([channel, count]) => `${plural(count, 'missed event')} on ${channel}`))}.`;
}

/** ann; ann and bo; ann, bo and cy */
function enumerate(items) {
  return items.length > 1 ? `${items.slice(0, -1).join(', ')} and ${items.at(-1)}` : items[0];
}

export function describeError({ code, message }) {
  if (code === 'disconnected') return 'The connection was lost before the reply. The event may or may not have been published.';
  if (code === 'queue-full') return 'Too many messages are queued. Try again when you are connected.';
  return `${message} (${code})`;
}

/** True for errors about missing rights. */
export function isAccessError({ code }) {
  return code === 'unauthorized' || code === 'forbidden';
}

/** @param {'read' | 'publish on'} action @param {string} name the verified name of the user, or an empty string */
export function describeAccessError(action, channel, code, name = '') {
  if (code === 'unauthorized') return `A token is required to ${action} ${channel}.`;
  return `${name ? `As ${name}, you` : 'You'} can’t ${action} ${channel}.`;
}

export function describeIdentity(nick, id) {
  if (nick.startsWith(UNVERIFIED)) return `Other people see you as ${nick}. ${UNVERIFIED} marks an unverified name.`;
  return nick === id ? `Other people see you as ${nick}.` : `Verified as ${nick}.`;
}

/** Describes the lifetime of a token. `seconds` is undefined if it never expires. */
export function describeTimeLeft(seconds) {
  if (seconds === undefined) return 'Accepted. Never expires.';
  const units = [[86_400, 'day'], [3600, 'hour'], [60, 'minute']];
  const [size, name] = units.find(([one]) => seconds >= 2 * one) ?? units.at(-1);
  const count = Math.floor(seconds / size);
  return `Accepted. Expires in ${count < 1 ? 'less than a minute' : plural(count, name)}.`;
}

/** Turns a message of the server into a sentence: `the server is shutting down` becomes `The server is shutting down.` */
export function toSentence(text) {
  return text && text[0].toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? '' : '.');
}

/** A table, because toLocaleDateString takes 0.1 ms, and the list of events formats hundreds of dates at once. */
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** Formats a local time: `03:04:05`, or `Jan 2 03:04:05` if it is not on the day of `now`. */
export function clockTime(date, now = date) {
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(twoDigits).join(':');
  return date.toDateString() === now.toDateString() ? time : `${MONTHS[date.getMonth()]} ${date.getDate()} ${time}`;
}

/** Formats a local time completely, for tooltips: `2026-01-02 03:04:05.006` */
export function exactTime(date) {
  const day = [date.getFullYear(), twoDigits(date.getMonth() + 1), twoDigits(date.getDate())].join('-');
  return `${day} ${clockTime(date)}.${String(date.getMilliseconds()).padStart(3, '0')}`;
}

/** Formats the time since a date: `just now`, `5 min ago`, `3 h ago`, `2 days ago` */
export function timeSince(date, now) {
  const minutes = Math.floor((now - date) / 60_000);
  if (minutes < 1) return 'just now'; // also if the clock of the server is ahead
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ago`;
  return `${plural(Math.floor(minutes / (24 * 60)), 'day')} ago`;
}

function twoDigits(number) { return String(number).padStart(2, '0'); }

/** Words for an invalid bound. */
export const BOUND_HINT = 'Enter an offset such as 18, a time such as 14:30, or -10m.';

/** A date, a time and an offset from UTC, all optional. */
const DATE_AND_TIME = /^(?:(\d{4}-\d\d-\d\d)[T ]?)?(\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)?(Z|[+-]\d\d:\d\d)?$/;

/**
 * Parses a bound of a history: `18` is an offset; `-10m` is relative to now; `14:30`, `2026-11-29` and `2026-11-29 14:30:05`
 * are local times. Without a date, the last such time is meant.
 * @returns {number | string | Date | undefined} as `history` of the client accepts it; undefined if the text is invalid
 */
export function readBound(text, now = new Date()) {
  if (/^\d{1,12}$/.test(text)) return Number(text);
  if (/^-\d{1,12}(ms|s|m|h|d)$/.test(text)) return text;
  const [, day, time, zone] = text.match(DATE_AND_TIME) ?? [];
  if ((!day && !time) || (zone && !(day && time))) return undefined;
  const local = new Date(now.getTime() - now.getTimezoneOffset() * 60_000).toISOString().slice(0, 10);
  const date = new Date(`${day ?? local}T${time ?? '00:00'}${zone ?? ''}`);
  if (!day && date > now) date.setDate(date.getDate() - 1);
  return Number.isNaN(date.getTime()) ? undefined : date;
}

/** Returns an error message if a text is not JSON, otherwise an empty string. */
export function jsonError(text) {
  try {
    JSON.parse(text);
    return '';
  } catch (error) {
    return `Not valid JSON: ${error.message}`;
  }
}
