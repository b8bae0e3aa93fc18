/** The form that publishes events. It detects JSON as the line protocol does, and the user can override that. */

import { byId, makeButton, showFieldError, tabMemory } from './dom.js';
import { jsonError, NAME_BYTES, nameError, plural, readPayload } from './format.js';
import { buildRequestDialog } from './request-dialog.js';
import { RawJson } from './sockbridge.js';

/** Maximum number of sent messages that the arrow keys recall. They are kept until the tab is closed. */
const MAX_RECALLED = 50;

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
  let confirmed = ''; // a text with broken JSON that the user sends anyway
  const recalled = buildRecall();

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
    if (!chosenFormat && message.value !== confirmed && isBrokenObject(message.value)) {
      confirmed = message.value;
      return ['message', `${jsonError(message.value)}. Press Enter again to send it as text.`];
    }
    if (name && nameError(name, NAME_BYTES)) return ['event-name', `Event name: ${nameError(name, NAME_BYTES)}`];
    return [];
  }

  async function send(channel, name, text, json) {
    unanswered += 1;
    try {
      sent(channel, await client.publish(channel, json ? new RawJson(text) : text, { name }));
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
    if (event.key === 'ArrowUp' || event.key === 'ArrowDown') recall(event);
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId('composer').requestSubmit();
  });

  /** Replaces the message by one sent before, if the caret is at its start, or if it has just been recalled. */
  function recall(event) {
    const atStart = message.selectionStart === 0 && message.selectionEnd === 0;
    if (event.shiftKey || event.isComposing || (!atStart && !recalled.isShown(message.value))) return;
    const entry = recalled.move(event.key === 'ArrowUp' ? -1 : 1, { text: message.value, name: byId('event-name').value, format: chosenFormat });
    if (!entry) return;
    event.preventDefault();
    message.value = entry.text;
    byId('event-name').value = entry.name;
    chosenFormat = entry.format;
    if (chosenFormat) byId(`format-${chosenFormat}`).checked = true;
    showFieldError('message', '');
    showHint();
  }

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
    recalled.add({ text: message.value, name: name ?? '', format: format() });
    sending();
    send(byId('channel-select').value, name, message.value, format() === 'json');
    message.value = '';
    chosenFormat = undefined;
    showHint();
  });

  const ask = makeButton('plain', 'Ask…', buildRequestDialog({ client, explain }));
  ask.id = 'ask';
  ask.title = 'Send a command and wait for the answer';
  byId('send').before(ask);

  for (const state of ['open', 'waiting', 'closed']) client.addEventListener(state, showHint);
  showHint();
  return {
    /** Called when the form becomes visible: a hidden text area has no height. */
    shown: grow,
  };
}

/** True for a text that was meant to be a JSON object: other texts do not begin with a brace. */
const isBrokenObject = (text) => /^\s*\{/.test(text) && readPayload(text).beginsLikeJson;

/** The messages sent in this tab. `move` goes back and forth between them and the draft that was being written. */
function buildRecall() {
  let sent = [];
  try {
    sent = JSON.parse(tabMemory.get('sent') ?? '[]');
  } catch { /* invalid stored value */ }
  let position = sent.length;
  let draft;
  return {
    isShown: (text) => sent[position]?.text === text,
    add(entry) {
      sent = [...sent.filter(({ text, name }) => text !== entry.text || name !== entry.name), entry].slice(-MAX_RECALLED);
      position = sent.length;
      tabMemory.set('sent', JSON.stringify(sent));
    },
    move(step, present) {
      const next = position + step;
      if (next < 0 || next > sent.length) return undefined;
      if (position === sent.length) draft = present;
      position = next;
      return sent[position] ?? draft;
    },
  };
}
