/**
 * The page at `/`: the list of channels and their members. connection-bar.js shows the connection, event-list.js the
 * events, composer.js publishes, and identity.js handles the name and the token.
 */

import { buildActiveChannels } from './active-channels.js';
import { buildComposer } from './composer.js';
import { buildConnectionBar } from './connection-bar.js';
import { copyFrom } from './copy.js';
import { buildKeyHelp, EVENT_KEYS } from './dialog.js';
import { byId, make, makeButton, memory, oncePerFrame, showFieldError } from './dom.js';
import { buildEventList, ROWS_SHOWN } from './event-list.js';
import { buildEventTools } from './event-tools.js';
import {
  CHANNEL_BYTES, CHANNELS_LIMIT, describeAccessError, describeCaughtUp, describeError, isAccessError, isBoardHash, nameError, plural,
  readHash, toSentence, UNVERIFIED, UNVERIFIED_HINT, writeHash,
} from './format.js';
import { buildIdentity, currentToken } from './identity.js';
import { buildLastValue, drawLastValue } from './last-value.js';
import { describeNoEndpoint, SHELL_SPECIAL, terminalCommands } from './line-endpoints.js';
import { connect } from './sockbridge.js';
import { buildValueChart } from './value-chart.js';
import { ChannelValues, ServerClock } from './values.js';

/** Events of the history that are shown when a channel is opened: two screens. */
const LAST_EVENTS = 50;

/** Maximum number of names listed per channel. The others are counted. */
const MEMBERS_SHOWN = 24;

/** Maximum number of members stored per channel. */
const MAX_MEMBERS = 2000;

/** Minimum interval between two requests for the members because of unknown senders, which may never be members. */
const MEMBERS_INTERVAL_MS = 5000;

/** Intervals between two drawings of the last values, which can change faster than anyone can read, and of their ages. */
const LAST_VALUES_INTERVAL_MS = 200;
const AGE_INTERVAL_MS = 1000;

/** The estimated width of a channel name in the list of events: the colour mark, and one character. */
const CHANNEL_MARK_REM = 1.6;
const CHARACTER_REM = 0.48;

/** Number of channel colours; base.css defines them. */
const COLOURS = 6;

/**
 * @typedef {object} OpenChannel
 * @property {string} name
 * @property {number} hue
 * @property {number} head the newest offset when the subscription was confirmed; events up to it are replayed
 * @property {ChannelValues} values
 * @property {object} [last] the newest event
 * @property {number} newest the offset of the newest event received, or 0
 * @property {Map<string, string>} members id -> nick
 * @property {number} more number of members beyond those stored
 * @property {number} membersLoadedAt
 * @property {number} [membersTimer] until the members are loaded again
 * @property {boolean} [membersOpen] true if the user has opened the list of members
 * @property {string} accessError the code with which the server rejected the subscription, or an empty string
 * @property {import('./sockbridge.js').Subscription} subscription
 */

/** The server closes connections with this code if the policy rejects them (RFC 6455 section 7.4.1). */
const POLICY_VIOLATION = 1008;

const client = connect('/ws', { token: currentToken });
let boardModule;
/** @type {ReturnType<import('./board.js').buildBoard> | undefined} */
let board;
/** @type {Map<string, OpenChannel>} */
const channels = new Map();
/** Keys of the events published here, as many as the list can show. */
const ownEvents = new Set();
/** The content of /bridge.json; undefined until it is loaded, or if it is not available. */
let server;
/**
 * Recovery after an outage: the number of channels that have not been resumed, whether any events were missed, and the note
 * about those that are replayed. All channels share it, so that their events can be sorted below it.
 */
let recovery = newRecovery(0);

const clock = new ServerClock();
const valueChart = buildValueChart({ client, clock });
const activeChannels = buildActiveChannels({
  clock,
  isConnected: () => client.state === 'open',
  isOpen: (name) => channels.has(name),
  open: openChannels,
  changed() { if (!channels.size) showTarget(); },
});

const identity = buildIdentity({
  client,
  renamed() {
    for (const channel of channels.values()) if (!channel.accessError) loadMembers(channel);
  },
  accepted() {
    showFieldError('message', '');
    resubscribe();
    activeChannels.refresh();
    board?.resume();
  },
});

