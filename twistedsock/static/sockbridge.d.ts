/**
 * The types of sockbridge.js. A test holds the two together (tests/js/types.test.mjs).
 * All of it is explained in docs/javascript.md.
 */

/** Opens a client. It connects at once, in the background, and comes back until it is closed.
 *
 * @param url default: `/ws` on the page's own host. `http:` and `https:` are read as `ws:` and `wss:`.
 * @throws {TypeError} where the address or an option makes no sense
 *
 * ```js
 * const client = connect('ws://127.0.0.1:8082/ws');
 * client.subscribe('kitchen', ({ offset, from, data }) => console.log(offset, from, data), { last: 10 });
 * await client.publish('kitchen', { celsius: 21.5 });
 * ```
 */
export function connect(url?: string | URL, options?: ConnectOptions): Client;

/** Bytes that the server accepts in one message. */
export const MESSAGE_LIMIT: 65536;

/** Commands kept while there is no connection; one more is refused with `queue-full`. */
export const QUEUE_LIMIT: 256;

/** Commands sent and not answered; one more is refused with `queue-full`. */
export const UNANSWERED_LIMIT: 4096;

/** The times that `connect` takes where it is given no others. */
export const DEFAULT_TIMES: Readonly<Times>;

/** All in milliseconds. */
export interface Times {
  /** Before the first try to reconnect: a random time up to this. Default 500. */
  firstDelay: number;
  /** The window doubles with each failed try, up to this. Default 30,000. */
  longestDelay: number;
  /** A connection that has lived this long sets the window back to `firstDelay`. Default 10,000. */
  stableAfter: number;
  /** Without a welcome in this time, the try has failed. Default 10,000. */
  openTimeout: number;
  /** After so long without a message the client sends a ping. Default 25,000. */
  quietAfter: number;
  /** Without any message in this time after the ping, the connection is given up. Default 10,000. */
  answerTimeout: number;
  /** A call that is not settled in this time is rejected with `timeout`, connected or not. Default 60,000. */
  commandTimeout: number;
  /** A client on the stream tries the WebSocket again when it reconnects after this time. Default 600,000. */
  websocketAgainAfter: number;
}

/** `stream`: a response that does not end and requests beside it stand in for a WebSocket that is blocked. */
export type Transport = 'websocket' | 'stream';

/** A token to show, or nothing: then the client comes without. */
export type Token = string | null | undefined;

export interface ConnectOptions extends Partial<Times> {
  /** A token, or a function that gets one for each connection, and another one before that runs out. */
  token?: Token | (() => Token | Promise<Token>);
  /** `auto`, the default: the WebSocket, or the stream where the WebSocket is blocked or missing. */
  transport?: 'auto' | Transport;
  /** A WebSocket for platforms that have none, such as that of the package `ws`; or a fake one, for tests. */
  WebSocket?: WebSocketClass | undefined;
  /** For tests: what `stream` asks the bridge with. Default: the platform's. */
  fetch?: (url: string, request?: any) => Promise<any>;
  /** For tests: at least 0, below 1. */
  random?: () => number;
  /** For tests: milliseconds, from whenever. */
  now?: () => number;
  /** For tests. */
  setTimeout?: (then: () => void, delay: number) => any;
  /** For tests: takes what `setTimeout` gave, or undefined. */
  clearTimeout?: (timer: any) => void;
  /** Where to listen for `online` and `visibilitychange`. Default: the global object. */
  window?: any;
}

/** As much of a WebSocket as the client uses. */
export type WebSocketClass = new (url: string, protocols: string[]) => {
  send(text: string): void;
  close(code?: number): void;
};

/** `connecting`, `open`, `waiting` (between two tries) or `closed` (for good). */
export type State = 'connecting' | 'open' | 'waiting' | 'closed';

/** Who this client is to the bridge, and the two ends of its connection as the bridge sees them. */
export interface OwnPeer {
  id: string;
  /** This end, such as `127.0.0.1:53124`. */
  from: string;
  /** The bridge's end, such as `127.0.0.1:8082`. */
  to: string;
  /** The name that the token gave, where one was shown. */
  nick?: string | undefined;
  /** For how many seconds the token is good; absent where it never runs out. */
  expires?: number | undefined;
}

