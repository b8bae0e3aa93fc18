/** Buttons that copy what stands beside them. */

/** Milliseconds that a button tells what it did. */
const TOLD_FOR = 2000;

/** @param {HTMLElement} sample what is selected where nothing can be copied */
export async function copyFrom(button, text, sample) {
  const words = button.textContent;
  const copied = await copyText(text, sample);
  if (words !== 'Copy') return; // pressed twice: it tells already
  button.textContent = copied ? 'Copied' : 'Selected';
  setTimeout(() => { button.textContent = words; }, TOLD_FOR);
}

/** The clipboard is there on https and localhost only; elsewhere the lines are selected, one key from being copied. */
async function copyText(text, sample) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(sample);
    return false;
  }
}