const eventList = buildEventList({
  isOwn: isOwnEvent,
  drawn(events) {
    if (!events.every(isOwnEvent)) connectionBar.pulse('in');
    reloadMembersFor(events);
    byId('terminal').hidden = false;
  },
});

const eventTools = buildEventTools({
  client,
  eventList,
  channels: () => [...channels.values()].filter(({ accessError }) => !accessError).map(({ name, hue, head, newest, subscription }) => (
    { name, hue, isEmpty: subscription.current && !head && !newest })),
  hasToken: () => identity.hasToken,
  several: true,
  shownAlone: selectTarget,
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
    identity.requestToken();
    return describeAccessError('publish on', channel, error.code, identity.verifiedName);
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
  const names = isBoardHash(location.hash) ? 'Board' : [...channels.keys()].join(', ');
  document.title = `${client.state === 'open' ? '' : '(offline) '}${names ? `${names} · ` : ''}sockbridge`;
}

client.addEventListener('waiting', () => {
  for (const channel of channels.values()) Object.assign(channel, { members: new Map(), more: 0 });
  showMembers();
});

client.addEventListener('open', () => {
  const resuming = [...channels.values()].filter(({ subscription }) => subscription.position !== undefined);
  recovery = newRecovery(resuming.length);
  resubscribe(); // permissions can have changed
  activeChannels.refresh();
  board?.resume();
});

client.addEventListener('closed', ({ detail: { code } }) => {
  if (code === POLICY_VIOLATION) identity.requestToken();
});

client.addEventListener('notice', ({ detail: { text, code } }) => {
  if (code === 'token-expires') identity.warnOfExpiry();
  eventList.note('notice', code === 'token-expires' ? 'Your token expires in a minute. Enter another one to continue without interruption.' : toSentence(text));
});

client.addEventListener('error', ({ detail }) => {
  if (identity.isTokenRejection(detail)) return;
  if (isAccessError(detail)) identity.requestToken();
  eventList.note('lost', describeError(detail));
});

// ---- channels ----

function openChannel(name) {
  const taken = [...channels.values()].map(({ hue }) => hue);
  const hue = [...Array(COLOURS).keys()].find((one) => !taken.includes(one)) ?? channels.size % COLOURS;
  /** @type {OpenChannel} */
  const channel = { name, hue, head: 0, newest: 0, values: new ChannelValues(), members: new Map(), more: 0, membersLoadedAt: -Infinity, accessError: '' };
  channels.set(name, channel);
  subscribe(channel);
}

/** Subscribes from the start, or resumes. */
function subscribe(channel) {
  const { position, epoch } = channel.subscription ?? {};
  channel.subscription?.unsubscribe(); // prevents duplicate events
  channel.subscription = client.subscribe(channel.name, (event) => onEvent(event, channel), {
    ...(position === undefined ? { last: LAST_EVENTS } : { since: position, epoch }),
    presence: true,
    onSubscribed(state) {
      setAccessError(channel, '');
      channel.head = state.offset;
      loadMembers(channel);
      if (state.recovered !== undefined) noteResumed(channel, state);
    },
    onLost(gap) {
      if (gap.reason === 'epoch') {
        channel.newest = 0;
        channel.values.restart(0);
      }
      eventList.gap(gap, channel);
    },
    onReset(reset) {
      eventList.epochReset(reset, channel.newest, channel);
      channel.head = channel.newest = reset.offset;
      channel.values.restart(reset.offset);
    },
    onJoin({ id, nick }) {
      if (channel.members.size < MAX_MEMBERS) channel.members.set(id, nick);
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
        if (position !== undefined || channel.subscription?.position !== undefined) recovery.awaited -= 1;
        setAccessError(channel, error.code);
        identity.requestToken();
        return;
      }
      channels.delete(channel.name);
      showChannels();
      showFieldError('channel-add', `${channel.name}: ${describeError(error)}`);
    },
  });
}

function onEvent(event, channel) {
  channel.newest = event.offset;
  channel.last = event;
  if (event.offset > channel.head) clock.adjust(event.time);
  if (channel.values.add(event)) valueChart.changed(channel.values);
  showLastValues();
  eventList.event(event, channel);
}

