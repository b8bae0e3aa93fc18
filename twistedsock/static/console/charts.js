/** Live charts of metrics. The values are also shown as text. */

import { make, oncePerFrame } from '../dom.js';
import { clockTime } from '../format.js';
import { buildPlot, whenColoursChange } from '../plot.js';
import { SPAN_SECONDS } from './series.js';

const HEIGHT = 104;

/** Steps of a scale, by its unit: bytes, or things that are counted in whole numbers. */
const STEPS = {
  bytes: Array.from({ length: 44 }, (_, power) => 2 ** power),
  things: Array.from({ length: 30 }, (_, index) => [1, 2, 5][index % 3] * 10 ** Math.floor(index / 3)),
};

/**
 * @typedef {object} Chart
 * @property {string} title
 * @property {(value: number) => string} format
 * @property {[name: string, label: string, colour: string][]} lines the colour is a custom property of base.css
 * @property {boolean} [filled] fills the area below the first line
 * @property {'bytes' | 'things'} [of] the unit of the scale; without it, any steps are used
 * @property {number} [least] the minimum height of the scale, so that an idle server does not look busy
 */

/**
 * @param {HTMLElement} box
 * @param {Chart[]} charts
 * @param {import('./series.js').Series} series
 */
export function buildCharts(box, charts, series) {
  const drawn = charts.map((chart) => buildFigure(box, chart));
  let pointed = null; // the index under the pointer, in all charts

  const draw = oncePerFrame(() => {
    if (!box.offsetParent) return;
    for (const one of drawn) {
      if (!one.plot) one.plot = plotOf(one, series, (index) => point(index));
      one.plot.setData(series.columns(one.chart.lines.map(([name]) => name)), false);
      const now = series.point()?.time ?? 0;
      one.plot.setScale('x', { min: now - SPAN_SECONDS, max: now });
    }
    showValues();
  });

  function point(index) {
    if (index === pointed) return;
    pointed = index;
    showValues();
  }

  function showValues() {
    const at = series.point(pointed ?? undefined);
    for (const { chart, values, range } of drawn) {
      for (const [index, [name]] of chart.lines.entries()) {
        const text = at?.[name] === undefined ? '–' : chart.format(at[name]);
        if (values[index].textContent !== text) values[index].textContent = text;
      }
      const text = pointed === null ? rangeOf(chart, series) : at ? clockTime(new Date(at.time * 1000)) : '';
      if (range.textContent !== text) range.textContent = text;
    }
  }

  function rebuild() {
    for (const one of drawn) {
      one.plot?.destroy();
      one.plot = undefined;
    }
    draw();
  }

  whenColoursChange(rebuild);
  new ResizeObserver(() => {
    for (const { plot, space } of drawn) {
      if (plot && space.clientWidth && plot.width !== space.clientWidth) plot.setSize({ width: space.clientWidth, height: HEIGHT });
    }
    draw();
  }).observe(box);
  return { draw };
}

function rangeOf({ lines, format }, series) {
  const ranges = lines.map(([name, label]) => [label, series.extremes(name)]).filter(([, extremes]) => extremes);
  const texts = ranges.map(([label, [least, greatest]]) => `${lines.length > 1 ? `${label} ` : ''}${format(least) === format(greatest) ? 'steady at ' : `${format(least)}–`}${format(greatest)}`);
  return texts.length ? `Last 5 min: ${texts.join(' · ')}` : '';
}

function buildFigure(box, chart) {
  const figure = make('figure', 'chart');
  const caption = make('figcaption');
  const values = chart.lines.map(() => make('span', 'value', '–'));
  const legend = make('dl', 'legend');
  for (const [index, [, label, colour]] of chart.lines.entries()) {
    const term = make('dt', '', label);
    term.style.setProperty('--line', `var(${colour})`);
    const entry = make('div');
    const value = make('dd');
    value.append(values[index]);
    entry.append(term, value);
    legend.append(entry);
  }
  caption.append(make('h2', '', chart.title), legend);
  const space = make('div', 'plot');
  space.setAttribute('aria-hidden', 'true'); // the text above and below has the same content
  const range = make('p', 'range');
  figure.append(caption, space, range);
  box.insertBefore(figure, box.querySelector(':scope > :not(figure)'));
  return { chart, figure, values, space, range, plot: undefined };
}

function plotOf({ chart, space }, series, pointed) {
  return buildPlot(space, {
    height: HEIGHT,
    lines: chart.lines.map(([, label, colour], index) => ({ label, colour, filled: chart.filled && !index })),
    data: series.columns(chart.lines.map(([name]) => name)),
    scales: { y: { range: (plot, least, greatest) => [0, Math.max(chart.least ?? 1, (greatest ?? 0) * 1.12)] } },
    axes: [{
      ...(chart.of ? { incrs: STEPS[chart.of] } : {}),
      values: (plot, splits) => splits.map((value) => chart.format(value).replace(/\.0(?=\D)/, '')),
    }],
    sync: 'console',
    pointed,
  });
}
