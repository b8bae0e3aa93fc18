/** The question before a peer is disconnected, and the doing of it: `DELETE /peers/{id}`. */

import { announce, byId, showFieldError } from '../dom.js';
import { currentToken } from '../identity.js';

export function buildDisconnectDialog({ client }) {
  const dialog = byId('disconnect-dialog');
  let id;

  async function disconnect() {
    const reason = byId('disconnect-reason').value.trim();
    const token = currentToken();
    const answer = await fetch(`/peers/${encodeURIComponent(id)}${reason ? `?${new URLSearchParams({ reason })}` : ''}`, {
      method: 'DELETE',
      headers: token ? { Authorization: `Bearer ${token}` } : {},
    });
    if (answer.ok) return '';
    if (answer.status === 404) return 'It has left already.';
    const problem = await answer.json().catch(() => ({}));
    return `The bridge did not do it: ${problem.detail ?? answer.statusText} (${problem.code ?? answer.status}).`;
  }

  byId('disconnect-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    byId('disconnect-confirm').disabled = true;
    let fault;
    try {
      fault = await disconnect();
    } catch {
      fault = 'The bridge could not be reached.';
    }
    byId('disconnect-confirm').disabled = false;
    showFieldError('disconnect', fault);
    if (fault) return;
    dialog.close();
    announce(`${id} is disconnected.`);
  });

  byId('disconnect-cancel').addEventListener('click', () => dialog.close());

  return {
    /** @param {string} name what the peer is called */
    ask(peer, name) {
      id = peer;
      byId('disconnect-title').textContent = `Disconnect ${name}?`;
      byId('disconnect-text').textContent = peer === client.peer?.id
        ? 'That is this console itself. It does not come back until you reload it.'
        : 'Its socket is closed. Nothing keeps it from connecting again, and most clients do so by themselves.';
      byId('disconnect-reason').value = '';
      showFieldError('disconnect', '');
      dialog.showModal();
    },
  };
}
