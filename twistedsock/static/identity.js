/**
 * The name of the user and the token that verifies it. The token is kept in the storage of this tab only: never in the URL,
 * in permanent storage or in the document.
 */

import { announce, byId, memory, showFieldError, tabMemory } from './dom.js';
import {
  describeError, describeIdentity, describeTimeLeft, nameError, NICK_BYTES, readToken, tokenError, tokenInHash,
  toSentence, UNVERIFIED, UNVERIFIED_HINT, withoutToken,
} from './format.js';

/** The remaining lifetime is shown in minutes, so this is often enough. */
const REFRESH_INTERVAL_MS = 5000;

/** Returns the token to use for new connections, or undefined. */
export function currentToken() {
  return tabMemory.get('token') ?? undefined;
}

/**
 * @param {object} page
 * @param {import('./sockbridge.js').Client} page.client
 * @param {() => void} page.renamed called when other people see another name
 * @param {() => void} page.accepted called when the server has accepted a token, which can grant more rights
 */
export function buildIdentity({ client, renamed, accepted }) {
  let tokenWanted = false; // true if the server uses tokens
  let visibleName = '';
  let chosenName = '';
  let verifiedName; // from the token
  let authenticated = false; // true if the server has accepted the current token
  let expiresAt; // wall-clock time, which continues while the computer sleeps
  let pendingToken; // entered while disconnected
  let fromUrl = false; // true while the field contains a token from the URL
  let rejected = false; // true if the server has rejected the stored token

  // ---- the name ----

  async function setName(name) {
    const invalid = nameError(name, NICK_BYTES);
    showFieldError('nick', invalid);
    if (invalid) return;
    try {
      const nick = await client.nick(name);
      if (name !== verifiedName) memory.set('nick', name);
      chosenName = name;
      showName(nick);
      renamed();
      byId('nick-set').textContent = 'Set ✓';
      setTimeout(() => { byId('nick-set').textContent = 'Set'; }, 1500);
    } catch (error) {
      if (error.code !== 'disconnected') showFieldError('nick', describeError(error)); // the client sends it again on reconnect
    }
  }

  byId('nick-form').addEventListener('submit', (event) => {
    event.preventDefault();
    setName(byId('nick').value.trim());
  });

  function showName(nick) {
    visibleName = nick;
    // Servers without tokens do not mark names.
    if (nick !== chosenName && nick.startsWith(UNVERIFIED)) tokenWanted = true;
    show();
  }

  /** True if the server knows the user by other means, for example a cookie or a client certificate. */
  function isKnown() {
    return visibleName !== client.peer?.id && visibleName !== chosenName;
  }

  // ---- the token ----

  async function signIn(text) {
    const token = readToken(text);
    const invalid = tokenError(token);
    showFieldError('token', invalid);
    if (invalid) return;
    if (client.state === 'closed') {
      tabMemory.set('token', token);
      location.reload();
      return;
    }
    if (client.state !== 'open') {
      pendingToken = token;
      client.retry();
      return;
    }
    try {
      const identity = await client.authenticate(token);
      tabMemory.set('token', token);
      hideForm();
      showVerified(identity);
      renamed();
      announce(`Token accepted. You are ${identity.nick}.`);
      accepted();
    } catch (error) {
      const lost = error.code === 'disconnected' || error.code === 'closed';
      showFieldError('token', lost ? 'The connection was lost before the reply. Try again.' : describeRejection(error));
    }
  }

  function showVerified({ nick, expires }) {
    tokenWanted = authenticated = true;
    rejected = false;
    verifiedName = undefined;
    expiresAt = expires === undefined ? undefined : Date.now() + 1000 * expires;
    if (nick !== client.peer?.id) { // otherwise the token contains no name
      verifiedName = nick;
      byId('nick').value = nick;
      client.nick(nick).catch(() => {}); // keeps the name after each reconnection
    }
    showName(nick);
  }

  /** The server has rejected the stored token: continue without it. */
  function dropToken(error) {
    const expired = expiresAt !== undefined && expiresAt <= Date.now();
    tabMemory.remove('token');
    chosenName = verifiedName ?? chosenName; // the client keeps the name, but it is no longer verified
    expiresAt = verifiedName = undefined;
    authenticated = false;
    rejected = true;
    tokenWanted = expired; // a restarted server can do without tokens; otherwise it rejects something else, too
    showForm();
    showFieldError('token', expired ? 'Your token has expired. Enter another one.' : describeRejection(error));
    show();
    queueMicrotask(() => client.retry()); // after the client has entered the state `waiting`
  }

  function describeRejection({ message }) {
    return `Token rejected: ${toSentence(message.replace(/^invalid token: /, ''))}`;
  }

  byId('token-form').addEventListener('submit', (event) => {
    event.preventDefault();
    signIn(byId('token').value);
  });

  byId('token-change').addEventListener('click', () => {
    showForm();
    byId('token').focus();
  });

  byId('token-sign-out').addEventListener('click', () => {
    tabMemory.remove('token');
    location.reload(); // removes the events that the token gave access to
  });

  function showForm() {
    byId('token-form').hidden = false;
  }

  function hideForm() {
    byId('token').value = '';
    byId('token-form').hidden = true;
    fromUrl = false;
  }

  byId('token').addEventListener('input', () => {
    fromUrl = false;
    showFieldError('token', '');
    show();
  });

  // ---- display ----

  function show() {
    const hasToken = Boolean(currentToken());
    const opener = byId('identity-open'); // in the console
    if (opener) {
      opener.textContent = verifiedName ?? 'Identity';
      opener.ariaLabel = verifiedName ? `Identity: ${verifiedName}` : null;
    }
    byId('token-block').hidden = !tokenWanted && !hasToken && !rejected;
    byId('token-actions').hidden = !hasToken;
    byId('token-help').hidden = hasToken || !tokenWanted;
    if (!hasToken) showForm();
    byId('token-state').textContent = describeToken(hasToken);
    byId('identity').textContent = visibleName && (tokenWanted || isKnown()) ? describeIdentity(visibleName, client.peer?.id) : '';
    byId('identity').title = visibleName.startsWith(UNVERIFIED) ? UNVERIFIED_HINT : '';
  }

  function describeToken(hasToken) {
    if (fromUrl) return 'The link to this page contains a token. Sign in with it only if you trust the link.';
    if (!hasToken || !authenticated) return '';
    return describeTimeLeft(expiresAt === undefined ? undefined : (expiresAt - Date.now()) / 1000);
  }

  setInterval(() => { if (expiresAt !== undefined) show(); }, REFRESH_INTERVAL_MS);

  client.addEventListener('open', ({ detail }) => {
    if (detail.nick !== undefined) showVerified(detail);
    client.info().then(({ peer }) => showName(peer.nick), () => {});
    if (pendingToken) signIn(pendingToken);
    pendingToken = undefined;
  });

  client.addEventListener('error', ({ detail }) => { if (isTokenRejection(detail)) dropToken(detail); });

  /** True if an error rejects the token sent with the connection. */
  function isTokenRejection({ code }) {
    return code === 'unauthorized' && client.state === 'connecting';
  }

  /** Moves a token from the URL into the field. The user decides about it, because anyone can create such a link. */
  function readUrl() {
    const token = tokenInHash(location.hash);
    if (!token) return;
    history.replaceState(null, '', withoutToken(location.hash));
    tokenWanted = fromUrl = true;
    show();
    showForm();
    byId('token').value = token;
    showFieldError('token', '');
  }

  if (currentToken()) hideForm();
  show();

  return {
    isTokenRejection,
    readUrl,
    /** The name that the server has verified, or an empty string. */
    get verifiedName() { return verifiedName ?? (isKnown() && !visibleName.startsWith(UNVERIFIED) ? visibleName : ''); },
    get hasToken() { return Boolean(currentToken()); },
    /** Called when the server requires a token. */
    requestToken() {
      tokenWanted = true;
      show();
    },
    /** Called a minute before the token expires. */
    warnOfExpiry() {
      showForm();
      announce('Your token expires in a minute.');
    },
    /** Restores the name of the last visit, unless the token contains one. */
    restoreName() {
      const nick = memory.get('nick');
      if (!nick || currentToken()) return;
      byId('nick').value = nick;
      setName(nick);
    },
  };
}
