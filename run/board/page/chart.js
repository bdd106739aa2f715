// A chart of one metric over several runs, as SVG: a line a run, the range of its buckets behind
// it, a cross-hair shared by all charts. Arrow keys move the cross-hair.

const NS = 'http://www.w3.org/2000/svg';

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

export function svg(name, attributes, parent, text) {
  const e = document.createElementNS(NS, name);
  for (const key in attributes) e.setAttribute(key, attributes[key]);
  if (text !== undefined) e.textContent = text;
  if (parent) parent.appendChild(e);
  return e;
}

export const colour = slot => `var(--s${slot % 8})`;

const SHARES = /accuracy$|clip_fraction$|clipped$|\/mfu$|importance_masked$/;
export const isShare = key => SHARES.test(key);

// A number in at most six characters or so.
export function format(value, key = '') {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  if (isShare(key)) return (100 * value).toFixed(Math.abs(value) < 0.0995 ? 1 : 0) + ' %';
  const a = Math.abs(value);
  if (a === 0) return '0';
  if (a >= 1e12) return value.toExponential(1);
  for (const [unit, size] of [['G', 1e9], ['M', 1e6], ['k', 1e4]]) {
    if (a >= size) {
      const scaled = value / (unit === 'k' ? 1e3 : size);
      return scaled.toFixed(Math.abs(scaled) < 99.5 ? 1 : 0) + ' ' + unit;
    }
  }
  if (Number.isInteger(value)) return String(value);
  if (a >= 100) return value.toFixed(0);
  if (a >= 10) return value.toFixed(1);
  if (a >= 1) return value.toFixed(2);
  if (a >= 0.01) return value.toFixed(3);
  if (a >= 0.001) return value.toFixed(4);
  return value.toExponential(1).replace('e-', 'e−');
}

export function duration(s) {
  s = Math.max(0, Math.round(s));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

const axisText = (value, axis) => axis === 'time' ? duration(value) : axis === 'tokens' ? format(value).replace('.0 ', ' ') :
  Number.isInteger(value) ? value.toLocaleString('en').replace(/,/g, '\u2009') : value.toFixed(1);

// Moving average that weighs like an exponential one but is unbiased at the start; gaps stay gaps.
export function smoothed(y, weight) {
  if (!weight) return y;
  let sum = 0, norm = 0;
  return y.map(v => {
    if (v === null) return null;
    sum = weight * sum + (1 - weight) * v;
    norm = weight * norm + (1 - weight);
    return sum / norm;
  });
}

// A rare metric is shown as it is: an average over its few values would lag far behind.
const weightOf = (s, weight) => s.x.length <= 60 ? 0 : weight;

// The bounds of all values but the lowest and the highest two in a hundred.
function middle(y) {
  const some = y.filter(v => v !== null).sort((a, b) => a - b);
  if (!some.length) return [];
  const cut = Math.floor(some.length / 50);
  return [some[cut], some[some.length - 1 - cut]];
}

// About `count` round numbers within [low, high].
export function ticks(low, high, count) {
  const raw = (high - low) / Math.max(1, count), power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map(f => f * power).find(s => s >= raw * 0.999);
  const out = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-6; ++k) out.push(k * step + 0);  // no -0
  return out;
}

// Ticks of a time axis: whole minutes, hours.
function timeTicks(high, count) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800,
    432000, 864000];
  const step = steps.find(s => high / s <= count) || high / count;
  const out = [];
  for (let t = 0; t <= high; t += step) out.push(t);
  return out;
}

function timeShort(s) {
  if (s < 60) return s + ' s';
  if (s < 3600) return s % 60 ? `${Math.floor(s / 60)}:${String(s % 60).padStart(2, '0')}` : s / 60 + ' min';
  if (s < 86400) return s % 3600 ? `${Math.floor(s / 3600)} h ${s % 3600 / 60}` : s / 3600 + ' h';
  return +(s / 86400).toFixed(1) + ' d';
}

export function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle + 1; else high = middle;
  }
  return low > 0 && x - xs[low - 1] < xs[low] - x ? low - 1 : low;
}