/** Somebody who is subscribed to a channel. */
export interface Peer {
  id: string;
  nick: string;
}

/** One event of a channel. `Data` is what you expect in it: nobody checks it for you. */
export interface ChannelEvent<Data = unknown> {
  channel: string;
  /** 1, 2, 3 … in the order in which the channel's events were published. */
  offset: number;
  /** Who published it: a name, or an id. */
  from: string;
  /** `message`, unless the publisher said another. */
  name: string;
  /** A string is a text; everything else was JSON. */
  data: Data;
}

/** Events that are known to be missing. */
export type Gap =
  | {
      channel: string;
      epoch: string;
      /** The events `first` to `last` have left the bridge's log. */
      reason: 'log';
      first: number;
      last: number;
    }
  | {
      channel: string;
      /** The old one. */
      epoch: string;
      /** The offsets began anew: of the old epoch everything from `first` on may be missing, nobody knows how much. */
      reason: 'epoch';
      first: number;
      last?: undefined;
    };

/** The bridge has answered a subscription. */
export interface Subscribed {
  /** The newest event's; 0 where there has been none. */
  offset: number;
  epoch: string;
  /** Only where a position was resumed: whether everything since then follows. */
  recovered?: boolean | undefined;
  /** How many events there were since then, which follow now. */
  missed: number;
}

/** `since` and `epoch` come together. */
export type SubscribeOptions = {
  /** Begin with the newest so many events of the log. */
  last?: number | undefined;
  /** False: without the events that this client publishes. */
  echo?: boolean;
  /** True: `onJoin` and `onLeave` are called. */
  presence?: boolean;
  onJoin?: (peer: Peer) => void;
  onLeave?: (peer: Peer) => void;
  /** Events are known to be missing. */
  onLost?: (gap: Gap) => void;
  /** The bridge has answered: now, and again after each reconnection. */
  onSubscribed?: (state: Subscribed) => void;
  /**
   * The bridge refused; the subscription has ended. Without it, and if you do not look at `ready`, the client dispatches
   * `error`.
   */
  onRefused?: (error: SockbridgeError) => void;
} & (
  | { since?: undefined; epoch?: undefined }
  | {
      /** Begin after this offset … */
      since: number;
      /** … of this epoch. */
      epoch: string;
    }
);

/** What JSON can hold. `undefined`, symbols and big integers are no such thing; a function is refused when it is called. */
export type Publishable = string | number | boolean | null | object;

/** What the bridge's log holds of a channel. */
export interface History<Data = unknown> {
  events: ChannelEvent<Data>[];
  offset: number;
  epoch: string;
  /** Offsets that were asked for and whose events are no longer in the log; missing if there are none. */
  lost?: Gap[] | undefined;
}

/** What the bridge tells of itself and of this client. */
export interface Info {
  peer: Peer;
  from: string;
  to: string;
  /** How many channels this client is subscribed to. */
  channels: number;
  /** Seconds since the bridge was started. */
  uptime: number;
  version: string;
}

/** What the client dispatches, and what stands in `detail`. */
export interface ClientEvents {
  /** The first time at the end of the turn in which `connect` was called, so that you can listen. */
  connecting: CustomEvent<null>;
  open: CustomEvent<OwnPeer & { transport: Transport }>;
  /** Milliseconds until the next try, how many have failed, and why the last connection ended. */
  waiting: CustomEvent<{ delay: number; attempt: number; code: number; reason: string }>;
  /** For good. 1000: this client or the bridge wished it. 1008: the bridge does not want this client; `reason` says why. */
  closed: CustomEvent<{ code: number; reason: string }>;
  /** What the operator or the bridge wants people to know; `code` and `channel` where it is about a token. */
  notice: CustomEvent<{ text: string; code?: string; channel?: string }>;
  /**
   * An error that answers no call of yours, such as that of a subscription that was refused: then it has a `channel`.
   * If you do not listen, it is written to the console.
   */
  error: CustomEvent<SockbridgeError>;
}

