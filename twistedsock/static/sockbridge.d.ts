/// <reference lib="esnext.disposable" />

/**
 * Types of sockbridge.js. tests/js/types.test.mjs compares them with the code.
 */

/** Creates a client. It connects at once, in the background, and reconnects until it is closed.
 *
 * @param url default: `/ws` on the host of the page. `http:` and `https:` become `ws:` and `wss:`.
 * @throws {TypeError} if the URL or an option is invalid
 *
 * ```js
 * const client = connect('ws://127.0.0.1:8082/ws');
 * client.subscribe('kitchen', ({ offset, from, data }) => console.log(offset, from, data), { last: 10 });
 * await client.publish('kitchen', { celsius: 21.5 });
 * ```
 *
 * The type argument names the channels and the types of their data. Then other channels are errors:
 * `connect<{ kitchen: Reading; [room: `rooms/${string}`]: Reading }>()`. Nothing is checked at run time.
 */
export function connect<Channels extends object = {}>(url?: string | URL, options?: ConnectOptions): Client<Channels>;

/** Maximum size of a message in bytes. */
export const MESSAGE_LIMIT: 65536;

/** Maximum number of commands queued while disconnected. Further ones are rejected with `queue-full`. */
export const QUEUE_LIMIT: 256;

/** Maximum number of unanswered commands. Further ones are rejected with `queue-full`. */
export const UNANSWERED_LIMIT: 4096;

/** Maximum number of events that wait for a `for await` loop. Until half of them are read, the subscription pauses. */
export const ITERATION_LIMIT: 1000;

/** The default timeouts of `connect`. */
export const DEFAULT_TIMES: Readonly<Times>;

/** Timeouts in milliseconds. */
export interface Times {
  /** Maximum delay before the first attempt to reconnect. The actual delay is random. Default 500. */
  firstDelay: number;
  /** The maximum delay doubles with each failed attempt, up to this value. Default 30,000. */
  longestDelay: number;
  /** A connection that has been open for this long resets the delay to `firstDelay`. Default 10,000. */
  stableAfter: number;
  /** An attempt fails if no welcome arrives in this time. Default 10,000. */
  openTimeout: number;
  /** The client sends a ping if it has received no message for this long. Default 25,000. */
  quietAfter: number;
  /** The connection is dropped if no message arrives in this time after the ping. Default 10,000. */
  answerTimeout: number;
  /** A call that is not settled in this time is rejected with `timeout`, connected or not. Default 60,000. */
  commandTimeout: number;
  /** A client that uses the stream tries WebSocket again when it reconnects after this time. Default 600,000. */
  websocketAgainAfter: number;
}

/** `stream` replaces a blocked WebSocket with one endless response and separate POST requests. */
export type Transport = 'websocket' | 'stream';

/** A token. Without one, the client does not authenticate. */
export type Token = string | null | undefined;

export interface ConnectOptions extends Partial<Times> {
  /** Aborting closes the client. */
  signal?: AbortSignal | undefined;
  /** A token, or a function that returns one. It is called for each connection and before a token expires. */
  token?: Token | (() => Token | Promise<Token>);
  /** `auto`, the default: WebSocket, or the stream if WebSocket is blocked or missing. */
  transport?: 'auto' | Transport;
  /** A WebSocket class for platforms without one, for example from the package `ws`, or a fake for tests. */
  WebSocket?: WebSocketClass | undefined;
  /** For tests: the fetch function that the stream uses. Default: that of the platform. */
  fetch?: (url: string, request?: any) => Promise<any>;
  /** For tests: returns a number of at least 0 and less than 1. */
  random?: () => number;
  /** For tests: returns milliseconds of a monotonic clock. */
  now?: () => number;
  /** For tests. */
  setTimeout?: (then: () => void, delay: number) => any;
  /** For tests: accepts a timer that `setTimeout` returned, or undefined. */
  clearTimeout?: (timer: any) => void;
  /** The object that dispatches `online` and `visibilitychange`. Default: the global object. */
  window?: any;
}

/** The part of the WebSocket interface that the client uses. */
export type WebSocketClass = new (url: string, protocols: string[]) => {
  send(text: string): void;
  close(code?: number): void;
};

