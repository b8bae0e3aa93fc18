/**
 * The page at `/`: the channels and who is on them. The connection is connection-bar.js, events are event-list.js, writing is composer.js,
 * who one is oneself is identity.js.
 */

import { buildComposer } from './composer.js';
import { copyFrom } from './copy.js';
import { byId, make, makeButton, memory, showFieldError } from './dom.js';
import { describeNoEndpoint, SHELL_SPECIAL, terminalCommands } from './line-endpoints.js';
import { buildEventList, ROWS_SHOWN } from './event-list.js';
import { connect } from './sockbridge.js';
import { buildIdentity, currentToken } from './identity.js';
import { buildConnectionBar } from './connection-bar.js';
import {
  CHANNEL_BYTES, CHANNELS_LIMIT, describeError, describeAccessError, isAccessError, nameError, plural, readHash, UNVERIFIED,
  UNVERIFIED_HINT, writeHash,
} from './format.js';

/** Events asked for when a channel is opened: two screens of context. */
const LAST_EVENTS = 50;

/** Names listed per channel; the rest is counted. */
const MEMBERS_SHOWN = 24;

/** Names remembered per channel: joins and leaves keep the count right in any room a person can read. */
const MEMBERS_KEPT = 2000;

/** Milliseconds between two questions for who is there, when senders are not on the list: they may never be. */
const MEMBERS_EVERY = 5000;

/** Colours that tell channels apart; page.css defines as many. */
const HUES = 6;

/**
 * @typedef {object} OpenChannel
 * @property {string} name
 * @property {number} hue
 * @property {number} head the head when it was last subscribed: what comes up to it was said before
 * @property {Map<string, string>} members id -> nick
 * @property {number} more members beyond those kept
 * @property {number} askedAt when the members were last asked for
 * @property {number} [askTimer] until they are asked for again
 * @property {string} refusal the code with which we may not read it, or an empty string
 * @property {import('./sockbridge.js').Subscription} subscription
 */

/** The policy ends a connection that brought no token, or a wrong one (RFC 6455 section 7.4.1). */
const POLICY = 1008;

const client = connect('/ws', { token: currentToken });
/** @type {Map<string, OpenChannel>} */
const channels = new Map();
/** Keys of what was sent from here; as many as can be on the sheet. */
const ownEvents = new Set();
/** What the server tells of itself; undefined until it has, and where it does not. */
let bridge;
/** How many channels still have to say what they missed in an outage, and what they said. */
let resumption = { awaited: 0, missed: false };

const identity = buildIdentity({
  client,
  renamed() {
    for (const channel of channels.values()) if (!channel.refusal) askMembers(channel);
  },
  accepted() {
    showFieldError('message', '');
    listenAgain();
  },
});

const eventList = buildEventList({
  isOwn: isOwnEvent,
  drawn(events) {
    if (!events.every(isOwnEvent)) connectionBar.pulse('in');
    lookForStrangers(events);
    byId('terminal').hidden = false;
  },
});

buildComposer({
  client,
  sending: () => eventList.follow(),
  sent(channel, offset) {
    ownEvents.add(eventKey(channel, offset));
    if (ownEvents.size > ROWS_SHOWN) ownEvents.delete(ownEvents.values().next().value);
    connectionBar.pulse('out');
  },
  explain(channel, error) {
    if (!isAccessError(error)) return describeError(error);
    identity.isAsked();
    return describeAccessError('publish on', channel, error.code, identity.provedName);
  },
});

function eventKey(channel, offset) {
  return [channel, channels.get(channel)?.subscription.epoch, offset].join(' ');
}

function isOwnEvent({ channel, offset }) {
  return ownEvents.has(eventKey(channel, offset));
}

// ---- the connection ----

const connectionBar = buildConnectionBar({ client, changed: showTitle });

function showTitle() {
  const names = [...channels.keys()].join(', ');
  document.title = `${client.state === 'open' ? '' : '(offline) '}${names ? `${names} · ` : ''}sockbridge`;
}

client.addEventListener('waiting', () => {
  for (const channel of channels.values()) Object.assign(channel, { members: new Map(), more: 0 });
  showMembers();
});

