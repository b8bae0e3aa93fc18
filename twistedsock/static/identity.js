/**
 * Who one is: the name one takes, and the token that proves one, where the bridge asks. The token stays in this tab's
 * memory; neither the address, nor what the browser remembers for longer, nor the document ever holds it.
 */

import { announce, byId, memory, showFieldError, tabMemory } from './dom.js';
import {
  describeError, describeIdentity, describeTimeLeft, nameError, NICK_BYTES, readToken, tokenError, tokenInHash, UNVERIFIED,
  UNVERIFIED_HINT, withoutToken,
} from './format.js';

/** Milliseconds between two looks at how long the token lasts; it is told in minutes. */
const LOOK_EVERY = 5000;

/** What `connect` shows with each connection; undefined where there is none. */
export function currentToken() {
  return tabMemory.get('token') ?? undefined;
}

/**
 * @param {object} page
 * @param {import('./sockbridge.js').Client} page.client
 * @param {() => void} page.renamed others see us under another name
 * @param {() => void} page.accepted the bridge has taken a token: more may be allowed than before
 */
export function buildIdentity({ client, renamed, accepted }) {
  let asked = false; // whether the bridge wants to know who people are
  let seenAs = '';
  let chosen = '';
  let taken = false; // whether the bridge has looked at what we hold
  let proved; // the nick that it gave us
  let runsOutAt; // by the clock of the wall, as a sleeping computer must not stretch it
  let pending; // typed while there was no connection
  let offered = false; // the field holds what came with the address

  // ---- the name ----

  async function takeNick(nick) {
    const fault = nameError(nick, NICK_BYTES);
    showFieldError('nick', fault);
    if (fault) return;
    try {
      const shown = await client.nick(nick);
      if (nick !== proved) memory.set('nick', nick); // that one comes with the token
      chosen = nick;
      isSeenAs(shown);
      renamed();
      byId('nick-set').textContent = 'Set ✓';
      setTimeout(() => { byId('nick-set').textContent = 'Set'; }, 1500);
    } catch (error) {
      if (error.code !== 'disconnected') showFieldError('nick', describeError(error)); // after a break the client gives it again
    }
  }

  byId('nick-form').addEventListener('submit', (event) => {
    event.preventDefault();
    takeNick(byId('nick').value.trim());
  });

  function isSeenAs(nick) {
    seenAs = nick;
    // Where nobody asks, people are called what they call themselves.
    if (nick !== chosen && nick.startsWith(UNVERIFIED)) asked = true;
    show();
  }

  /** Who needs no token, because of a cookie or a certificate, is not asked for one, and yet is somebody. */
  function isSomebody() {
    return seenAs !== client.peer?.id && seenAs !== chosen;
  }

  // ---- the token ----

  async function present(typed) {
    const token = readToken(typed);
    const fault = tokenError(token);
    showFieldError('token', fault);
    if (fault) return;
    if (client.state === 'closed') {
      tabMemory.set('token', token);
      location.reload();
      return;
    }
    if (client.state !== 'open') {
      pending = token;
      client.retry();
      return;
    }
    try {
      const identity = await client.authenticate(token);
      tabMemory.set('token', token);
      hide();
      isProved(identity);
      renamed();
      announce(`The bridge has taken your token. You are ${identity.nick}.`);
      accepted();
    } catch (error) {
      const broken = error.code === 'disconnected' || error.code === 'closed';
      showFieldError('token', broken ? 'The connection broke before the bridge had looked at it. Try again.' : notTaken(error));
    }
  }

  function isProved({ nick, expires }) {
    asked = taken = true;
    proved = undefined;
    runsOutAt = expires === undefined ? undefined : Date.now() + 1000 * expires;
    if (nick !== client.peer?.id) { // else it is nobody that others could be told
      proved = nick;
      byId('nick').value = nick;
      client.nick(nick).catch(() => {}); // and so after each break
    }
    isSeenAs(nick);
  }

  /** The bridge does not take what we hold: go on without it, as far as one may. */
  function drop(error) {
    const over = runsOutAt !== undefined && runsOutAt <= Date.now();
    tabMemory.remove('token');
    runsOutAt = proved = undefined;
    taken = false;
    asked = true;
    open();
    showFieldError('token', over ? 'Your token has run out. Enter another one.' : notTaken(error));
    show();
    queueMicrotask(() => client.retry()); // when it has noticed that it is not connected
  }

  function notTaken({ message }) {
    return `The bridge did not take it: ${message}.`;
  }

  byId('token-form').addEventListener('submit', (event) => {
    event.preventDefault();
    present(byId('token').value);
  });

  byId('token-change').addEventListener('click', () => {
    open();
    byId('token').focus();
  });

  byId('token-sign-out').addEventListener('click', () => {
    tabMemory.remove('token');
    location.reload(); // what it let one read goes, too
  });

  function open() {
    byId('token-form').hidden = false;
  }

  function hide() {
    byId('token').value = '';
    byId('token-form').hidden = true;
    offered = false;
  }

  byId('token').addEventListener('input', () => {
    offered = false;
    showFieldError('token', '');
    show();
  });

  // ---- what is shown of both ----

  function show() {
    const held = Boolean(currentToken());
    byId('token-block').hidden = !asked && !held;
    byId('token-actions').hidden = !held;
    byId('token-help').hidden = held;
    if (!held) open();
    byId('token-state').textContent = tokenState(held);
    byId('identity').textContent = seenAs && (asked || isSomebody()) ? describeIdentity(seenAs, client.peer?.id) : '';
    byId('identity').title = seenAs.startsWith(UNVERIFIED) ? UNVERIFIED_HINT : '';
  }

  function tokenState(held) {
    if (offered) return 'A token came with the address of this page. Use it if you know who made the link.';
    if (!held || !taken) return '';
    return describeTimeLeft(runsOutAt === undefined ? undefined : (runsOutAt - Date.now()) / 1000);
  }

  setInterval(() => { if (runsOutAt !== undefined) show(); }, LOOK_EVERY);

  client.addEventListener('open', ({ detail }) => {
    if (detail.nick !== undefined) isProved(detail);
    client.info().then(({ peer }) => isSeenAs(peer.nick), () => {});
    if (pending) present(pending);
    pending = undefined;
  });

  client.addEventListener('error', ({ detail }) => { if (isAboutToken(detail)) drop(detail); });

  /** Whether an error says that the token was refused with which we came. */
  function isAboutToken({ code }) {
    return code === 'unauthorized' && client.state === 'connecting';
  }

  /** One that came with the address goes into the field, for people to decide on: a stranger may have made the link. */
  function takeFromAddress() {
    const token = tokenInHash(location.hash);
    if (!token) return;
    history.replaceState(null, '', withoutToken(location.hash));
    asked = offered = true;
    show();
    open();
    byId('token').value = token;
    showFieldError('token', '');
  }

  if (currentToken()) hide();
  show();

  return {
    isAboutToken,
    takeFromAddress,
    /** The name that the bridge vouches for, or an empty string. */
    get provedName() { return proved ?? (isSomebody() && !seenAs.startsWith(UNVERIFIED) ? seenAs : ''); },
    get holdsToken() { return Boolean(currentToken()); },
    /** The bridge wants to know who we are. */
    isAsked() {
      asked = true;
      show();
    },
    /** The token is about to run out. */
    runsOut() {
      open();
      announce('Your token runs out in a minute.');
    },
    /** The name of the last time, unless the token gives another one. */
    begin() {
      const nick = memory.get('nick');
      if (!nick || currentToken()) return;
      byId('nick').value = nick;
      takeNick(nick);
    },
  };
}
