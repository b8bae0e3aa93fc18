// Tokens: shown before anything else is asked, fetched anew where they run out, and never part of an error.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { build, recorder, settle } from './fakes.mjs';

/** A world whose client fetches its tokens: t1, t2 … */
function fetching(options = {}) {
  let count = 0;
  const token = async () => { count += 1; return `t${count}`; };
  return build({ token, ...options });
}

test('the token is shown first, and nothing else before it is accepted', () => {
  const { client, socket } = build({ token: 'secret' });
  client.subscribe('kitchen', () => {});
  client.publish('kitchen', 21.5).catch(() => {});
  socket.welcome('k3x9');
  assert.deepEqual(socket.sent, [{ type: 'auth', id: socket.last('auth').id, token: 'secret' }]);
  assert.equal(client.state, 'connecting');
  socket.answer('auth', { nick: 'ann', expires: 3600 });
  assert.equal(client.state, 'open');
  assert.deepEqual([client.peer.nick, client.peer.expires], ['ann', 3600]);
  assert.deepEqual(socket.sent.map(({ type }) => type), ['auth', 'subscribe', 'publish']);
});

test('without a token none is shown', () => {
  const { client, socket } = build();
  socket.welcome();
  assert.equal(client.state, 'open');
  assert.deepEqual(socket.all('auth'), []);
});

test('a token that is refused ends the client, with the reason and without the token', async () => {
  const { client, socket, states, clock, net } = build({ token: 'secret' });
  const published = client.publish('kitchen', 1);
  socket.welcome();
  socket.refuse('auth', 'unauthorized', 'the token has expired');
  assert.equal(client.state, 'closed');
  assert.deepEqual(states.at(-1), ['closed', { code: 1008, reason: 'the token has expired' }]);
  await assert.rejects(published, { code: 'closed' });
  clock.advance(600_000);
  assert.equal(net.sockets.length, 1);
  assert.ok(!JSON.stringify(states).includes('secret'));
});

test('a token is fetched for each connection', async () => {
  const world = fetching();
  world.socket.welcome();
  await settle();
  assert.equal(world.socket.last('auth').token, 't1');
  world.socket.answer('auth', { nick: 'ann' });
  world.socket.drop();
  world.client.retry();
  world.socket.welcome();
  await settle();
  assert.equal(world.socket.last('auth').token, 't2');
});

test('a fetched token that is refused, or cannot be had, is another failed try', async () => {
  const world = fetching();
  world.socket.welcome();
  await settle();
  world.socket.refuse('auth', 'unauthorized', 'no');
  assert.equal(world.client.state, 'waiting');
  const poor = build({ token: () => { throw new Error('offline'); } });
  poor.socket.welcome();
  await settle();
  assert.equal(poor.client.state, 'waiting');
  const [, error] = poor.states.find(([type]) => type === 'error');
  assert.equal(error.code, 'no-token');
  assert.match(error.message, /offline/);
});

test('a token that takes too long is given up with the connection', async () => {
  const world = build({ token: () => new Promise(() => {}), openTimeout: 10_000 });
  world.socket.welcome();
  await settle();
  world.clock.advance(10_000);
  assert.equal(world.client.state, 'waiting');
});

test('a token that comes for a connection that is gone is not shown on the next', async () => {
  const fetched = [];
  const world = build({ token: () => new Promise((resolve) => { fetched.push(resolve); }) });
  const first = world.socket;
  first.welcome();
  first.drop();
  world.client.retry();
  fetched[0]('late');
  await settle();
  assert.deepEqual([...first.sent, ...world.socket.sent], []);
});

test('a warning that the token runs out fetches the next one, and nothing else changes', async () => {
  const world = fetching();
  world.socket.welcome();
  await settle();
  world.socket.answer('auth', { nick: 'ann', expires: 100 });
  world.socket.say({ type: 'notice', text: 'soon', code: 'token-expires' });
  await settle();
  assert.deepEqual(world.socket.all('auth').map(({ token }) => token), ['t1', 't2']);
  world.socket.answer('auth', { nick: 'ann', expires: 100 });
  assert.equal(world.client.state, 'open');
  world.socket.say({ type: 'notice', text: 'soon', code: 'token-expires' });
  await settle();
  world.socket.refuse('auth', 'unauthorized');
  assert.equal(world.states.at(-1)[0], 'error');
});

