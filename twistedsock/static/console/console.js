/** The console at `/console`: one connection, and of its views the one that the address names. */

import { byId } from '../elements.js';
import { connect } from '../sockbridge.js';
import { buildWho, heldToken } from '../who.js';
import { buildWire } from '../wire.js';
import { describeFault, isRefusal } from '../words.js';
import { buildChannel } from './channel.js';
import { buildChannels } from './channels.js';
import { buildLive } from './live.js';
import { buildOverview } from './overview.js';
import { buildPeer } from './peer.js';
import { buildPeers } from './peers.js';
import { readRoute } from './routes.js';
import { buildWays } from './ways.js';

/** The policy ends a connection that brought no token, or a wrong one (RFC 6455 section 7.4.1). */
const POLICY = 1008;

const client = connect('/ws', { token: heldToken });
const wire = buildWire({ client, changed: showTitle });
const who = buildWho({ client, renamed() {}, accepted });
const live = buildLive({ client, document, refused, accepted() { isClosed(false); } });
const snippets = buildWays({ who, told: showTitle });
const views = {
  overview: buildOverview({ live, snippets }),
  channels: buildChannels({ live, snippets }),
  channel: buildChannel({ live, client, who, wire, snippets }),
  peers: buildPeers({ live, client }),
  peer: buildPeer({ live, client }),
};
let route;
let closed = false; // whether the bridge refuses us what the views show

// ---- views ----

function showView() {
  // What one may do on a channel does not hang on the right to see the rest.
  const covered = closed && route.view !== 'channel';
  byId('refused').hidden = !covered;
  for (const section of document.querySelectorAll('[data-view]')) section.hidden = covered || section.dataset.view !== route.view;
}

function isClosed(now) {
  closed = now;
  showView();
}

function enter() {
  const next = readRoute(location.hash);
  const first = route === undefined;
  const moved = first || next.view !== route.view || next.name !== route.name || next.id !== route.id;
  if (!first) views[route.view].leave();
  route = next;
  const place = { channel: 'channels', peer: 'peers' }[route.view] ?? route.view;
  for (const link of byId('places').querySelectorAll('[data-place]')) {
    if (link.dataset.place === place) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  showView();
  views[route.view].enter(route);
  showTitle();
  if (moved) scrollTo(0, 0);
  if (moved && !first) document.querySelector(`[data-view="${route.view}"] h1`)?.focus({ preventScroll: true });
}

function showTitle() {
  if (!route) return;
  document.title = `${client.state === 'open' ? '' : '(offline) '}${views[route.view].title()} · sockbridge`;
}

addEventListener('hashchange', enter);

// ---- what may not be seen ----

function refused(error) {
  if (!isRefusal(error)) {
    byId('refused-title').textContent = 'The bridge does not tell';
    byId('refused-words').textContent = describeFault(error);
  } else if (error.code === 'unauthorized') {
    byId('refused-title').textContent = 'This takes a token';
    byId('refused-words').textContent = 'The console shows who is connected, from where, and everything that is said. So where a bridge asks who people are, it takes a token with the claim admin. Whoever runs the bridge can make one:';
  } else {
    const name = who.provedName;
    byId('refused-title').textContent = name ? `${name} is no admin` : 'Your token lacks admin';
    byId('refused-words').textContent = `${name ? `The bridge knows you as ${name}, and that` : 'The bridge has taken your token, and it'} is not enough here: the console takes a token with the claim admin. Whoever runs the bridge can make one:`;
  }
  if (isRefusal(error)) who.isAsked();
  isClosed(true);
}

function tryAgain() {
  live.resume();
  views.channel.again();
  snippets.again();
}

client.addEventListener('open', tryAgain); // others may be allowed to see it by now

client.addEventListener('closed', ({ detail: { code } }) => {
  if (code === POLICY) who.isAsked();
});

client.addEventListener('notice', ({ detail: { code } }) => {
  if (code === 'token-expires') openWho();
});

client.addEventListener('error', ({ detail }) => {
  if (isRefusal(detail)) who.isAsked();
  if (who.isAboutToken(detail)) openWho();
});

// ---- who one is ----

function accepted() {
  byId('who').close(); // what was asked for lies behind it
  tryAgain();
}

function openWho() {
  if (!byId('who').open) byId('who').showModal();
}

byId('who-open').addEventListener('click', openWho);
byId('who-close').addEventListener('click', () => byId('who').close());
byId('refused-token').addEventListener('click', () => {
  openWho();
  if (byId('token-form').hidden) byId('token-other').click();
  byId('token').focus();
});
for (const dialog of document.querySelectorAll('dialog')) {
  dialog.addEventListener('click', ({ target }) => { if (target === dialog) dialog.close(); }); // beside it
}

byId('skip').addEventListener('click', () => byId('main').focus()); // not a link: the address's hash names views

who.takeFromAddress();
who.begin();
enter();
wire.show();
snippets.read();
