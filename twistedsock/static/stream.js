/**
 * Replaces WebSocket if it is blocked on the way: an endless response carries the messages of the server (server-sent
 * events, read by fetch), and POST requests carry those of the client. StreamSocket has the part of the WebSocket
 * interface that sockbridge.js uses. sockbridge.js loads this file only when it is needed.
 */

const utf8 = new TextEncoder();

/** Maximum size of a request in bytes, which is the limit of the server. The maximum message has a quarter of it. */
export const REQUEST_BYTES_LIMIT = 262_144;

/** Maximum number of bytes queued for sending: 64 full requests. */
export const QUEUE_BYTES_LIMIT = 16_777_216;

/** Maximum length of a message of the server in characters: far more than the history of a channel, and still small enough for a page. */
export const MESSAGE_CHARACTERS_LIMIT = 67_108_864;

/** Milliseconds after `close` in which queued messages are still sent. */
export const CLOSE_TIMEOUT_MS = 5_000;

const NORMAL_CLOSURE = 1000;
const PROTOCOL_ERROR = 1002;
const ABNORMAL_CLOSURE = 1006;
const POLICY_VIOLATION = 1008;
const TOO_BIG = 1009;
const TRY_AGAIN_LATER = 1013;

/** The close codes for some HTTP statuses: an invalid token stays invalid, and an overloaded server needs time. */
const CLOSE_CODES = new Map([[401, POLICY_VIOLATION], [429, TRY_AGAIN_LATER], [503, TRY_AGAIN_LATER]]);

/** The reason why the stream ended, with a WebSocket close code. */
class CloseError extends Error {
  constructor(code, reason) {
    super(reason);
    this.code = code;
  }
}

/** Converts an error response (RFC 9457). */
async function requestError(response) {
  const problem = await response.json().catch(() => null);
  const message = `the server replied ${response.status}${problem?.detail ? `: ${problem.detail}` : ''}`;
  return new CloseError(CLOSE_CODES.get(response.status) ?? ABNORMAL_CLOSURE, message);
}

/** Decodes text/event-stream (WHATWG HTML, section 9.2.6) in chunks of any size. Supports the fields `event` and `data`. */
export class EventStreamDecoder {
  #line = []; // the chunks of the incomplete line
  #size = 0;
  #endsWithCr = false; // the last chunk ended with CR: an LF at the start of the next one belongs to it
  #type = '';
  #data = [];

  /** Returns the events that this chunk completes, as `{ type, data }`. */
  decode(chunk) {
    const events = [];
    if (chunk === '') return events;
    const lines = (this.#endsWithCr && chunk[0] === '\n' ? chunk.slice(1) : chunk).split(/\r\n|\n|\r/);
    this.#endsWithCr = chunk.endsWith('\r');
    this.#size += chunk.length;
    for (const [index, line] of lines.entries()) {
      this.#line.push(line);
      if (index < lines.length - 1) this.#processLine(this.#line.splice(0).join(''), events);
    }
    if (this.#size > MESSAGE_CHARACTERS_LIMIT) throw new CloseError(TOO_BIG, `message longer than ${MESSAGE_CHARACTERS_LIMIT} characters`);
    return events;
  }

  #processLine(line, events) {
    if (line === '') {
      if (this.#data.length) events.push({ type: this.#type || 'message', data: this.#data.join('\n') });
      this.#type = '';
      this.#data = [];
      this.#size = 0;
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
  #key; // identifies this stream to the server; a secret
  #queue = []; // { text, size }
  #queuedBytes = 0;
  #posting = false;
  #closing = false;
  #ended = false;
  #closeTimer;
  #abortController = new AbortController();

  /** `settings`: fetch, setTimeout, clearTimeout. */
  constructor(address, settings) {
    this.#address = address;
    this.#settings = settings;
    this.#receive().catch((error) => this.#end(error));
  }

  /** Queues a message. As with WebSocket, `onclose` reports if it cannot be sent. */
  send(text) {
    if (this.#closing || this.#ended) return;
    const size = utf8.encode(text).length + 1;
    this.#queue.push({ text, size });
    this.#queuedBytes += size;
    if (this.#queuedBytes > QUEUE_BYTES_LIMIT) {
      this.#queue = [];
      queueMicrotask(() => this.#end(new CloseError(ABNORMAL_CLOSURE, `more than ${QUEUE_BYTES_LIMIT} bytes queued for sending`)));
      return;
    }
    this.#post().catch((error) => this.#end(error));
  }

  /** Closes after the queued messages have been sent. */
  close() {
    if (this.#closing || this.#ended) return;
    this.#closing = true;
    this.#closeTimer = this.#settings.setTimeout(() => this.#end(new CloseError(NORMAL_CLOSURE, '')), CLOSE_TIMEOUT_MS);
    this.#post().catch((error) => this.#end(error));
  }

  async #receive() {
    const response = await this.#fetch({ headers: { Accept: 'text/event-stream' } });
    if (!response.ok) throw await requestError(response);
    // The login page of a captive portal, as in hotels, is not the server.
    if (!/^text\/event-stream\b/i.test(response.headers.get('Content-Type') ?? '')) throw new CloseError(PROTOCOL_ERROR, 'not an event stream');
    const chunks = response.body.getReader();
    const decoder = new TextDecoder('utf-8', { fatal: true });
    const events = new EventStreamDecoder();
    while (!this.#ended) {
      const { done, value } = await chunks.read();
      if (done) throw new CloseError(ABNORMAL_CLOSURE, 'the stream ended unexpectedly');
      for (const event of events.decode(decoder.decode(value, { stream: true }))) this.#processEvent(event);
    }
  }

  #processEvent({ type, data }) {
    if (this.#ended) return;
    if (type === 'close') {
      const { code, reason } = JSON.parse(data);
      this.#end(new CloseError(code, reason));
      return;
    }
    if (type === 'welcome') this.#key = JSON.parse(data).key;
    this.onmessage({ data });
  }

  /** Sends one request at a time, so that messages stay in order. */
  async #post() {
    if (this.#posting) return;
    this.#posting = true;
    await null; // combines the messages of one turn in one request
    while (this.#queue.length && this.#key !== undefined && !this.#ended) {
      const headers = { 'Sockbridge-Stream': this.#key, 'Content-Type': 'application/x-ndjson' };
      const response = await this.#fetch({ method: 'POST', headers, body: this.#nextBody() });
      if (!response.ok) throw await requestError(response);
    }
    this.#posting = false;
    if (this.#closing) this.#end(new CloseError(NORMAL_CLOSURE, ''));
  }

  #nextBody() {
    let [{ size }] = this.#queue;
    let count = 1;
    while (count < this.#queue.length && size + this.#queue[count].size <= REQUEST_BYTES_LIMIT) {
      size += this.#queue[count].size;
      count += 1;
    }
    this.#queuedBytes -= size;
    return this.#queue.splice(0, count).map(({ text }) => `${text}\n`).join('');
  }

  #fetch(request) {
    return this.#settings.fetch(this.#address, { cache: 'no-store', signal: this.#abortController.signal, ...request });
  }

  #end(error) {
    if (this.#ended) return;
    this.#ended = true;
    this.#queue = [];
    this.#settings.clearTimeout(this.#closeTimer);
    this.#abortController.abort();
    // Other errors come from fetch, the decoder or the parser.
    this.onclose({ code: error instanceof CloseError ? error.code : ABNORMAL_CLOSURE, reason: error.message });
  }
}
