/** DOM and storage helpers. All text is inserted as text, never as markup. */

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

/** Offers a file to save. */
export function saveFile(blob, name) {
  const link = make('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser has read it by then
}

/** Shows an error in the element with the id `FIELD-error`. An empty string removes it. */
export function showFieldError(field, error) {
  byId(`${field}-error`).textContent = error;
  if (error) byId(field).setAttribute('aria-invalid', 'true');
  else byId(field).removeAttribute('aria-invalid');
}

/** Announces a text to screen readers, after their current sentence. */
export function announce(text) {
  byId('announcer').textContent = text;
}

/**
 * Returns a function that calls `draw` once in the next frame, however often it is called, and at most once in an interval.
 * Hidden tabs do not draw.
 */
export function oncePerFrame(draw, intervalMs = 0) {
  let scheduled = false;
  let drawnAt = -Infinity;
  return () => {
    if (scheduled) return;
    scheduled = true;
    const frame = () => requestAnimationFrame(() => {
      scheduled = false;
      drawnAt = performance.now();
      draw();
    });
    const rest = drawnAt + intervalMs - performance.now();
    if (rest > 0) setTimeout(frame, rest);
    else frame();
  };
}

/** Settings that the browser keeps. Without permission to store anything, they are lost. */
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
    } catch { /* full or not permitted */ }
  },
};

/** Values kept until the tab is closed or, if storage is not permitted, until the page is reloaded. */
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
    } catch { /* not permitted, so it was not stored */ }
  },
};
