// @ts-self-types="./sockbridge.d.ts"
/**
 * The browser's end of sockbridge: channels over one WebSocket that comes back by itself.
 *
 *     import { connect } from './sockbridge.js';
 *
 *     const client = connect();
 *     client.subscribe('kitchen', (event) => console.log(event.offset, event.from, event.data));
 *     await client.publish('kitchen', { celsius: 21.5 });
 *
 * What it keeps, whatever the network does: the events of a channel arrive in their order, none twice;
 * what went missing is named (`onLost`); nothing is ever published a second time.
 * It reads no clock, draws no random number and opens no connection but through `connect`'s options.
 * What each argument and each answer holds is written in sockbridge.d.ts. Nothing else is needed beside this file;
 * where stream.js lies beside it, that is fetched if the WebSocket is blocked.
 */

const utf8 = new TextEncoder();
const SUBPROTOCOL = 'sockbridge.v1.json';
const PROTOCOL = 1;

/** Node 18 has none. */
const CustomEvent = globalThis.CustomEvent ?? class CustomEvent extends Event {
  constructor(type, { detail }) { super(type); this.detail = detail ?? null; }
};

/** Bytes the server accepts in one message. Checked here, because the server answers a longer one by closing (1009). */
export const MESSAGE_LIMIT = 65_536;

/** Commands kept while there is no connection: with messages of full size 16 MiB, about what a page may hoard unseen. */
export const QUEUE_LIMIT = 256;

/** Commands sent but not answered: a server that has stopped answering must not fill this side's memory. */
export const UNANSWERED_LIMIT = 4096;

/** Offsets of one's own events remembered per channel for `echo: false`; beyond it, after a reconnection one may see itself. */
const OWN_LIMIT = 1024;

/** Times in milliseconds; each can be given to `connect` under the same name. */
export const DEFAULT_TIMES = Object.freeze({
  firstDelay: 500, // a restarted server is usually back within it, and a thousand pages spread over it do not stampede
  longestDelay: 30_000, // longer than this, people reload the page
  stableAfter: 10_000, // a connection that broke sooner counts as a failed try, or a crashing server is dialled in a tight loop
  openTimeout: 10_000, // a browser alone would wait minutes for a host that swallows packets
  quietAfter: 25_000, // proxies cut connections that are silent for 30 or 60 s; pings keep them, and find the dead ones
  answerTimeout: 10_000, // a phone that wakes up its radio needs a few seconds
  commandTimeout: 60_000, // a call is settled by then: most people would have given up, and a history of 4 MiB has come over a slow line
  websocketAgainAfter: 600_000, // a laptop that was carried from the office home should not stay on the stream all day
});

/** 1000: somebody asked for the end. 1008: the policy will not have changed by the next try. Every other code: try again. */
const FINAL_CODES = new Set([1000, 1008]);
const NORMAL_END = 1000;
const POLICY = 1008;
const BROKEN_PROTOCOL = 1002;
const NO_CONNECTION = 1006;
const TRY_AGAIN_LATER = 1013;

/** After 1013 the server is overloaded: the first wait is drawn from `firstDelay` times 2 to this power (4 s). */
const OVERLOAD_ATTEMPT = 3;

/** Errors that say "not now": what was subscribed before the connection broke is asked for again, when we next look for silence. */
const PASSING_ERRORS = new Set(['rate', 'unavailable', 'internal', 'queue-full', 'timeout']);

/** Errors that do not tell whether the server has refused. */
const UNKNOWN_OUTCOMES = new Set(['disconnected', 'closed', 'timeout']);

/** Half of a surrogate pair as JSON.stringify writes it (whole pairs are written as they are), or any other escape. */
const HALF_OR_ESCAPE = /\\u(d[89a-f][0-9a-f]{2})|\\./g;

/** A message as JSON text that every parser reads: U+FFFD for half of a surrogate pair, as the WebSocket does with text. */
function write(message) {
  const text = JSON.stringify(message);
  return text.includes('\\ud') ? text.replace(HALF_OR_ESCAPE, (escape, half) => (half ? '\ufffd' : escape)) : text;
}

/** A name as `write` sends it, so that the answers and events about it are known. */
const wellFormed = (name) => (/[\ud800-\udfff]/.test(name) ? JSON.parse(write(name)) : name);

/** An event as the types describe it, without what belongs to the protocol. */
const eventOf = ({ channel, offset, from, name, data }) => ({ channel, offset, from, name, data });

