// @ts-self-types="./sockbridge.d.ts"
/**
 * The JavaScript client of sockbridge: channels over one WebSocket that reconnects automatically.
 *
 *     import { connect } from './sockbridge.js';
 *
 *     const client = connect();
 *     client.subscribe('kitchen', (event) => console.log(event.offset, event.from, event.data));
 *     await client.publish('kitchen', { celsius: 21.5 });
 *
 * Guarantees, whatever the network does: the events of a channel arrive in order and at most once, missing and
 * void events are reported (`onLost`, `onReset`), and nothing is published twice. With a key, an event is published exactly
 * once if the promise resolves.
 * The clock, random numbers and connections come from the options of `connect`, so that tests can replace them.
 * sockbridge.d.ts describes all arguments and results. The client needs no other file. If WebSockets are blocked, it
 * loads stream.js from the same folder.
 */

const utf8 = new TextEncoder();
const SUBPROTOCOL = 'sockbridge.v1.json';
const PROTOCOL = 1;

/** Node.js 18 has no CustomEvent. */
const CustomEvent = globalThis.CustomEvent ?? class CustomEvent extends Event {
  constructor(type, { detail }) { super(type); this.detail = detail ?? null; }
};

/** Maximum size of a message in bytes. Checked here because the server closes the connection (1009) after a longer one. */
export const MESSAGE_LIMIT = 65_536;

/** Maximum number of commands queued while disconnected. With messages of the maximum size, the queue holds 16 MiB. */
export const QUEUE_LIMIT = 256;

/** Maximum number of unanswered commands, so that a server that stops answering cannot exhaust the memory of the page. */
export const UNANSWERED_LIMIT = 4096;

/** Maximum number of events that wait for a `for await` loop. Until half of them are read, the subscription pauses. */
export const ITERATION_LIMIT = 1000;

/** A timer of a longer time, for example Infinity, would expire at once: such a call has no timeout. */
const LONGEST_TIMEOUT = 2 ** 31 - 1;

/** A publication with a key is not repeated later than this: the server remembers keys for ten minutes. */
const KEY_LIFETIME = 540_000;

/** Offsets of own events remembered per channel for `echo: false`. Older own events can be delivered after a reconnection. */
const OWN_OFFSETS_LIMIT = 1024;

/** Timeouts in milliseconds. Each one is also an option of `connect`. */
export const DEFAULT_TIMES = Object.freeze({
  firstDelay: 500, // a server usually restarts within this time, and it spreads the reconnections of many pages
  longestDelay: 30_000, // people who have to wait longer reload the page
  stableAfter: 10_000, // a connection that breaks sooner counts as a failed attempt, so that a crashing server is not hammered
  openTimeout: 10_000, // a browser waits minutes for a host that drops packets
  quietAfter: 25_000, // proxies close connections that are silent for 30 or 60 s; pings keep them open and detect dead ones
  answerTimeout: 10_000, // a phone needs a few seconds to wake up its radio
  commandTimeout: 60_000, // long enough for a history of 4 MiB over a slow connection
  websocketAgainAfter: 600_000, // a laptop that changes networks should not use the stream all day
});

/** After these two close codes the client does not reconnect: a regular end, and a policy that will not change soon. */
const NORMAL_CLOSURE = 1000;
const POLICY_VIOLATION = 1008;

const PROTOCOL_ERROR = 1002;
const ABNORMAL_CLOSURE = 1006;
const TRY_AGAIN_LATER = 1013;

/** The number of failed attempts assumed after close code 1013 (server overloaded): the delay is then random up to 4 s. */
const OVERLOAD_ATTEMPT = 3;

/** Temporary errors: subscriptions that existed before the connection broke are requested again at the next liveness check. */
const TEMPORARY_ERRORS = ['rate', 'unavailable', 'internal', 'queue-full', 'timeout'];

/** Errors after which the outcome of a command is unknown. */
const UNKNOWN_OUTCOMES = ['disconnected', 'closed', 'timeout'];
const MAY_HAVE_RUN = 'the command may or may not have run';

/** Numbers from here on are times that were mistaken for offsets: milliseconds since 1970, in September 2001 or later. */
const MIN_MISTAKEN_TIME = 1e12;

/** A lone surrogate as JSON.stringify escapes it (whole pairs are not escaped), or any other escape. */
const LONE_SURROGATE_OR_ESCAPE = /\\u(d[89a-f][0-9a-f]{2})|\\./g;

/** A JSON payload that is published as it is written: numbers keep all their digits, and objects the order of their keys. */
export class RawJson {
  constructor(text) {
    JSON.parse(text); // throws a SyntaxError
    this.text = text.replace(/[\r\n]/g, ' '); // white space, because strings contain them escaped: stream.js sends lines
    Object.freeze(this);
  }
}

const isBytes = (data) => data instanceof ArrayBuffer || ArrayBuffer.isView(data);

/** `toBase64` and `fromBase64` of Uint8Array are missing in browsers before 2025 and in Node.js before 25. */
function encodeBytes(data) {
  const bytes = new Uint8Array(data.buffer ?? data, data.byteOffset, data.byteLength); // a view, or an ArrayBuffer
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
}

const decodeBytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

/** Returns a message as JSON that every parser accepts: lone surrogates become U+FFFD, as WebSocket does with text. */
function serialize(message) {
  const raw = message.data instanceof RawJson;
  const written = JSON.stringify(raw ? { ...message, data: undefined } : message);
  const text = raw ? `${written.slice(0, -1)},"data":${message.data.text}}` : written;
  return text.includes('\\ud') ? text.replace(LONE_SURROGATE_OR_ESCAPE, (escape, half) => (half ? '\ufffd' : escape)) : text;
}

