/** The form that publishes events. It detects JSON as the line protocol does, and the user can override that. */

import { byId, showFieldError } from './dom.js';
import { jsonError, NAME_BYTES, nameError, plural, readPayload } from './format.js';

/**
 * @param {object} page
 * @param {import('./sockbridge.js').Client} page.client
 * @param {() => void} page.sending
 * @param {(channel: string, offset: number) => void} page.sent
 * @param {(channel: string, error: Error) => string} page.explain returns the message for an error
 */
export function buildComposer({ client, sending, sent, explain }) {
  const message = byId('message');
  let chosenFormat; // undefined: detected from the text
  let unanswered = 0;

  const format = () => (byId('format-json').checked ? 'json' : 'text');

  function showHint() {
    const read = readPayload(message.value);
    if (!chosenFormat) byId(read.json ? 'format-json' : 'format-text').checked = true;
    let hint = '';
    if (unanswered && client.state !== 'open') hint = `Offline: ${plural(unanswered, 'message')} will be sent on reconnect.`;
    else if (format() === 'json') hint = jsonError(message.value) ? 'Not valid JSON yet.' : 'Sent as JSON.';
    else if (read.beginsLikeJson) hint = 'Not valid JSON, so it will be sent as text.';
    else if (read.json) hint = 'Sent as plain text, exactly as typed.';
    byId('message-hint').textContent = hint || 'Enter to send, Shift+Enter for a new line.';
    byId('message-hint').toggleAttribute('data-default', !hint);
    grow();
  }

  function grow() {
    message.style.height = 'auto';
    message.style.height = `${message.scrollHeight + message.offsetHeight - message.clientHeight}px`;
  }

  /** Returns the invalid field and its error message, or an empty array. */
  function findProblem() {
    const name = byId('event-name').value.trim();
    if (!byId('channel-select').value) return ['message', 'Add a channel first.'];
    if (!message.value) return ['message', 'Enter a message first.'];
    if (format() === 'json' && jsonError(message.value)) return ['message', jsonError(message.value)];
    if (name && nameError(name, NAME_BYTES)) return ['event-name', `Event name: ${nameError(name, NAME_BYTES)}`];
    return [];
  }

  async function send(channel, name, text, json) {
    unanswered += 1;
    try {
      sent(channel, await client.publish(channel, json ? JSON.parse(text) : text, { name }));
    } catch (error) {
      showFieldError('message', explain(channel, error));
      if (!message.value) message.value = text; // lets the user send it again
    }
    unanswered -= 1;
    showHint();
  }

  message.addEventListener('input', () => {
    showFieldError('message', '');
    if (!message.value) chosenFormat = undefined;
    showHint();
  });

  message.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId('composer').requestSubmit();
  });

  for (const radio of document.querySelectorAll('input[name="format"]')) {
    radio.addEventListener('change', () => {
      chosenFormat = radio.value;
      showFieldError('message', '');
      showHint();
    });
  }

  byId('event-name').addEventListener('input', () => showFieldError('event-name', ''));

  byId('composer').addEventListener('submit', (event) => {
    event.preventDefault();
    showFieldError('event-name', '');
    showFieldError('message', '');
    const [field, error] = findProblem();
    if (field) {
      showFieldError(field, error);
      byId(field).focus();
      return;
    }
    const name = byId('event-name').value.trim() || undefined;
    sending();
    send(byId('channel-select').value, name, message.value, format() === 'json');
    message.value = '';
    chosenFormat = undefined;
    showHint();
  });

  for (const state of ['open', 'waiting', 'closed']) client.addEventListener(state, showHint);
  showHint();
  return {
    /** Called when the form becomes visible: a hidden text area has no height. */
    shown: grow,
  };
}
