/** The dialog that sends a command on one channel and waits for the next event of another, its reply channel. */

import { buildDialog, labelled } from './dialog.js';
import { byId, make, makeButton, memory } from './dom.js';
import { fromCell, payloadCell, timeCell } from './event-cells.js';
import { CHANNEL_BYTES, describeAccessError, isAccessError, nameError, readPayload } from './format.js';
import { RawJson } from './sockbridge.js';

const DEFAULT_TIMEOUT_SECONDS = 10;
const MAX_TIMEOUT_SECONDS = 600;

/**
 * @param {object} page
 * @param {import('./sockbridge.js').Client} page.client
 * @param {(channel: string, error: Error) => string} page.explain returns the message for an error
 */
export function buildRequestDialog({ client, explain }) {
  const field = (name, properties = {}) => Object.assign(make('input'), { id: `request-${name}`, type: 'text', autocomplete: 'off', spellcheck: false, autocapitalize: 'off', ...properties });
  const channel = field('channel');
  const message = Object.assign(make('textarea'), { id: 'request-message', rows: 2, spellcheck: false });
  const hint = make('p', 'hint');
  const reply = field('reply', { placeholder: 'pump/reply' });
  const timeout = field('timeout', { type: 'number', min: 1, max: MAX_TIMEOUT_SECONDS, value: DEFAULT_TIMEOUT_SECONDS });
  const error = make('p', 'field-error');
  error.id = 'request-error';
  error.setAttribute('role', 'alert');
  const exchange = make('ol', 'exchange');
  exchange.id = 'exchange';
  const state = make('p', 'muted');
  state.id = 'request-state';
  state.setAttribute('role', 'status');
  const send = make('button', 'send', 'Send and wait');
  send.type = 'submit';
  const stop = makeButton('', 'Stop waiting', () => cancel());
  stop.hidden = true;
  const buttons = make('div', 'dialog-buttons');
  buttons.append(stop, send);
  const form = make('form');
  form.noValidate = true;
  form.append(
    labelled('Command channel', channel), labelled('Message', message), hint, labelled('Reply channel', reply), labelled('Seconds to wait', timeout),
    error, buttons, exchange, state,
  );
  const dialog = buildDialog('request', 'Send and wait for an answer', form);
  let cancel = () => {};
  dialog.addEventListener('close', () => cancel());

  message.addEventListener('input', showHint);

  function showHint() {
    hint.textContent = readPayload(message.value).beginsLikeJson ? 'Not valid JSON, so it will be sent as text.' : '';
  }

  function findProblem() {
    const seconds = Number(timeout.value);
    if (nameError(channel.value.trim(), CHANNEL_BYTES)) return `Command channel: ${nameError(channel.value.trim(), CHANNEL_BYTES)}`;
    if (!message.value) return 'Enter a message first.';
    if (nameError(reply.value.trim(), CHANNEL_BYTES)) return `Reply channel: ${nameError(reply.value.trim(), CHANNEL_BYTES)}`;
    if (!(seconds >= 1 && seconds <= MAX_TIMEOUT_SECONDS)) return `Enter 1 to ${MAX_TIMEOUT_SECONDS} seconds.`;
    return '';
  }

  function row(event, kind) {
    const item = make('li', 'exchange-row');
    item.dataset.kind = kind;
    item.append(make('span', 'exchange-place', `${event.channel} ${event.offset.toLocaleString('en')}`), fromCell(event), timeCell(new Date(event.time)), payloadCell(event, true));
    return item;
  }

  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    error.textContent = findProblem();
    if (error.textContent) return;
    const [to, from, seconds] = [channel.value.trim(), reply.value.trim(), Number(timeout.value)];
    memory.set('reply-channel', from);
    const read = readPayload(message.value);
    const data = read.json ? read.value : message.value; // to show it
    const payload = read.json ? new RawJson(message.value) : message.value;
    exchange.replaceChildren();
    state.textContent = `Subscribing to ${from}…`;
    send.disabled = true;
    stop.hidden = false;
    try {
      await exchangeOnce({ to, from, seconds, data, payload });
    } catch (problem) {
      if (problem) {
        state.textContent = '';
        error.textContent = problem.channel && isAccessError(problem) ? describeAccessError('read', from, problem.code) : explain(to, problem);
      }
    }
    send.disabled = false;
    stop.hidden = true;
  });

  /** Subscribes before it publishes, so that no answer is missed. Rejects with undefined if the user cancels. */
  async function exchangeOnce({ to, from, seconds, data, payload }) {
    let timer;
    let sentAt;
    let time;
    let subscription;
    try {
      await new Promise((resolve, reject) => {
        cancel = () => {
          state.textContent = 'Stopped.';
          reject();
        };
        const answered = (event) => {
          if (sentAt === undefined) return; // arrived before the command was sent
          exchange.append(row(event, 'answer'));
          state.textContent = `Answered after ${Math.round(performance.now() - sentAt).toLocaleString('en')} ms.`;
          resolve();
        };
        subscription = client.subscribe(from, answered, { echo: false });
        const publish = async () => {
          await subscription.ready;
          sentAt = performance.now();
          time = Date.now();
          state.textContent = `Waiting for an event on ${from}…`;
          timer = setTimeout(() => {
            state.textContent = `No event on ${from} within ${seconds} s.`;
            resolve();
          }, seconds * 1000);
          const offset = await client.publish(to, payload);
          exchange.prepend(row({ channel: to, offset, time, from: client.peer?.nick ?? client.peer?.id ?? '', name: 'message', data }, 'command'));
        };
        publish().catch(reject);
      });
    } finally {
      clearTimeout(timer);
      subscription.unsubscribe();
      cancel = () => {};
    }
  }

  return () => {
    channel.value = byId('channel-select').value;
    if (byId('message').value) message.value = byId('message').value;
    reply.value ||= memory.get('reply-channel') ?? (channel.value && `${channel.value}/reply`);
    error.textContent = '';
    showHint();
    dialog.showModal();
    (message.value ? reply : message).focus();
  };
}
