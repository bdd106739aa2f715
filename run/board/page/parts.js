// Small parts that the page is made of; how curves are drawn is /charts.js (run/report/charts.js).
/* global PlumbCharts */

export const {colour, duration} = PlumbCharts;

export function html(name, attributes = {}, ...children) {
  const e = document.createElement(name);
  for (const key in attributes) {
    const value = attributes[key];
    if (value === undefined || value === null || value === false) continue;
    if (key === 'class') e.className = value;
    else if (key.startsWith('on')) e.addEventListener(key.slice(2), value);
    else e.setAttribute(key, value === true ? '' : value);
  }
  e.append(...children.filter(c => c !== null && c !== undefined && c !== false));
  return e;
}

// As replaceChildren, without what is not there.
export const fill = (host, ...children) =>
  host.replaceChildren(...children.filter(c => c !== null && c !== undefined && c !== false && c !== ''));

// Metrics that are shares of 1, shown in percent.
const SHARES = /accuracy$|clip_fraction$|clipped$|\/mfu$|importance_masked$/;
export const isShare = key => SHARES.test(key);

export const format = (value, key = '') => PlumbCharts.format(value, isShare(key));

// A small curve of what the server sent.
export const spark = (curve, slot, width = 120, height = 30) =>
  PlumbCharts.spark(curve ? curve.x : [], curve ? curve.mean : [], slot, width, height);
