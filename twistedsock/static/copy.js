/** Copy buttons. */

/** Milliseconds for which a button shows the result. */
const RESULT_SHOWN_MS = 2000;

/** @param {HTMLElement} sample the element that is selected if the clipboard is not available */
export async function copyFrom(button, text, sample) {
  const label = button.textContent;
  const copied = await copyText(text, sample);
  if (label !== 'Copy') return; // pressed twice: the result is still shown
  button.textContent = copied ? 'Copied' : 'Selected';
  setTimeout(() => { button.textContent = label; }, RESULT_SHOWN_MS);
}

/** Browsers offer the clipboard on https and localhost only. Elsewhere the text is selected, so that one key copies it. */
async function copyText(text, sample) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(sample);
    return false;
  }
}
