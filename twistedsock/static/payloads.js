/** Reads payloads: their fields by path, and the differences between two of them. Uses no DOM. */

import { describeBytes, isBytes, toBase64 } from './bytes.js';

/** Maximum number of fields read from one payload. Arrays of 64 KiB have more, which nobody compares by hand. */
const MAX_FIELDS = 1000;

/**
 * Returns the fields of a payload as [path, value], such as `['limits.max', 30]`. A payload without fields is one field, `value`.
 * Bytes have the field `size`.
 */
export function fieldsOf(data) {
  if (isBytes(data)) return [['size', data.length]];
  if (data === null || typeof data !== 'object') return [['value', data]];
  const fields = [];
  const walk = (node, path) => {
    for (const [key, value] of Object.entries(node)) {
      if (fields.length >= MAX_FIELDS) return;
      const name = path ? `${path}.${key}` : key;
      if (value !== null && typeof value === 'object' && Object.keys(value).length) walk(value, name);
      else fields.push([name, value]);
    }
  };
  walk(data, '');
  return fields;
}

/** Returns a number or a text that is one as a number, and everything else as NaN. */
export function numberIn(value) {
  if (typeof value === 'number') return value;
  return typeof value === 'string' && /^\s*[-+]?\.?\d/.test(value) ? Number(value) : NaN;
}

/** Numbers beyond the range of JavaScript, which reads them as Infinity. All of them are shown as this one. */
export const BEYOND = '1e400';

/** Stands for such a number while JSON is written. The server accepts no unpaired surrogate, so no payload contains it. */
const PLACEHOLDER = '\ud800';
const PLACEHOLDERS = /"(-?)\\ud800"/g;

/** Writes JSON as JSON.stringify does, which however writes null for numbers beyond the range of JavaScript. */
export function jsonText(value, indent) {
  const text = JSON.stringify(value, null, indent);
  if (!text.includes('null')) return text;
  const marks = new Map([[Infinity, PLACEHOLDER], [-Infinity, `-${PLACEHOLDER}`]]);
  return JSON.stringify(value, (_, one) => marks.get(one) ?? one, indent).replace(PLACEHOLDERS, `$1${BEYOND}`);
}

/** Returns a payload as text for people. Bytes are described. */
export function payloadText(data) {
  if (isBytes(data)) return describeBytes(data);
  return typeof data === 'string' ? data : jsonText(data);
}

/**
 * Returns the fields that differ between two payloads, in the order of the second one.
 * @returns {{path: string, before?: unknown, after?: unknown}[]} `before` is missing for a new field, `after` for a removed one
 */
export function differences(before, after) {
  if (isBytes(before) && isBytes(after) && before.length === after.length) {
    return toBase64(before) === toBase64(after) ? [] : [{ path: 'bytes', before, after }];
  }
  const earlier = new Map(fieldsOf(before));
  const found = [];
  for (const [path, value] of fieldsOf(after)) {
    if (!earlier.has(path)) found.push({ path, after: value });
    else if (jsonText(earlier.get(path)) !== jsonText(value)) found.push({ path, before: earlier.get(path), after: value });
    earlier.delete(path);
  }
  return [...found, ...[...earlier].map(([path, value]) => ({ path, before: value }))];
}