/** Returns a name as `serialize` sends it, so that replies and events for that name can be assigned. */
const wellFormed = (name) => (/[\ud800-\udfff]/.test(name) ? JSON.parse(serialize(name)) : name);

/** Returns an event as declared in the types, without the fields of the protocol. */
const eventOf = ({ channel, offset, time, from, name, data, base64 }) => (
  { channel, offset, time, from, name, data: base64 === undefined ? data : decodeBytes(base64) }
);

/** The reason of every rejected promise. The documentation lists the codes of the server and of the client. */
export class SockbridgeError extends Error {
  constructor(code, message, channel) {
    super(message);
    this.name = 'SockbridgeError';
    this.code = code;
    if (channel !== undefined) this.channel = channel; // of a rejected subscription
  }
}

/** Calls back when a signal is aborted, at once if it is. Returns a function that stops listening. */
function onAbort(signal, callback) {
  const abort = () => callback(signal.reason);
  if (signal?.aborted) abort();
  signal?.addEventListener('abort', abort);
  return () => signal?.removeEventListener('abort', abort);
}

/** Writes errors to the console that answer no call and have no listener, so that they do not get lost. */
class ErrorReporter extends EventTarget {
  #hasListener = false;

  addEventListener(type, ...rest) {
    this.#hasListener ||= type === 'error';
    super.addEventListener(type, ...rest);
  }

  dispatchEvent(event) {
    if (event.type === 'error' && !this.#hasListener) console.error(event.detail);
    return super.dispatchEvent(event);
  }
}

/** Platforms without `using` can lack the symbols; a compiler that translates `using` defines them. */
const { dispose = Symbol(), asyncDispose = Symbol() } = Symbol;

/** The public handle that `subscribe` returns. */
export class Subscription {
  #subscriber;

