/** Reads payloads: their fields by path, and the differences between two of them. Uses no DOM. */

/** Maximum number of fields read from one payload. Arrays of 64 KiB have more, which nobody compares by hand. */
const MAX_FIELDS = 1000;

/** Returns the fields of a payload as [path, value], such as `['limits.max', 30]`. A payload without fields is one field, `value`. */
export function fieldsOf(data) {
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

export function payloadText(data) {
  return typeof data === 'string' ? data : JSON.stringify(data);
}

/**
 * Returns the fields that differ between two payloads, in the order of the second one.
 * @returns {{path: string, before?: unknown, after?: unknown}[]} `before` is missing for a new field, `after` for a removed one
 */
export function differences(before, after) {
  const earlier = new Map(fieldsOf(before));
  const found = [];
  for (const [path, value] of fieldsOf(after)) {
    if (!earlier.has(path)) found.push({ path, after: value });
    else if (JSON.stringify(earlier.get(path)) !== JSON.stringify(value)) found.push({ path, before: earlier.get(path), after: value });
    earlier.delete(path);
  }
  return [...found, ...[...earlier].map(([path, value]) => ({ path, before: value }))];
}