/** `connecting`, `open`, `waiting` (for the next attempt) or `closed` (for good). */
export type State = 'connecting' | 'open' | 'waiting' | 'closed';

/** This client and the addresses of its connection, as the server sees them. */
export interface OwnPeer {
  id: string;
  /** The address of this client, for example `127.0.0.1:53124`. */
  from: string;
  /** The address of the server, for example `127.0.0.1:8082`. */
  to: string;
  /** The name from the token, if the client has authenticated. */
  nick?: string | undefined;
  /** Seconds until the token expires. Undefined if it never expires. */
  expires?: number | undefined;
}

/** A member of a channel. */
export interface Peer {
  id: string;
  nick: string;
}

/** One event of a channel. The type `Data` is not checked at run time. */
export interface ChannelEvent<Data = unknown> {
  channel: string;
  /** 1, 2, 3 … in the order in which the events of the channel were published. */
  offset: number;
  /** When the server accepted it: milliseconds since 1970, as `Date.now()` returns. Never decreases within an epoch. */
  time: number;
  /** The name or id of the publisher. */
  from: string;
  /** The name of the event. Default `message`. */
  name: string;
  /** Text payloads are strings, bytes are a Uint8Array. All other values were published as JSON. */
  data: Data;
}

/** A range of missing events. */
export type Gap =
  | {
      channel: string;
      epoch: string;
      /** The events `first` to `last` are no longer in the history. */
      reason: 'log';
      first: number;
      last: number;
    }
  | {
      channel: string;
      /** The old epoch. */
      epoch: string;
      /**
       * The channel has a new epoch, or its offsets have decreased. Events of the old epoch before `first` can be void, and an
       * unknown number from `first` on can be missing.
       */
      reason: 'epoch';
      first: number;
      last?: undefined;
    };

/** The channel has a new epoch. The subscription has moved there: its position is `epoch` and `offset`. */
export interface Reset {
  channel: string;
  /** The new epoch. */
  epoch: string;
  /** The last event of the old epoch that you have received and that is still valid. All later ones are void. */
  good: number;
  /** The events of the new epoch after this offset follow. The same as `good` if the offsets of both epochs are one series. */
  offset: number;
}

/** The server's reply to a subscription. */
export interface Subscribed {
  /** The offset of the newest event, or 0. */
  offset: number;
  epoch: string;
  /** Only for a resumed subscription: true if all events since its position follow. */
  recovered?: boolean | undefined;
  /** The number of events since that position, which follow now. */
  missed: number;
}

/** `since` and `epoch` must be given together. */
export type SubscribeOptions = {
  /** Aborting ends the subscription: `ready` rejects, and a `for await` loop throws, with the reason of the signal. */
  signal?: AbortSignal | undefined;
  /** Start with this number of events from the history. */
  last?: number | undefined;
  /** False excludes the events that this client publishes. Default true. */
  echo?: boolean;
  /** True enables `onJoin` and `onLeave`. Default false. */
  presence?: boolean;
  onJoin?: (peer: Peer) => void;
  onLeave?: (peer: Peer) => void;
  /** Called when events are missing. */
  onLost?: (gap: Gap) => void;
  /** Called when the channel has a new epoch, before its first event. */
  onReset?: (reset: Reset) => void;
  /** Called when the server has confirmed the subscription, also after each reconnection. */
  onSubscribed?: (state: Subscribed) => void;
  /**
   * Called when the server rejects or ends the subscription. Without this callback, and if you do not use `ready`, the
   * client dispatches `error`.
   */
  onRefused?: (error: SockbridgeError) => void;
} & (
  | { since?: undefined; epoch?: undefined }
  | {
      /** Start after this offset … */
      since: number;
      /** … of this epoch. */
      epoch: string;
    }
);

/**
 * JSON that is published as it is written: numbers keep all their digits, and objects the order of their keys. Only line
 * breaks become spaces.
 */
export class RawJson {
  /** @throws SyntaxError if the text is not JSON */
  constructor(text: string);
  readonly text: string;
}

/**
 * A JSON value, or bytes: an ArrayBuffer, a typed array or a DataView. `undefined`, functions, symbols and bigints are
 * rejected.
 */
export type Publishable = string | number | boolean | null | object;