/** A connection that comes back by itself; made by `connect`. */
export class Client extends EventTarget {
  private constructor();

  readonly state: State;

  /** While open. */
  readonly peer: OwnPeer | null;

  /** The way of the present connection, or of the last try. */
  readonly transport: Transport;

  /** Reads a channel, now and after each reconnection, until `unsubscribe`. The events come in order, none twice. */
  subscribe<Data = unknown>(
    channel: string,
    callback: (event: ChannelEvent<Data>) => void,
    options?: SubscribeOptions,
  ): Subscription;

  /**
   * Gives the event's offset. Rejected with `disconnected`, the event may or may not have been published; the client never
   * publishes it a second time. In texts, half of a surrogate pair is sent as U+FFFD.
   */
  publish(channel: string, data: Publishable, options?: { name?: string | undefined }): Promise<number>;

  /** Everybody who is subscribed. */
  who(channel: string): Promise<Peer[]>;

  /** What the log holds. */
  history<Data = unknown>(
    channel: string,
    options?: { last?: number | undefined; since?: number | undefined },
  ): Promise<History<Data>>;

  /** Names this client to others, and again after each reconnection. Gives the name. */
  nick(name: string): Promise<string>;

  /** Shows a token. Gives the name that comes with it, and for how many seconds it is good. */
  authenticate(token: string): Promise<{ nick: string; expires?: number | undefined }>;

  /** The milliseconds to the bridge and back. */
  ping(): Promise<number>;

  info(): Promise<Info>;

  /** While waiting: try now. */
  retry(): void;

  /** The end: what is under way is rejected with `closed`, and nothing reconnects after it. */
  close(): void;

  addEventListener<Type extends keyof ClientEvents>(
    type: Type,
    listener: ((this: Client, event: ClientEvents[Type]) => void) | { handleEvent(event: ClientEvents[Type]): void } | null,
    options?: boolean | { capture?: boolean; once?: boolean; passive?: boolean; signal?: AbortSignal },
  ): void;

  removeEventListener<Type extends keyof ClientEvents>(
    type: Type,
    listener: ((this: Client, event: ClientEvents[Type]) => void) | { handleEvent(event: ClientEvents[Type]): void } | null,
    options?: boolean | { capture?: boolean },
  ): void;
}

/** One reader of one channel; made by `subscribe`. */
export class Subscription {
  private constructor();

  readonly channel: string;

  /** All events up to this offset were given to this reader; undefined until the bridge has answered. */
  readonly position: number | undefined;

  /** The run of offsets that `position` belongs to: store both, and go on from here after a reload. */
  readonly epoch: string | undefined;

  /** Whether the bridge has answered on the present connection. */
  readonly current: boolean;

  /** The first answer; rejects with a SockbridgeError where the bridge refuses. */
  readonly ready: Promise<Subscribed>;

  /** The end, connected or not. */
  unsubscribe(): void;
}

/** The codes that this client makes itself. */
export type ClientCode =
  | 'disconnected' // the connection broke before the answer: it may or may not have been carried out
  | 'closed'
  | 'timeout' // nothing has settled the call in `commandTimeout`: the message tells whether it was sent
  | 'bad-answer' // the bridge's answer could not be read
  | 'queue-full'
  | 'too-long'
  | 'bad-argument'
  | 'no-token'
  | 'unsubscribed';

/** The codes of the bridge. */
export type ServerCode =
  | 'bad-json'
  | 'bad-type'
  | 'bad-argument'
  | 'bad-channel'
  | 'bad-name'
  | 'not-subscribed'
  | 'limit'
  | 'unavailable'
  | 'internal'
  | 'unauthorized'
  | 'forbidden'
  | 'rate';

/** What every rejected promise carries: `code` is for programs, `message` for people. */
export class SockbridgeError extends Error {
  constructor(code: string, message: string, channel?: string);
  readonly name: 'SockbridgeError';
  /** A later bridge may know more of them. */
  readonly code: ClientCode | ServerCode | (string & {});
  /** That of a subscription that was refused. */
  readonly channel?: string;
}
