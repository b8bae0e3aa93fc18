// What stands in for the world in these tests: a clock that is moved by hand, a WebSocket without a network, and a small
// model of the server's rules (offsets, epochs, a log that forgets), so that recovery is tested against behaviour, not a script.

import { connect } from '../../twistedsock/static/sockbridge.js';

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

/** One end of a connection; `net` decides what happens to what is sent. */
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

  // What the other side does:
  say(message) { this.onmessage({ data: typeof message === 'string' ? message : JSON.stringify(message) }); }

  welcome(id = `peer${this.net.sockets.length}`) {
    this.say({ type: 'welcome', protocol: 1, id, from: '127.0.0.1:53124', to: '127.0.0.1:8082' });
  }

  drop(code = 1006, reason = '') { this.onclose({ code, reason }); }

  /** The last message of this type the client sent, or undefined. */
  last(type) { return this.sent.findLast((message) => message.type === type); }

  all(type) { return this.sent.filter((message) => message.type === type); }

  answer(type, fields = {}) { this.say({ type: 'ok', id: this.last(type).id, ...fields }); }

  refuse(type, code, message = 'no') { this.say({ type: 'error', id: this.last(type).id, code, message }); }
}

/** A request that waits until the test answers it; `address`, `method`, `headers` and `body` are what was asked. */
export class FakeRequest {
  constructor(address, { method = 'GET', headers = {}, body, signal } = {}) {
    Object.assign(this, { address, method, headers, body, signal });
    this.response = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    signal?.addEventListener('abort', () => this.fail('aborted'));
  }

  get aborted() { return this.signal.aborted; }

  /** The JSON messages of a POST. */
  get messages() { return this.body.trimEnd().split('\n').map((line) => JSON.parse(line)); }

  answer(status = 200, body = null, type = 'application/problem+json') {
    this.resolve(new Response(body && JSON.stringify(body), { status, headers: { 'Content-Type': type } }));
  }

  /** Begins an answer that goes on; `say` and `end` are its rest. */
  begin(type = 'text/event-stream; charset=utf-8') {
    const body = new ReadableStream({ start: (controller) => { this.controller = controller; } });
    this.resolve(new Response(body, { headers: { 'Content-Type': type } }));
  }

  /** A string, or bytes. */
  send(piece) { this.controller.enqueue(typeof piece === 'string' ? new TextEncoder().encode(piece) : piece); }

  /** A message as the bridge sends it. */
  say(message) {
    const named = message.type === 'event' ? '' : `event: ${message.type}\n`;
    this.send(`${named}data: ${JSON.stringify(message)}\n\n`);
  }

  welcome(id = 'k3x9', key = 'secret') {
    this.say({ type: 'welcome', protocol: 1, id, from: '127.0.0.1:53124', to: '127.0.0.1:8082', key });
  }

  end() { this.controller.close(); }

  fail(words = 'fetch failed') {
    this.reject(new TypeError(words));
    try { this.controller?.error(new TypeError(words)); } catch { /* it has ended */ }
  }
}

/** `fetch`, and the requests that it was asked for. */
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

/** A client in a fake world: `world.socket` is the newest WebSocket, `world.request` the newest request, `world.states` what was dispatched. */
export function build({ listen = true, ...options } = {}) {
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

/** Breaks the connection and opens the next one, as far as its welcome. */
export function reconnect(world, code = 1006) {
  world.socket.drop(code);
  world.client.retry();
  world.socket.welcome();
}

/** A callback that remembers, and the list of what it was told. */
export function recorder() {
  const told = [];
  return {
    told,
    onEvent: (event) => told.push(['event', event.offset, event.data]),
    options: {
      onLost: ({ reason, first, last }) => told.push(['lost', reason, first, last]),
      onSubscribed: (state) => told.push(['subscribed', state]),
      onJoin: (peer) => told.push(['join', peer.id]),
      onLeave: (peer) => told.push(['leave', peer.id]),
      onRefused: (error) => told.push(['refused', error.code]),
    },
    offsets: () => told.filter(([what]) => what === 'event').map(([, offset]) => offset),
  };
}

export const event = (channel, offset, data = `${channel} ${offset}`, from = 'ann') => (
  { type: 'event', channel, offset, from, name: 'message', data });

/** Lets the promises that are settled by now run their continuations. */
export const settle = () => new Promise((resolve) => { setImmediate(resolve); });

/**
 * One channel of a server, by the rules of the protocol. What it says waits in `outbox` until `deliver` lets some of it through,
 * so that a connection can break with any part of a conversation still under way.
 */
export class ModelServer {
  epoch = 1;
  head = 0;
  log = [];
  outbox = [];
  subscribed = undefined;

  constructor(net) {
    net.received = (socket, message) => this.received(socket, message);
  }

  received(socket, { type, id, channel, since, epoch, last, data }) {
    this.socket = socket;
    if (type === 'publish') {
      this.append(data, true, id);
    } else if (type === 'unsubscribe') {
      this.subscribed = undefined;
      this.say({ type: 'ok', id });
    } else if (type === 'subscribe') {
      this.subscribed = channel;
      const oldest = this.head - this.log.length + 1;
      const known = since !== undefined && epoch === `e${this.epoch}` && since <= this.head;
      const whole = known && since >= oldest - 1;
      const reply = { type: 'ok', id, channel, offset: this.head, epoch: `e${this.epoch}` };
      this.say(since === undefined ? reply : { ...reply, recovered: whole });
      if (known && !whole) this.say({ type: 'lost', channel, first: since + 1, last: oldest - 1 });
      const from = known ? since : this.head - (last ?? 0);
      for (const old of this.log) if (old.offset > from) this.say(old);
    }
  }

  append(data, own = false, id = undefined) {
    this.head += 1;
    const published = event('kitchen', this.head, data);
    this.log.push(published);
    if (own) this.say({ type: 'ok', id, offset: this.head });
    if (this.subscribed) this.say(published);
  }

  forget(kept) { this.log = this.log.slice(this.log.length - Math.min(kept, this.log.length)); }

  restart() {
    this.epoch += 1;
    this.head = 0;
    this.log = [];
    this.cut();
  }

  cut() {
    this.outbox = [];
    this.subscribed = undefined;
  }

  say(message) { this.outbox.push(message); }

  deliver(count = Infinity) {
    for (; count > 0 && this.outbox.length; count -= 1) this.socket.say(this.outbox.shift());
  }
}
