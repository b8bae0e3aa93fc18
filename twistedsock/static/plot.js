/** Lines over time, drawn by uPlot in the colours of the page. The console and the page use it for all charts. */

/* global uPlot */

const ROOT = new URL('vendor/uplot/', import.meta.url);

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
 * @param {object} options.timeAxis
 * @param {object[]} options.axes the vertical ones
 * @param {string} [options.sync] charts with the same key share their cursor
 * @param {number[]} [options.padding] in pixels: top, right, bottom, left
 * @param {(index: number | null) => void} options.pointed called with the index under the pointer
 */
export function buildPlot(space, { height, lines, data, scales, timeAxis, axes, sync, pointed, padding = [6, 8, 0, 0] }) {
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
      { ...axis, size: 20, gap: 3, grid: { show: false }, ...timeAxis },
      ...axes.map((one) => ({ ...axis, size: 54, gap: 6, space: 34, ...one, ...(one.colour ? { stroke: colour(one.colour) } : {}) })),
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
