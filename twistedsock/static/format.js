/** What the page says and reads, without a browser: addresses, names, payloads, sentences. No document is touched here. */

/** Channels on one page: the server has its own limit, this one keeps a pasted address from opening thousands. */
export const CHANNELS_LIMIT = 32;

/** Nesting drawn: deeper JSON is somebody's test of our stack. */
const DEPTH_SHOWN = 60;

/** The longest names, in bytes of UTF-8, as the protocol has them. */
export const CHANNEL_BYTES = 200;
export const NAME_BYTES = 64;
export const NICK_BYTES = 32;

/** Before a nick that nobody has vouched for. */
export const UNVERIFIED = '~';
export const UNVERIFIED_HINT = 'The ~ stands before a name that somebody has only chosen. Without it, a token proves the name.';

/** A JSON Web Token in an address, `#token=eyJ…` or `#kitchen,garden,token=eyJ…`, is no channel. */
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

/** The channels in an address like `#kitchen,garden`. */
export function readHash(hash) {
  const parts = partsOf(withoutToken(hash));
  const names = parts.map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part; // a lone % somebody typed
    }
  });
  return [...new Set(names)].filter((name) => !nameError(name, CHANNEL_BYTES)).slice(0, CHANNELS_LIMIT);
}

export function writeHash(names) {
  return `#${names.map(encodeURIComponent).join(',')}`;
}

/** As the bridge has it (core/names.py): with these, two different names look the same. */
const INVISIBLE = /[\p{Cf}\p{Default_Ignorable_Code_Point}\u2800]/u;

/** What is wrong with a name, in words for the person who typed it; an empty string if nothing is. */
export function nameError(name, bytes) {
  if (!name) return 'Type a name first.';
  if (/[\s\p{Cc}]/u.test(name)) return 'No spaces, please.';
  const invisible = name.match(INVISIBLE);
  if (invisible) return `There is an invisible character in it: U+${invisible[0].codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}.`;
  const reserved = name.match(/[*>#+?]/);
  if (reserved) return `No “${reserved[0]}”, please: * > # + ? are kept for patterns.`;
  if (new TextEncoder().encode(name).length > bytes) return `That is longer than ${bytes} bytes.`;
  return '';
}

/** A token as it was meant: terminals break long lines, and people copy what stood before it. */
export function readToken(text) {
  return text.replace(/^\s*(AUTH|Bearer|token=)/i, '').replace(/[\s"']/g, '');
}

/** What can be seen to be wrong with a token without its key; an empty string if nothing is. */
export function tokenError(token) {
  if (!token) return 'Paste a token first.';
  if (!/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) return 'That is no token: it has three parts of letters and digits, with dots between.';
  return '';
}

/** How a typed payload is sent if nobody chooses: as the line dialect does it, white space before it aside. */
export function readPayload(text) {
  if (!/^\s*[{["]/.test(text)) return { json: false, beginsLikeJson: false };
  try {
    return { json: true, value: JSON.parse(text) };
  } catch (error) {
    return { json: false, beginsLikeJson: true, fault: error.message };
  }
}

/**
 * JSON as [kind, text] pairs for colouring, at most `budget` characters.
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
    if (node === null || typeof node !== 'object') return put(typeof node === 'number' ? 'number' : 'word', String(node));
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

/** A gap as a sentence. */
export function describeGap({ channel, reason, first, last }) {
  if (reason === 'log') {
    const range = first === last ? `event ${first}` : `events ${first} to ${last}`;
    return `Lost on ${channel}: ${range}. The bridge no longer keeps ${first === last ? 'it' : 'them'}.`;
  }
  const seen = first > 1 ? `what came after event ${first - 1}` : 'what came earlier';
  return `${channel} was begun anew: its numbers start over, and ${seen} may be missing.`;
}

/** Who came or went, as a sentence; `nicks` may be fewer than `count`. */
export function describePresence(kind, channel, nicks, count) {
  const others = count - nicks.length;
  const names = others ? [...nicks, plural(others, 'other')] : nicks;
  const list = names.length > 1 ? `${names.slice(0, -1).join(', ')} and ${names.at(-1)}` : names[0];
  return `${list} ${kind === 'join' ? 'joined' : 'left'} ${channel}`;
}

export function describeError({ code, message }) {
  if (code === 'disconnected') return 'The connection broke before the answer came. It may or may not have been published.';
  if (code === 'queue-full') return 'Too much is waiting to be sent already. Try again when the connection is back.';
  return `${message} (${code})`;
}

/** Whether the bridge said that it is not allowed: for want of a token, or to whom one is. */
export function isAccessError({ code }) {
  return code === 'unauthorized' || code === 'forbidden';
}

/** What may not be done, in words; `way` is 'read' or 'publish on', `name` one's own where it is proved. */
export function describeAccessError(way, channel, code, name = '') {
  if (code === 'unauthorized') return `It takes a token to ${way} ${channel}.`;
  return `${name ? `As ${name}, you` : 'You'} may not ${way} ${channel}.`;
}

/** Who one is to others, where the bridge cares. */
export function describeIdentity(nick, id) {
  if (nick.startsWith(UNVERIFIED)) return `Others see you as ${nick}. The ${UNVERIFIED} says that no token proves it.`;
  return nick === id ? `Others see you as ${nick}.` : `You are ${nick}, and others can rely on it.`;
}

/** How long a token lasts; `seconds` is undefined where it has no end. */
export function describeTimeLeft(seconds) {
  if (seconds === undefined) return 'The bridge has taken it. It does not run out.';
  const units = [[86_400, 'day'], [3600, 'hour'], [60, 'minute']];
  const [size, name] = units.find(([one]) => seconds >= 2 * one) ?? units.at(-1);
  const count = Math.floor(seconds / size);
  return `The bridge has taken it. It runs out in ${count < 1 ? 'less than a minute' : plural(count, name)}.`;
}

export function clockTime(date) {
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, '0')).join(':');
}

/** Why a text is not JSON; an empty string if it is. */
export function jsonError(text) {
  try {
    JSON.parse(text);
    return '';
  } catch (error) {
    return `Not JSON: ${error.message}`;
  }
}
