// Correct uses of the client, and incorrect ones that must not compile. tests/js/types.test.mjs compiles this file. It is never
// executed.

import {
  type Bound,
  type ChannelEvent,
  Client,
  connect,
  DEFAULT_TIMES,
  type Gap,
  type History,
  type Info,
  MESSAGE_LIMIT,
  type OwnPeer,
  type Peer,
  QUEUE_LIMIT,
  RawJson,
  type Reset,
  SockbridgeError,
  type State,
  type Subscribed,
  Subscription,
  type Transport,
  UNANSWERED_LIMIT,
} from '../../../twistedsock/static/sockbridge.js';

interface Reading {
  celsius: number;
}

/** Compiles only if both types are the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_yes: Same<A, B>): void => {};

const client = connect();
connect('/ws');
connect(new URL('https://bridge.example.org/ws'), {
  ...DEFAULT_TIMES,
  firstDelay: 100,
  transport: 'auto',
  token: async () => undefined,
});
connect('/ws', { token: 'eyJ', transport: 'stream', WebSocket: undefined });
connect('/ws', { token: () => 'eyJ', WebSocket: globalThis.WebSocket, fetch: globalThis.fetch, random: Math.random });
connect('/ws', { setTimeout: (then, delay) => globalThis.setTimeout(then, delay), clearTimeout: globalThis.clearTimeout });
// @ts-expect-error: there is no such transport
connect('/ws', { transport: 'pigeon' });
// @ts-expect-error: there is no such option
connect('/ws', { firstDelays: 100 });
// @ts-expect-error: tokens are strings
connect('/ws', { token: () => 7 });
// @ts-expect-error: clients are made by connect
new Client();
// @ts-expect-error: constants are constant
DEFAULT_TIMES.firstDelay = 1;

same<typeof client, Client>(true);
same<typeof client.state, State>(true);
same<typeof client.peer, OwnPeer | null>(true);
same<typeof client.transport, Transport>(true);
same<State, 'connecting' | 'open' | 'waiting' | 'closed'>(true);
// @ts-expect-error: read-only
client.state = 'open';
// @ts-expect-error: the peer can be null
client.peer.id;

// Subscriptions: the data of events has the declared type, or is unknown.
const subscription = client.subscribe<Reading>('kitchen', (event) => {
  same<typeof event, ChannelEvent<Reading>>(true);
  event.data.celsius.toFixed(1);
  same<typeof event.time, number>(true);
  // @ts-expect-error: no such field
  event.data.fahrenheit;
}, {
  last: 10,
  echo: false,
  presence: true,
  onJoin: (peer) => same<typeof peer, Peer>(true),
  onLeave: ({ id, nick }) => `${id}${nick}`,
  onLost: (gap) => {
    same<typeof gap, Gap>(true);
    if (gap.reason === 'log') gap.last.toFixed();
    // @ts-expect-error: the number is unknown
    else gap.last.toFixed();
  },
  onReset: (reset) => {
    same<typeof reset, Reset>(true);
    return `${reset.channel}${reset.epoch}${reset.good + reset.offset}`;
  },
  onSubscribed: ({ offset, epoch, recovered, missed }) => {
    same<typeof recovered, boolean | undefined>(true);
    return offset + missed + epoch.length;
  },
  onRefused: (error) => {
    same<typeof error, SockbridgeError>(true);
    same<typeof error.channel, string | undefined>(true);
  },
});
client.subscribe('kitchen', ({ data }: ChannelEvent<Reading>) => data.celsius);
client.subscribe('kitchen', ({ data }) => {
  same<typeof data, unknown>(true);
  // @ts-expect-error: the type was not declared
  data.celsius;
});
client.subscribe('kitchen', () => {}, { since: 12, epoch: '5f2c1a' });
const stored: { since: number; epoch: string } | undefined = JSON.parse('null') ?? undefined;
client.subscribe('kitchen', () => {}, { ...(stored ?? { last: 20 }), onLost: console.warn });
// @ts-expect-error: since and epoch come together
client.subscribe('kitchen', () => {}, { since: 12 });
// @ts-expect-error: since and epoch come together
client.subscribe('kitchen', () => {}, { epoch: '5f2c1a' });
client.subscribe('kitchen', { last: 10, signal: AbortSignal.timeout(1000) });
// @ts-expect-error: there is no such option
client.subscribe('kitchen', { first: 10 });
// @ts-expect-error: there is no such option
client.subscribe('kitchen', () => {}, { onEvent: () => {} });

same<typeof subscription, Subscription<Reading>>(true);
same<typeof subscription.channel, string>(true);
same<typeof subscription.position, number | undefined>(true);
same<typeof subscription.epoch, string | undefined>(true);
same<typeof subscription.current, boolean>(true);
same<typeof subscription.ready, Promise<Subscribed>>(true);
subscription.unsubscribe();
for await (const event of client.subscribe<Reading>('kitchen')) same<typeof event, ChannelEvent<Reading>>(true);
for await (const { data } of client.subscribe('kitchen')) same<typeof data, unknown>(true);
{
  using disposed = subscription;
  await using awaited = client;
  same<typeof disposed, Subscription<Reading>>(true);
  same<typeof awaited, Client>(true);
}
// @ts-expect-error: read-only
subscription.position = 3;
// @ts-expect-error: subscriptions are made by subscribe
new Subscription();

// Publishing.
const reading: Reading = { celsius: 21.5 };
for (const data of ['text', 21.5, true, null, [1, 2], reading]) {
  same<ReturnType<typeof client.publish>, Promise<number>>(true);
  await client.publish('kitchen', data, { name: 'reading' });
  same<ReturnType<() => RawJson['text']>, string>(true);
  await client.publish('kitchen', new Uint8Array([1]));
  await client.publish('kitchen', new DataView(new ArrayBuffer(1)));
  await client.publish('kitchen', new RawJson('{"celsius": 21.50}'));
}
// @ts-expect-error: JSON has none
client.publish('kitchen', undefined);
// @ts-expect-error: JSON has none
client.publish('kitchen', 10n);
// @ts-expect-error: JSON has none
client.publish('kitchen', Symbol('s'));
// @ts-expect-error: something must be published
client.publish('kitchen');

await client.publish('kitchen', reading, { key: '7c1f4e', timeout: 1000, signal: AbortSignal.timeout(1000) });
// @ts-expect-error: a key is a string
client.publish('kitchen', reading, { key: 7 });

// Clients that declare their channels.
const home = connect<{ kitchen: Reading; [room: `rooms/${string}`]: string }>('/ws', { signal: new AbortController().signal });
home.subscribe('kitchen', ({ data }) => same<typeof data, Reading>(true));
for await (const { data } of home.subscribe('rooms/1', { last: 1 })) same<typeof data, string>(true);
const { events } = await home.history('kitchen', { timeout: 1000 });
same<typeof events, ChannelEvent<Reading>[]>(true);
await home.publish('kitchen', reading);
await home.publish('kitchen', new RawJson('{"celsius": 21.50}'));
await home.publish('rooms/1', 'dark');
await home.who('rooms/1');
// @ts-expect-error: no such channel
home.subscribe('kitchn', () => {});
// @ts-expect-error: no such channel
home.subscribe('kitchn');
// @ts-expect-error: no such channel
home.publish('kitchn', reading);
// @ts-expect-error: no such channel
home.history('kitchn');
// @ts-expect-error: no such channel
home.who('kitchn');
// @ts-expect-error: not a reading
home.publish('kitchen', { fahrenheit: 70 });

// Queries.
same<typeof client.opened, Promise<OwnPeer & { transport: Transport }>>(true);
const asked = {
  who: await client.who('kitchen', { timeout: 1000 }),
  history: await client.history('kitchen'),
  readings: await client.history<Reading>('kitchen', { last: 10, since: 3, after: new Date(), before: '-1h' }),
  nick: await client.nick('ann'),
  shown: await client.authenticate('eyJ'),
  ping: await client.ping({ signal: AbortSignal.timeout(1000) }),
  info: await client.info(),
};
// @ts-expect-error: only after and before can be times
client.history('kitchen', { since: new Date() });
const bounds: Bound[] = [17, new Date(0), '2026-11-29T05:00:00Z'];
for (const after of bounds) client.history('kitchen', { after });
same<typeof asked.who, Peer[]>(true);
same<typeof asked.history, History>(true);
same<typeof asked.readings.events, ChannelEvent<Reading>[]>(true);
same<typeof asked.readings.lost, { first: number; last: number }[] | undefined>(true);
same<typeof asked.nick, string>(true);
same<typeof asked.shown, { nick: string; expires?: number | undefined }>(true);
same<typeof asked.ping, number>(true);
same<typeof asked.info, Info>(true);

// Events of the client: the name determines the type of the detail.
client.addEventListener('connecting', ({ detail }) => same<typeof detail, null>(true));
client.addEventListener('open', (event: CustomEvent<OwnPeer>) => event.detail.id);
client.addEventListener('open', function ({ detail: { id, from, to, nick, expires, transport } }) {
  same<typeof transport, Transport>(true);
  same<typeof expires, number | undefined>(true);
  return [this.peer?.id, id, from, to, nick];
});
client.addEventListener('waiting', ({ detail: { delay, attempt, code, reason } }) => `${delay + attempt + code}${reason}`, { once: true });
client.addEventListener('closed', ({ detail: { code, reason } }) => `${code}${reason}`);
client.addEventListener('notice', ({ detail: { text, code, channel } }) => [text, code, channel]);
client.addEventListener('error', ({ detail }) => same<typeof detail, SockbridgeError>(true));
client.addEventListener('closed', { handleEvent: ({ detail }) => detail.reason });
const onNotice = (event: CustomEvent<{ text: string }>) => event.detail.text;
client.addEventListener('notice', onNotice);
client.removeEventListener('notice', onNotice);
// @ts-expect-error: there is no such event
client.addEventListener('opened', () => {});
// @ts-expect-error: the detail is a peer, not a text
client.addEventListener('open', onNotice);
// @ts-expect-error: the detail is null
client.addEventListener('connecting', ({ detail }) => detail.reason);
const target: EventTarget = client;
target.dispatchEvent(new Event('mine'));

try {
  await client.publish('kitchen', 1);
} catch (error) {
  if (error instanceof SockbridgeError && error.code === 'disconnected') client.retry();
}
const made = new SockbridgeError('closed', 'this client is closed');
const known: 'SockbridgeError' = made.name;
const anyCode: string = made.code;
const limits: [65536, 256, 4096] = [MESSAGE_LIMIT, QUEUE_LIMIT, UNANSWERED_LIMIT];
client.close();
export { anyCode, known, limits };
