/** Small lines without axes. Their values stand beside them as text. */

const SVG = 'http://www.w3.org/2000/svg';
const MARGIN = 1.5;

/** Fewer values do not fill the width: two of them would look like a trend. */
const MIN_FILLING = 12;

/** @returns {SVGSVGElement} a sparkline, for `drawSparkline` */
export function makeSparkline(width, height) {
  const spark = document.createElementNS(SVG, 'svg');
  spark.setAttribute('viewBox', `0 0 ${width} ${height}`);
  spark.setAttribute('preserveAspectRatio', 'none');
  spark.setAttribute('aria-hidden', 'true');
  spark.append(document.createElementNS(SVG, 'polyline'));
  return spark;
}

/**
 * The points of a polyline: the newest value on the right, the greatest at the top.
 * @param {number[]} values
 * @param {object} size
 * @param {number} size.count the maximum number of values
 * @param {number} [size.least] the value at the bottom; default: the least of the values
 * @param {number} [size.room] the minimum difference between bottom and top
 */
export function sparklinePoints(values, { width, height, count, least, room = 0 }) {
  const shown = values.slice(-count);
  if (!shown.length) return '';
  if (shown.length === 1) shown.push(shown[0]);
  const bottom = least ?? Math.min(...shown);
  const range = Math.max(room, Math.max(...shown) - bottom);
  const steps = Math.max(shown.length, Math.min(count, MIN_FILLING)) - 1;
  const x = (index) => width - ((shown.length - 1 - index) * width) / steps;
  const y = (value) => (range ? height - MARGIN - ((value - bottom) / range) * (height - 2 * MARGIN) : height / 2);
  return shown.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(' ');
}

export function drawSparkline(spark, points) {
  const line = spark.firstChild;
  if (line.getAttribute('points') !== points) line.setAttribute('points', points);
}
