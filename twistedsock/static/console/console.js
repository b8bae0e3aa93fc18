/** The console at `/console`: one connection, and of its views the one that the address names. */

import { byId } from '../dom.js';
import { connect } from '../sockbridge.js';
import { buildIdentity, currentToken } from '../identity.js';
import { buildConnectionBar } from '../connection-bar.js';
import { describeError, isAccessError } from '../format.js';
import { buildChannel } from './channel.js';
import { buildChannels } from './channels.js';
import { buildSysChannels } from './sys-channels.js';
import { buildOverview } from './overview.js';
import { buildPeer } from './peer.js';
import { buildPeers } from './peers.js';
import { readRoute } from './routes.js';
import { buildSnippetPanel } from './snippet-panel.js';

/** The policy ends a connection that brought no token, or a wrong one (RFC 6455 section 7.4.1). */
const POLICY = 1008;

const client = connect('/ws', { token: currentToken });
const connectionBar = buildConnectionBar({ client, changed: showTitle });
const identity = buildIdentity({ client, renamed() {}, accepted });
const sysChannels = buildSysChannels({ client, document, refused, accepted() { isClosed(false); } });
const snippets = buildSnippetPanel({ identity, told: showTitle });
const views = {
  overview: buildOverview({ sysChannels, snippets }),
  channels: buildChannels({ sysChannels, snippets }),
  channel: buildChannel({ sysChannels, client, identity, connectionBar, snippets }),
  peers: buildPeers({ sysChannels, client }),
  peer: buildPeer({ sysChannels, client }),
};
let route;
let closed = false; // whether the bridge refuses us what the views show

// ---- views ----

function showView() {
  // What one may do on a channel does not hang on the right to see the rest.
  const covered = closed && route.view !== 'channel';
  byId('access-denied').hidden = !covered;
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
  for (const link of byId('nav').querySelectorAll('[data-nav]')) {
    if (link.dataset.nav === place) link.setAttribute('aria-current', 'page');
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
  if (!isAccessError(error)) {
    byId('access-denied-title').textContent = 'The bridge does not tell';
    byId('access-denied-text').textContent = describeError(error);
  } else if (error.code === 'unauthorized') {
    byId('access-denied-title').textContent = 'This takes a token';
    byId('access-denied-text').textContent = 'The console shows who is connected, from where, and everything that is said. So where a bridge asks who people are, it takes a token with the claim admin. Whoever runs the bridge can make one:';
  } else {
    const name = identity.provedName;
    byId('access-denied-title').textContent = name ? `${name} is no admin` : 'Your token lacks admin';
    byId('access-denied-text').textContent = `${name ? `The bridge knows you as ${name}, and that` : 'The bridge has taken your token, and it'} is not enough here: the console takes a token with the claim admin. Whoever runs the bridge can make one:`;
  }
  if (isAccessError(error)) identity.isAsked();
  isClosed(true);
}

function tryAgain() {
  sysChannels.resume();
  views.channel.again();
  snippets.again();
}

client.addEventListener('open', tryAgain); // others may be allowed to see it by now

client.addEventListener('closed', ({ detail: { code } }) => {
  if (code === POLICY) identity.isAsked();
});

client.addEventListener('notice', ({ detail: { code } }) => {
  if (code === 'token-expires') openIdentity();
});

client.addEventListener('error', ({ detail }) => {
  if (isAccessError(detail)) identity.isAsked();
  if (identity.isAboutToken(detail)) openIdentity();
});

// ---- who one is ----

function accepted() {
  byId('identity-dialog').close(); // what was asked for lies behind it
  tryAgain();
}

function openIdentity() {
  if (!byId('identity-dialog').open) byId('identity-dialog').showModal();
}

byId('identity-open').addEventListener('click', openIdentity);
byId('identity-close').addEventListener('click', () => byId('identity-dialog').close());
byId('access-denied-token').addEventListener('click', () => {
  openIdentity();
  if (byId('token-form').hidden) byId('token-change').click();
  byId('token').focus();
});
for (const dialog of document.querySelectorAll('dialog')) {
  dialog.addEventListener('click', ({ target }) => { if (target === dialog) dialog.close(); }); // beside it
}

byId('skip').addEventListener('click', () => byId('main').focus()); // not a link: the address's hash names views

identity.takeFromAddress();
identity.begin();
enter();
connectionBar.show();
snippets.read();