const all = new Set();
const hoverAll = x => all.forEach(c => c.hover(x));
let clips = 0;

export class Chart {
  constructor(host, {key, note}) {
    this.key = key;
    this.series = [];
    this.axis = 'step';
    this.weight = 0;
    this.value = html('b', {class: 'num'});
    this.big = html('button', {class: 'quiet', type: 'button', 'aria-pressed': 'false', title: 'Larger',
      'aria-label': `Show ${key} larger`, onclick: () => this.toggle()}, '⤢');
    this.svg = svg('svg', {role: 'img', tabindex: '0', 'aria-label': `${key}: no values yet`});
    this.legend = html('div', {class: 'legend'});
    this.card = html('figure', {class: 'chart'},
      html('figcaption', {}, html('span', {class: 'name'}, key), this.value, this.big),
      html('p', {class: 'note'}, note || '\u00a0'), this.svg, this.legend);
    host.append(this.card);
    this.clip = 'clip' + ++clips;
    const move = e => {
      if (this.scale) hoverAll(this.scale.back(e.clientX - this.svg.getBoundingClientRect().left));
    };
    this.svg.addEventListener('pointermove', move);
    this.svg.addEventListener('pointerdown', move);
    this.svg.addEventListener('pointerleave', () => hoverAll(null));
    this.svg.addEventListener('blur', () => hoverAll(null));
    this.svg.addEventListener('keydown', e => this.onKey(e));
    this.sized = new ResizeObserver(() => {
      if (this.svg.clientWidth !== this.width) this.draw();
    });
    this.sized.observe(this.svg);
    all.add(this);
  }

  remove() {
    this.sized.disconnect();
    all.delete(this);
    this.card.remove();
  }

  toggle() {
    const big = this.card.classList.toggle('big');
    this.big.setAttribute('aria-pressed', String(big));
    this.draw();
  }

  onKey(e) {
    const longest = this.series.reduce((a, s) => !a || s.x.length > a.x.length ? s : a, null);
    if (!longest || !longest.x.length) return;
    const last = longest.x.length - 1, by = e.shiftKey ? Math.max(1, Math.round(last / 20)) : 1;
    let at = this.at === undefined || this.at === null ? last : nearest(longest.x, this.at);
    if (e.key === 'ArrowLeft') at = Math.max(0, at - by);
    else if (e.key === 'ArrowRight') at = Math.min(last, at + by);
    else if (e.key === 'Home') at = 0;
    else if (e.key === 'End') at = last;
    else if (e.key === 'Escape') { hoverAll(null); return; }
    else return;
    e.preventDefault();
    hoverAll(longest.x[at]);
  }

  // series: [{name, slot, x, mean, min?, max?}]
  set(series, axis, weight, loading) {
    this.loading = loading;
    this.series = series;
    this.axis = axis;
    this.weight = weight;
    this.draw();
  }

