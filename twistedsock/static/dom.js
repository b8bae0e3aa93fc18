/** The few ways in which the page touches its document. Text goes in as text: there is no way here to put in markup. */

export const byId = (id) => document.getElementById(id);

export function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

export function makeButton(className, text, whenPressed) {
  const button = make('button', className, text);
  button.type = 'button';
  button.addEventListener('click', whenPressed);
  return button;
}

/** Says below a field what is wrong with it; an empty string takes it back. The fault's id is the field's with `-fault`. */
export function showFieldError(field, words) {
  byId(`${field}-error`).textContent = words;
  if (words) byId(field).setAttribute('aria-invalid', 'true');
  else byId(field).removeAttribute('aria-invalid');
}

/** Said by a screen reader when it has finished its sentence. */
export function announce(words) {
  byId('announcer').textContent = words;
}

/** What this browser remembers of the page. Storage may be forbidden; then nothing is remembered, and that is all. */
export const memory = {
  get(key) {
    try {
      return localStorage.getItem(`sockbridge.${key}`);
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(`sockbridge.${key}`, value);
    } catch { /* full or forbidden */ }
  },
};

/** What this tab remembers until it is closed, or, where storage is forbidden, until it is reloaded. */
export const tabMemory = {
  kept: new Map(),
  get(key) {
    try {
      return sessionStorage.getItem(`sockbridge.${key}`) ?? this.kept.get(key) ?? null;
    } catch {
      return this.kept.get(key) ?? null;
    }
  },
  set(key, value) {
    try {
      sessionStorage.setItem(`sockbridge.${key}`, value);
    } catch {
      this.kept.set(key, value);
    }
  },
  remove(key) {
    this.kept.delete(key);
    try {
      sessionStorage.removeItem(`sockbridge.${key}`);
    } catch { /* forbidden: it is not there */ }
  },
};