/**
 * An offset, as a number, or a time: a Date, text such as `2026-11-29T05:00:00Z`, or relative to now, such as `-1h` (units:
 * ms, s, m, h, d). For the `time` of an event, use `new Date(event.time)`.
 */
export type Bound = number | Date | string;

/** All bounds that are given apply together. Without any, the whole history is requested. */
export interface HistoryOptions extends CallOptions {
  /** At most this number of events, the newest ones. */
  last?: number | undefined;
  /** Events after this offset. */
  since?: number | undefined;
  /** Events after this offset or time. */
  after?: Bound | undefined;
  /** Events before this offset or time. */
  before?: Bound | undefined;
}

/** Events from the history of a channel. */
export interface History<Data = unknown> {
  events: ChannelEvent<Data>[];
  offset: number;
  epoch: string;
  /**
   * Requested events that are no longer in the history. Undefined if there are none. If `after` is a time, these are all that
   * may have been published after it.
   */
  lost?: { first: number; last: number }[] | undefined;
}

/** Limits of one call. */
export interface CallOptions {
  /** Aborting rejects the promise with the reason of the signal. A call that was sent already may still be executed. */
  signal?: AbortSignal | undefined;
  /** Milliseconds instead of `commandTimeout`. */
  timeout?: number | undefined;
}

export interface PublishOptions extends CallOptions {
  /** The name of the event. Default `message`. */
  name?: string | undefined;
  /**
   * A string that is unique for this publication, such as `crypto.randomUUID()`. With it, the client repeats the
   * publication after a reconnection, and the server publishes it only once.
   */
  key?: string | undefined;
}

/** The names of the channels: any string, if they were not declared. */
export type ChannelName<Channels> = [keyof Channels] extends [never] ? string : keyof Channels & string;

/** What can be published on a channel. */
export type PublishableOn<Channels, Name> = Name extends keyof Channels ? Channels[Name] : Publishable;

/** Information about the server and this client. */
export interface Info {
  peer: Peer;
  from: string;
  to: string;
  /** The number of channels to which this client is subscribed. */
  channels: number;
  /** Seconds since the server was started. */
  uptime: number;
  version: string;
}

/** The events that the client dispatches, with their `detail`. */
export interface ClientEvents {
  /** Dispatched for the first time at the end of the turn that called `connect`, so that you can add a listener. */
  connecting: CustomEvent<null>;
  open: CustomEvent<OwnPeer & { transport: Transport }>;
  /** Milliseconds until the next attempt, the number of failed attempts, and why the last connection ended. */
  waiting: CustomEvent<{ delay: number; attempt: number; code: number; reason: string }>;
  /** Closed for good. 1000: the client or the server ended it. 1008: the server rejects this client because of `reason`. */
  closed: CustomEvent<{ code: number; reason: string }>;
  /** A notice of the operator or the server. Notices about tokens have a `code` and can have a `channel`. */
  notice: CustomEvent<{ text: string; code?: string; channel?: string }>;
  /**
   * An error that answers no call, for example of a rejected subscription, which has a `channel`. Without a listener, it
   * is written to the console.
   */
  error: CustomEvent<SockbridgeError>;
}

/** A connection that reconnects automatically. Created by `connect`. */
export class Client<Channels extends object = {}> extends EventTarget implements Disposable, AsyncDisposable {
  private constructor();

  readonly state: State;

  /** Set while the connection is open. */
  readonly peer: OwnPeer | null;

  /** The transport of the present connection or of the last attempt. */
  readonly transport: Transport;

  /** Resolves when the client is open, at once if it is. Rejects with `closed` when it is closed for good. */
  readonly opened: Promise<OwnPeer & { transport: Transport }>;

  /**
   * Subscribes to a channel, also after each reconnection, until `unsubscribe`. Events arrive in order and at most once.
   * Without a callback, read them with `for await`.
   */
  subscribe<Name extends keyof Channels & string>(
    channel: Name,
    callback: (event: ChannelEvent<Channels[Name]>) => void,
    options?: SubscribeOptions,
  ): Subscription<Channels[Name]>;
  subscribe<Name extends keyof Channels & string>(channel: Name, options?: SubscribeOptions): Subscription<Channels[Name]>;
  subscribe<Data = unknown>(
    channel: [keyof Channels] extends [never] ? string : never,
    callback: (event: ChannelEvent<Data>) => void,
    options?: SubscribeOptions,
  ): Subscription<Data>;
  subscribe<Data = unknown>(channel: [keyof Channels] extends [never] ? string : never, options?: SubscribeOptions): Subscription<Data>;