  draw() {
    const W = this.width = this.svg.clientWidth, H = this.svg.clientHeight || 180;
    if (!W) return;
    const left = 50, right = 12, top = 8, bottom = 22;
    this.svg.replaceChildren();
    this.svg.setAttribute('viewBox', `0 0 ${W} ${H}`);
    this.lines = this.series.map(s => smoothed(s.mean, weightOf(s, this.weight)));
    let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity;
    this.series.forEach((s, i) => {
      if (!s.x.length) return;
      x0 = Math.min(x0, s.x[0]);
      x1 = Math.max(x1, s.x[s.x.length - 1]);
      const cover = ys => { for (const v of ys) if (v !== null) { if (v < y0) y0 = v; if (v > y1) y1 = v; } };
      cover(this.lines[i]);
      // What is behind the smoothed line shall be seen too, but for its rare peaks.
      if (weightOf(s, this.weight) < 0.5) { cover(s.min || []); cover(s.max || []); cover(s.mean); }
      else cover(middle(s.mean));
    });
    const empty = !(x1 >= x0) || !(y1 >= y0);
    this.card.classList.toggle('bare', empty);
    if (empty) {
      this.scale = null;
      svg('text', {x: W / 2, y: H / 2, 'text-anchor': 'middle'}, this.svg, this.loading ? '' : 'no values yet');
      this.rest();
      return;
    }
    if (this.axis !== 'step') x0 = 0;
    if (x0 === x1) { x0 -= 0.5; x1 += 0.5; }
    if (y0 === y1) { const d = Math.abs(y0) * 0.1 || 0.5; y0 -= d; y1 += d; }
    const pad = (y1 - y0) * 0.07, floor = y0 >= 0;
    y0 = floor && y0 - pad < 0 ? 0 : y0 - pad;
    y1 += pad;
    if (isShare(this.key)) y1 = Math.min(y1, 1.02);
    const fx = (W - left - right) / (x1 - x0), fy = (H - top - bottom) / (y1 - y0);
    const X = v => left + (v - x0) * fx, Y = v => top + (y1 - v) * fy;
    this.scale = {X, Y, back: px => x0 + (px - left) / fx, top, bottom: H - bottom};
    for (const t of ticks(y0, y1, H > 300 ? 8 : 4)) {
      const y = Y(t);
      svg('line', {class: 'grid', x1: left, x2: W - right, y1: y, y2: y}, this.svg);
      const text = isShare(this.key) ? +(100 * t).toFixed(1) + ' %'
        : format(+t.toPrecision(6)).replace(/(\.\d*?)0+(?= |$)/, '$1').replace(/\.(?= |$)/, '');
      svg('text', {x: left - 7, y: y + 4, 'text-anchor': 'end'}, this.svg, text);
    }
    const count = Math.max(2, Math.floor(W / 70));
    for (const t of this.axis === 'time' ? timeTicks(x1, count) : ticks(x0, x1, count)) {
      if (this.axis === 'step' && !Number.isInteger(t)) continue;
      const end = X(t) > W - 26;
      svg('text', {x: end ? W - 2 : X(t), y: H - 6, 'text-anchor': end ? 'end' : 'middle'}, this.svg,
        this.axis === 'time' ? timeShort(t) : axisText(t, this.axis));
    }
    svg('rect', {x: left, y: top - 3, width: W - left - right + 4, height: H - top - bottom + 6},
      svg('clipPath', {id: this.clip}, svg('defs', {}, this.svg)));
    const body = svg('g', {'clip-path': `url(#${this.clip})`, fill: 'none'}, this.svg);
    const path = (xs, ys) => {
      let d = '', pen = false;
      for (let i = 0; i < ys.length; ++i) {
        if (ys[i] === null) { pen = false; continue; }
        d += (pen ? 'L' : 'M') + X(xs[i]).toFixed(1) + ' ' + Y(ys[i]).toFixed(1);
        pen = true;
      }
      return d;
    };
    this.series.forEach((s, i) => {
      const stroke = colour(s.slot);
      if (s.min && s.max) {
        let forth = '', back = '';
        for (let k = 0; k < s.x.length; ++k) {
          if (s.min[k] === null) continue;
          const x = X(s.x[k]).toFixed(1);
          forth += (forth ? 'L' : 'M') + x + ' ' + Y(s.max[k]).toFixed(1);
          back = 'L' + x + ' ' + Y(s.min[k]).toFixed(1) + back;
        }
        svg('path', {d: forth + back + 'Z', fill: stroke, 'fill-opacity': 0.13}, body);
      }
      if (weightOf(s, this.weight)) svg('path', {d: path(s.x, s.mean), stroke, 'stroke-opacity': 0.22}, body);
      svg('path', {d: path(s.x, this.lines[i]), stroke, 'stroke-width': 1.8, 'stroke-linejoin': 'round'}, body);
      if (s.x.length <= 40) {
        s.x.forEach((x, k) => this.lines[i][k] !== null &&
          svg('circle', {cx: X(x), cy: Y(this.lines[i][k]), r: 2.4, fill: stroke}, body));
      }
    });
    this.cross = svg('g', {}, this.svg);
    const at = this.at;
    this.rest();
    if (at !== undefined && at !== null) this.hover(at);
  }

