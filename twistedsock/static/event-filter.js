/**
 * Reads filters of the list of events. All terms must match: `kitchen` or `"two words"` are text in the channel, sender,
 * name or payload; `celsius>22` and `state=open` compare a field; `!` in front of a term excludes what matches. Uses no DOM.
 */

import { fieldsOf, numberIn, payloadText } from './payloads.js';

const TERMS = /(?:"[^"]*"|[^\s"])+/g;
const OPERATOR_WITH_SPACES = /("[^"]*")|\s*(<=|>=|!=|[<>=])\s*/g;
const COMPARISON = /^([^"<>=]*?)(<=|>=|!=|[<>=])(.*)$/s;

const ORDERS = {
  '<': (field, number) => field < number,
  '<=': (field, number) => field <= number,
  '>': (field, number) => field > number,
  '>=': (field, number) => field >= number,
};

const unquote = (text) => text.replaceAll('"', '');

/**
 * @returns {{matches?: (event: object) => boolean, error: string}} `matches` is undefined if the filter is empty or cannot be
 *   read; `error` then says why and what to write instead
 */
export function readFilter(text) {
  if ((text.match(/"/g) ?? []).length % 2) return { error: `Close the quotation marks: ${text.trim()}"` };
  const terms = text.replace(OPERATOR_WITH_SPACES, (_, quoted, operator) => quoted ?? operator).match(TERMS) ?? [];
  const tests = [];
  for (const term of terms) {
    const excludes = term.startsWith('!') && term.length > 1;
    const { test, error } = readTerm(excludes ? term.slice(1) : term);
    if (error) return { error };
    tests.push(excludes ? (event) => !test(event) : test);
  }
  return { matches: tests.length ? (event) => tests.every((test) => test(event)) : undefined, error: '' };
}

function readTerm(term) {
  const [, field, operator, written] = term.match(COMPARISON) ?? [];
  if (operator === undefined) return { test: containing(unquote(term).toLowerCase()) };
  const value = unquote(written);
  if (!field) return { error: `Write a field before “${operator}”, such as celsius${operator}22, or the text in quotation marks: "${unquote(term)}"` };
  if (!written) return { error: `Write a value after “${field}${operator}”, such as ${field}${operator}22.` };
  if (operator in ORDERS) {
    const number = value.trim() ? Number(value) : NaN;
    if (Number.isNaN(number)) return { error: `“${value}” is not a number: ${operator} compares numbers, such as ${field}${operator}22.` };
    return { test: comparing(field, (found) => ORDERS[operator](numberIn(found), number)) };
  }
  const equal = (found) => String(found).toLowerCase() === value.toLowerCase() || (value.trim() !== '' && numberIn(found) === Number(value));
  return { test: comparing(field, operator === '=' ? equal : (found) => !equal(found)) };
}

function containing(text) {
  return ({ channel, from, name, data }) => [channel, from, name, payloadText(data)].some((part) => part.toLowerCase().includes(text));
}

/** Tests the fields of a payload and of its event that have this name, or end with it: `max` finds `limits.max`. */
function comparing(field, compare) {
  const wanted = field.toLowerCase();
  const isNamed = (path) => path === wanted || path.endsWith(`.${wanted}`);
  return ({ channel, offset, from, name, data }) => {
    const fields = [...Object.entries({ channel, offset, from, name }), ...fieldsOf(data)];
    return fields.some(([path, value]) => {
      const lower = path.toLowerCase();
      return (isNamed(lower) || isNamed(lower.replace(/(^|\.)\d+(?=\.|$)/g, '').replace(/^\./, ''))) && compare(value);
    });
  };
}
