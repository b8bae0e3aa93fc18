/** Formats numbers, bytes and durations. A narrow no-break space separates a number and its unit. */

const THIN = '\u202f';

const KILO = ['', 'k', 'M', 'G', 'T'];
const KIBI = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** Shortens a number to at most three digits, one of them after the point. */
function shorten(value, step, units) {
  let rest = Math.abs(value);
  let index = 0;
  while (index < units.length - 1 && rest >= step - (index ? 0.5 : 0)) {
    rest /= step;
    index += 1;
  }
  const digits = index && rest < 99.95 ? rest.toFixed(1) : String(Math.round(rest));
  return `${value < 0 ? '−' : ''}${digits}${units[index] ? THIN + units[index] : ''}`;
}

/** 999, 1.2 k, 34.5 k, 678 k, 1.2 M */
export function count(value) {
  return shorten(value, 1000, KILO);
}

/** 512 B, 3.4 MiB */
export function bytes(value) {
  return shorten(value, 1024, KIBI);
}

/** Formats a rate: like a count, but small values have one decimal. */
export function rate(value) {
  if (value > 0 && value < 0.05) return '<' + THIN + '0.1';
  return value < 9.95 && value % 1 ? value.toFixed(1) : count(Math.round(value));
}

export function percent(value) {
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)}${THIN}%`;
}

/** Formats a short duration in seconds: 80 µs, 1.2 ms, 4.2 s, 3 min 20 s, 2 h 5 min, 3 d 4 h */
export function duration(seconds) {
  if (seconds < 0.000_000_5) return '0';
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)}${THIN}µs`;
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(1)}${THIN}ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)}${THIN}ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)}${THIN}s`;
  return age(seconds);
}

/** Formats a duration in whole seconds: 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h */
export function age(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [[86_400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const first = parts.findIndex(([size]) => whole >= size);
  if (first < 0) return `0${THIN}s`;
  const [size, unit] = parts[first];
  const [nextSize, nextUnit] = parts[first + 1] ?? [];
  const more = nextSize ? Math.floor((whole % size) / nextSize) : 0;
  return `${Math.floor(whole / size)}${THIN}${unit}${more ? ` ${more}${THIN}${nextUnit}` : ''}`;
}