  show(indexOf) {
    this.legend.replaceChildren(...(this.series.length < 2 ? [] : this.series.map((s, i) => {
      const at = indexOf(s);
      const item = html('span', {}, html('i'), s.name, html('b', {class: 'num'},
        at < 0 || !this.lines ? '' : format(this.lines[i][at], this.key)));
      item.firstChild.style.background = colour(s.slot);
      return item;
    })));
  }

  rest() {
    this.at = null;
    if (this.cross) this.cross.replaceChildren();
    const s = this.series[0], last = s ? s.x.length - 1 : -1;
    const value = last >= 0 ? format(this.lines[0][last], this.key) : '';
    this.value.textContent = this.series.length === 1 ? value : '';
    this.show(s => s.x.length - 1);
    this.svg.setAttribute('aria-label', last < 0 ? `${this.key}: no values yet`
      : `${this.key}: ${value} at ${this.axis} ${axisText(s.x[last], this.axis)}. Arrow keys read other values.`);
  }

  hover(x) {
    if (x === null) { this.rest(); return; }
    if (!this.scale) return;
    this.at = x;
    const {X, Y, top, bottom} = this.scale;
    const of = s => s.x.length ? nearest(s.x, x) : -1;
    const longest = this.series.reduce((a, s) => !a || s.x.length > a.x.length ? s : a, null);
    const where = longest && longest.x.length ? longest.x[of(longest)] : x;
    this.cross.replaceChildren();
    svg('line', {class: 'cross', x1: X(where), x2: X(where), y1: top, y2: bottom}, this.cross);
    this.series.forEach((s, i) => {
      const at = of(s);
      if (at >= 0 && this.lines[i][at] !== null)
        svg('circle', {cx: X(s.x[at]), cy: Y(this.lines[i][at]), r: 3.6, class: 'dot', fill: colour(s.slot)}, this.cross);
    });
    const first = this.series[0], at = first ? of(first) : -1;
    this.value.textContent = (this.series.length === 1 && at >= 0 ? format(this.lines[0][at], this.key) + ' · ' : '') +
      axisText(where, this.axis);
    this.show(of);
    if (document.activeElement === this.svg)
      this.svg.setAttribute('aria-label', `${this.key} at ${this.axis} ${axisText(where, this.axis)}: ` +
        this.series.map((s, i) => `${s.name} ${of(s) < 0 ? '' : format(this.lines[i][of(s)], this.key)}`).join(', '));
  }
}

// A small curve without axes.
export function spark(curve, slot, width = 120, height = 30) {
  const e = svg('svg', {class: 'spark', viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true'});
  if (!curve || curve.x.length < 2) return e;
  const every = Math.max(1, Math.ceil(curve.x.length / width));
  const xs = [], ys = [];
  for (let i = 0; i < curve.x.length; i += every) {
    const some = curve.mean.slice(i, i + every).filter(v => v !== null);
    if (!some.length) continue;
    xs.push(curve.x[i]);
    ys.push(some.reduce((a, b) => a + b, 0) / some.length);
  }
  if (xs.length < 2) return e;
  const x0 = xs[0], x1 = xs[xs.length - 1], y0 = Math.min(...ys), y1 = Math.max(...ys);
  const points = xs.map((x, i) => [(x - x0) / (x1 - x0 || 1) * width,
    y1 === y0 ? height / 2 : 2 + (y1 - ys[i]) / (y1 - y0) * (height - 4)].map(v => v.toFixed(1)).join(' '));
  svg('path', {d: `M${points.join('L')}L${width} ${height}L0 ${height}Z`, fill: colour(slot), 'fill-opacity': 0.1}, e);
  svg('path', {d: 'M' + points.join('L'), fill: 'none', stroke: colour(slot), 'stroke-width': 1.6,
    'vector-effect': 'non-scaling-stroke', 'stroke-linejoin': 'round'}, e);
  return e;
}
