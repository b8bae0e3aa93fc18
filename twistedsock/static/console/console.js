/** The console at `/console`: one connection and several views, selected by the URL hash. */

import { buildConnectionBar } from '../connection-bar.js';
import { buildKeyHelp, EVENT_KEYS } from '../dialog.js';
import { byId } from '../dom.js';
import { describeError, isAccessError } from '../format.js';
import { buildIdentity, currentToken } from '../identity.js';
import { connect } from '../sockbridge.js';
import { buildChannel } from './channel.js';
import { buildChannels } from './channels.js';
import { buildLog } from './log.js';
import { buildOverview } from './overview.js';
import { buildPeer } from './peer.js';
import { buildPeers } from './peers.js';
import { readRoute } from './routes.js';
import { buildSnippetPanel } from './snippet-panel.js';
import { buildSysChannels } from './sys-channels.js';

/** The server closes connections with this code if the policy rejects them (RFC 6455 section 7.4.1). */
const POLICY_VIOLATION = 1008;

const CREATE_TOKEN = 'The operator can create one:';

const client = connect('/ws', { token: currentToken });
const connectionBar = buildConnectionBar({ client, changed: showTitle });
const identity = buildIdentity({ client, renamed() {}, accepted });
const sysChannels = buildSysChannels({ client, document, refused: showAccessError, accepted() { setDenied(false); } });
const snippets = buildSnippetPanel({ identity, loaded: showTitle });
const views = {
  overview: buildOverview({ sysChannels, snippets }),
  channels: buildChannels({ sysChannels, snippets }),
  channel: buildChannel({ sysChannels, client, identity, connectionBar, snippets }),
  peers: buildPeers({ sysChannels, client }),
  peer: buildPeer({ sysChannels, client }),
  log: buildLog({ sysChannels }),
};
let route;
let denied = false; // true if the server does not permit the views

// ---- views ----

function showView() {
  // Access to a channel does not depend on admin rights.
  const covered = denied && route.view !== 'channel';
  byId('access-denied').hidden = !covered;
  for (const section of document.querySelectorAll('[data-view]')) section.hidden = covered || section.dataset.view !== route.view;
}

function setDenied(now) {
  denied = now;
  showView();
}

function openRoute() {
  const next = readRoute(location.hash);
  const first = route === undefined;
  const moved = first || next.view !== route.view || next.name !== route.name || next.id !== route.id;
  if (!first) views[route.view].close();
  route = next;
  const place = { channel: 'channels', peer: 'peers' }[route.view] ?? route.view;
  for (const link of byId('nav').querySelectorAll('[data-nav]')) {
    if (link.dataset.nav === place) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  showView();
  views[route.view].open(route);
  showTitle();
  if (moved) scrollTo(0, 0);
  if (moved && !first) document.querySelector(`[data-view="${route.view}"] h1`)?.focus({ preventScroll: true });
}

function showTitle() {
  if (!route) return;
  document.title = `${client.state === 'open' ? '' : '(offline) '}${views[route.view].title()} · sockbridge`;
}

addEventListener('hashchange', openRoute);

// ---- missing rights ----

function showAccessError(error) {
  if (!isAccessError(error)) {
    byId('access-denied-title').textContent = 'The server rejected this';
    byId('access-denied-text').textContent = describeError(error);
  } else if (error.code === 'unauthorized') {
    byId('access-denied-title').textContent = 'Admin token required';
    byId('access-denied-text').textContent = `This server uses authentication, so the console needs a token with the claim admin. ${CREATE_TOKEN}`;
  } else {
    const name = identity.verifiedName;
    byId('access-denied-title').textContent = name ? `${name} isn’t an admin` : 'Your token has no admin rights';
    byId('access-denied-text').textContent = `${name ? `You’re signed in as ${name}` : 'Your token is valid'}, but the console needs a token with the claim admin. ${CREATE_TOKEN}`;
  }
  if (isAccessError(error)) identity.requestToken();
  setDenied(true);
}

function resumeAll() {
  sysChannels.resume();
  views.channel.resume();
  snippets.refresh();
}

client.addEventListener('open', resumeAll); // permissions can have changed

client.addEventListener('closed', ({ detail: { code } }) => {
  if (code === POLICY_VIOLATION) identity.requestToken();
});

client.addEventListener('notice', ({ detail: { code } }) => {
  if (code === 'token-expires') openIdentity();
});

client.addEventListener('error', ({ detail }) => {
  if (identity.isTokenRejection(detail)) openIdentity();
  else if (isAccessError(detail)) identity.requestToken();
});

// ---- identity ----

function accepted() {
  byId('identity-dialog').close();
  resumeAll();
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
  dialog.addEventListener('click', ({ target }) => { if (target === dialog) dialog.close(); }); // a click on the backdrop
}

byId('skip').addEventListener('click', () => byId('main').focus()); // not a link, because the hash selects the view

buildKeyHelp([['/', 'find a channel or client, filter events'], ...EVENT_KEYS.slice(1)]);
identity.readUrl();
identity.restoreName();
openRoute();
connectionBar.show();
snippets.load();
