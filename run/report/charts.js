// Curves as small SVG charts that share one cross-hair; no outside code, no network.
//
// Purpose: what every page that Plumb writes or serves draws its curves with: the report has this
// file inside, the board serves it as /charts.js. It knows neither metrics nor files: a page hands
// it specs and may hand it newer ones later.
//
//   const board = PlumbCharts.board(element, {smoothing: {share: 0.05}});
//   board.set([{title, note, axis: 'step', section?, percent?, waiting?, version?, series: [
//     {name, x: [0, 1], y: [0.5, null], colour?, low?, high?, marks?, exact?, span?}]}]);
//   board.smoothing({weight: 0.6});
//   board.remove();
//
// axis: step, tokens, or time in seconds; the last two begin at 0. `percent`: y is a share of 1.
// `waiting`: what is missing is still to come. A chart whose `version` is the one before is left as
// it is. `colour`: 0 to 7, the place in the list otherwise.
// A y of null is a value that was not finite: a gap. low and high are drawn as an area: what a
// point stands for (least and most of a bucket of steps), or an error; with `span` the axis shows
// all of it. `marks`: points that were measured now and then, joined by a dashed line and never
// smoothed; `exact`: values without noise, never smoothed either. A chart of a title that is there
// already is drawn anew in its place; one that is missing is taken away. The moving average looks
// back over a `share` of a curve, or weighs what was before with `weight`, which leaves curves of
// few points alone; the values themselves stay behind it, thin. Arrow keys move the cross-hair
// (with Shift in larger steps). Looks: charts.css.
'use strict';
const PlumbCharts = (() => {
  const NS = 'http://www.w3.org/2000/svg';
  const LEFT = 50, RIGHT = 12, TOP = 10, BOTTOM = 22;
  const FEW = 60;   // points that a weight does not smooth: the average would lag far behind
  const DOTS = 40;  // points that are drawn one by one
  const colour = slot => `var(--s${slot % 8})`;

  const svg = (name, attributes, parent, text) => {
    const e = document.createElementNS(NS, name);
    for (const k in attributes) e.setAttribute(k, attributes[k]);
    if (text !== undefined) e.textContent = text;
    if (parent) parent.appendChild(e);
    return e;
  };
  const html = (name, cls, parent, text) => {
    const e = document.createElement(name);
    if (cls) e.className = cls;
    if (text !== undefined) e.textContent = text;
    if (parent) parent.appendChild(e);
    return e;
  };

  const grouped = v => String(Math.round(v)).replace(/\B(?=(\d{3})+$)/g, '\u202f');

  // A value as a person reads it, in six characters or so.
  const format = (v, percent) => {
    if (v === null) return 'not finite';
    if (v === undefined || Number.isNaN(v)) return '–';
    const a = Math.abs(v);
    if (percent) return (100 * v).toFixed(a < 0.0995 ? 1 : 0) + ' %';
    if (a >= 1e12) return v.toExponential(1).replace('e+', 'e');
    for (const [unit, size] of [['G', 1e9], ['M', 1e6]]) {
      if (a >= size) return (v / size).toFixed(a < 99.5 * size ? 1 : 0) + ' ' + unit;
    }
    if (a >= 1000) return grouped(v);
    if (Number.isInteger(v)) return String(v);
    if (a >= 100) return v.toFixed(1);
    if (a >= 1) return v.toFixed(2);
    if (a >= 1e-2) return v.toFixed(3);
    if (a >= 1e-3) return v.toFixed(4);
    return v.toExponential(1).replace('e-', 'e−');
  };
  // A round number beside an axis: no zeros that say nothing.
  const tickText = (v, percent) => {
    if (percent) return +(100 * v).toPrecision(6) + ' %';
    const a = Math.abs(v);
    if (a >= 1e9 || (a > 0 && a < 1e-3)) return (+v.toPrecision(6)).toExponential().replace('e+', 'e');
    if (a >= 1e6) return +(v / 1e6).toPrecision(6) + ' M';
    if (a >= 1e4) return +(v / 1e3).toPrecision(6) + ' k';
    return String(+v.toPrecision(6));
  };

  const duration = s => {
    s = Math.max(0, Math.round(s));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
    if (s < 48 * 3600) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
    return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
  };
  const timeTick = s => {
    if (s < 60) return +s.toFixed(1) + ' s';
    if (s < 3600) return s % 60 ? `${Math.floor(s / 60)}:${String(Math.round(s % 60)).padStart(2, '0')}` : s / 60 + ' min';
    if (s < 86400) return s % 3600 ? `${Math.floor(s / 3600)}:${String(Math.round(s % 3600 / 60)).padStart(2, '0')} h` : s / 3600 + ' h';
    return +(s / 86400).toFixed(1) + ' d';
  };
  // A place on the horizontal axis, in words.
  const place = (x, axis) => axis === 'time' ? duration(x) : axis === 'tokens' ? format(x) + ' tokens' :
    `${axis} ${Number.isInteger(x) ? grouped(x) : x.toFixed(1)}`;

  // The moving average over about `window` points, exponential and without the bias of its start,
  // and the standard deviation of what it averages. Gaps stay gaps.
  const smooth = (y, window) => {
    const keep = Math.max(0, 1 - 2 / (window + 1));
    let norm = 0, first = 0, second = 0, origin = null;
    const mean = [], deviation = [];
    for (const v of y) {
      if (v === null) {
        mean.push(null);
        deviation.push(null);
        continue;
      }
      if (origin === null) origin = v;  // sums of small numbers keep their digits
      const d = v - origin;
      norm = keep * norm + 1;
      first = keep * first + d;
      second = keep * second + d * d;
      const m = first / norm;
      mean.push(origin + m);
      deviation.push(Math.sqrt(Math.max(0, second / norm - m * m)));
    }
    return {mean, deviation};
  };

  // The points that the average of a curve of n looks back over; 1: it is shown as it is.
  const windowOf = (how, n) => {
    if (how.weight) return n <= FEW ? 1 : (1 + how.weight) / (1 - how.weight);
    return Math.max(1, (how.share || 0) * n);
  };

  // About `count` round numbers that span [low, high].
  const ticks = (low, high, count) => {
    const raw = (high - low) / count, power = Math.pow(10, Math.floor(Math.log10(raw)));
    const step = [1, 2, 2.5, 5, 10].map(f => f * power).find(s => s >= raw * (1 - 1e-9));
    const out = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-6; ++k) out.push(k * step + 0);  // no -0
    return out;
  };
  // Whole seconds, minutes, hours, days within [0, high].
  const timeTicks = (high, count) => {
    const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800,
      432000, 864000];
    const step = steps.find(s => high / s <= count) || high / count;
    const out = [];
    for (let t = 0; t <= high; t += step) out.push(t);
    return out;
  };

  // The index of the point nearest to x; -1 without points.
  const nearest = (xs, x) => {
    let low = 0, high = xs.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (xs[middle] < x) low = middle + 1; else high = middle;
    }
    return low > 0 && x - xs[low - 1] < xs[low] - x ? low - 1 : high < 0 ? -1 : low;
  };

  let clips = 0;

  class Chart {
    constructor(parent, board) {
      this.board = board;
      this.card = html('figure', 'chart', parent);
      const head = html('figcaption', '', this.card);
      this.title = html('b', '', head);
      this.value = html('span', 'value', head);
      this.large = html('button', 'large', head, '⤢');
      this.large.type = 'button';
      this.large.title = 'Larger';
      this.large.setAttribute('aria-pressed', 'false');
      this.large.addEventListener('click', () => {
        this.large.setAttribute('aria-pressed', String(this.card.classList.toggle('big')));
        this.draw();
      });
      this.note = html('p', 'note', this.card);
      this.svg = svg('svg', {role: 'img', tabindex: '0'}, this.card);
      this.legend = html('div', 'legend', this.card);
      this.clip = 'plumb-clip' + clips++;
      this.at = null;  // where the cross-hair is
      const move = e => {
        if (this.scale) board.hover(this, this.scale.at(e.clientX - this.svg.getBoundingClientRect().left));
      };
      this.svg.addEventListener('pointermove', move);
      this.svg.addEventListener('pointerdown', move);
      this.svg.addEventListener('pointerleave', () => board.hover(this, null));
      this.svg.addEventListener('blur', () => board.hover(this, null));
      this.svg.addEventListener('keydown', e => this.onKey(e));
    }

    onKey(e) {
      const xs = this.longest();
      if (!xs.length) return;
      const last = xs.length - 1, by = e.shiftKey ? Math.max(1, Math.round(last / 20)) : 1;
      const at = this.at === null ? last : nearest(xs, this.at);
      const to = {ArrowLeft: Math.max(0, at - by), ArrowRight: Math.min(last, at + by), Home: 0, End: last}[e.key];
      if (to === undefined && e.key !== 'Escape') return;
      e.preventDefault();
      this.board.hover(this, to === undefined ? null : xs[to]);
    }

    set(spec) {
      if (spec.version !== undefined && this.spec && spec.version === this.spec.version) return;
      this.spec = spec;
      this.title.textContent = this.title.title = spec.title;
      this.note.textContent = this.note.title = spec.note || '';
      this.large.setAttribute('aria-label', `Show ${spec.title} larger`);
      this.draw();
    }

    longest() { return this.spec.series.reduce((a, s) => s.x.length > a.length ? s.x : a, []); }
    colourOf(i) { return colour(this.spec.series[i].colour ?? i); }
    text(v) { return format(v, this.spec.percent); }

    // What is drawn of a series: its line, and the areas and the thin line behind it.
    layers(s) {
      const window = s.marks || s.exact ? 1 : windowOf(this.board.how, s.y.length);
      const areas = s.low ? [[s.low, s.high]] : [];
      if (window <= 1) return {line: s.y, areas, thin: null, smoothed: false};
      const {mean, deviation} = smooth(s.y, window);
      areas.push([mean.map((m, i) => m === null ? null : m - deviation[i]),
                  mean.map((m, i) => m === null ? null : m + deviation[i])]);
      return {line: mean, areas, thin: s.y, smoothed: true, deviation};
    }

    // The values that the y axis has to show; null without any. Single spikes may lie outside.
    range() {
      const distance = (a, b) => a.map((v, i) => v === null || b[i] === null ? null : v - b[i]).filter(v => v !== null);
      let low = Infinity, high = -Infinity;
      const take = values => {
        for (const v of values) {
          if (v === null) continue;
          if (v < low) low = v;
          if (v > high) high = v;
        }
      };
      this.spec.series.forEach((s, i) => {
        const layer = this.drawn[i];
        if (layer.smoothed) {
          let least = Infinity, most = -Infinity;
          for (const v of s.y) {
            if (v === null) continue;
            if (v < least) least = v;
            if (v > most) most = v;
          }
          if (s.low) {
            least = s.low.reduce((a, v) => v === null ? a : Math.min(a, v), least);
            most = s.high.reduce((a, v) => v === null ? a : Math.max(a, v), most);
          }
          // Room for what is usual around the line, not for the one spike.
          const usual = distances => distances.sort((a, b) => a - b)[distances.length >> 1] || 0;
          const around = s.low ? [usual(distance(s.y, s.low)), usual(distance(s.high, s.y))]
            : Array(2).fill(2 * usual(layer.deviation.filter(v => v !== null)));
          take(layer.line.map(m => m === null ? null : Math.max(least, m - around[0])));
          take(layer.line.map(m => m === null ? null : Math.min(most, m + around[1])));
        } else {
          take(s.y);
        }
        if (s.span && s.low) {
          take(s.low);
          take(s.high);
        }
      });
      if (low > high) return null;
      if (low === high) {
        const d = Math.abs(low) * 0.1 || 0.5;
        return [low - d, high + d];
      }
      const pad = (high - low) * 0.06, top = high + pad;
      return [low >= 0 && low - pad < 0 ? 0 : low - pad, this.spec.percent ? Math.min(top, Math.max(high, 1.02)) : top];
    }

    draw() {
      const root = this.svg, series = this.spec.series, axis = this.spec.axis;
      const W = root.clientWidth || 340, H = root.clientHeight || 190;
      root.replaceChildren();
      root.setAttribute('viewBox', `0 0 ${W} ${H}`);
      this.drawn = series.map(s => this.layers(s));
      const range = this.range();
      this.scale = this.cross = null;
      this.card.classList.toggle('bare', !range);
      if (!range && !series.some(s => s.x.length)) {
        svg('text', {x: W / 2, y: H / 2, 'text-anchor': 'middle'}, root, this.spec.waiting ? '' : 'no values yet');
        this.rest();
        return;
      }
      let x0 = Infinity, x1 = -Infinity;
      for (const s of series) {
        if (!s.x.length) continue;
        x0 = Math.min(x0, s.x[0]);
        x1 = Math.max(x1, s.x[s.x.length - 1]);
      }
      if (axis !== 'step') x0 = Math.min(x0, 0);
      if (x0 === x1) [x0, x1] = [x0 - 0.5, x1 + 0.5];
      const [y0, y1] = range || [0, 1], width = W - LEFT - RIGHT, height = H - TOP - BOTTOM;
      const X = v => LEFT + (v - x0) / (x1 - x0) * width, Y = v => TOP + (y1 - v) / (y1 - y0) * height;
      this.scale = {X, Y, at: px => x0 + (px - LEFT) / width * (x1 - x0), bottom: H - BOTTOM};

      for (const t of ticks(y0, y1, H > 300 ? 8 : 4)) {
        svg('line', {class: 'grid', x1: LEFT, x2: W - RIGHT, y1: Y(t), y2: Y(t)}, root);
        svg('text', {x: LEFT - 6, y: Y(t) + 4, 'text-anchor': 'end'}, root, tickText(t, this.spec.percent));
      }
      const count = Math.max(2, Math.floor(W / 90));
      for (const t of axis === 'time' ? timeTicks(x1, count) : ticks(x0, x1, count)) {
        if (axis === 'step' && !Number.isInteger(t)) continue;
        const end = X(t) > W - 26;
        svg('text', {x: end ? W - 2 : X(t), y: H - 6, 'text-anchor': end ? 'end' : 'middle'}, root,
            axis === 'time' ? timeTick(t) : tickText(t));
      }
      svg('text', {x: 0, y: H - 6}, root, axis);
      svg('rect', {x: LEFT, y: TOP - 2, width: width + 4, height: height + 4},
          svg('clipPath', {id: this.clip}, svg('defs', {}, root)));
      const body = svg('g', {'clip-path': `url(#${this.clip})`, fill: 'none', 'stroke-linejoin': 'round'}, root);
      const line = (xs, ys) => {
        let d = '', pen = false;
        ys.forEach((v, i) => {
          if (v === null) { pen = false; return; }
          d += (pen ? 'L' : 'M') + X(xs[i]).toFixed(1) + ' ' + Y(v).toFixed(1);
          pen = true;
        });
        return d;
      };
      // Between the two, piece by piece where there are gaps.
      const area = (xs, low, high) => {
        let d = '';
        for (let from = 0; from < xs.length;) {
          if (low[from] === null || high[from] === null) { ++from; continue; }
          let to = from;
          while (to < xs.length && low[to] !== null && high[to] !== null) ++to;
          for (let i = from; i < to; ++i) d += (i === from ? 'M' : 'L') + X(xs[i]).toFixed(1) + ' ' + Y(high[i]).toFixed(1);
          for (let i = to - 1; i >= from; --i) d += 'L' + X(xs[i]).toFixed(1) + ' ' + Y(low[i]).toFixed(1);
          d += 'Z';
          from = to;
        }
        return d;
      };
      const faint = series.length > 3 ? 0.6 : 1;  // many curves: less behind each
      series.forEach((s, i) => {
        const c = this.colourOf(i), layer = this.drawn[i];
        for (const [low, high] of layer.areas)
          svg('path', {class: 'area', d: area(s.x, low, high), fill: c, 'fill-opacity': 0.13 * faint}, body);
        if (layer.thin) svg('path', {class: 'thin', d: line(s.x, layer.thin), stroke: c, 'stroke-opacity': 0.22 * faint}, body);
      });
      series.forEach((s, i) => {
        const c = this.colourOf(i), layer = this.drawn[i];
        const style = {class: 'line', d: line(s.x, layer.line), stroke: c, 'stroke-width': 1.8};
        if (s.marks) style['stroke-dasharray'] = '5 4';
        svg('path', style, body);
        if (!s.marks && s.x.length > DOTS) return;
        s.x.forEach((x, k) => {
          if (layer.line[k] !== null) svg('circle', {cx: X(x), cy: Y(layer.line[k]), r: s.marks ? 3 : 2.4, fill: c}, root);
        });
      });
      this.cross = svg('g', {}, root);
      this.hover(this.at);
    }

    show(indexOf, where) {
      const series = this.spec.series, text = i => {
        const at = indexOf(series[i]);
        return at < 0 ? '' : this.text(this.drawn[i].line[at]);
      };
      this.value.textContent = [series.length === 1 ? text(0) : '', where].filter(Boolean).join(' · ');
      this.legend.replaceChildren();
      if (series.length < 2) return;
      series.forEach((s, i) => {
        const item = html('span', '', this.legend);
        item.title = s.metric || s.name;
        html('i', s.marks ? 'dashed' : '', item).style.borderColor = this.colourOf(i);
        html('span', '', item, s.name);
        html('em', '', item, text(i));
      });
    }

    rest() {
      this.at = null;
      if (this.cross) this.cross.replaceChildren();
      this.show(s => s.x.length - 1, '');
      const xs = this.longest();
      this.svg.setAttribute('aria-label', !xs.length ? `${this.spec.title}: no values yet` :
        `${this.spec.title}: ${this.said(s => s.x.length - 1)} at ${place(xs[xs.length - 1], this.spec.axis)}. Arrow keys read other values.`);
    }

    // The values of all curves, in one line.
    said(indexOf) {
      return this.spec.series.map((s, i) => {
        const at = indexOf(s);
        return (this.spec.series.length > 1 ? s.name + ' ' : '') + (at < 0 ? 'nothing' : this.text(this.drawn[i].line[at]));
      }).join(', ');
    }

    hover(x) {
      const xs = this.longest();
      if (x === null || !this.scale || !xs.length) { this.rest(); return; }
      this.at = x;
      const at = xs[nearest(xs, x)], {X, Y, bottom} = this.scale, indexOf = s => nearest(s.x, x);
      this.cross.replaceChildren();
      svg('line', {class: 'cross', x1: X(at), x2: X(at), y1: TOP, y2: bottom}, this.cross);
      this.spec.series.forEach((s, i) => {
        const k = indexOf(s), v = k < 0 ? null : this.drawn[i].line[k];
        if (v !== null) svg('circle', {class: 'dot', cx: X(s.x[k]), cy: Y(v), r: 3.6, fill: this.colourOf(i)}, this.cross);
      });
      const where = place(at, this.spec.axis);
      this.show(indexOf, where);
      if (document.activeElement === this.svg)
        this.svg.setAttribute('aria-label', `${this.spec.title} at ${where}: ${this.said(indexOf)}`);
    }
  }

  class Board {
    constructor(host, options) {
      this.host = host;
      this.how = options.smoothing || {};
      this.charts = new Map();    // title -> Chart
      this.sections = new Map();  // name -> the grid of its charts
      let width = host.clientWidth, waiting = false;
      this.sized = new ResizeObserver(() => {
        if (waiting || host.clientWidth === width) return;
        waiting = true;
        requestAnimationFrame(() => {
          waiting = false;
          width = host.clientWidth;
          if (width) this.redraw();
        });
      });
      this.sized.observe(host);
    }

    grid(section) {
      if (!this.sections.has(section)) {
        const box = html('section', '', this.host);
        if (section) html('h3', 'section', box, section);
        this.sections.set(section, html('div', 'charts', box));
      }
      return this.sections.get(section);
    }

    set(specs) {
      const wanted = new Set(specs.map(s => s.title));
      for (const [title, chart] of this.charts) {
        if (wanted.has(title)) continue;
        chart.card.remove();
        this.charts.delete(title);
      }
      // All boxes first: a drawing reads its width, which would lay the page out once a chart.
      const charts = specs.map(spec => {
        let chart = this.charts.get(spec.title);
        if (!chart) this.charts.set(spec.title, chart = new Chart(this.grid(spec.section || ''), this));
        return chart;
      });
      for (const grid of this.sections.values()) grid.parentElement.hidden = !grid.childElementCount;
      specs.forEach((spec, i) => charts[i].set(spec));
    }

    smoothing(how) {
      this.how = how;
      this.redraw();
    }

    redraw() {
      for (const chart of this.charts.values()) chart.draw();
    }

    // Of all charts with the same axis, so that curves can be read against each other.
    hover(source, x) {
      for (const chart of this.charts.values()) {
        if (chart.spec.axis === source.spec.axis) chart.hover(x);
      }
    }

    remove() {
      this.sized.disconnect();
      this.host.replaceChildren();
      this.charts.clear();
      this.sections.clear();
    }
  }

  // A small curve without axes.
  const spark = (xs, ys, slot, width, height) => {
    const e = svg('svg', {class: 'spark', viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true'});
    const every = Math.max(1, Math.ceil(xs.length / width)), at = [], value = [];
    for (let i = 0; i < xs.length; i += every) {
      const some = ys.slice(i, i + every).filter(v => v !== null);
      if (!some.length) continue;
      at.push(xs[i]);
      value.push(some.reduce((a, b) => a + b, 0) / some.length);
    }
    if (at.length < 2) return e;
    const x0 = at[0], x1 = at[at.length - 1], low = Math.min(...value), high = Math.max(...value);
    const points = at.map((x, i) => [(x - x0) / (x1 - x0 || 1) * width,
      high === low ? height / 2 : 2 + (high - value[i]) / (high - low) * (height - 4)].map(v => v.toFixed(1)).join(' '));
    svg('path', {d: `M${points.join('L')}L${width} ${height}L0 ${height}Z`, fill: colour(slot), 'fill-opacity': 0.1}, e);
    svg('path', {d: 'M' + points.join('L'), fill: 'none', stroke: colour(slot), 'stroke-width': 1.6,
      'vector-effect': 'non-scaling-stroke', 'stroke-linejoin': 'round'}, e);
    return e;
  };

  return {board: (host, options) => new Board(host, options || {}), spark, colour, duration, format, smooth, ticks, nearest,
    windowOf};
})();
