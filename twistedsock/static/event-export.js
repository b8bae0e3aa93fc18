/** The dialog that saves events as CSV or JSON: those that are shown, or all that the histories contain. */

import { buildChoice, buildDialog } from './dialog.js';
import { announce, byId, make, makeButton, saveFile } from './dom.js';
import { EarlierEvents } from './earlier-events.js';
import { fileName, toCsv, toJson } from './event-formats.js';
import { describeError, plural } from './format.js';

/** Events requested at a time, and saved at most: a page with more would run out of memory. */
const PAGE_EVENTS = 500;
const MAX_EVENTS = 100_000;

const FORMATS = { csv: [toCsv, 'text/csv'], json: [toJson, 'application/json'] };

/** @param {{history: Function, shownEvents: () => object[], channels: () => {name: string}[]}} page */
export function buildExport({ history, shownEvents, channels }) {
  let range = 'shown';
  let format = 'csv';
  let reading; // the export in progress
  const ranges = buildChoice('export-range', 'Events', [['shown', 'Shown'], ['kept', 'All in the history']], (value) => {
    range = value;
    describe();
  });
  const formats = buildChoice('export-format', 'Format', [['csv', 'CSV'], ['json', 'JSON']], (value) => { format = value; });
  const state = make('p', 'export-state');
  state.id = 'export-state';
  const save = makeButton('send', 'Save', start);
  save.id = 'export-save';
  const buttons = make('div', 'dialog-buttons');
  const cancel = makeButton('', 'Cancel', () => dialog.close());
  buttons.append(cancel, save);
  const dialog = buildDialog('export', 'Export', ranges, formats, state, buttons);
  dialog.addEventListener('close', () => { reading = undefined; });

  function describe() {
    const names = channels().map(({ name }) => name);
    const subject = names.length === 1 ? names[0] : plural(names.length, 'channel');
    state.textContent = range === 'shown' ? `${plural(shownEvents().length, 'event')} that the list shows.` : `Everything that the server keeps of ${subject}, without the filter.`;
  }

  async function start() {
    const names = channels().map(({ name }) => name);
    if (range === 'shown') {
      finish(shownEvents(), names);
      return;
    }
    const earlier = new EarlierEvents(history, channels().map(({ name }) => ({ name })), PAGE_EVENTS);
    reading = earlier;
    save.disabled = true;
    try {
      const events = await readAll(earlier);
      if (reading === earlier) finish(events, names);
    } catch (error) {
      if (reading === earlier) state.textContent = `Nothing was saved. ${describeError(error)}`;
    } finally {
      save.disabled = false;
    }
  }

  async function readAll(earlier) {
    const pages = [];
    let count = 0;
    while (!earlier.done && count < MAX_EVENTS && reading === earlier) {
      const page = await earlier.next();
      pages.unshift(page);
      count += page.length;
      state.textContent = `${plural(count, 'event')} read…`;
    }
    return pages.flat();
  }

  function finish(events, names) {
    if (!events.length) {
      state.textContent = 'There are no events to save.';
      return;
    }
    const [write, type] = FORMATS[format];
    saveFile(new Blob([write(events)], { type }), fileName(names, new Date(), format));
    const result = `${plural(events.length, 'event')} saved${events.length >= MAX_EVENTS ? '. Earlier ones were left out' : ''}.`;
    dialog.close();
    announce(result);
    byId('event-count').title = result;
  }

  return () => {
    describe();
    dialog.showModal();
  };
}