/** Channels without read access stay open: the user can be allowed to publish on them, or to read them with another token. */
function setAccessError(channel, code) {
  if (channel.accessError === code || channels.get(channel.name) !== channel) return;
  Object.assign(channel, { accessError: code, members: new Map(), more: 0 });
  showChannels();
}

function resubscribe() {
  for (const channel of channels.values()) if (channel.accessError) subscribe(channel);
}

function closeChannel(name) {
  channels.get(name).subscription.unsubscribe();
  channels.delete(name);
}

function newRecovery(awaited) {
  return { awaited, missed: false, replayed: [], note: undefined };
}

function noteResumed({ name }, { recovered, missed }) {
  if (recovery.awaited <= 0) recovery = newRecovery(0); // resumed later, for example with another token
  recovery.awaited -= 1;
  if (missed || !recovered) recovery.missed = true;
  if (recovered && missed) {
    recovery.replayed.push([name, missed]);
    const text = describeCaughtUp(recovery.replayed);
    if (recovery.note) eventList.rewrite(recovery.note, text);
    else recovery.note = eventList.note('back', text);
  }
  if (recovery.awaited === 0 && !recovery.missed) eventList.note('back', 'Reconnected. No events were missed.');
}

function chooseChannels(names) {
  for (const name of [...channels.keys()]) if (!names.includes(name)) closeChannel(name);
  for (const name of names) if (!channels.has(name)) openChannel(name);
  showChannels();
}

/** Opens channels beside those that are open, and selects the first of them. */
function openChannels(names) {
  const opened = names.filter((name) => !channels.has(name)).slice(0, CHANNELS_LIMIT - channels.size);
  for (const name of opened) openChannel(name);
  showChannels();
  if (opened.length) byId('channel-select').value = opened[0];
  showTarget();
  byId('event-scroll').focus({ preventScroll: true }); // the button that was pressed has disappeared
}

/** Updates the list, the composer, the URL and the stored settings from `channels`. */
function showChannels() {
  const names = [...channels.keys()];
  memory.set('channels', JSON.stringify(names));
  if (!isBoardHash(location.hash) && location.hash !== writeHash(names)) history.replaceState(null, '', writeHash(names));
  byId('events-link').href = writeHash(names);
  const select = byId('channel-select');
  const target = names.includes(select.value) ? select.value : names[0];
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (target) select.value = target;
  byId('channels').replaceChildren(...[...channels.values()].map(channelItem));
  const longest = Math.max(0, ...names.map(({ length }) => length));
  document.documentElement.style.setProperty('--channel-width', `${CHANNEL_MARK_REM + CHARACTER_REM * longest}rem`);
  const refused = [...channels.values()].filter(({ accessError }) => accessError).length;
  byId('panel-summary').textContent = names.length ? `${plural(names.length, 'channel')}${refused ? `, ${refused} locked` : ''}` : 'Channels';
  showTitle();
  showTarget();
  showMembers();
  drawLastValues();
  eventTools.channelsChanged();
  activeChannels.draw();
}

function channelItem(channel) {
  const { name, hue, accessError } = channel;
  const item = make('li', 'channel');
  Object.assign(item.dataset, { channel: name, hue });
  const target = makeButton('channel-name', name, () => {
    selectTarget(name);
    byId('message').focus();
  });
  target.title = `Send to ${name}, and show its chart`;
  const remove = makeButton('remove', '×', () => {
    const position = [...byId('channels').children].indexOf(item);
    closeChannel(name);
    showChannels();
    const left = byId('channels').children;
    (left[Math.min(position, left.length - 1)]?.querySelector('.remove') ?? byId('channel-add')).focus();
  });
  remove.setAttribute('aria-label', `Close ${name}`);
  const heading = make('div', 'channel-head');
  heading.append(target, remove);
  const details = make('details', 'channel-members');
  const list = make('ul', 'members');
  list.dataset.members = name;
  list.setAttribute('aria-label', `Subscribers of ${name}`);
  details.append(make('summary', 'count'), list);
  details.open = channel.membersOpen ?? false;
  details.addEventListener('toggle', () => { channel.membersOpen = details.open; });
  item.append(heading, buildLastValue(), details);
  item.toggleAttribute('data-no-access', Boolean(accessError));
  if (accessError) details.before(make('p', 'access-error', accessError === 'unauthorized' ? 'Token required.' : 'No permission to read.'));
  return item;
}