test('a warning cannot be followed where the token is fixed', async () => {
  const { client, socket, states } = build({ token: 'secret' });
  socket.welcome();
  socket.answer('auth', { nick: 'ann' });
  socket.say({ type: 'notice', text: 'soon', code: 'token-expires' });
  await settle();
  assert.equal(socket.all('auth').length, 1);
  assert.deepEqual(states.at(-1), ['notice', { text: 'soon', code: 'token-expires' }]);
  socket.drop(1008);
  assert.equal(client.state, 'closed');
});

test('sent away by an administrator, a client stays away though it could fetch another token', async () => {
  const world = fetching();
  world.socket.welcome();
  await settle();
  world.socket.answer('auth', { nick: 'ann' });
  world.socket.say({ type: 'notice', text: 'disconnected by an administrator', code: 'disconnected' });
  world.socket.drop(1008);
  assert.equal(world.client.state, 'closed');
});

test('closed for its token, a client that can fetch another comes back', async () => {
  const world = fetching();
  world.socket.welcome();
  await settle();
  world.socket.answer('auth', { nick: 'ann' });
  world.socket.drop(1008);
  assert.equal(world.client.state, 'waiting');
});

test('a right that is lost ends the subscriptions of that channel alone', () => {
  const { client, socket } = build();
  const lost = recorder();
  const kept = recorder();
  client.subscribe('kitchen', lost.onEvent, lost.options);
  client.subscribe('kitchen', lost.onEvent, lost.options);
  client.subscribe('attic', kept.onEvent, kept.options);
  socket.welcome();
  for (const { id, channel } of socket.all('subscribe')) socket.say({ type: 'ok', id, channel, offset: 0, epoch: 'e1' });
  socket.say({ type: 'notice', text: 'gone', code: 'forbidden', channel: 'kitchen' });
  socket.say({ type: 'notice', text: 'gone', code: 'forbidden', channel: 'nowhere' });
  assert.deepEqual(lost.told.filter(([what]) => what === 'refused'), [['refused', 'forbidden'], ['refused', 'forbidden']]);
  assert.deepEqual(kept.told.filter(([what]) => what === 'refused'), []);
  assert.deepEqual(socket.all('unsubscribe'), []);
});

test('a function that has no token lets the client come without, and be closed for good as any other', async () => {
  let token;
  const { client, socket, net } = build({ token: async () => token });
  socket.welcome();
  await settle();
  assert.equal(client.state, 'open');
  assert.deepEqual(socket.all('auth'), []);
  socket.drop();
  token = 't1';
  client.retry();
  net.sockets.at(-1).welcome();
  await settle();
  assert.equal(net.sockets.at(-1).last('auth').token, 't1');
  token = undefined;
  net.sockets.at(-1).answer('auth', { nick: 'ann' });
  net.sockets.at(-1).drop();
  client.retry();
  net.sockets.at(-1).welcome();
  await settle();
  net.sockets.at(-1).drop(1008);
  assert.equal(client.state, 'closed');
});

test('a token can be shown later, and is shown again from then on', async () => {
  const world = build();
  world.socket.welcome();
  const shown = world.client.authenticate('t1');
  assert.deepEqual(world.socket.last('auth'), { type: 'auth', token: 't1', id: world.socket.last('auth').id });
  world.socket.answer('auth', { nick: 'ann', expires: 60 });
  assert.deepEqual(await shown, { nick: 'ann', expires: 60 });
  const refused = world.client.authenticate('t2');
  world.socket.refuse('auth', 'unauthorized');
  await assert.rejects(refused, { code: 'unauthorized' });
  world.socket.drop();
  world.client.retry();
  world.socket.welcome();
  assert.equal(world.socket.last('auth').token, 't1');
});

test('a token that was to be shown while there was no connection comes before all else', async () => {
  const { client, socket } = build();
  client.subscribe('kitchen', () => {});
  client.nick('ann').catch(() => {});
  client.authenticate('t1').catch(() => {});
  socket.welcome();
  assert.deepEqual(socket.sent.map(({ type }) => type), ['auth', 'nick', 'subscribe']);
});

test('a token that was shown to a client that fetches its own does not replace those', async () => {
  const world = fetching();
  world.socket.welcome();
  await settle();
  world.socket.answer('auth', { nick: 'ann' });
  world.client.authenticate('other').catch(() => {});
  world.socket.answer('auth', { nick: 'ann' });
  world.socket.drop(1008);
  world.client.retry();
  world.socket.welcome();
  await settle();
  assert.equal(world.socket.last('auth').token, 't2');
});
