/** The drawer with the details of one event: its payload, what has changed since the event before, and copies of it. */

import { isBytes, pictureIn, toBase64 } from './bytes.js';
import { copyFrom } from './copy.js';
import { buildChoice } from './dialog.js';
import { byId, make, makeButton, saveFile } from './dom.js';
import { fromCell, payloadCell } from './event-cells.js';
import { curlCommand, eventJson, fileName, pubLine } from './event-formats.js';
import { describeError, exactTime, plural } from './format.js';
import { SHELL_SPECIAL } from './line-endpoints.js';
import { differences, jsonText, numberIn, payloadText } from './payloads.js';

/** Characters of a payload shown at first, and of one value in the list of changes. */
const PAYLOAD_CHARACTERS = 10_000;
const VALUE_CHARACTERS = 200;

/** Maximum number of changes listed. */
const CHANGES_SHOWN = 100;

/**
 * @param {object} page
 * @param {(channel: string, offset: number) => Promise<object | undefined>} page.find resolves with an event, or undefined if it is gone
 * @param {() => boolean} page.hasToken
 * @param {HTMLElement[]} page.actions further buttons
 * @param {() => void} page.closed
 */
export function buildDrawer({ find, hasToken, actions, closed }) {
  const drawer = make('section', 'drawer');
  drawer.id = 'drawer';
  drawer.hidden = true;
  drawer.setAttribute('aria-labelledby', 'drawer-title');
  const title = make('h3');
  title.id = 'drawer-title';
  const close = makeButton('remove', '×', hide);
  close.setAttribute('aria-label', 'Close');
  const head = make('div', 'drawer-head');
  head.append(title, close);
  const facts = make('p', 'drawer-facts');
  const payload = make('div', 'drawer-payload');
  const changesTitle = make('h4');
  const changes = make('dl', 'changes');
  const sample = make('pre', 'lines');
  sample.tabIndex = 0;
  sample.setAttribute('role', 'region');
  const copyButton = makeButton('', 'Copy', () => copyFrom(copyButton, sample.textContent, sample));
  const copyHint = make('p', 'muted');
  let kind = 'json';
  const kinds = buildChoice('copy-as', 'Copy as', [['json', 'JSON'], ['payload', 'Payload'], ['curl', 'curl'], ['pub', 'PUB line']], (value) => {
    kind = value;
    showCopy();
  });
  const buttons = make('p', 'drawer-buttons');
  buttons.append(...actions);
  drawer.append(head, facts, payload, changesTitle, changes, make('h4', '', 'Copy as'), kinds, sample, copyButton, copyHint, buttons);
  byId('event-scroll').after(drawer);
  let shown;

  function hide() {
    if (drawer.hidden) return;
    drawer.hidden = true;
    shown = undefined;
    closed();
  }

  function showCopy() {
    const { text, hint = '' } = copyOf(kind, shown, hasToken());
    sample.textContent = text;
    sample.hidden = copyButton.hidden = !text;
    sample.setAttribute('aria-label', `The event as ${kind}`);
    copyHint.textContent = hint;
  }

  async function showChanges(event) {
    changes.replaceChildren();
    changesTitle.textContent = 'Changes';
    if (event.offset <= 1) {
      changesTitle.textContent = 'The first event of its channel';
      return;
    }
    try {
      const before = await find(event.channel, event.offset - 1);
      if (shown !== event) return;
      if (!before) {
        changesTitle.textContent = `Event ${event.offset - 1} is no longer in the history`;
        return;
      }
      const found = differences(before.data, event.data);
      changesTitle.textContent = found.length ? `Changes since event ${before.offset}` : `The same payload as event ${before.offset}`;
      const more = found.length - CHANGES_SHOWN;
      changes.append(...found.slice(0, CHANGES_SHOWN).flatMap(changeRow), ...(more > 0 ? [make('dd', 'others', `and ${plural(more, 'change')} more`)] : []));
    } catch (error) {
      if (shown === event) changesTitle.textContent = `Changes: ${describeError(error)}`;
    }
  }

  return {
    element: drawer,
    hide,
    get event() { return shown; },
    show(event) {
      shown = event;
      title.textContent = `${event.channel} ${event.offset.toLocaleString('en')}`;
      facts.replaceChildren(fromCell(event), `, ${exactTime(new Date(event.time))}${event.name === 'message' ? '' : `, ${event.name}`}`);
      payload.replaceChildren(payloadCell({ name: 'message', data: event.data }, true, PAYLOAD_CHARACTERS));
      if (isBytes(event.data)) payload.append(...bytesParts(event));
      showCopy();
      drawer.hidden = false;
      drawer.scrollTop = 0;
      showChanges(event);
    },
  };
}

/** A picture, if the bytes are one, and a button that saves them as a file. */
function bytesParts({ channel, time, data }) {
  const picture = pictureIn(data);
  const parts = [];
  if (picture?.shown) {
    const image = make('img', 'picture');
    image.alt = `${picture.name} image of this event`;
    image.src = URL.createObjectURL(new Blob([data], { type: picture.type }));
    const release = () => URL.revokeObjectURL(image.src);
    image.addEventListener('load', release);
    image.addEventListener('error', () => {
      release();
      image.replaceWith(make('p', 'muted', 'The picture is damaged.'));
    });
    parts.push(image);
  }
  // Never with a type that a browser opens.
  const save = () => saveFile(new Blob([data], { type: 'application/octet-stream' }), fileName([channel], new Date(time), picture?.extension ?? 'bin'));
  return [...parts, makeButton('', 'Download', save)];
}

function changeRow({ path, before, after }) {
  const value = make('dd');
  const part = (tag, one) => make(tag, '', shorten(one));
  if (before !== undefined) value.append(part('del', before), ' ');
  if (after !== undefined) value.append(part('ins', after));
  const step = numberIn(after) - numberIn(before);
  if (step) value.append(make('span', 'muted-inline', ` ${step > 0 ? '+' : '−'}${Math.abs(Number(step.toPrecision(12))).toLocaleString('en', { maximumFractionDigits: 12 })}`));
  return [make('dt', '', path), value];
}

function shorten(value) {
  const text = payloadText(value);
  return text.length > VALUE_CHARACTERS ? `${text.slice(0, VALUE_CHARACTERS)}…` : text;
}

function copyOf(kind, event, hasToken) {
  if (kind === 'json') return { text: eventJson(event) };
  if (kind === 'payload' && isBytes(event.data)) return { text: toBase64(event.data), hint: 'In base64.' };
  if (kind === 'payload') return { text: typeof event.data === 'string' ? event.data : jsonText(event.data, 2) };
  if (kind === 'curl') return { text: curlCommand(event, location.origin, hasToken), hint: hasToken ? 'Set TOKEN to your token first.' : '' };
  if (SHELL_SPECIAL.test(event.channel)) return { text: '', hint: 'The name of this channel has a special meaning in shells, so there is no line to copy.' };
  return { text: pubLine(event), hint: event.name === 'message' ? '' : `Lines are published without an event name: “${event.name}” is left out.` };
}
