// Tests of tokens.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { build, flushPromises, reconnect, recorder } from './fakes.mjs';

/** Opens the present connection and waits for the token. */
async function welcome({ socket }) {
  socket.welcome();
  await flushPromises();
}

/** A client whose token function returns t1, t2 … */
function buildWithTokens(options = {}) {
  let count = 0;
  const token = async () => { count += 1; return `t${count}`; };
  return build({ token, ...options });
}

/** A client whose first token the server has accepted. */
async function buildAuthenticated(reply = {}) {
  const world = buildWithTokens();
  await welcome(world);
  world.socket.reply('auth', { nick: 'ann', ...reply });
  return world;
}

test('authenticates before sending other commands', () => {
  const { client, socket } = build({ token: 'secret' });
  client.subscribe('kitchen', () => {});
  client.publish('kitchen', 21.5).catch(() => {});
  socket.welcome('k3x9');
  assert.deepEqual(socket.sent, [{ type: 'auth', id: socket.last('auth').id, token: 'secret' }]);
  assert.equal(client.state, 'connecting');
  socket.reply('auth', { nick: 'ann', expires: 3600 });
  assert.equal(client.state, 'open');
  assert.deepEqual([client.peer.nick, client.peer.expires], ['ann', 3600]);
  assert.deepEqual(socket.sent.map(({ type }) => type), ['auth', 'subscribe', 'publish']);
});

test('does not authenticate without a token', () => {
  const { client, socket } = build();
  socket.welcome();
  assert.equal(client.state, 'open');
  assert.deepEqual(socket.all('auth'), []);
});

test('closes for good if the token is rejected', async () => {
  const { client, socket, states, clock, net } = build({ token: 'secret' });
  const published = client.publish('kitchen', 1);
  socket.welcome();
  socket.reject('auth', 'unauthorized', 'the token has expired');
  assert.equal(client.state, 'closed');
  assert.deepEqual(states.at(-1), ['closed', { code: 1008, reason: 'the token has expired' }]);
  await assert.rejects(published, { code: 'closed' });
  clock.advance(600_000);
  assert.equal(net.sockets.length, 1);
  assert.ok(!JSON.stringify(states).includes('secret'));
});

test('calls the token function for each connection', async () => {
  const world = await buildAuthenticated();
  assert.equal(world.socket.last('auth').token, 't1');
  reconnect(world);
  await flushPromises();
  assert.equal(world.socket.last('auth').token, 't2');
});

test('reconnects if a token of the function is rejected or missing', async () => {
  const world = buildWithTokens();
  await welcome(world);
  world.socket.reject('auth', 'unauthorized', 'no');
  assert.equal(world.client.state, 'waiting');
  const poor = build({ token: () => { throw new Error('offline'); } });
  poor.socket.welcome();
  await flushPromises();
  assert.equal(poor.client.state, 'waiting');
  const [, error] = poor.states.find(([type]) => type === 'error');
  assert.equal(error.code, 'no-token');
  assert.match(error.message, /offline/);
});

test('drops a connection whose token takes too long', async () => {
  const world = build({ token: () => new Promise(() => {}), openTimeout: 10_000 });
  await welcome(world);
  world.clock.advance(10_000);
  assert.equal(world.client.state, 'waiting');
});

test('does not use a late token on the next connection', async () => {
  const fetched = [];
  const world = build({ token: () => new Promise((resolve) => { fetched.push(resolve); }) });
  const first = world.socket;
  first.welcome();
  first.drop();
  world.client.retry();
  fetched[0]('late');
  await flushPromises();
  assert.deepEqual([...first.sent, ...world.socket.sent], []);
});

test('authenticates again before the token expires', async () => {
  const world = await buildAuthenticated({ expires: 100 });
  world.socket.deliver({ type: 'notice', text: 'soon', code: 'token-expires' });
  await flushPromises();
  assert.deepEqual(world.socket.all('auth').map(({ token }) => token), ['t1', 't2']);
  world.socket.reply('auth', { nick: 'ann', expires: 100 });
  assert.equal(world.client.state, 'open');
  world.socket.deliver({ type: 'notice', text: 'soon', code: 'token-expires' });
  await flushPromises();
  world.socket.reject('auth', 'unauthorized');
  assert.equal(world.states.at(-1)[0], 'error');
});

