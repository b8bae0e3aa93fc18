/** The line at the bottom: what is typed becomes a text or JSON, as on a line connection, and is published. */

import { byId, showFieldError } from './dom.js';
import { jsonError, NAME_BYTES, nameError, plural, readPayload } from './format.js';

/**
 * @param {object} page
 * @param {import('./sockbridge.js').Client} page.client
 * @param {() => void} page.sending
 * @param {(channel: string, offset: number) => void} page.sent
 * @param {(channel: string, error: Error) => string} page.explain why something was not sent
 */
export function buildComposer({ client, sending, sent, explain }) {
  const message = byId('message');
  let chosenFormat; // undefined: the text decides
  let unanswered = 0;

  const format = () => (byId('format-json').checked ? 'json' : 'text');

  function showHint() {
    const read = readPayload(message.value);
    if (!chosenFormat) byId(read.json ? 'format-json' : 'format-text').checked = true;
    let hint = '';
    if (unanswered && client.state !== 'open') hint = `No connection: ${plural(unanswered, 'message')} kept, sent when it is back.`;
    else if (format() === 'json') hint = jsonError(message.value) ? 'Not JSON yet.' : 'Sent as JSON.';
    else if (read.beginsLikeJson) hint = 'Begins like JSON but does not parse, so it is sent as text.';
    else if (read.json) hint = 'Sent as text, letter for letter.';
    byId('message-hint').textContent = hint || 'Enter sends, Shift + Enter makes a new line.';
    byId('message-hint').toggleAttribute('data-default', !hint);
    grow();
  }

  function grow() {
    message.style.height = 'auto';
    message.style.height = `${message.scrollHeight + message.offsetHeight - message.clientHeight}px`;
  }

  /** What keeps this from being sent, and the field it is about. */
  function findProblem() {
    const name = byId('event-name').value.trim();
    if (!byId('channel-select').value) return ['message', 'Add a channel first.'];
    if (!message.value) return ['message', 'There is nothing to send yet.'];
    if (format() === 'json' && jsonError(message.value)) return ['message', jsonError(message.value)];
    if (name && nameError(name, NAME_BYTES)) return ['event-name', `The event's name: ${nameError(name, NAME_BYTES)}`];
    return [];
  }

  async function send(channel, name, text, json) {
    unanswered += 1;
    try {
      sent(channel, await client.publish(channel, json ? JSON.parse(text) : text, { name }));
    } catch (error) {
      showFieldError('message', explain(channel, error));
      if (!message.value) message.value = text; // to be sent again by whoever wrote it, or not
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
    const [field, words] = findProblem();
    if (field) {
      showFieldError(field, words);
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
    /** It has come into sight: what is hidden has no height. */
    shown: grow,
  };
}