client.addEventListener('open', () => {
  const resuming = [...channels.values()].filter(({ subscription }) => subscription.position !== undefined);
  resumption = { awaited: resuming.length, missed: false };
  listenAgain(); // others may be allowed to read here by now
});

client.addEventListener('closed', ({ detail: { code } }) => {
  if (code === POLICY) identity.isAsked();
});

client.addEventListener('notice', ({ detail: { text, code } }) => {
  if (code === 'token-expires') identity.runsOut();
  eventList.note('notice', code === 'token-expires' ? 'Your token runs out in a minute. Enter another one, and nothing is interrupted.' : text);
});

client.addEventListener('error', ({ detail }) => {
  if (isAccessError(detail)) identity.isAsked();
  if (!identity.isAboutToken(detail)) eventList.note('lost', describeError(detail));
});

// ---- channels ----

function openChannel(name) {
  const taken = [...channels.values()].map(({ hue }) => hue);
  const hue = [...Array(HUES).keys()].find((one) => !taken.includes(one)) ?? channels.size % HUES;
  /** @type {OpenChannel} */
  const channel = { name, hue, head: 0, members: new Map(), more: 0, askedAt: -Infinity, refusal: '' };
  channels.set(name, channel);
  listen(channel);
}

/** From the beginning, or from where it had to stop. */
function listen(channel) {
  const { position, epoch } = channel.subscription ?? {};
  channel.subscription?.unsubscribe(); // it has been refused; were it not, events would come twice
  channel.subscription = client.subscribe(channel.name, (event) => eventList.event(event, channel), {
    ...(position === undefined ? { last: LAST_EVENTS } : { since: position, epoch }),
    presence: true,
    onSubscribed(state) {
      isRefused(channel, '');
      channel.head = state.offset;
      askMembers(channel);
      if (state.recovered !== undefined) tellResumed(channel, state);
    },
    onLost(gap) {
      eventList.gap(gap, channel);
    },
    onJoin({ id, nick }) {
      if (channel.members.size < MEMBERS_KEPT) channel.members.set(id, nick);
      showMembers();
      eventList.presence('join', channel, nick);
    },
    onLeave({ id, nick }) {
      channel.members.delete(id);
      showMembers();
      eventList.presence('leave', channel, nick);
    },
    onRefused(error) {
      if (isAccessError(error)) {
        if (position !== undefined || channel.subscription?.position !== undefined) resumption.awaited -= 1;
        isRefused(channel, error.code);
        identity.isAsked();
        return;
      }
      channels.delete(channel.name);
      showChannels();
      showFieldError('channel-add', `${channel.name}: ${describeError(error)}`);
    },
  });
}

/** A channel that we may not read stays: we may be allowed to publish there, and to read it with another token. */
function isRefused(channel, code) {
  if (channel.refusal === code || channels.get(channel.name) !== channel) return;
  Object.assign(channel, { refusal: code, members: new Map(), more: 0 });
  showChannels();
}

function listenAgain() {
  for (const channel of channels.values()) if (channel.refusal) listen(channel);
}

function closeChannel(name) {
  channels.get(name).subscription.unsubscribe();
  channels.delete(name);
}

function tellResumed(channel, { recovered, missed }) {
  resumption.awaited -= 1;
  if (missed || !recovered) resumption.missed = true;
  if (recovered && missed) eventList.note('back', `Caught up: ${plural(missed, 'missed event')} on ${channel.name}.`, channel);
  if (resumption.awaited === 0 && !resumption.missed) eventList.note('back', 'Connected again. Nothing was missed.');
}

function chooseChannels(names) {
  for (const name of [...channels.keys()]) if (!names.includes(name)) closeChannel(name);
  for (const name of names) if (!channels.has(name)) openChannel(name);
  showChannels();
}

