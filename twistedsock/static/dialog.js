/** Dialogs that are built in JavaScript, and the list of keys that `?` opens. */

import { make, makeButton } from './dom.js';

/** Builds a modal dialog with a title and a close button. Escape and a click on the backdrop close it. */
export function buildDialog(name, title, ...content) {
  const dialog = make('dialog', 'dialog');
  dialog.id = `${name}-dialog`;
  const heading = make('h2', '', title);
  heading.id = `${name}-title`;
  dialog.setAttribute('aria-labelledby', heading.id);
  const close = makeButton('remove', '×', () => dialog.close());
  close.setAttribute('aria-label', 'Close');
  const head = make('div', 'dialog-head');
  head.append(heading, close);
  dialog.append(head, ...content);
  dialog.addEventListener('click', ({ target }) => { if (target === dialog) dialog.close(); });
  document.body.append(dialog);
  return dialog;
}

/** A field of a dialog: its label above it. */
export function labelled(text, field) {
  const label = make('label', '', text);
  label.append(field);
  return label;
}

/** A choice between a few values, as in the pages. @param {[value: string, title: string][]} options */
export function buildChoice(name, legend, options, chosen) {
  const set = make('fieldset', 'choice choice-wrap');
  set.append(make('legend', 'visually-hidden', legend));
  for (const [index, [value, title]] of options.entries()) {
    const label = make('label');
    const radio = make('input');
    Object.assign(radio, { type: 'radio', name, value, checked: index === 0 });
    radio.addEventListener('change', () => chosen(value));
    label.append(radio, make('span', '', title));
    set.append(label);
  }
  return set;
}

/** True if a key pressed there belongs to the element that has the focus, or to a dialog. */
export function isTyping({ target, ctrlKey, metaKey, altKey }, includingButtons = false) {
  const own = `input:not([type="radio"]), textarea, select, [contenteditable]${includingButtons ? ', button, a, summary, input' : ''}`;
  return ctrlKey || metaKey || altKey || Boolean(target.closest?.(own)) || Boolean(document.querySelector('dialog[open]'));
}

/** Builds the list of keys, opened by `?` and by a button in the navigation. @param {[keys: string, effect: string][]} keys */
export function buildKeyHelp(keys) {
  const list = make('dl', 'keys');
  for (const [names, effect] of keys) {
    const term = make('dt');
    for (const name of names.split(' ')) term.append(make('kbd', '', name), ' ');
    list.append(term, make('dd', '', effect));
  }
  const dialog = buildDialog('keys', 'Keys', list);
  const button = makeButton('key-help', '?', () => dialog.showModal());
  button.title = 'Keys';
  button.setAttribute('aria-label', 'Keys');
  document.querySelector('.top .nav').after(button);
  addEventListener('keydown', (event) => {
    if (event.key !== '?' || isTyping(event)) return;
    event.preventDefault();
    dialog.showModal();
  });
}

/** The keys of the list of events and the composer. */
export const EVENT_KEYS = [
  ['/', 'filter the events'],
  ['Space', 'pause the list, or continue'],
  ['↑ ↓ j k', 'move through the events'],
  ['← →', 'in the chart: move through the values'],
  ['Enter', 'show the details of an event; in the message: send it'],
  ['Escape', 'close the details, remove the filter'],
  ['↑', 'at the start of the message: what you sent before'],
  ['?', 'this list'],
];