  constructor(subscriber) { this.#subscriber = subscriber; }

  get channel() { return this.#subscriber.channel; }

  /** All events up to this offset have been delivered. Undefined until the first reply. */
  get position() { return this.#subscriber.position; }

  /** The epoch of `position`. Store both to resume here after a reload. */
  get epoch() { return this.#subscriber.epoch; }

  /** True if the server has confirmed the subscription on the present connection. */
  get current() { return this.#subscriber.current; }

  /** Resolves with the first reply. Rejects if the server rejects the subscription. */
  get ready() {
    this.#subscriber.readyUsed = true;
    return this.#subscriber.ready;
  }

  unsubscribe() { this.#subscriber.unsubscribe(); }

  [dispose]() { this.unsubscribe(); }

  /** The events. Leaving the loop unsubscribes; a subscription that the server rejects or ends throws its error. */
  [Symbol.asyncIterator]() { return this.#subscriber.iterate(); }
}

/** One call of `subscribe`. Each has its own position, so that the subscribers of one channel are independent. */
class Subscriber {
  /** False until the server has replied on this connection. Until then events are ignored, because they will be replayed. */
  current = false;
  restarted = false;
  /** True if the program has read `ready`. */
  readyUsed = false;
  #confirmed = false;
  /** Events for a `for await` loop, if there is one. */
  #events;
  /** True while `#events` is full: the events after `position` are requested again when it has been read. */
  paused = false;
  #wake = () => {};
  #over;
  /** Before the first event, gaps up to this offset are not reported: `last` requests only the events that still exist. */
  gapsIgnoredUpTo = 0;
  /** `remove` it, `report` an error, and `resume` after a pause. */
  #client;

  constructor(channel, callback, options, client) {
    this.channel = channel;
    this.options = { ...options, onEvent: callback };
    if (!callback) this.#events = [];
    this.position = options.since;
    this.epoch = options.epoch;
    this.ready = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.ready.catch(() => {}); // `fail` reports the error, so this is not an unhandled rejection
    this.#client = client;
  }

  /** `reason` is that of an aborted signal. */
  unsubscribe(reason) {
    this.#client.remove(this);
    if (this.#events) this.#events = [];
    this.end(reason ?? new SockbridgeError('unsubscribed', `unsubscribed from ${this.channel}`), !reason);
  }

  /** No more events follow. Unless the end is `regular`, loops throw the error. */
  end(error, regular) {
    this.#over ??= { error: !regular && error };
    this.stopListening?.();
    this.reject(error);
    this.#wake();
  }

  onEvent(event) {
    this.call('onEvent', event);
    this.paused = this.#events?.push(event) >= ITERATION_LIMIT;
    this.current = !this.paused;
    this.#wake();
  }

  async* iterate() {
    this.#events ??= [];
    try {
      for (;;) {
        if (this.#events.length) yield this.#events.shift();
        else if (this.#over) break;
        else await new Promise((resolve) => { this.#wake = resolve; });
        if (this.paused && this.#events.length <= ITERATION_LIMIT / 2) {
          this.paused = false;
          this.#client.resume();
        }
      }
      if (this.#over.error) throw this.#over.error;
    } finally {
      this.unsubscribe();
    }
  }

  /** Exceptions of a callback become uncaught errors. They do not keep events from other subscribers. */
  call(callback, value) {
    try {
      this.options[callback]?.(value);
    } catch (error) {
      queueMicrotask(() => { throw error; });
    }
  }

  confirm(state) {
    this.current = true;
    this.#confirmed = true;
    this.resolve(state);
    this.call('onSubscribed', state);
  }

  fail({ code, message }) {
    const error = new SockbridgeError(code, message, this.channel);
    this.end(error);
    this.#client.remove(this);
    if (this.options.onRefused) this.call('onRefused', error);
    // The program can still read `ready` later in this turn.
    else queueMicrotask(() => { if (!this.#events && (this.#confirmed || !this.readyUsed)) this.#client.report(error); });
  }

  reportGap(gap) {
    this.call('onLost', { channel: this.channel, epoch: this.epoch, ...gap });
  }
}

/**
 * All subscribers of one channel, which share one subscription on the server.
 * Only one request is in flight at a time. Subscribers with a position are resumed first, then new ones are added one by
 * one. Therefore every reply is unambiguous, even if subscribers are added or removed in the meantime.
 */
class Channel {
  /** @type {Set<Reader>} */
  subscribers = new Set();
  #requestPending = false;
  #echoOff = false; // the server was asked for echo: false
  #own = new Set(); // offsets this client published itself

  constructor(name, send) {
    this.name = name;
    this.send = send;
  }

  /** Called after reconnecting: subscribes again. */
  resume() {
    this.#requestPending = false;
    for (const subscriber of this.subscribers) subscriber.current = false;
    this.requestNext();
  }

  requestNext() {
    const subscribers = [...this.subscribers].filter((subscriber) => !subscriber.paused);
    if (this.#requestPending || subscribers.every((subscriber) => subscriber.current)) return;
    const positioned = subscribers.filter((subscriber) => subscriber.position !== undefined);
    const added = positioned.every((subscriber) => subscriber.current) ? subscribers.find((subscriber) => !subscriber.current) : undefined;
    const echo = [...this.subscribers].some((subscriber) => subscriber.options.echo !== false);
    const presence = [...this.subscribers].some((subscriber) => subscriber.options.presence === true);
    const request = { type: 'subscribe', channel: this.name, echo, presence };
    const epoch = (positioned.find((subscriber) => subscriber.current) ?? positioned[0])?.epoch;
    const requested = positioned.filter((subscriber) => subscriber.epoch === epoch);
    if (requested.length) {
      // From the lowest position that any subscriber needs. Those that are further ahead ignore events they have seen.
      const positions = requested.map((subscriber) => subscriber.position);
      const wish = added ? Math.max(0, Math.max(...positions) - (added.options.last ?? 0)) : Infinity;
      Object.assign(request, { since: Math.min(wish, ...positions), epoch });
    } else {
      request.last = added.options.last;
    }
    this.#requestPending = true;
    this.send(request, (answer) => {
      this.#requestPending = false;
      this.#echoOff = !echo;
      for (const subscriber of positioned) {
        if (!this.subscribers.has(subscriber) || subscriber.paused) continue;
        // A subscriber that was reset since the request asks again.
        if (requested.includes(subscriber) && subscriber.epoch === epoch) this.#onResumed(subscriber, answer, request.since);
        else if (subscriber.epoch !== answer.epoch) this.#restart(subscriber, answer);
      }
      if (this.subscribers.has(added) && (epoch ?? answer.epoch) === answer.epoch) this.#startNew(added, answer);
      this.requestNext();
    }, (error) => {
      this.#requestPending = false;
      this.#onRefused(error, added ? [added] : positioned.filter((subscriber) => !subscriber.current));
    });
  }

  #startNew(subscriber, { offset, epoch }) {
    subscriber.epoch = epoch;
    subscriber.position = Math.max(0, offset - (subscriber.options.last ?? 0));
    subscriber.gapsIgnoredUpTo = offset;
    subscriber.confirm({ offset, epoch, missed: 0 });
  }

  #onResumed(subscriber, answer, since) {
    const { offset, epoch, recovered } = answer;
    // The server has found all events up to `since` of the old epoch valid. That says nothing about the events of subscribers
    // that are further ahead.
    if (subscriber.epoch !== epoch && answer.since !== undefined && subscriber.position === since) {
      this.#moveToEpoch(subscriber, { epoch, good: since, offset: answer.since });
    }
    if (subscriber.epoch !== epoch || subscriber.position > offset) return this.#restart(subscriber, answer);
    if (!subscriber.current) subscriber.confirm({ offset, epoch, recovered: recovered && !subscriber.restarted, missed: offset - subscriber.position });
    subscriber.restarted = false;
  }

  /**
   * It is unknown which events of the old epoch are valid. In the new one this subscriber has seen nothing, so the next
   * request starts at the first event in the history. If the epoch is the same but its newest offset decreased, most of the
   * history has been seen: continue with the newest event.
   */
  #restart(subscriber, { offset, epoch }) {
    subscriber.reportGap({ reason: 'epoch', first: subscriber.position + 1 });
    subscriber.position = subscriber.epoch === epoch ? offset : 0;
    subscriber.epoch = epoch;
    subscriber.current = false;
    subscriber.restarted = true;
    subscriber.gapsIgnoredUpTo = 0; // was an offset of the old epoch
    this.#own.clear();
  }

  #onRefused(error, requested) {
    if (error.code === 'disconnected' || error.code === 'closed') return; // requested again on the next connection
    const positioned = requested.some((subscriber) => subscriber.position !== undefined);
    if (positioned && TEMPORARY_ERRORS.includes(error.code)) return;
    for (const subscriber of requested) if (this.subscribers.has(subscriber)) subscriber.fail(error);
    this.requestNext();
  }

  deliver(event) {
    const own = this.#own.has(event.offset);
    for (const subscriber of this.subscribers) {
      if (!subscriber.current || event.offset <= subscriber.position) continue;
      subscriber.position = event.offset;
      subscriber.gapsIgnoredUpTo = 0;
      if (!(own && subscriber.options.echo === false)) subscriber.onEvent(eventOf(event));
    }
    if (this.#own.size) this.#skipOwn();
  }

  lost({ first, last }) {
    for (const subscriber of this.subscribers) {
      if (!subscriber.current || last <= subscriber.position) continue;
      const gap = { reason: 'log', first: Math.max(first, subscriber.position + 1), last };
      subscriber.position = last;
      if (last > subscriber.gapsIgnoredUpTo) subscriber.reportGap(gap);
    }
  }

  /**
   * The channel has a new epoch, and the events after `offset` of it follow. Of the old epoch, events after `good` are void.
   * The reply to a pending request refers to the old epoch, so it cannot confirm that nothing is missing: all ask again.
   */
  reset({ epoch, good, offset }) {
    for (const subscriber of this.subscribers) {
      if (!subscriber.current) continue;
      subscriber.current = !this.#requestPending;
      this.#moveToEpoch(subscriber, { epoch, good, offset });
    }
  }

  #moveToEpoch(subscriber, { epoch, good, offset }) {
    this.#own.clear();
    Object.assign(subscriber, { epoch, position: offset, gapsIgnoredUpTo: 0 });
    subscriber.call('onReset', { channel: this.name, epoch, good, offset });
  }

  presence({ type, peer }) {
    for (const subscriber of this.subscribers) {
      if (subscriber.options.presence) subscriber.call(type === 'join' ? 'onJoin' : 'onLeave', peer);
    }
  }

  /** With `echo: false` the server omits own events, but after a reconnection, under a new id, it would replay them. */
  addOwn(offset) {
    if (![...this.subscribers].some((subscriber) => subscriber.options.echo === false)) return;
    this.#own.add(offset);
    if (this.#own.size > OWN_OFFSETS_LIMIT) this.#own.delete(this.#own.values().next().value);
    this.#skipOwn();
  }

  #skipOwn() {
    const subscribers = [...this.subscribers];
    for (const subscriber of this.#echoOff ? subscribers : []) {
      while (this.#own.has(subscriber.position + 1)) subscriber.position += 1;
    }
    const lowest = Math.min(...subscribers.map((subscriber) => subscriber.position));
    for (const offset of this.#own) if (offset <= lowest) this.#own.delete(offset);
  }
}

/** Consecutive WebSocket failures before plain HTTP is checked. A single failure can be caused by a restart. */
const FAILURES_BEFORE_CHECK = 2;

/** The URL of another resource in the same folder as the WebSocket, behind the same proxies. */
function siblingUrl(address, name) { return new URL(name, address.replace(/^ws/, 'http')); }

/**
 * Selects the transport: WebSocket, or the stream of stream.js if WebSockets are blocked on the way.
 * A page of another origin first asks the server whether it accepts that origin, because browsers do not show the reason of a
 * failed WebSocket.
 * The stream is used only after the WebSocket has failed twice in a row and an HTTP request has succeeded right after.
 * Therefore a server that is down is never mistaken for a blocked WebSocket. If the stream fails too, both are tried in
 * turn. A WebSocket that receives a welcome resets all of this.
 */
class TransportSelector {
  /** The transport of the present connection or of the last attempt: 'websocket' or 'stream'. */
  transport;
  #next;
  #fixed; // set by the options or the platform
  #blocked = false; // WebSockets fail although HTTP works
  #failures = 0;
  #retryWebSocketAt = Infinity;
  #httpCheck = null;
  #foreignOrigin; // the origin of the page, if it is not that of the server
  #originReported = false;
  #address;
  #settings;
  #report;

  constructor(address, settings, report) {
    const { transport, WebSocket, window } = settings;
    if (!['auto', 'websocket', 'stream'].includes(transport)) throw new TypeError('invalid transport: use auto, websocket or stream');
    if (!WebSocket && transport === 'websocket') throw new TypeError('this platform has no WebSocket: pass one as an option');
    this.#address = address;
    this.#settings = settings;
    this.#report = report;
    if (window?.origin !== siblingUrl(address, '').origin) this.#foreignOrigin = window?.origin;
    this.#fixed = transport !== 'auto' || !WebSocket;
    this.#next = transport === 'stream' || !WebSocket ? 'stream' : 'websocket';
  }

  /** Called before each attempt. */
  choose() {
    this.transport = this.#settings.now() >= this.#retryWebSocketAt ? 'websocket' : this.#next;
    return this.transport;
  }

  connected() {
    this.#failures = 0;
    this.#originReported = false;
    if (this.#fixed || this.transport === 'stream') return;
    this.#blocked = false;
    this.#next = 'websocket';
    this.#retryWebSocketAt = Infinity;
  }

  /** Called if an attempt ends before the welcome. */
  failed() {
    if (this.#blocked) {
      if (this.transport === 'websocket') this.#switchToStream();
      else this.#next = 'websocket';
      return;
    }
    this.#failures += 1;
    if (this.#failures >= FAILURES_BEFORE_CHECK) this.#checkHttp();
  }

  /** Cancels a pending HTTP check. */
  close() { this.#httpCheck?.abort(); }

  #switchToStream() {
    this.#blocked = true;
    this.#next = 'stream';
    this.#retryWebSocketAt = this.#settings.now() + this.#settings.websocketAgainAfter;
  }

  async #checkHttp() {
    if (this.#httpCheck || (this.#fixed && this.#foreignOrigin === undefined)) return;
    const { fetch, openTimeout, setTimeout, clearTimeout } = this.#settings;
    const request = new AbortController();
    this.#httpCheck = request;
    const timer = setTimeout(() => request.abort(), openTimeout);
    try {
      const response = await fetch(siblingUrl(this.#address, 'origin').href, { cache: 'no-store', signal: request.signal });
      const { allowed } = await response.json();
      if (this.#failures >= FAILURES_BEFORE_CHECK && !request.signal.aborted) {
        if (allowed === false) this.#reportOrigin();
        else if (allowed && !this.#fixed) this.#switchToStream();
      }
    } catch {
      // The network or the server is down, or another server answers: neither transport would work.
    }
    clearTimeout(timer);
    this.#httpCheck = null;
  }

  #reportOrigin() {
    const origin = this.#foreignOrigin;
    if (!this.#originReported) this.#report(new SockbridgeError('origin', `the server rejects pages of ${origin}: start the server with --allow-origin ${origin}`));
    this.#originReported = true;
  }
}

/**
 * A connection that reconnects automatically. Dispatches `connecting` (the first time at the end of the turn that created
 * the client), `open` (detail: the peer and the transport), `waiting` (detail: delay, attempt, code, reason), `closed`
 * (detail: code, reason), `notice` (detail: text, optional code and channel) and `error` (detail: an error that answers
 * no call).
 */
export class Client extends ErrorReporter {
  #url;
  #settings;
  #transports;
  #state;
  #peer = null;
  #socket = null;
  #welcomeReceived = false; // on the present connection
  #timer; // one at a time: for the welcome, the next liveness check or the next attempt
  #attempt = 0;
  #openedAt = 0;
  #receivedAt = 0;
  #lastId = 0;
  #nick;
  #tokenSent = false; // on the present connection
  #disconnectedByAdmin = false; // another token would not help
  #queue = []; // commands to send when connected
  #pending = new Set(); // all unsettled commands
  #constructed = false;
  #opening; // settles `opened`
  #stopListening;
  #onIdle; // called when all commands are settled
  #unanswered = new Map();
  /** @type {Map<string, Channel>} */
  #channels = new Map();

  constructor(url, settings) {
    super();
    this.#url = url;
    this.#settings = settings;
    this.#transports = new TransportSelector(url, settings, (error) => this.#dispatch('error', error));
    this.#connect();
    settings.window?.addEventListener?.('online', this.#onNetworkChange);
    settings.window?.document?.addEventListener('visibilitychange', this.#onNetworkChange);
    this.#stopListening = onAbort(settings.signal, () => this.close());
    this.#constructed = true;
  }

  /** 'connecting', 'open', 'waiting' or 'closed'. */
  get state() { return this.#state; }

  /**
   * While open, `{id, from, to}`: the id of this client and the addresses of both ends as the server sees them. With a
   * token also `nick` and, unless the token never expires, `expires` in seconds.
   */
  get peer() { return this.#peer; }

  /** 'websocket' or 'stream': the transport of the present connection or of the last attempt. */
  get transport() { return this.#transports.transport; }

  /** Resolves when the client is open, at once if it is. Rejects when it is closed for good. */
  get opened() {
    if (this.#state === 'open') return Promise.resolve(this.#openDetail);
    if (this.#state === 'closed') return Promise.reject(new SockbridgeError('closed', 'this client is closed'));
    if (!this.#opening) {
      this.#opening = {};
      this.#opening.promise = new Promise((resolve, reject) => Object.assign(this.#opening, { resolve, reject }));
    }
    return this.#opening.promise;
  }

  get #openDetail() { return { ...this.#peer, transport: this.transport }; }

  subscribe(channel, callback, options = {}) {
    if (typeof callback !== 'function') [callback, options] = [undefined, callback ?? options];
    channel = wellFormed(channel);
    const subscriber = new Subscriber(channel, callback, options, {
      remove: (subscriber) => this.#removeSubscriber(subscriber),
      report: (error) => this.#dispatch('error', error),
      resume: () => { if (this.#state === 'open') this.#channels.get(channel)?.requestNext(); },
    });
    const subscription = new Subscription(subscriber);
    let error;
    if (this.#state === 'closed') error = { code: 'closed', message: 'this client is closed' };
    else if ((options.since === undefined) !== (options.epoch === undefined)) {
      error = { code: 'bad-argument', message: 'since and epoch must be given together' };
    }
    if (error) {
      subscriber.fail(error);
      return subscription;
    }
    if (!this.#channels.has(channel)) {
      this.#channels.set(channel, new Channel(channel, (message, resolve, reject) => this.#command(message, resolve, reject)));
    }
    this.#channels.get(channel).subscribers.add(subscriber);
    if (this.#state === 'open') this.#channels.get(channel).requestNext();
    subscriber.stopListening = onAbort(options.signal, (reason) => subscriber.unsubscribe(reason));
    return subscription;
  }

  /**
   * Resolves with the offset. After a rejection with `disconnected`, the event may or may not have been published. With a key,
   * the client repeats it after a reconnection instead, and the server publishes it only once.
   */
  publish(channel, data, { name, key, ...limits } = {}) {
    if (['undefined', 'function', 'symbol'].includes(typeof data)) {
      return Promise.reject(new SockbridgeError('bad-argument', `${typeof data} is not a JSON value`));
    }
    const payload = isBytes(data) ? { base64: encodeBytes(data) } : { data };
    return this.#request({ type: 'publish', channel, ...payload, name, key }, ({ offset }) => {
      this.#channels.get(wellFormed(channel))?.addOwn(offset);
      return offset;
    }, limits);
  }

  /** Resolves with the members of the channel. */
  who(channel, limits) { return this.#request({ type: 'who', channel }, ({ members }) => members, limits); }

  /** Resolves with events from the history of the channel. `after` and `before`: a number is an offset, all else a time. */
  history(channel, { last, since, after, before, ...limits } = {}) {
    const mistaken = Object.entries({ since, after, before }).find(([, bound]) => typeof bound === 'number' && bound >= MIN_MISTAKEN_TIME);
    if (mistaken) return Promise.reject(new SockbridgeError('bad-argument', `${mistaken[0]}: a number is an offset. For a time use new Date(${mistaken[1]})`));
    return this.#request({ type: 'history', channel, last, since, after, before }, ({ events, offset, epoch, lost, gaps = [] }) => {
      const missing = lost ? [lost, ...gaps] : gaps;
      const history = { events: events.map(eventOf), offset, epoch };
      return missing.length ? { ...history, lost: missing } : history;
    }, limits);
  }

  /** Sets the name of this client, also after every reconnection. Resolves with the name that other clients see. */
  nick(name, limits) {
    const before = this.#nick;
    this.#nick = name;
    return this.#request({ type: 'nick', nick: name }, (answer) => answer.nick, limits).catch((error) => {
      if (error instanceof SockbridgeError && !UNKNOWN_OUTCOMES.includes(error.code) && this.#nick === name) this.#nick = before;
      throw error;
    });
  }

  /**
   * Authenticates with a token. Subscriptions continue as far as the new token allows them. Unless the option `token` is a
   * function, the token is used for later connections as well. Resolves with the nick and the lifetime in seconds.
   */
  authenticate(token, limits) {
    return this.#request({ type: 'auth', token }, ({ nick, expires }) => {
      this.#tokenSent = true;
      if (!this.#canRenewToken) this.#settings.token = token;
      return { nick, expires };
    }, limits);
  }

  /** Resolves with the round-trip time in milliseconds. */
  ping(limits) {
    const sentAt = this.#settings.now();
    return this.#request({ type: 'ping' }, () => this.#settings.now() - sentAt, limits);
  }

  info(limits) { return this.#request({ type: 'info' }, ({ type, id, ...info }) => info, limits); }

  /** Reconnects immediately if the client is waiting. */
  retry() {
    if (this.#state === 'waiting') this.#connect();
  }

  /** Closes the client for good. Unanswered and queued calls are rejected with `closed`. */
  close() { this.#closeForGood(NORMAL_CLOSURE, 'closed by this client'); }

  [dispose]() { this.close(); }

  /** Closes the client when all calls are settled. */
  async [asyncDispose]() {
    if (this.#pending.size) await new Promise((resolve) => { this.#onIdle = resolve; });
    this.close();
  }

  // ---- the connection ----

  #connect() {
    if (this.#transports.choose() === 'websocket') this.#attach(new this.#settings.WebSocket(this.#url, [SUBPROTOCOL]));
    else this.#openStream();
    this.#tokenSent = false;
    this.#welcomeReceived = false;
    this.#setTimer(this.#settings.openTimeout, () => this.#onDisconnect(ABNORMAL_CLOSURE, 'no welcome in time'));
    this.#setState('connecting');
  }

  #attach(socket) {
    // A dropped socket can still dispatch events: only those of the present one count.
    const present = (react) => (event) => { if (socket === this.#socket) react(event); };
    socket.onmessage = present(({ data }) => this.#receive(data));
    socket.onclose = present(({ code, reason }) => this.#onDisconnect(code, reason));
    socket.onerror = () => {}; // close follows; some WebSockets for Node.js throw without a listener
    this.#socket = socket;
  }

  async #openStream() {
    const placeholder = { send() {}, close() {} }; // placeholder until stream.js is loaded
    this.#socket = placeholder;
    try {
      const { StreamSocket } = await import('./stream.js');
      const address = siblingUrl(this.#url, 'stream');
      address.search = new URL(this.#url).search;
      if (this.#socket === placeholder) this.#attach(new StreamSocket(address.href, this.#settings));
    } catch {
      if (this.#socket === placeholder) this.#onDisconnect(ABNORMAL_CLOSURE, 'cannot load stream.js');
    }
  }

  #receive(text) {
    this.#receivedAt = this.#settings.now();
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return this.#onDisconnect(PROTOCOL_ERROR, 'the server sent invalid JSON');
    }
    const channel = this.#channels.get(message?.channel);
    switch (message?.type) {
      case 'event': return channel?.deliver(message);
      case 'join':
      case 'leave': return channel?.presence(message);
      case 'lost': return channel?.lost(message);
      case 'reset': return channel?.reset(message);
      case 'ok':
      case 'pong': return this.#removeUnanswered(message.id)?.resolve(message);
      case 'error': return this.#onError(message);
      case 'welcome': return this.#onWelcome(message);
      case 'notice': return this.#onNotice(message);
      default: return undefined; // message types of later versions are ignored
    }
  }

  #onWelcome({ protocol, id, from, to }) {
    if (protocol !== PROTOCOL) return this.#closeForGood(PROTOCOL_ERROR, `unsupported protocol version ${protocol}`);
    const peer = { id, from, to };
    this.#welcomeReceived = true;
    this.#transports.connected();
    if (this.#settings.token === undefined) return this.#onOpen(peer);
    // Commands wait for the reply, because the server would reject those that need the token.
    const socket = this.#socket;
    return this.#sendToken(
      (answer) => { if (socket === this.#socket) this.#onOpen(answer ? { ...peer, nick: answer.nick, expires: answer.expires } : peer); },
      (error) => {
        if (socket !== this.#socket) return;
        this.#dispatch('error', error);
        // A function can return another token. The same token would be rejected again.
        if (this.#canRenewToken) this.#onDisconnect(ABNORMAL_CLOSURE, error.message);
        else this.#closeForGood(POLICY_VIOLATION, error.message);
      },
    );
  }

  get #canRenewToken() { return typeof this.#settings.token === 'function'; }

  /** Sends the token: at once, or when the function of the program has returned one. Sends no message without a token. */
  #sendToken(resolve, reject) {
    const socket = this.#socket;
    const show = (token) => {
      if (socket !== this.#socket) return;
      if (token === undefined || token === null) {
        resolve();
        return;
      }
      this.#tokenSent = true;
      this.#lastId += 1;
      const id = this.#lastId;
      this.#send(this.#withTimeout({ id, text: serialize({ type: 'auth', id, token }), type: 'auth', resolve, reject }));
    };
    if (!this.#canRenewToken) return show(this.#settings.token);
    const failed = (error) => reject(new SockbridgeError('no-token', `cannot get a token: ${error?.message ?? error}`));
    return new Promise((fetched) => { fetched(this.#settings.token()); }).then(show, failed);
  }

  #onOpen(peer) {
    this.#peer = peer;
    this.#state = 'open';
    this.#openedAt = this.#settings.now();
    // The order matters: first the identity and the name, so that the name is announced on joining; then subscriptions,
    // so that own events are received.
    const queue = this.#queue.splice(0);
    const names = queue.filter((command) => command.type === 'nick');
    for (const command of queue) if (command.type === 'auth') this.#send(command);
    if (this.#nick !== undefined && !names.length) {
      this.#command({ type: 'nick', nick: this.#nick }, () => {}, (error) => this.#dispatch('error', error));
    }
    for (const command of names) this.#send(command);
    for (const channel of this.#channels.values()) channel.resume();
    for (const command of queue) if (command.type !== 'nick' && command.type !== 'auth') this.#send(command);
    this.#checkConnection();
    this.#setState('open', this.#openDetail);
    this.#opening?.resolve(this.#openDetail);
    this.#opening = undefined;
  }

  #onNotice({ type, ...notice }) {
    const { text, code, channel } = notice;
    this.#dispatch('notice', notice);
    if (code === 'disconnected') this.#disconnectedByAdmin = true;
    if (code === 'token-expires' && this.#canRenewToken) {
      this.#sendToken(() => {}, (error) => { if (error.code !== 'disconnected') this.#dispatch('error', error); });
    } else if (code === 'forbidden') {
      for (const subscriber of [...this.#channels.get(channel)?.subscribers ?? []]) {
        this.#removeSubscriber(subscriber, true);
        subscriber.fail({ code, message: text });
      }
    }
  }

  /** Browsers answer pings of the server without notifying the page, so the client measures silence and sends its own. */
  #checkConnection() {
    for (const channel of this.#channels.values()) channel.requestNext(); // retries after temporary errors
    const silence = this.#settings.now() - this.#receivedAt;
    const { quietAfter } = this.#settings;
    if (silence < quietAfter) return this.#setTimer(quietAfter - silence, () => this.#checkConnection());
    this.#sendPing();
  }

  #sendPing() {
    const before = this.#receivedAt;
    this.#socket.send('{"type":"ping"}');
    this.#setTimer(this.#settings.answerTimeout, () => {
      if (this.#receivedAt === before) this.#onDisconnect(ABNORMAL_CLOSURE, 'the server does not respond');
      else this.#checkConnection();
    });
  }

  /** The device is online or the page is visible again: reconnect without delay, or check the open connection. */
  #onNetworkChange = ({ type }) => {
    if (type === 'visibilitychange' && this.#settings.window.document.visibilityState !== 'visible') return;
    if (this.#state === 'open') this.#sendPing();
    else this.retry();
  };

  #onDisconnect(code, reason) {
    if (this.#state === 'open' && this.#settings.now() - this.#openedAt >= this.#settings.stableAfter) this.#attempt = 0;
    // If a function supplies tokens, the next one can be valid although this one has expired.
    const anotherToken = this.#canRenewToken && this.#tokenSent && !this.#disconnectedByAdmin;
    if (code === NORMAL_CLOSURE || (code === POLICY_VIOLATION && !anotherToken)) return this.#closeForGood(code, reason);
    if (!this.#welcomeReceived) this.#transports.failed();
    this.#dropConnection('disconnected', `the connection was lost: ${MAY_HAVE_RUN}`);
    if (code === TRY_AGAIN_LATER) this.#attempt = Math.max(this.#attempt, OVERLOAD_ATTEMPT);
    const { firstDelay, longestDelay, random } = this.#settings;
    // Full jitter: after a restart, reconnections spread over the whole window instead of arriving in waves.
    const delay = Math.round(random() * Math.min(longestDelay, firstDelay * 2 ** this.#attempt));
    this.#attempt += 1;
    this.#setTimer(delay, () => this.#connect());
    this.#setState('waiting', { delay, attempt: this.#attempt, code, reason });
  }

  #closeForGood(code, reason) {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#transports.close();
    reason ||= `the server closed the connection (${code})`;
    this.#dropConnection('closed', `${reason}: ${MAY_HAVE_RUN}`);
    const closed = new SockbridgeError('closed', reason);
    for (const command of this.#queue.splice(0)) command.reject(closed);
    for (const channel of this.#channels.values()) for (const subscriber of channel.subscribers) subscriber.end(closed, code === NORMAL_CLOSURE);
    this.#opening?.reject(closed);
    this.#stopListening?.();
    this.#channels.clear();
    this.#settings.window?.removeEventListener?.('online', this.#onNetworkChange);
    this.#settings.window?.document?.removeEventListener('visibilitychange', this.#onNetworkChange);
    this.#setState('closed', { code, reason });
  }

  #dropConnection(code, message) {
    const socket = this.#socket;
    this.#socket = null;
    this.#peer = null;
    this.#settings.clearTimeout(this.#timer);
    socket?.close(NORMAL_CLOSURE);
    const unanswered = [...this.#unanswered.values()];
    this.#unanswered.clear();
    const isRepeated = (command) => command.key && code === 'disconnected';
    this.#queue.unshift(...unanswered.filter(isRepeated));
    for (const command of unanswered) if (!isRepeated(command)) command.reject(new SockbridgeError(code, message));
  }

  #setTimer(delay, then) {
    this.#settings.clearTimeout(this.#timer);
    this.#timer = this.#settings.setTimeout(then, delay);
  }

  #setState(state, detail) {
    this.#state = state;
    if (this.#constructed) this.#dispatch(state, detail);
    // Listeners can be added only after `connect` has returned.
    else queueMicrotask(() => { if (this.#state === state) this.#dispatch(state, detail); });
  }

  #dispatch(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  // ---- commands ----

  #request(message, read = (answer) => answer, { signal, timeout } = {}) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const command = this.#command(message, (answer) => {
        try {
          resolve(read(answer));
        } catch (error) {
          reject(new SockbridgeError('bad-answer', `cannot read the reply: ${error.message}`));
        }
      }, reject, timeout);
      if (command) command.stopListening = onAbort(signal, (reason) => this.#abandon(command, reason));
    });
  }

  /** `resolve` is called synchronously when the reply arrives, before the events that follow it are processed. */
  #command(message, resolve, reject, timeout = this.#settings.commandTimeout) {
    if (this.#state === 'closed') return reject(new SockbridgeError('closed', 'this client is closed'));
    const id = this.#lastId + 1;
    let text;
    try {
      text = serialize({ ...message, id });
    } catch (error) {
      return reject(new SockbridgeError('bad-argument', `not a JSON value: ${error.message}`));
    }
    if (utf8.encode(text).length > MESSAGE_LIMIT) {
      return reject(new SockbridgeError('too-long', `longer than ${MESSAGE_LIMIT} bytes`));
    }
    const open = this.#state === 'open';
    if (open ? this.#unanswered.size >= UNANSWERED_LIMIT : this.#queue.length >= QUEUE_LIMIT) {
      return reject(new SockbridgeError('queue-full', `too many commands wait for a ${open ? 'reply' : 'connection'}`));
    }
    this.#lastId = id;
    const { type, key } = message;
    const command = this.#withTimeout({ id, text, type, key, resolve, reject }, key ? Math.min(timeout, KEY_LIFETIME) : timeout);
    if (open) this.#send(command);
    else this.#queue.push(command);
    return command;
  }

  /** Returns the command with a timeout, after which it is rejected. */
  #withTimeout({ resolve, reject, ...command }, timeout = this.#settings.commandTimeout) {
    const settle = (then) => (value) => {
      this.#settings.clearTimeout(timer);
      this.#pending.delete(pending);
      pending.stopListening?.();
      if (!this.#pending.size) this.#onIdle?.();
      then(value);
    };
    const pending = { ...command, resolve: settle(resolve), reject: settle(reject) };
    const timer = timeout > LONGEST_TIMEOUT || this.#settings.setTimeout(() => this.#abandon(pending), timeout);
    this.#pending.add(pending);
    return pending;
  }

  /** Rejects a command, by default because of its timeout. One that was not sent never will be. */
  #abandon(command, reason) {
    this.#queue = this.#queue.filter((queued) => queued !== command);
    this.#unanswered.delete(command.id);
    command.reject(reason ?? new SockbridgeError('timeout', `no reply in time: ${command.sent ? MAY_HAVE_RUN : 'the command was not sent'}`));
  }

  #send(command) {
    command.sent = true;
    this.#unanswered.set(command.id, command);
    this.#socket.send(command.text);
  }

  #removeUnanswered(id) {
    const command = this.#unanswered.get(id);
    this.#unanswered.delete(id);
    return command;
  }

  #onError({ id, code, message }) {
    const error = new SockbridgeError(code, message);
    const command = this.#removeUnanswered(id);
    if (command) command.reject(error);
    else if (id === undefined) this.#dispatch('error', error); // otherwise the call was abandoned
  }

  // ---- channels ----

  /** Unsubscribes without the last subscriber, unless the server has ended the subscription. */
  #removeSubscriber(subscriber, ended) {
    const channel = this.#channels.get(subscriber.channel);
    if (!channel?.subscribers.delete(subscriber) || channel.subscribers.size) return;
    this.#channels.delete(subscriber.channel);
    if (this.#state === 'open' && !ended) this.#request({ type: 'unsubscribe', channel: subscriber.channel }).catch(() => {}); // the result does not matter
  }
}

/** Creates a client, which connects at once and reconnects until it is closed. Default URL: `/ws` on the host of the page. */
export function connect(url = '/ws', options = {}) {
  const address = new URL(url, globalThis.location?.href).href.replace(/^http/, 'ws');
  return new Client(address, {
    ...DEFAULT_TIMES,
    transport: 'auto',
    WebSocket: globalThis.WebSocket,
    fetch: (...request) => fetch(...request), // looked up for each call, because tests and libraries replace it
    random: Math.random,
    now: () => performance.now(),
    setTimeout: (...timer) => setTimeout(...timer),
    clearTimeout: (timer) => clearTimeout(timer),
    window: globalThis,
    ...options,
  });
}
