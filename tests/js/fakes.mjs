// Fakes for the tests of the client: a clock, a WebSocket, fetch, and a model of the server with offsets, epochs and a limited
// history, against which recovery is tested.

import * as source from '../../twistedsock/static/sockbridge.js';

export class FakeClock {
  time = 1000;
  timers = new Map();
  lastTimer = 0;

  now = () => this.time;

  setTimeout = (then, delay) => {
    this.lastTimer += 1;
    this.timers.set(this.lastTimer, { at: this.time + delay, then });
    return this.lastTimer;
  };

  clearTimeout = (timer) => { this.timers.delete(timer); };

  advance(duration) {
    const end = this.time + duration;
    for (;;) {
      const [id, due] = [...this.timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (!due) break;
      this.timers.delete(id);
      this.time = due.at;
      due.then();
    }
    this.time = end;
  }
}

/** The client's end of a connection. `net.received` is called with each message. */
class FakeSocket {
  sent = [];
  closedByClient = undefined;

  constructor(net, url, protocols) {
    Object.assign(this, { net, url, protocols });
    net.sockets.push(this);
  }

  send(text) {
    const message = JSON.parse(text);
    this.sent.push(message);
    this.net.received?.(this, message);
  }

  close(code) { this.closedByClient ??= code; }

  // Actions of the server:
  deliver(message) { this.onmessage({ data: typeof message === 'string' ? message : JSON.stringify(message) }); }

  welcome(id = `peer${this.net.sockets.length}`) {
    this.deliver({ type: 'welcome', protocol: 1, id, from: '127.0.0.1:53124', to: '127.0.0.1:8082' });
  }

  drop(code = 1006, reason = '') { this.onclose({ code, reason }); }

  events(channel, ...offsets) { for (const offset of offsets) this.deliver(event(channel, offset)); }

  /** The last message of this type that the client sent, or undefined. */
  last(type) { return this.sent.findLast((message) => message.type === type); }

  all(type) { return this.sent.filter((message) => message.type === type); }

  reply(type, fields = {}) { this.deliver({ type: 'ok', id: this.last(type).id, ...fields }); }

  reject(type, code, message = 'no') { this.deliver({ type: 'error', id: this.last(type).id, code, message }); }
}

/** A request that waits for the response of the test. */
export class FakeRequest {
  constructor(address, { method = 'GET', headers = {}, body, signal } = {}) {
    Object.assign(this, { address, method, headers, body, signal });
    this.response = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    signal?.addEventListener('abort', () => this.fail('aborted'));
  }

  get aborted() { return this.signal.aborted; }

  /** The JSON messages of a POST. */
  get messages() { return this.body.trimEnd().split('\n').map((line) => JSON.parse(line)); }

  respond(status = 200, body = null, type = 'application/problem+json') {
    this.resolve(new Response(body && JSON.stringify(body), { status, headers: { 'Content-Type': type } }));
  }

  /** Starts a streaming response. */
  begin(type = 'text/event-stream; charset=utf-8') {
    const body = new ReadableStream({ start: (controller) => { this.controller = controller; } });
    this.resolve(new Response(body, { headers: { 'Content-Type': type } }));
  }

  /** Sends a part of the response: a string or bytes. */
  send(piece) { this.controller.enqueue(typeof piece === 'string' ? new TextEncoder().encode(piece) : piece); }

  /** Sends a message as a server-sent event. */
  deliver(message) {
    const named = message.type === 'event' ? '' : `event: ${message.type}\n`;
    this.send(`${named}data: ${JSON.stringify(message)}\n\n`);
  }

  welcome(id = 'k3x9', key = 'secret') {
    this.deliver({ type: 'welcome', protocol: 1, id, from: '127.0.0.1:53124', to: '127.0.0.1:8082', key });
  }

  end() { this.controller.close(); }

  fail(message = 'fetch failed') {
    this.reject(new TypeError(message));
    try { this.controller?.error(new TypeError(message)); } catch { /* already ended */ }
  }
}

/** A fake `fetch` with its requests. */
export function fakeFetch(requests = []) {
  const fetch = (address, request) => {
    requests.push(new FakeRequest(address, request));
    return requests.at(-1).response;
  };
  return { fetch, requests };
}

export class FakeWindow extends EventTarget {
  document = Object.assign(new EventTarget(), { visibilityState: 'visible' });