/** The list, the composer's choice, the address and the memory all follow `channels`. */
function showChannels() {
  const names = [...channels.keys()];
  memory.set('channels', JSON.stringify(names));
  if (location.hash !== writeHash(names)) history.replaceState(null, '', writeHash(names));
  const select = byId('channel-select');
  const target = names.includes(select.value) ? select.value : names[0];
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (target) select.value = target;
  byId('channels').replaceChildren(...[...channels.values()].map(channelItem));
  const refused = [...channels.values()].filter(({ refusal }) => refusal).length;
  byId('panel-summary').textContent = names.length ? `${plural(names.length, 'channel')}${refused ? `, ${refused} closed` : ''}` : 'Add a channel';
  showTitle();
  showTarget();
  showMembers();
}

function channelItem({ name, hue, refusal }) {
  const item = make('li', 'channel');
  Object.assign(item.dataset, { channel: name, hue });
  const target = makeButton('channel-name', name, () => {
    byId('channel-select').value = name;
    showTarget();
    byId('message').focus();
  });
  target.title = `Write to ${name}`;
  const remove = makeButton('remove', '×', () => {
    const position = [...byId('channels').children].indexOf(item);
    closeChannel(name);
    showChannels();
    const left = byId('channels').children;
    (left[Math.min(position, left.length - 1)]?.querySelector('.remove') ?? byId('channel-add')).focus();
  });
  remove.setAttribute('aria-label', `Leave ${name}`);
  const heading = make('div', 'channel-head');
  heading.append(target, make('span', 'count'), remove);
  const members = make('ul', 'members');
  members.dataset.members = name;
  members.setAttribute('aria-label', `Who is on ${name}`);
  item.append(heading, members);
  item.toggleAttribute('data-no-access', Boolean(refusal));
  if (refusal) members.before(make('p', 'access-error', refusal === 'unauthorized' ? 'It takes a token to read it.' : 'You may not read it.'));
  return item;
}

/** Marks the channel that is written to, and teaches about it. */
function showTarget() {
  const name = byId('channel-select').value;
  for (const item of byId('channels').children) item.toggleAttribute('data-target', item.dataset.channel === name);
  showTerminal(name);
}

byId('channel-select').addEventListener('change', showTarget);

byId('channel-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const name = byId('channel-add').value.trim();
  let fault = nameError(name, CHANNEL_BYTES);
  if (channels.has(name)) fault = `You are on ${name} already.`;
  else if (channels.size >= CHANNELS_LIMIT) fault = `This page shows at most ${CHANNELS_LIMIT} channels.`;
  showFieldError('channel-add', fault);
  if (fault) return;
  byId('channel-add').value = '';
  openChannel(name);
  showChannels();
  byId('channel-select').value = name;
  showTarget();
});

addEventListener('hashchange', () => {
  identity.takeFromAddress();
  chooseChannels(readHash(location.hash));
});

// ---- who is there ----

function askMembers(channel) {
  channel.askedAt = performance.now();
  client.who(channel.name).then((members) => {
    channel.members = new Map(members.slice(0, MEMBERS_KEPT).map(({ id, nick }) => [id, nick]));
    channel.more = members.length - channel.members.size;
    showMembers();
  }, () => {}); // the connection broke: the next subscription asks again
}

/** Who takes a name after joining is not announced anew: a sender we cannot place is a reason to ask. */
function lookForStrangers(events) {
  for (const { channel: name, from } of events) {
    const channel = channels.get(name);
    if (!channel || channel.more || channel.askTimer) continue;
    if ([...channel.members].some((member) => member.includes(from))) continue;
    channel.askTimer = setTimeout(() => {
      channel.askTimer = undefined;
      if (channels.get(name) === channel) askMembers(channel);
    }, Math.max(0, channel.askedAt + MEMBERS_EVERY - performance.now()));
  }
}

let membersScheduled = false;

function showMembers() {
  if (membersScheduled) return;
  membersScheduled = true;
  requestAnimationFrame(() => {
    membersScheduled = false;
    for (const item of byId('channels').children) drawMembers(item, channels.get(item.dataset.channel));
  });
}

