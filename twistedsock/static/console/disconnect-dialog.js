/** The dialog that disconnects a client with `DELETE /peers/{id}`. */

import { announce, byId, showFieldError } from '../dom.js';
import { currentToken } from '../identity.js';

export function buildDisconnectDialog({ client }) {
  const dialog = byId('disconnect-dialog');
  let id;

  async function disconnect() {
    const reason = byId('disconnect-reason').value.trim();
    const token = currentToken();
    const response = await fetch(`/peers/${encodeURIComponent(id)}${reason ? `?${new URLSearchParams({ reason })}` : ''}`, {
      method: 'DELETE',
      headers: token ? { Authorization: `Bearer ${token}` } : {},
    });
    if (response.ok) return '';
    if (response.status === 404) return 'This client has already disconnected.';
    const problem = await response.json().catch(() => ({}));
    return `Couldn’t disconnect: ${problem.detail ?? response.statusText} (${problem.code ?? response.status}).`;
  }

  byId('disconnect-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    byId('disconnect-confirm').disabled = true;
    let error;
    try {
      error = await disconnect();
    } catch {
      error = 'The server could not be reached.';
    }
    byId('disconnect-confirm').disabled = false;
    showFieldError('disconnect', error);
    if (error) return;
    dialog.close();
    announce(`${id} was disconnected.`);
  });

  byId('disconnect-cancel').addEventListener('click', () => dialog.close());

  return {
    open(peer, name) {
      id = peer;
      byId('disconnect-title').textContent = `Disconnect ${name}?`;
      byId('disconnect-text').textContent = peer === client.peer?.id
        ? 'This is the console itself. It will not reconnect until you reload it.'
        : 'This closes its connection. It can reconnect, and most clients will.';
      byId('disconnect-reason').value = '';
      showFieldError('disconnect', '');
      dialog.showModal();
    },
  };
}