  becomesVisible() {
    this.document.visibilityState = 'visible';
    this.document.dispatchEvent(new Event('visibilitychange'));
  }
}

/**
 * A client with fakes: `world.socket` is the newest WebSocket, `world.request` the newest request, `world.states` the dispatched
 * events. `connect` is that of the source by default.
 */
export function build({ listen = true, connect = source.connect, ...options } = {}) {
  const clock = new FakeClock();
  const net = { sockets: [], ...fakeFetch() };
  const window = new FakeWindow();
  class WebSocket extends FakeSocket {
    constructor(url, protocols) { super(net, url, protocols); }
  }
  const settings = { WebSocket, fetch: net.fetch, window, random: () => 0.5, now: clock.now, setTimeout: clock.setTimeout, clearTimeout: clock.clearTimeout };
  const client = connect('ws://bridge.test/ws', { ...settings, ...options });
  const states = [];
  for (const type of listen ? ['connecting', 'open', 'waiting', 'closed', 'notice', 'error'] : []) {
    client.addEventListener(type, ({ detail }) => states.push([type, detail]));
  }
  const world = { client, clock, net, window, states };
  Object.defineProperty(world, 'socket', { get: () => net.sockets.at(-1) });
  Object.defineProperty(world, 'request', { get: () => net.requests.at(-1) });
  return world;
}

export function buildOpen(options) {
  const world = build(options);
  world.socket.welcome();
  return world;
}

/** Drops the connection and opens the next one, up to the welcome. */
export function reconnect(world, code = 1006) {
  world.socket.drop(code);
  world.client.retry();
  world.socket.welcome();
}

/** Callbacks for `subscribe` that record their calls. */
export function recorder() {
  const calls = [];
  return {
    calls,
    onEvent: (event) => calls.push(['event', event.offset, event.data]),
    options: {
      onLost: ({ reason, first, last }) => calls.push(['lost', reason, first, last]),
      onReset: (reset) => calls.push(['reset', reset]),
      onSubscribed: (state) => calls.push(['subscribed', state]),
      onJoin: (peer) => calls.push(['join', peer.id]),
      onLeave: (peer) => calls.push(['leave', peer.id]),
      onRefused: (error) => calls.push(['refused', error.code]),
    },
    offsets: () => calls.filter(([what]) => what === 'event').map(([, offset]) => offset),
  };
}

export const event = (channel, offset, data = `${channel} ${offset}`, from = 'ann') => (
  { type: 'event', channel, offset, time: 1_800_000_000_000 + offset, from, name: 'message', data });

/** Runs the continuations of settled promises. */
export const flushPromises = () => new Promise((resolve) => { setImmediate(resolve); });

/**
 * A model of a server with one channel. Its messages wait in `outbox` until `deliver` sends some of them, so that a connection can
 * break at any point.
 */
export class ModelServer {
  epoch = 1;
  head = 0;
  log = [];
  outbox = [];
  subscribed = undefined;
  published = new Map([['e1', []]]); // the data of each epoch, by offset
  keys = new Map(); // key -> offset of the event that was published with it
  goodBefore = new Map(); // epoch -> the last valid offset of the epoch before
  previous = undefined; // the epoch before, and where this one begins

  constructor(net) {
    net.received = (socket, message) => this.received(socket, message);
  }

  received(socket, { type, id, channel, since, epoch, last, data, key }) {
    this.socket = socket;
    if (type === 'publish' && this.keys.has(key)) {
      this.queue({ type: 'ok', id, offset: this.keys.get(key), repeated: true });
    } else if (type === 'publish') {
      if (key) this.keys.set(key, this.head + 1);
      this.append(data, true, id);
    } else if (type === 'unsubscribe') {
      this.subscribed = undefined;
      this.queue({ type: 'ok', id });
    } else if (type === 'subscribe') {
      this.subscribed = channel;
      const oldest = this.head - this.log.length + 1;
      const known = since === undefined ? undefined : this.resume(since, epoch);
      const reaches = known && known.since >= oldest - 1;
      const reply = { type: 'ok', id, channel, offset: this.head, epoch: `e${this.epoch}` };
      if (since !== undefined) reply.recovered = Boolean(reaches);
      if (known && epoch !== reply.epoch) reply.since = known.since;
      this.queue(reply);
      if (known && !reaches) this.queue({ type: 'lost', channel, first: known.since + 1, last: oldest - 1 });
      const from = known ? known.since : this.head - (last ?? 0);
      for (const old of this.log) if (old.offset > from) this.queue(old);
    }
  }

  /** Where a position of this epoch or the one before continues. Undefined if it is unknown or has void events. */
  resume(since, epoch) {
    if (epoch === `e${this.epoch}`) return since <= this.head ? { since } : undefined;
    const { epoch: former, good, begin } = this.previous ?? {};
    if (epoch !== former || since > good) return undefined;
    if (begin === good) return { since };
    return since === good ? { since: begin } : undefined;
  }

  append(data, own = false, id = undefined) {
    this.head += 1;
    const published = event('kitchen', this.head, data);
    this.log.push(published);
    this.published.get(`e${this.epoch}`)[this.head] = data;
    if (own) this.queue({ type: 'ok', id, offset: this.head });
    if (this.subscribed) this.queue(published);
  }

  forget(kept) { this.log = this.log.slice(this.log.length - Math.min(kept, this.log.length)); }

  restart() {
    this.startEpoch(0);
    this.previous = undefined;
    this.log = [];
    this.cut();
  }

  startEpoch(head) {
    const before = this.published.get(`e${this.epoch}`);
    this.epoch += 1;
    this.head = head;
    this.published.set(`e${this.epoch}`, before.slice(0, head + 1));
  }

  /** Loses the newest events and starts a new epoch, whose offsets continue those of the old one or begin again. */
  reset(lost, continues) {
    const good = Math.max(0, this.head - lost);
    const begin = continues ? good : 0;
    this.previous = { epoch: `e${this.epoch}`, good, begin };
    this.startEpoch(begin);
    this.goodBefore.set(`e${this.epoch}`, good);
    this.log = continues ? this.log.filter(({ offset }) => offset <= good) : [];
    if (this.subscribed) this.queue({ type: 'reset', channel: 'kitchen', epoch: `e${this.epoch}`, good, offset: begin });
  }

  cut() {
    this.outbox = [];
    this.subscribed = undefined;
  }

  queue(message) { this.outbox.push(message); }

  deliver(count = Infinity) {
    for (; count > 0 && this.outbox.length; count -= 1) this.socket.deliver(this.outbox.shift());
  }
}

/** Subscribes with a recorder, which is returned with its subscription. */
export function subscribe(world, options = {}, channel = 'kitchen') {
  const subscriber = recorder();
  const subscription = world.client.subscribe(channel, subscriber.onEvent, { ...subscriber.options, ...options });
  return Object.assign(subscriber, { subscription });
}

/** Publishes an event on `kitchen`, which the server confirms with `offset`. */
export function publish(world, offset) {
  world.client.publish('kitchen', 'mine');
  world.socket.reply('publish', { offset });
}
