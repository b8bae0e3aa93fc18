/**
 * What stands in for the WebSocket where something on the way forbids it: a response that does not end brings the server's
 * messages (server-sent events, read by fetch), and requests carry ours. It has the WebSocket's face as far as
 * sockbridge.js looks at it, which loads this file only when it is needed. The rules are in docs/streams.md.
 */

const utf8 = new TextEncoder();

/** Bytes in one request; the server takes no more. A message has at most a quarter of it. */
export const POST_LIMIT = 262_144;

/** Bytes that wait to be sent: 64 full requests, about what a page may hoard unseen. */
export const HELD_LIMIT = 16_777_216;

/** Letters in one message of the server's: far more than a channel's whole log, and a page can still hold it. */
export const EVENT_LIMIT = 67_108_864;

/** Milliseconds after `close` in which what was said before may still be sent. */
export const FAREWELL = 5_000;

const NORMAL_END = 1000;
const BROKEN_PROTOCOL = 1002;
const NO_CONNECTION = 1006;
const POLICY = 1008;
const TOO_BIG = 1009;
const TRY_AGAIN_LATER = 1013;

/** What some refusals come to: a token that is not valid will not be so the next time, and who has too much to do needs time. */
const CODES = new Map([[401, POLICY], [429, TRY_AGAIN_LATER], [503, TRY_AGAIN_LATER]]);

/** Why it is over, as a WebSocket would say it. */
class Ending extends Error {
  constructor(code, reason) {
    super(reason);
    this.code = code;
  }
}

/** The server refuses a request, and says why (RFC 9457). */
async function refused(response) {
  const problem = await response.json().catch(() => null);
  const words = `the server answered ${response.status}${problem?.detail ? `: ${problem.detail}` : ''}`;
  return new Ending(CODES.get(response.status) ?? NO_CONNECTION, words);
}

/** Reads text/event-stream (WHATWG HTML, section 9.2.6), wherever it was cut. Of the fields it knows `event` and `data`. */
export class EventReader {
  #line = []; // the pieces of the line that has not ended
  #held = 0;
  #returned = false; // the last piece ended with CR: an LF that comes next belongs to it
  #type = '';
  #data = [];

  /** The events that are complete with this piece, as `{ type, data }`. */
  read(piece) {
    const events = [];
    if (piece === '') return events;
    const lines = (this.#returned && piece[0] === '\n' ? piece.slice(1) : piece).split(/\r\n|\n|\r/);
    this.#returned = piece.endsWith('\r');
    this.#held += piece.length;
    for (const [index, line] of lines.entries()) {
      this.#line.push(line);
      if (index < lines.length - 1) this.#take(this.#line.splice(0).join(''), events);
    }
    if (this.#held > EVENT_LIMIT) throw new Ending(TOO_BIG, `a message of more than ${EVENT_LIMIT} letters`);
    return events;
  }

  #take(line, events) {
    if (line === '') {
      if (this.#data.length) events.push({ type: this.#type || 'message', data: this.#data.join('\n') });
      this.#type = '';
      this.#data = [];
      this.#held = 0;
      return;
    }
    const [, field, value] = /^([^:]*)(?:: ?)?(.*)$/s.exec(line);
    if (field === 'event') this.#type = value;
    else if (field === 'data') this.#data.push(value);
  }
}

export class StreamSocket {
  onmessage = () => {};
  onclose = () => {};
  #address;
  #settings;
  #key; // what names this stream to the server, a secret
  #outbox = []; // { text, size }
  #held = 0;
  #posting = false;
  #closing = false;
  #ended = false;
  #farewell;
  #requests = new AbortController();

  /** `settings`: fetch, setTimeout, clearTimeout. */
  constructor(address, settings) {
    this.#address = address;
    this.#settings = settings;
    this.#receive().catch((error) => this.#end(error));
  }

  /** Like a WebSocket's: nothing is said here if it cannot be sent, `onclose` tells. */
  send(text) {
    if (this.#closing || this.#ended) return;
    const size = utf8.encode(text).length + 1;
    this.#outbox.push({ text, size });
    this.#held += size;
    if (this.#held > HELD_LIMIT) {
      this.#outbox = [];
      queueMicrotask(() => this.#end(new Ending(NO_CONNECTION, `more than ${HELD_LIMIT} bytes waited to be sent`)));
      return;
    }
    this.#post().catch((error) => this.#end(error));
  }

  /** What was sent before still goes out. */
  close() {
    if (this.#closing || this.#ended) return;
    this.#closing = true;
    this.#farewell = this.#settings.setTimeout(() => this.#end(new Ending(NORMAL_END, '')), FAREWELL);
    this.#post().catch((error) => this.#end(error));
  }

  async #receive() {
    const response = await this.#fetch({ headers: { Accept: 'text/event-stream' } });
    if (!response.ok) throw await refused(response);
    // A page that asks for a password or a payment, as hotels have it, is not the server.
    if (!/^text\/event-stream\b/i.test(response.headers.get('Content-Type') ?? '')) throw new Ending(BROKEN_PROTOCOL, 'not an event stream');
    const pieces = response.body.getReader();
    const decoder = new TextDecoder('utf-8', { fatal: true });
    const events = new EventReader();
    while (!this.#ended) {
      const { done, value } = await pieces.read();
      if (done) throw new Ending(NO_CONNECTION, 'the stream broke off');
      for (const event of events.read(decoder.decode(value, { stream: true }))) this.#take(event);
    }
  }

  #take({ type, data }) {
    if (this.#ended) return;
    if (type === 'close') {
      const { code, reason } = JSON.parse(data);
      this.#end(new Ending(code, reason));
      return;
    }
    if (type === 'welcome') this.#key = JSON.parse(data).key;
    this.onmessage({ data });
  }

  /** One request at a time, so that what is said keeps its order. */
  async #post() {
    if (this.#posting) return;
    this.#posting = true;
    await null; // all that is said in one turn goes in one request
    while (this.#outbox.length && this.#key !== undefined && !this.#ended) {
      const headers = { 'Sockbridge-Stream': this.#key, 'Content-Type': 'application/x-ndjson' };
      const response = await this.#fetch({ method: 'POST', headers, body: this.#nextBody() });
      if (!response.ok) throw await refused(response);
    }
    this.#posting = false;
    if (this.#closing) this.#end(new Ending(NORMAL_END, ''));
  }

  #nextBody() {
    let [{ size }] = this.#outbox;
    let count = 1;
    while (count < this.#outbox.length && size + this.#outbox[count].size <= POST_LIMIT) {
      size += this.#outbox[count].size;
      count += 1;
    }
    this.#held -= size;
    return this.#outbox.splice(0, count).map(({ text }) => `${text}\n`).join('');
  }

  #fetch(request) {
    return this.#settings.fetch(this.#address, { cache: 'no-store', signal: this.#requests.signal, ...request });
  }

  #end(error) {
    if (this.#ended) return;
    this.#ended = true;
    this.#outbox = [];
    this.#settings.clearTimeout(this.#farewell);
    this.#requests.abort();
    // Else it was fetch, the decoder or the parser.
    this.onclose({ code: error instanceof Ending ? error.code : NO_CONNECTION, reason: error.message });
  }
}