/** Draws the last value of each channel. */
function drawLastValues() {
  const now = clock.now();
  for (const item of byId('channels').children) {
    const { values, last } = channels.get(item.dataset.channel);
    drawLastValue(item.querySelector('.last'), { values, last, now });
  }
}

const showLastValues = oncePerFrame(drawLastValues, LAST_VALUES_INTERVAL_MS);

setInterval(showLastValues, AGE_INTERVAL_MS);

/** Marks the channel that the composer sends to, and shows its chart and instructions for it. */
function showTarget() {
  const name = byId('channel-select').value;
  valueChart.show(name, channels.get(name)?.values);
  for (const item of byId('channels').children) item.toggleAttribute('data-target', item.dataset.channel === name);
  showInstructions(name);
}

function selectTarget(name) {
  byId('channel-select').value = name;
  showTarget();
}

byId('channel-select').addEventListener('change', showTarget);

byId('channel-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const name = byId('channel-add').value.trim();
  let error = nameError(name, CHANNEL_BYTES);
  if (channels.has(name)) error = `${name} is already open.`;
  else if (channels.size >= CHANNELS_LIMIT) error = `The maximum is ${CHANNELS_LIMIT} channels.`;
  showFieldError('channel-add', error);
  if (error) return;
  byId('channel-add').value = '';
  openChannels([name]);
  byId('channel-add').focus();
});

addEventListener('hashchange', () => {
  identity.readUrl();
  showRoute();
});

/** Shows the board, or the channels in the URL. */
function showRoute() {
  const isBoard = isBoardHash(location.hash);
  byId('board').hidden = !isBoard;
  byId('columns').hidden = byId('panel-toggle').hidden = isBoard;
  for (const [id, isCurrent] of [['board-link', isBoard], ['events-link', !isBoard]]) {
    if (isCurrent) byId(id).setAttribute('aria-current', 'page');
    else byId(id).removeAttribute('aria-current');
  }
  if (isBoard) {
    openBoard();
  } else {
    board?.close();
    const names = readHash(location.hash);
    if (names.length || channels.size) chooseChannels(names);
    else openFirstChannels();
  }
  showTitle();
}

/** Loads the board when it is opened for the first time. */
async function openBoard() {
  if (!boardModule) {
    document.head.append(Object.assign(make('link'), { rel: 'stylesheet', href: 'board.css' }));
    boardModule = import('./board.js');
  }
  const { buildBoard } = await boardModule;
  board ??= buildBoard({
    client,
    clock,
    openNames: () => [...channels.keys()],
    open(name) {
      openChannels([name]);
      location.hash = writeHash([...channels.keys()]);
    },
  });
  if (isBoardHash(location.hash)) board.open(location.hash);
}

// ---- members ----

function loadMembers(channel) {
  channel.membersLoadedAt = performance.now();
  client.who(channel.name).then((members) => {
    channel.members = new Map(members.slice(0, MAX_MEMBERS).map(({ id, nick }) => [id, nick]));
    channel.more = members.length - channel.members.size;
    showMembers();
  }, () => {}); // disconnected: loaded again after reconnecting
}