test('only reports the expiry of a fixed token', async () => {
  const { client, socket, states } = build({ token: 'secret' });
  socket.welcome();
  socket.reply('auth', { nick: 'ann' });
  socket.deliver({ type: 'notice', text: 'soon', code: 'token-expires' });
  await flushPromises();
  assert.equal(socket.all('auth').length, 1);
  assert.deepEqual(states.at(-1), ['notice', { text: 'soon', code: 'token-expires' }]);
  socket.drop(1008);
  assert.equal(client.state, 'closed');
});

test('does not reconnect after an administrator disconnected it', async () => {
  const world = await buildAuthenticated();
  world.socket.deliver({ type: 'notice', text: 'disconnected by an administrator', code: 'disconnected' });
  world.socket.drop(1008);
  assert.equal(world.client.state, 'closed');
});

test('reconnects with another token after a policy violation', async () => {
  const world = await buildAuthenticated();
  world.socket.drop(1008);
  assert.equal(world.client.state, 'waiting');
});

test('ends only the subscriptions of a channel that is no longer permitted', () => {
  const { client, socket } = build();
  const lost = recorder();
  const kept = recorder();
  client.subscribe('kitchen', lost.onEvent, lost.options);
  client.subscribe('kitchen', lost.onEvent, lost.options);
  client.subscribe('attic', kept.onEvent, kept.options);
  socket.welcome();
  for (const { id, channel } of socket.all('subscribe')) socket.deliver({ type: 'ok', id, channel, offset: 0, epoch: 'e1' });
  socket.deliver({ type: 'notice', text: 'gone', code: 'forbidden', channel: 'kitchen' });
  socket.deliver({ type: 'notice', text: 'gone', code: 'forbidden', channel: 'nowhere' });
  assert.deepEqual(lost.calls.filter(([what]) => what === 'refused'), [['refused', 'forbidden'], ['refused', 'forbidden']]);
  assert.deepEqual(kept.calls.filter(([what]) => what === 'refused'), []);
  assert.deepEqual(socket.all('unsubscribe'), []);
});

test('connects without a token if the function returns none', async () => {
  let token;
  const world = build({ token: async () => token });
  await welcome(world);
  assert.equal(world.client.state, 'open');
  assert.deepEqual(world.socket.all('auth'), []);
  token = 't1';
  reconnect(world);
  await flushPromises();
  assert.equal(world.socket.last('auth').token, 't1');
  token = undefined;
  world.socket.reply('auth', { nick: 'ann' });
  reconnect(world);
  await flushPromises();
  world.socket.drop(1008);
  assert.equal(world.client.state, 'closed');
});

test('uses a token from authenticate() for later connections', async () => {
  const world = build();
  world.socket.welcome();
  const shown = world.client.authenticate('t1');
  assert.deepEqual(world.socket.last('auth'), { type: 'auth', token: 't1', id: world.socket.last('auth').id });
  world.socket.reply('auth', { nick: 'ann', expires: 60 });
  assert.deepEqual(await shown, { nick: 'ann', expires: 60 });
  const refused = world.client.authenticate('t2');
  world.socket.reject('auth', 'unauthorized');
  await assert.rejects(refused, { code: 'unauthorized' });
  reconnect(world);
  assert.equal(world.socket.last('auth').token, 't1');
});

test('sends a queued token before other commands', async () => {
  const { client, socket } = build();
  client.subscribe('kitchen', () => {});
  client.nick('ann').catch(() => {});
  client.authenticate('t1').catch(() => {});
  socket.welcome();
  assert.deepEqual(socket.sent.map(({ type }) => type), ['auth', 'nick', 'subscribe']);
});

test('keeps calling the token function after authenticate()', async () => {
  const world = await buildAuthenticated();
  world.client.authenticate('other').catch(() => {});
  world.socket.reply('auth', { nick: 'ann' });
  reconnect(world, 1008);
  await flushPromises();
  assert.equal(world.socket.last('auth').token, 't2');
});
