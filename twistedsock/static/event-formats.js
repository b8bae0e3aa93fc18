/**
 * Events as text for other programs: commands to publish them again, CSV and JSON files. Payloads come from strangers, so
 * no text can run as a command where it is pasted, nor as a formula in a spreadsheet. Uses no DOM.
 */

import { isBytes, toBase64 } from './bytes.js';
import { CHANNEL_BYTES } from './format.js';
import { shellQuote } from './line-endpoints.js';
import { fieldsOf, jsonText, payloadText } from './payloads.js';

/** Maximum number of columns for fields in a CSV file. Further fields are in the column `data` only. */
const MAX_FIELD_COLUMNS = 100;

/** Characters that a terminal or a shell could interpret: controls, invisible characters, and those with a special meaning. */
const UNSAFE = /[\p{C}\p{Zl}\p{Zp}$`;&|<>()'!*?~#%^\\]/u;
const UNSAFE_IN_JSON = /\\(["\\/bfnrt])|[\p{C}\p{Zl}\p{Zp}$`;&|<>()'!*?~#%^]/gu;
const CONTROLS = /[\p{C}\p{Zl}\p{Zp}]/u;

const ESCAPED = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };

const escapeUnits = (text) => [...Array(text.length).keys()].map((index) => `\\u${text.charCodeAt(index).toString(16).padStart(4, '0')}`).join('');

/** Returns JSON without a character that a shell interprets inside or outside of double quotes, except \u. */
function harmlessJson(value) {
  return jsonText(value).replace(UNSAFE_IN_JSON, (found, letter) => escapeUnits(letter ? ESCAPED[letter] ?? letter : found));
}

/** Returns true if the server would take a text for JSON (docs/reference/line-protocol.md#payloads). */
const beginsLikeJson = (text) => /^[{["]/.test(text);

/** Returns the line that publishes the payload again. It publishes nothing else, even if it is pasted into a shell. */
export function pubLine({ channel, data }) {
  if (isBytes(data)) return `PUBBIN ${channel} ${toBase64(data)}`;
  const plain = typeof data === 'string' && data !== '' && !beginsLikeJson(data) && !/^\s|\s$/.test(data) && !UNSAFE.test(data);
  return `PUB ${channel} ${plain ? data : harmlessJson(data)}`;
}

/** Returns the address of the events of a channel. */
export function eventsAddress(origin, channel) {
  return `${origin}/channels/${channel.split('/').map(encodeURIComponent).join('/')}/events`;
}

/** Returns the shell command that publishes an event again, with its name. The token comes from the environment. */
export function curlCommand({ channel, name, data }, origin, hasToken) {
  const bytes = isBytes(data);
  const plain = typeof data === 'string' && !CONTROLS.test(data);
  const type = bytes ? 'application/octet-stream' : plain ? 'text/plain' : 'application/json';
  // Not -d, which reads a file if the payload begins with @.
  const body = bytes ? '--data-binary @-' : `--data-raw ${shellQuote(plain ? data : harmlessJson(data)) || "''"}`;
  const source = bytes ? `printf %s '${toBase64(data)}' | base64 -d | ` : '';
  const auth = hasToken ? '-H "Authorization: Bearer $TOKEN" ' : '';
  const query = name === 'message' ? '' : `?name=${encodeURIComponent(name)}`;
  return `${source}curl ${auth}-H 'Content-Type: ${type}' ${body} ${shellQuote(eventsAddress(origin, channel) + query)}`;
}

const exported = ({ channel, offset, time, from, name, data }) => (
  { channel, offset, time: new Date(time).toISOString(), from, name, ...(isBytes(data) ? { base64: toBase64(data) } : { data }) }
);

/** Returns one event as JSON for people. */
export function eventJson(event) {
  return jsonText(exported(event), 2);
}

/** Returns a JSON array with one event a line. */
export function toJson(events) {
  return `[${events.map((event) => `\n${jsonText(exported(event))}`).join(',')}\n]\n`;
}

/** Text that a spreadsheet takes for a formula (OWASP, CSV injection), also behind white space. */
const FORMULA = /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20|]|^[\t\r\n]/;
const NUMBER = /^-?\d+(\.\d+)?([eE][-+]?\d+)?$/;

function cell(value) {
  if (value === undefined || value === null) return '';
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  const text = payloadText(value);
  const harmless = FORMULA.test(text) && !NUMBER.test(text) ? `'${text}` : text;
  return /[",\r\n;\t]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}

/** Returns CSV (RFC 4180) with a column for each field of JSON payloads. Bytes are base64 in the column `data`. A text that looks like a formula gets an apostrophe. */
export function toCsv(events) {
  const fields = events.map(({ data }) => (data !== null && typeof data === 'object' && !isBytes(data) ? new Map(fieldsOf(data)) : new Map()));
  const columns = [...new Set(fields.flatMap((one) => [...one.keys()]))].slice(0, MAX_FIELD_COLUMNS);
  const rows = events.map((event, index) => {
    const { time, channel, offset, from, name, data, base64 } = exported(event);
    return [time, channel, offset, from, name, base64 ?? data, ...columns.map((column) => fields[index].get(column))];
  });
  return [['time', 'channel', 'offset', 'from', 'name', 'data', ...columns], ...rows].map((row) => `${row.map(cell).join(',')}\r\n`).join('');
}

/** Returns a file name that is valid everywhere: `sockbridge-kitchen-2026-11-29T22-30-05.csv` */
export function fileName(channels, date, extension) {
  const subject = channels.length === 1 ? channels[0].slice(0, CHANNEL_BYTES).replace(/[^\p{L}\p{N}_-]+/gu, '-').slice(0, 60) : `${channels.length}-channels`;
  return `sockbridge-${subject.replace(/^-+|-+$/g, '') || 'channel'}-${date.toISOString().slice(0, 19).replaceAll(':', '-')}.${extension}`;
}