function drawMembers(item, { members, more }) {
  const mine = client.peer?.id;
  const everybody = [...members].sort(([first], [second]) => (second === mine) - (first === mine));
  const rows = everybody.slice(0, MEMBERS_SHOWN).map(([id, nick]) => {
    const row = make('li', 'member', nick);
    row.dataset.peer = id;
    row.title = nick.startsWith(UNVERIFIED) ? `${id}. ${UNVERIFIED_HINT}` : id;
    if (id === mine) row.append(make('em', '', ' (you)'));
    return row;
  });
  const total = members.size + more;
  if (total > rows.length) rows.push(make('li', 'others', `and ${plural(total - rows.length, 'other')}`));
  item.querySelector('.members').replaceChildren(...rows);
  item.querySelector('.count').textContent = total ? `${total.toLocaleString('en')} here` : '';
}

// ---- from a terminal ----

function showTerminal(channel) {
  const refusal = channels.get(channel)?.refusal;
  const lines = channel && !refusal ? terminalCommands(bridge, location.hostname, channel, identity.holdsToken) : undefined;
  for (const sample of document.querySelectorAll('[data-terminal]')) {
    sample.replaceChildren(...(lines ?? []).map((line, index) => make('span', index ? 'typed' : 'call', line)));
    sample.parentElement.toggleAttribute('data-empty', !lines);
  }
  byId('empty-title').textContent = channel ? `All quiet on ${channel}` : 'No channel yet';
  byId('sample-event').querySelector('.event-channel').textContent = channel;
  byId('sample-event').dataset.hue = channels.get(channel)?.hue ?? 0;
  byId('empty-state').toggleAttribute('data-no-commands', !lines);
  byId('empty-guess').hidden = Boolean(bridge);
  const why = SHELL_SPECIAL.test(channel) ? 'A shell could take this name for a command, so there is nothing to copy.' : describeNoEndpoint(bridge?.lines ?? []);
  const noLines = channel ? `${why} Write something below.` : 'Add one. Any name will do, and it exists once somebody listens.';
  byId('empty-note').textContent = lines ? 'What you send from below comes out in the terminal. QUIT leaves it.' : noLines;
  byId('empty-token').hidden = !refusal;
  if (refusal) {
    byId('empty-title').textContent = describeAccessError('read', channel, refusal, identity.provedName).slice(0, -1);
    byId('empty-note').textContent = refusal === 'unauthorized' ? 'Whoever runs this bridge can give you one.' : 'Whoever runs this bridge can give you a token that covers it.';
  }
}

for (const button of document.querySelectorAll('[data-copy]')) {
  button.addEventListener('click', () => {
    const lines = terminalCommands(bridge, location.hostname, byId('channel-select').value, identity.holdsToken);
    copyFrom(button, lines.join('\n'), button.parentElement.querySelector('[data-terminal]'));
  });
}

async function readBridge() {
  try {
    const reply = await fetch('bridge.json');
    if (!reply.ok) return;
    bridge = await reply.json();
    byId('version').textContent = bridge.version ?? '';
    showTarget();
  } catch { /* an older server, or none: the usual port is shown, and said to be a guess */ }
}

// ---- the panel on small screens; the skip button ----

byId('panel-toggle').addEventListener('click', () => {
  const open = document.body.toggleAttribute('data-panel');
  byId('panel-toggle').setAttribute('aria-expanded', String(open));
});

byId('empty-token-button').addEventListener('click', () => {
  if (!byId('panel').offsetParent) byId('panel-toggle').click();
  if (byId('token-form').hidden) byId('token-change').click();
  byId('token').focus();
});

addEventListener('keydown', ({ key }) => {
  if (key === 'Escape' && document.body.hasAttribute('data-panel')) byId('panel-toggle').click();
});

byId('skip').addEventListener('click', () => byId('message').focus()); // not a link: the address's hash names channels

// ---- the beginning ----

function firstChannels() {
  const shared = readHash(location.hash);
  if (shared.length) return shared;
  try {
    const remembered = readHash(writeHash(JSON.parse(memory.get('channels') ?? '[]')));
    if (remembered.length) return remembered;
  } catch { /* what is stored there is not ours */ }
  return ['kitchen'];
}

identity.takeFromAddress();
identity.begin();
chooseChannels(firstChannels());
connectionBar.show();
readBridge();
