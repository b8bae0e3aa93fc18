/** Lines over time, drawn by uPlot in the colours of the page. The console and the page use it for all charts. */

/* global uPlot */

const ROOT = new URL('vendor/uplot/', import.meta.url);

/** Steps of the time axis in seconds, and the least width of one, so that labels do not overlap. */
const STEPS = [5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 43_200, 86_400, 604_800];
const STEP_PX = 80;

/** The least width of a vertical axis, the width of a character of its labels at most, and their distance from the plot. */
const AXIS_PX = 54;
const CHARACTER_PX = 7;
const GAP_PX = 6;

let loading;

/** Loads uPlot, unless the page has done so. */
export function loadPlotter() {
  loading ??= globalThis.uPlot ? Promise.resolve() : new Promise((loaded, failed) => {
    const style = Object.assign(document.createElement('link'), { rel: 'stylesheet', href: new URL('uPlot.min.css', ROOT) });
    const script = Object.assign(document.createElement('script'), { src: new URL('uPlot.iife.min.js', ROOT), onload: loaded, onerror: failed });
    document.head.append(style, script);
  });
  return loading;
}

/**
 * @typedef {object} Line
 * @property {string} label
 * @property {string} colour a custom property of base.css
 * @property {boolean} [filled] fills the area below
 * @property {string} [scale] the name of its scale; default `y`
 * @property {object} [more] further options of uPlot for this line
 */

/**
 * @param {HTMLElement} space
 * @param {object} options
 * @param {number} options.height
 * @param {Line[]} options.lines
 * @param {any[][]} options.data the times in seconds, and the values of each line
 * @param {Record<string, object>} options.scales the vertical scales, by name
 * @param {object[]} options.axes the vertical ones
 * @param {string} [options.sync] charts with the same key share their cursor
 * @param {number[]} [options.padding] in pixels: top, right, bottom, left
 * @param {(index: number | null) => void} options.pointed called with the index under the pointer
 */
export function buildPlot(space, { height, lines, data, scales, axes, sync, pointed, padding = [6, 14, 0, 0] }) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: colour('--muted'),
    font: `11px ${style.getPropertyValue('--plain') || 'sans-serif'}`,
    grid: { stroke: colour('--rule-faint'), width: 1 },
    ticks: { show: false },
  };
  return new uPlot({
    width: space.clientWidth,
    height,
    padding,
    legend: { show: false },
    cursor: {
      ...(sync ? { sync: { key: sync, setSeries: false } } : {}),
      y: false,
      drag: { x: false, y: false },
      points: { size: 6, width: 0, fill: (plot, index) => plot.series[index].stroke(plot, index) },
    },
    select: { show: false },
    scales: { x: { time: false }, ...scales },
    axes: [
      {
        ...axis,
        size: 20,
        gap: 3,
        grid: { show: false },
        splits: ({ scales: { x }, bbox }) => labelledTimes(x.min, x.max, bbox.width / devicePixelRatio),
        values: ({ scales: { x } }, times) => times.map((time) => timeLabel(x.max - time)),
      },
      ...axes.map((one) => ({ ...axis, size: (_, labels) => axisWidth(labels), gap: GAP_PX, space: 34, ...one, ...(one.colour ? { stroke: colour(one.colour) } : {}) })),
    ],
    series: [
      {},
      ...lines.map(({ label, colour: name, filled, scale = 'y', more }) => ({
        label,
        scale,
        stroke: colour(name),
        width: 1.5,
        points: { show: false },
        ...(filled ? { fill: `${colour(name)}22` } : {}),
        ...more,
      })),
    ],
    hooks: { setCursor: [(plot) => pointed(plot.cursor.idx ?? null)] },
  }, data, space);
}

/** Calls `changed` when the colours change, because the canvas has to be drawn again. */
export function whenColoursChange(changed) {
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);
}

/** The times that are labelled on an axis of this width: round differences from the last one, as many as have room. */
export function labelledTimes(first, last, width) {
  const most = Math.max(2, width / STEP_PX);
  const step = STEPS.find((one) => (last - first) / one <= most) ?? Math.ceil((last - first) / most);
  const times = [];
  for (let time = last; time >= first; time -= step) times.unshift(time);
  return times;
}

/** A time before the last one: `now`, `−30 s`, `−1.5 min`, `−2 h`, `−3 d` */
export function timeLabel(secondsAgo) {
  const seconds = Math.round(secondsAgo);
  if (seconds < 1) return 'now';
  const [size, unit] = [[86_400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']].find(([one]) => seconds >= one && (seconds * 2) % one === 0);
  return `−${seconds / size}\u202f${unit}`;
}

/** The width of a vertical axis with room for its labels, of which there can be none yet. */
export function axisWidth(labels) {
  return Math.max(AXIS_PX, GAP_PX + CHARACTER_PX * Math.max(0, ...(labels ?? []).map((label) => label.length)));
}