/** What every rejected promise carries: `code` is the server's, or one of this side's (docs/javascript.md lists both). */
export class SockbridgeError extends Error {
  constructor(code, message, channel) {
    super(message);
    this.name = 'SockbridgeError';
    this.code = code;
    if (channel !== undefined) this.channel = channel; // that of a subscription that was refused
  }
}

/** Clients of which somebody listens to `error`. */
const listened = new WeakSet();

/** An error that nobody has asked for and nobody listens to is written to the console, so that it is not lost. */
class ErrorReporter extends EventTarget {
  addEventListener(type, ...rest) {
    if (type === 'error') listened.add(this);
    super.addEventListener(type, ...rest);
  }

  dispatchEvent(event) {
    if (event.type === 'error' && !listened.has(this)) console.error(event.detail);
    return super.dispatchEvent(event);
  }
}

/** What `subscribe` gives: the face of one reader. */
export class Subscription {
  #reader;

  constructor(reader) { this.#reader = reader; }

  get channel() { return this.#reader.channel; }

  /** All events up to this offset were given to this reader; undefined until the first answer. */
  get position() { return this.#reader.position; }

  /** The run of offsets `position` belongs to: store both to go on from here after a reload. */
  get epoch() { return this.#reader.epoch; }

  /** Whether the server has answered on this connection. */
  get current() { return this.#reader.current; }

  /** The promise of the first answer; rejects where the server refuses. */
  get ready() {
    this.#reader.awaited = true;
    return this.#reader.ready;
  }

  unsubscribe() { this.#reader.unsubscribe(); }
}

/** One reader of one channel. It has its own position, so that two readers of a channel never disturb each other. */
class Reader {
  /** False until the server has answered on this connection; until then events pass by, because the answer replays them. */
  current = false;
  startedOver = false;
  /** Whether the program has looked at `ready`. */
  awaited = false;
  #answered = false;
  /** Until the first event, gaps up to this offset are no news: `last` asked for what there still is. */
  lostBefore = 0;
  #leave;
  #report;

  constructor(channel, callback, options, leave, report) {
    this.channel = channel;
    this.options = { ...options, onEvent: callback };
    this.position = options.since;
    this.epoch = options.epoch;
    this.ready = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.ready.catch(() => {}); // a refusal is reported by `refuse`: not an unhandled rejection
    this.#leave = leave;
    this.#report = report;
  }

  unsubscribe() {
    this.#leave(this);
    this.reject(new SockbridgeError('unsubscribed', `unsubscribed from ${this.channel} before the server answered`));
  }

  /** A reader's mistake is reported as an uncaught error, but takes no event from the next reader. */
  tell(what, value) {
    try {
      this.options[what]?.(value);
    } catch (error) {
      queueMicrotask(() => { throw error; });
    }
  }

  settle(state) {
    this.current = true;
    this.#answered = true;
    this.resolve(state);
    this.tell('onSubscribed', state);
  }

  refuse({ code, message }) {
    const error = new SockbridgeError(code, message, this.channel);
    this.reject(error);
    this.#leave(this);
    if (this.options.onRefused) this.tell('onRefused', error);
    // Later in this turn the program may still look at `ready`.
    else Promise.resolve().then(() => { if (this.#answered || !this.awaited) this.#report(error); });
  }

  lose(gap) {
    this.tell('onLost', { channel: this.channel, epoch: this.epoch, ...gap });
  }
}

/**
 * All readers of one channel, and the one subscription they share on the wire.
 * The rule: one question to the server at a time; those who have a position are asked for first, then newcomers one by one.
 * So every answer has one meaning, also when readers come and go while it is under way.
 */
class Channel {
  /** @type {Set<Reader>} */
  readers = new Set();
  #asking = false;
  #silent = false; // the server was told echo: false
  #own = new Set(); // offsets this client published itself

  constructor(name, send) {
    this.name = name;
    this.send = send;
  }

  /** The connection is new: the server knows nothing of this channel yet. */
  resume() {
    this.#asking = false;
    for (const reader of this.readers) reader.current = false;
    this.ask();
  }

  ask() {
    const readers = [...this.readers];
    if (this.#asking || readers.every((reader) => reader.current)) return;
    const standing = readers.filter((reader) => reader.position !== undefined);
    const newcomer = standing.every((reader) => reader.current) ? readers.find((reader) => !reader.current) : undefined;
    const echo = readers.some((reader) => reader.options.echo !== false);
    const presence = readers.some((reader) => reader.options.presence === true);
    const question = { type: 'subscribe', channel: this.name, echo, presence };
    const epoch = (standing.find((reader) => reader.current) ?? standing[0])?.epoch;
    const asked = standing.filter((reader) => reader.epoch === epoch);
    if (asked.length) {
      // From where the hindmost stands, also for a newcomer's sake: who is further on drops what it knows.
      const positions = asked.map((reader) => reader.position);
      const wish = newcomer ? Math.max(0, Math.max(...positions) - (newcomer.options.last ?? 0)) : Infinity;
      Object.assign(question, { since: Math.min(wish, ...positions), epoch });
    } else {
      question.last = newcomer.options.last;
    }
    this.#asking = true;
    this.send(question, (answer) => {
      this.#asking = false;
      this.#silent = !echo;
      for (const reader of standing) {
        if (this.readers.has(reader) && (asked.includes(reader) || reader.epoch !== answer.epoch)) this.#resumed(reader, answer);
      }
      if (this.readers.has(newcomer) && (epoch ?? answer.epoch) === answer.epoch) this.#begin(newcomer, answer);
      this.ask();
    }, (error) => {
      this.#asking = false;
      this.#refused(error, newcomer ? [newcomer] : standing.filter((reader) => !reader.current));
    });
  }

  #begin(reader, { offset, epoch }) {
    reader.epoch = epoch;
    reader.position = Math.max(0, offset - (reader.options.last ?? 0));
    reader.lostBefore = offset;
    reader.settle({ offset, epoch, missed: 0 });
  }

  #resumed(reader, answer) {
    const { offset, epoch, recovered } = answer;
    if (reader.epoch !== epoch || reader.position > offset) return this.#startOver(reader, answer);
    if (!reader.current) reader.settle({ offset, epoch, recovered: recovered && !reader.startedOver, missed: offset - reader.position });
    reader.startedOver = false;
  }

  /**
   * The offsets began anew. Of the new run this reader has seen nothing: the next question gets it from the first event still
   * kept. Where the epoch is the same but its head went back, what is kept was mostly seen: then it goes on from the head.
   */
  #startOver(reader, { offset, epoch }) {
    reader.lose({ reason: 'epoch', first: reader.position + 1 });
    reader.position = reader.epoch === epoch ? offset : 0;
    reader.epoch = epoch;
    reader.current = false;
    reader.startedOver = true;
    reader.lostBefore = 0; // an offset of the old run
    this.#own.clear();
  }

  #refused(error, asked) {
    if (error.code === 'disconnected' || error.code === 'closed') return; // the next connection asks again
    const standing = asked.some((reader) => reader.position !== undefined);
    if (standing && PASSING_ERRORS.has(error.code)) return;
    for (const reader of asked) if (this.readers.has(reader)) reader.refuse(error);
    this.ask();
  }

  deliver(event) {
    const own = this.#own.has(event.offset);
    for (const reader of this.readers) {
      if (!reader.current || event.offset <= reader.position) continue;
      reader.position = event.offset;
      reader.lostBefore = 0;
      if (!(own && reader.options.echo === false)) reader.tell('onEvent', eventOf(event));
    }
    if (this.#own.size) this.#passOwn();
  }

  lost({ first, last }) {
    for (const reader of this.readers) {
      if (!reader.current || last <= reader.position) continue;
      const gap = { reason: 'log', first: Math.max(first, reader.position + 1), last };
      reader.position = last;
      if (last > reader.lostBefore) reader.lose(gap);
    }
  }

  presence({ type, peer }) {
    for (const reader of this.readers) {
      if (reader.options.presence) reader.tell(type === 'join' ? 'onJoin' : 'onLeave', peer);
    }
  }

  /** With echo off one's own events never arrive; but replayed after a reconnection, under a new id, they look like another's. */
  published(offset) {
    if (![...this.readers].some((reader) => reader.options.echo === false)) return;
    this.#own.add(offset);
    if (this.#own.size > OWN_LIMIT) this.#own.delete(this.#own.values().next().value);
    this.#passOwn();
  }

  #passOwn() {
    const readers = [...this.readers];
    for (const reader of this.#silent ? readers : []) {
      while (this.#own.has(reader.position + 1)) reader.position += 1;
    }
    const hindmost = Math.min(...readers.map((reader) => reader.position));
    for (const offset of this.#own) if (offset <= hindmost) this.#own.delete(offset);
  }
}

/** WebSockets that fail in a row before we ask whether plain HTTP fares better: one alone may have met a restart. */
const FAILURES = 2;

/** The address of something that lies beside the WebSocket, behind the same proxies. */
function beside(address, name) { return new URL(name, address.replace(/^ws/, 'http')); }

/**
 * Which way to the bridge is taken: the WebSocket, or the stream of stream.js where something on the way forbids WebSockets.
 * The rule: the stream is only taken once the WebSocket has failed twice in a row although HTTP came through right after,
 * so that a bridge that is merely away never looks like one whose WebSocket is blocked. If then the stream fails too, both
 * are tried in turn. A WebSocket that is welcomed sets all of this back.
 */
class Route {
  /** That of the present connection, or of the last try: 'websocket' or 'stream'. */
  transport;
  #next;
  #fixed; // there is nothing to choose
  #blocked = false; // the WebSocket fails where HTTP does not
  #failures = 0;
  #websocketAt = Infinity; // when it may be tried again
  #question = null;
  #address;
  #settings;

  constructor(address, settings) {
    const { transport, WebSocket } = settings;
    if (!['auto', 'websocket', 'stream'].includes(transport)) throw new TypeError('transport is auto, websocket or stream');
    if (!WebSocket && transport === 'websocket') throw new TypeError('there is no WebSocket here: give one as an option');
    this.#address = address;
    this.#settings = settings;
    this.#fixed = transport !== 'auto' || !WebSocket;
    this.#next = transport === 'stream' || !WebSocket ? 'stream' : 'websocket';
    this.transport = this.#next;
  }

  /** Before each try. */
  choose() {
    this.transport = this.#settings.now() >= this.#websocketAt ? 'websocket' : this.#next;
    return this.transport;
  }

  welcomed() {
    this.#failures = 0;
    if (this.#fixed || this.transport === 'stream') return;
    this.#blocked = false;
    this.#next = 'websocket';
    this.#websocketAt = Infinity;
  }

  /** The try has ended before its welcome. */
  failed() {
    if (this.#fixed) return;
    if (this.#blocked) {
      if (this.transport === 'websocket') this.#takeStream();
      else this.#next = 'websocket';
      return;
    }
    this.#failures += 1;
    if (this.#failures >= FAILURES) this.#askHttp();
  }

  /** No more questions. */
  end() { this.#question?.abort(); }

  #takeStream() {
    this.#blocked = true;
    this.#next = 'stream';
    this.#websocketAt = this.#settings.now() + this.#settings.websocketAgainAfter;
  }

  async #askHttp() {
    if (this.#question) return;
    const { fetch, openTimeout, setTimeout, clearTimeout } = this.#settings;
    const question = new AbortController();
    this.#question = question;
    const timer = setTimeout(() => question.abort(), openTimeout);
    question.signal.addEventListener('abort', () => clearTimeout(timer));
    try {
      const { ok } = await fetch(beside(this.#address, 'healthz').href, { cache: 'no-store', signal: question.signal });
      if (ok && this.#failures >= FAILURES && !question.signal.aborted) this.#takeStream();
    } catch {
      // It is the network, or the bridge itself: no way is better than another.
    }
    this.#question = null;
    question.abort(); // the rest of the answer is not wanted
  }
}

/**
 * The connection. Dispatches `connecting` (the first time at the end of the turn in which it was made), `open` (detail: the peer and the transport), `waiting` (detail: delay, attempt, code, reason),
 * `closed` (detail: code, reason), `notice` (detail: text, and code and channel where it has them) and `error` (detail: an
 * error that answers no command of ours).
 */
export class Client extends ErrorReporter {
  #url;
  #settings;
  #route;
  #state;
  #peer = null;
  #socket = null;
  #greeted = false; // the present connection has had its welcome
  #timer; // one at a time: until the welcome, the next look for silence, or the next try
  #attempt = 0;
  #openedAt = 0;
  #heardAt = 0;
  #lastId = 0;
  #nick;
  #tokenShown = false; // on this connection
  #sentAway = false; // by an administrator: another token would not help
  #queue = []; // commands that wait for a connection
  #limited = new Set(); // all commands that are not settled, in the order of their deadlines
  #limitTimer;
  #made = false; // the constructor has come to its end
  #unanswered = new Map();
  /** @type {Map<string, Channel>} */
  #channels = new Map();

  constructor(url, settings) {
    super();
    this.#url = url;
    this.#settings = settings;
    this.#route = new Route(url, settings);
    this.#dial();
    settings.window?.addEventListener?.('online', this.#networkBack);
    settings.window?.document?.addEventListener('visibilitychange', this.#networkBack);
    this.#made = true;
  }

  /** 'connecting', 'open', 'waiting' or 'closed'. */
  get state() { return this.#state; }

  /**
   * While open, `{id, from, to}`: who this client is to the server, and the two ends of the socket as the server sees them.
   * Where it came with a token, also the `nick` that this gave it, and in how many seconds it `expires`, if it does.
   */
  get peer() { return this.#peer; }

  /** 'websocket', or 'stream' where that stands in for it: the way of the present connection, or of the last try. */
  get transport() { return this.#route.transport; }

  subscribe(channel, callback, options = {}) {
    channel = wellFormed(channel);
    const reader = new Reader(channel, callback, options, (leaver) => this.#leave(leaver), (error) => this.#dispatch('error', error));
    const subscription = new Subscription(reader);
    let refusal;
    if (this.#state === 'closed') refusal = new SockbridgeError('closed', 'this client is closed');
    else if ((options.since === undefined) !== (options.epoch === undefined)) {
      refusal = new SockbridgeError('bad-argument', 'since and epoch come together');
    }
    if (refusal) {
      reader.refuse(refusal);
      return subscription;
    }
    if (!this.#channels.has(channel)) {
      this.#channels.set(channel, new Channel(channel, (message, resolve, reject) => this.#command(message, resolve, reject)));
    }
    this.#channels.get(channel).readers.add(reader);
    if (this.#state === 'open') this.#channels.get(channel).ask();
    return subscription;
  }

  /** The promise of the offset. Rejected with `disconnected`, the event may or may not have been published. */
  publish(channel, data, { name } = {}) {
    if (['undefined', 'function', 'symbol'].includes(typeof data)) {
      return Promise.reject(new SockbridgeError('bad-argument', `${typeof data} is not a JSON value`));
    }
    return this.#request({ type: 'publish', channel, data, name }, ({ offset }) => {
      this.#channels.get(wellFormed(channel))?.published(offset);
      return offset;
    });
  }

  /** Everybody subscribed to the channel. */
  who(channel) { return this.#request({ type: 'who', channel }, ({ members }) => members); }

  /** What the log holds. */
  history(channel, { last, since } = {}) {
    return this.#request({ type: 'history', channel, last, since }, ({ events, offset, epoch, lost, gaps = [] }) => {
      const missing = lost ? [lost, ...gaps] : gaps;
      const history = { events: events.map(eventOf), offset, epoch };
      return missing.length ? { ...history, lost: missing } : history;
    });
  }

  /** The name others see. It is given again after every reconnection. */
  nick(name) {
    const before = this.#nick;
    this.#nick = name;
    return this.#request({ type: 'nick', nick: name }, (answer) => answer.nick).catch((error) => {
      if (!UNKNOWN_OUTCOMES.has(error.code) && this.#nick === name) this.#nick = before;
      throw error;
    });
  }

  /**
   * Shows a token, or another one; subscriptions stay, as far as it allows them. Unless `connect` was given a function, it
   * is the one that is shown from now on. Gives who one is, and for how many seconds.
   */
  authenticate(token) {
    return this.#request({ type: 'auth', token }, ({ nick, expires }) => {
      this.#tokenShown = true;
      if (!this.#renews) this.#settings.token = token;
      return { nick, expires };
    });
  }

  /** The milliseconds to the server and back. */
  ping() {
    const sentAt = this.#settings.now();
    return this.#request({ type: 'ping' }, () => this.#settings.now() - sentAt);
  }

  info() { return this.#request({ type: 'info' }, ({ type, id, ...info }) => info); }

  /** While waiting: try now. */
  retry() {
    if (this.#state === 'waiting') this.#dial();
  }

  /** The end: what is unanswered or queued is rejected with `closed`, and this client opens no further connection. */
  close() { this.#finish(NORMAL_END, 'closed by this client'); }

  // ---- the connection ----

  #dial() {
    if (this.#route.choose() === 'websocket') this.#listen(new this.#settings.WebSocket(this.#url, [SUBPROTOCOL]));
    else this.#openStream();
    this.#tokenShown = false;
    this.#greeted = false;
    this.#wait(this.#settings.openTimeout, () => this.#lose(NO_CONNECTION, 'no welcome in time'));
    this.#enter('connecting');
  }

  #listen(socket) {
    // A socket that was given up may still speak: only the present one is listened to.
    const present = (react) => (event) => { if (socket === this.#socket) react(event); };
    socket.onmessage = present(({ data }) => this.#receive(data));
    socket.onclose = present(({ code, reason }) => this.#lose(code, reason));
    socket.onerror = () => {}; // says nothing that close does not; some WebSockets for Node throw where nobody listens
    this.#socket = socket;
  }

  async #openStream() {
    const awaited = { send() {}, close() {} }; // stands where the stream will
    this.#socket = awaited;
    try {
      const { StreamSocket } = await import('./stream.js');
      const address = beside(this.#url, 'stream');
      address.search = new URL(this.#url).search;
      if (this.#socket === awaited) this.#listen(new StreamSocket(address.href, this.#settings));
    } catch {
      if (this.#socket === awaited) this.#lose(NO_CONNECTION, 'stream.js, which lies beside sockbridge.js, could not be loaded');
    }
  }

  #receive(text) {
    this.#heardAt = this.#settings.now();
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return this.#lose(BROKEN_PROTOCOL, 'the server sent something that is not JSON');
    }
    switch (message?.type) {
      case 'event': return this.#channels.get(message.channel)?.deliver(message);
      case 'join':
      case 'leave': return this.#channels.get(message.channel)?.presence(message);
      case 'lost': return this.#channels.get(message.channel)?.lost(message);
      case 'ok':
      case 'pong': return this.#take(message.id)?.resolve(message);
      case 'error': return this.#failed(message);
      case 'welcome': return this.#welcomed(message);
      case 'notice': return this.#noticed(message);
      default: return undefined; // a later version may say more than we know
    }
  }

  #welcomed({ protocol, id, from, to }) {
    if (protocol !== PROTOCOL) return this.#finish(BROKEN_PROTOCOL, `the server speaks protocol ${protocol}, this client ${PROTOCOL}`);
    const peer = { id, from, to };
    this.#greeted = true;
    this.#route.welcomed();
    if (this.#settings.token === undefined) return this.#opened(peer);
    // Nothing else is asked before the token is accepted, or what it allows would be refused.
    const socket = this.#socket;
    return this.#showToken(
      (answer) => { if (socket === this.#socket) this.#opened(answer ? { ...peer, nick: answer.nick, expires: answer.expires } : peer); },
      (error) => {
        if (socket !== this.#socket) return;
        this.#dispatch('error', error);
        // Another token may be had for the asking; the same one will not do next time either.
        if (this.#renews) this.#lose(NO_CONNECTION, error.message);
        else this.#finish(POLICY, error.message);
      },
    );
  }

  get #renews() { return typeof this.#settings.token === 'function'; }

  /** A token that is there is shown at once; one that must be fetched, when it has come. There may be none to be had. */
  #showToken(resolve, reject) {
    const socket = this.#socket;
    const show = (token) => {
      if (socket !== this.#socket) return;
      if (token === undefined || token === null) {
        resolve();
        return;
      }
      this.#tokenShown = true;
      const id = this.#lastId + 1;
      this.#lastId = id;
      this.#send(this.#limit({ id, text: write({ type: 'auth', id, token }), type: 'auth', resolve, reject }));
    };
    if (!this.#renews) return show(this.#settings.token);
    const failed = (error) => reject(new SockbridgeError('no-token', `no token could be had: ${error?.message ?? error}`));
    return new Promise((fetched) => { fetched(this.#settings.token()); }).then(show, failed);
  }

  #opened(peer) {
    this.#peer = peer;
    this.#state = 'open';
    this.#openedAt = this.#settings.now();
    // The order matters: first who we are, and our name, so that others see it join; then the channels, so that our own
    // events come back.
    const queue = this.#queue.splice(0);
    const names = queue.filter((command) => command.type === 'nick');
    for (const command of queue) if (command.type === 'auth') this.#send(command);
    if (this.#nick !== undefined && !names.length) {
      this.#command({ type: 'nick', nick: this.#nick }, () => {}, (error) => this.#dispatch('error', error));
    }
    for (const command of names) this.#send(command);
    for (const channel of this.#channels.values()) channel.resume();
    for (const command of queue) if (command.type !== 'nick' && command.type !== 'auth') this.#send(command);
    this.#watch();
    this.#enter('open', { ...this.#peer, transport: this.#route.transport });
  }

  #noticed({ text, code, channel }) {
    this.#dispatch('notice', { text, ...(code && { code }), ...(channel && { channel }) });
    if (code === 'disconnected') this.#sentAway = true;
    if (code === 'token-expires' && this.#renews) {
      this.#showToken(() => {}, (error) => { if (error.code !== 'disconnected') this.#dispatch('error', error); });
    } else if (code === 'forbidden') {
      for (const reader of [...this.#channels.get(channel)?.readers ?? []]) this.#forget(reader, new SockbridgeError(code, text));
    }
  }

  /** The server has ended the subscription: there is nothing to tell it. */
  #forget(reader, error) {
    const channel = this.#channels.get(reader.channel);
    channel?.readers.delete(reader);
    if (!channel?.readers.size) this.#channels.delete(reader.channel);
    reader.refuse(error);
  }

  /** The browser answers the server's pings without telling the page, so silence is all the page can go by. */
  #watch() {
    for (const channel of this.#channels.values()) channel.ask(); // those refused for the time being
    const silence = this.#settings.now() - this.#heardAt;
    const { quietAfter, answerTimeout } = this.#settings;
    if (silence < quietAfter) return this.#wait(quietAfter - silence, () => this.#watch());
    this.#probe(answerTimeout);
  }

  #probe(answerTimeout) {
    const before = this.#heardAt;
    this.#socket.send('{"type":"ping"}');
    this.#wait(answerTimeout, () => {
      if (this.#heardAt === before) this.#lose(NO_CONNECTION, 'the server has gone silent');
      else this.#watch();
    });
  }

  /** The device is online again, or the page visible again: no reason to sit out a delay, or to trust an old connection. */
  #networkBack = ({ type }) => {
    if (type === 'visibilitychange' && this.#settings.window.document.visibilityState !== 'visible') return;
    if (this.#state === 'open') this.#probe(this.#settings.answerTimeout);
    else this.retry();
  };

  #lose(code, reason) {
    if (this.#state === 'open' && this.#settings.now() - this.#openedAt >= this.#settings.stableAfter) this.#attempt = 0;
    // Where tokens are fetched anew, the next one may be better than the one that ran out.
    if (FINAL_CODES.has(code) && !(code === POLICY && this.#renews && this.#tokenShown && !this.#sentAway)) return this.#finish(code, reason);
    if (!this.#greeted) this.#route.failed();
    this.#letGo('disconnected', 'the connection broke before the answer came: the command may or may not have been carried out');
    if (code === TRY_AGAIN_LATER) this.#attempt = Math.max(this.#attempt, OVERLOAD_ATTEMPT);
    const { firstDelay, longestDelay, random } = this.#settings;
    // Full jitter: after a restart the pages come back spread over the whole window, not in waves.
    const delay = Math.round(random() * Math.min(longestDelay, firstDelay * 2 ** this.#attempt));
    this.#attempt += 1;
    this.#wait(delay, () => this.#dial());
    this.#enter('waiting', { delay, attempt: this.#attempt, code, reason });
  }

  #finish(code, reason) {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#route.end();
    this.#letGo('closed', `${reason || 'the server closed the connection'}: the command may or may not have been carried out`);
    const closed = new SockbridgeError('closed', reason || `the server closed the connection (${code})`);
    for (const command of this.#queue.splice(0)) command.reject(closed);
    for (const channel of this.#channels.values()) for (const reader of channel.readers) reader.reject(closed);
    this.#channels.clear();
    this.#limited.clear();
    this.#settings.clearTimeout(this.#limitTimer);
    this.#settings.window?.removeEventListener?.('online', this.#networkBack);
    this.#settings.window?.document?.removeEventListener('visibilitychange', this.#networkBack);
    this.#enter('closed', { code, reason });
  }

  #letGo(code, words) {
    const socket = this.#socket;
    this.#socket = null;
    this.#peer = null;
    this.#settings.clearTimeout(this.#timer);
    socket?.close(NORMAL_END);
    const unanswered = [...this.#unanswered.values()];
    this.#unanswered.clear();
    for (const command of unanswered) command.reject(new SockbridgeError(code, words));
  }

  #wait(delay, then) {
    this.#settings.clearTimeout(this.#timer);
    this.#timer = this.#settings.setTimeout(then, delay);
  }

  #enter(state, detail) {
    this.#state = state;
    if (this.#made) this.#dispatch(state, detail);
    // Nobody can listen before `connect` has returned.
    else Promise.resolve().then(() => { if (this.#state === state) this.#dispatch(state, detail); });
  }

  #dispatch(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  // ---- commands ----

  #request(message, read = (answer) => answer) {
    return new Promise((resolve, reject) => {
      this.#command(message, (answer) => {
        try {
          resolve(read(answer));
        } catch (error) {
          reject(new SockbridgeError('bad-answer', `the answer to ${message.type} cannot be read: ${error.message}`));
        }
      }, reject);
    });
  }

  /** `resolve` is called in the very turn the answer arrives, before the events behind it are looked at. */
  #command(message, resolve, reject) {
    if (this.#state === 'closed') return reject(new SockbridgeError('closed', 'this client is closed'));
    const id = this.#lastId + 1;
    let text;
    try {
      text = write({ ...message, id });
    } catch (error) {
      return reject(new SockbridgeError('bad-argument', `not a JSON value: ${error.message}`));
    }
    if (utf8.encode(text).length > MESSAGE_LIMIT) {
      return reject(new SockbridgeError('too-long', `a message has at most ${MESSAGE_LIMIT} bytes`));
    }
    const open = this.#state === 'open';
    if (open ? this.#unanswered.size >= UNANSWERED_LIMIT : this.#queue.length >= QUEUE_LIMIT) {
      const words = open ? `${UNANSWERED_LIMIT} commands are still unanswered` : `${QUEUE_LIMIT} commands already wait for a connection`;
      return reject(new SockbridgeError('queue-full', words));
    }
    this.#lastId = id;
    const command = this.#limit({ id, text, type: message.type, resolve, reject });
    if (open) this.#send(command);
    else this.#queue.push(command);
  }

  /** A command that is rejected if nothing has settled it in time. */
  #limit({ resolve, reject, ...command }) {
    const settle = (then) => (value) => {
      this.#limited.delete(limited);
      if (!this.#limited.size) this.#settings.clearTimeout(this.#limitTimer);
      then(value);
    };
    const due = this.#settings.now() + this.#settings.commandTimeout;
    const limited = { ...command, due, resolve: settle(resolve), reject: settle(reject) };
    this.#limited.add(limited);
    if (this.#limited.size === 1) this.#awaitLimit();
    return limited;
  }

  /** One timer for all: that of the command that must be settled first. */
  #awaitLimit() {
    this.#settings.clearTimeout(this.#limitTimer);
    const [first] = this.#limited;
    if (!first) return;
    this.#limitTimer = this.#settings.setTimeout(() => {
      const now = this.#settings.now();
      for (const command of [...this.#limited]) if (command.due <= now) this.#expire(command);
      this.#awaitLimit();
    }, Math.max(0, first.due - this.#settings.now()));
  }

  #expire(command) {
    const place = this.#queue.indexOf(command);
    if (place >= 0) this.#queue.splice(place, 1);
    this.#unanswered.delete(command.id);
    const words = place >= 0 ? 'there was no connection in time: the command has not been sent'
      : 'no answer came in time: the command may or may not have been carried out';
    command.reject(new SockbridgeError('timeout', words));
  }

  #send(command) {
    this.#unanswered.set(command.id, command);
    this.#socket.send(command.text);
  }

  #take(id) {
    const command = this.#unanswered.get(id);
    this.#unanswered.delete(id);
    return command;
  }

  #failed({ id, code, message }) {
    const error = new SockbridgeError(code, message);
    const command = this.#take(id);
    if (command) command.reject(error);
    else this.#dispatch('error', error);
  }

  // ---- channels ----

  #leave(reader) {
    const channel = this.#channels.get(reader.channel);
    if (!channel?.readers.delete(reader) || channel.readers.size) return;
    this.#channels.delete(reader.channel);
    if (this.#state === 'open') this.#request({ type: 'unsubscribe', channel: reader.channel }).catch(() => {}); // gone is gone
  }
}

/** Opens a client. It connects at once and keeps trying until it is closed. Without an address: `/ws` on the page's own host. */
export function connect(url = '/ws', options = {}) {
  const address = new URL(url, globalThis.location?.href);
  address.protocol = address.protocol.replace(/^http/, 'ws');
  return new Client(address.href, {
    ...DEFAULT_TIMES,
    transport: 'auto',
    WebSocket: globalThis.WebSocket,
    fetch: (...request) => globalThis.fetch(...request),
    random: Math.random,
    now: () => performance.now(),
    setTimeout: (then, delay) => globalThis.setTimeout(then, delay),
    clearTimeout: (timer) => globalThis.clearTimeout(timer),
    window: globalThis,
    ...options,
  });
}