/** Loads the members again if a sender is unknown: the server does not announce members that change their name. */
function reloadMembersFor(events) {
  for (const { channel: name, from } of events) {
    const channel = channels.get(name);
    if (!channel || channel.more || channel.membersTimer) continue;
    if ([...channel.members].some((member) => member.includes(from))) continue;
    channel.membersTimer = setTimeout(() => {
      channel.membersTimer = undefined;
      if (channels.get(name) === channel) loadMembers(channel);
    }, Math.max(0, channel.membersLoadedAt + MEMBERS_INTERVAL_MS - performance.now()));
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
  const sorted = [...members].sort(([first], [second]) => (second === mine) - (first === mine));
  const rows = sorted.slice(0, MEMBERS_SHOWN).map(([id, nick]) => {
    const row = make('li', 'member', nick);
    row.dataset.peer = id;
    row.title = nick.startsWith(UNVERIFIED) ? `${id}. ${UNVERIFIED_HINT}` : id;
    if (id === mine) row.append(make('em', '', ' (you)'));
    return row;
  });
  const total = members.size + more;
  if (total > rows.length) rows.push(make('li', 'others', `and ${(total - rows.length).toLocaleString('en')} more`));
  item.querySelector('.members').replaceChildren(...rows);
  item.querySelector('.count').textContent = total === 1 && members.has(mine) ? 'only you' : total ? plural(total, 'subscriber') : '';
}

// ---- from a terminal ----

function showInstructions(channel) {
  const accessError = channels.get(channel)?.accessError;
  const lines = channel && !accessError ? terminalCommands(server, location.hostname, channel, identity.hasToken) : undefined;
  byId('snippets-link').href = `console#/channels/${encodeURIComponent(channel)}`;
  for (const sample of document.querySelectorAll('[data-terminal]')) {
    sample.replaceChildren(...(lines ?? []).map((line, index) => make('span', index ? 'typed' : 'call', line)));
    sample.parentElement.toggleAttribute('data-empty', !lines);
  }
  const hasActive = !channel && activeChannels.hasAny;
  byId('empty-title').textContent = channel ? `No events on ${channel} yet` : hasActive ? 'Active now' : 'No channel yet';
  byId('sample-event').querySelector('.event-channel').textContent = channel;
  byId('sample-event').dataset.hue = channels.get(channel)?.hue ?? 0;
  byId('empty-state').toggleAttribute('data-no-commands', !lines);
  byId('empty-guess').hidden = Boolean(server);
  const why = SHELL_SPECIAL.test(channel) ? 'The name of this channel has a special meaning in shells, so there are no commands to copy.' : describeNoEndpoint(server?.lines ?? []);
  const noChannel = `${hasActive ? 'Open a channel, or add' : 'Add'} one. Any name works: a channel exists as soon as it has a subscriber.`;
  const noLines = channel ? `${why} Publish something below.` : noChannel;
  byId('empty-note').textContent = lines ? 'Anything you send below appears in the terminal. Type QUIT to leave.' : noLines;
  byId('empty-token').hidden = !accessError;
  if (accessError) {
    byId('empty-title').textContent = describeAccessError('read', channel, accessError, identity.verifiedName).slice(0, -1);
    byId('empty-note').textContent = accessError === 'unauthorized' ? 'The operator of this server can give you one.' : 'The operator of this server can give you a token for it.';
  }
}

for (const button of document.querySelectorAll('[data-copy]')) {
  button.addEventListener('click', () => {
    const lines = terminalCommands(server, location.hostname, byId('channel-select').value, identity.hasToken);
    copyFrom(button, lines.join('\n'), button.parentElement.querySelector('[data-terminal]'));
  });
}

async function loadServerInfo() {
  try {
    const reply = await fetch('bridge.json');
    if (!reply.ok) return;
    server = await reply.json();
    byId('version').textContent = server.version ?? '';
    showTarget();
  } catch { /* without this information the default port is shown, marked as a guess */ }
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

byId('skip').addEventListener('click', () => byId('message').focus()); // not a link, because the hash contains the channels

// ---- start ----

function initialChannels() {
  const shared = isBoardHash(location.hash) ? [] : readHash(location.hash);
  if (shared.length) return shared;
  try {
    const remembered = readHash(writeHash(JSON.parse(memory.get('channels') ?? '[]')));
    if (remembered.length) return remembered;
  } catch { /* invalid stored value */ }
  return [];
}

/** A first visit lists what is active, or opens an example. */
async function openFirstChannels() {
  chooseChannels(initialChannels());
  if (isBoardHash(location.hash)) return;
  if (channels.size) return;
  await activeChannels.refresh();
  if (!channels.size && !activeChannels.hasAny) chooseChannels(['kitchen']);
}

buildKeyHelp(EVENT_KEYS);
identity.readUrl();
identity.restoreName();
if (isBoardHash(location.hash)) showRoute();
openFirstChannels();
connectionBar.show();
loadServerInfo();