  /**
   * Resolves with the offset of the event. After a rejection with `disconnected`, the event may or may not have been
   * published. The client publishes it again only if it has a `key`, with which the server publishes it once. Lone
   * surrogates in strings are sent as U+FFFD. A `RawJson` is sent as it is written.
   */
  publish<Name extends ChannelName<Channels>>(
    channel: Name,
    data: PublishableOn<Channels, Name> | RawJson,
    options?: PublishOptions,
  ): Promise<number>;

  /** Resolves with the members of a channel. */
  who(channel: ChannelName<Channels>, options?: CallOptions): Promise<Peer[]>;

  /** Resolves with events from the history. */
  history<Name extends keyof Channels & string>(channel: Name, options?: HistoryOptions): Promise<History<Channels[Name]>>;
  history<Data = unknown>(channel: [keyof Channels] extends [never] ? string : never, options?: HistoryOptions): Promise<History<Data>>;

  /** Sets the name of this client, also after each reconnection. Resolves with the name that other clients see. */
  nick(name: string, options?: CallOptions): Promise<string>;

  /** Authenticates with a token. Resolves with the name from the token and its lifetime in seconds. */
  authenticate(token: string, options?: CallOptions): Promise<{ nick: string; expires?: number | undefined }>;

  /** Resolves with the round-trip time in milliseconds. */
  ping(options?: CallOptions): Promise<number>;

  info(options?: CallOptions): Promise<Info>;

  /** Reconnects immediately if the client is waiting. */
  retry(): void;

  /** Closes the client for good. Pending calls are rejected with `closed`. */
  close(): void;

  /** Calls `close`. */
  [Symbol.dispose](): void;

  /** Closes the client when all calls are settled. */
  [Symbol.asyncDispose](): Promise<void>;

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

/** A subscription to one channel. Created by `subscribe`. */
export class Subscription<Data = unknown> implements Disposable, AsyncIterable<ChannelEvent<Data>> {
  private constructor();

  readonly channel: string;

  /** All events up to this offset have been delivered. Undefined until the server has replied. */
  readonly position: number | undefined;

  /** The epoch of `position`. Store both to resume here after a reload. */
  readonly epoch: string | undefined;

  /** True if the server has confirmed the subscription on the present connection. */
  readonly current: boolean;

  /** Resolves with the first reply. Rejects with a SockbridgeError if the server rejects the subscription. */
  readonly ready: Promise<Subscribed>;

  /** Ends the subscription, connected or not. */
  unsubscribe(): void;

  /** Calls `unsubscribe`. */
  [Symbol.dispose](): void;

  /**
   * The events, for one `for await` loop. Leaving the loop unsubscribes. It ends after `unsubscribe` or a regular end of the
   * client, and throws a SockbridgeError if the server rejects or ends the subscription.
   */
  [Symbol.asyncIterator](): AsyncGenerator<ChannelEvent<Data>, void, void>;
}

/** Error codes of the client. */
export type ClientCode =
  | 'disconnected' // the connection was lost before the reply, the command may or may not have been executed
  | 'closed'
  | 'timeout' // not settled within `commandTimeout`: the message states if the command was sent
  | 'bad-answer' // unreadable reply of the server
  | 'queue-full'
  | 'too-long'
  | 'bad-argument'
  | 'no-token'
  | 'origin' // the server rejects pages of this origin, the message has the option that allows it, dispatched as `error`
  | 'unsubscribed';

/** Error codes of the server. */
export type ServerCode =
  | 'bad-json'
  | 'bad-base64'
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

/** The reason of every rejected promise: `code` is for programs, `message` for people. */
export class SockbridgeError extends Error {
  constructor(code: string, message: string, channel?: string);
  readonly name: 'SockbridgeError';
  /** Later servers can send further codes. */
  readonly code: ClientCode | ServerCode | (string & {});
  /** The channel of a rejected subscription. */
  readonly channel?: string;
}
