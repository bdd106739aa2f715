// Curves as small SVG charts that share one cross-hair; no outside code, no network.
//
// Purpose: what every page that Plumb writes or serves draws its curves with. It knows neither
// metrics nor files: a page hands it specs and may hand it newer ones later.
//
//   const board = PlumbCharts.board(element, {smoothing: 0.05});
//   board.set([{title, note, axis: 'step', section?, series: [
//     {name, x: [0, 1], y: [0.5, null], low?: [], high?: [], marks?: true, exact?: true, span?: true}]}]);
//   board.smoothing(0.1);   // share of a curve that its moving average looks back over
//
// A y of null is a value that was not finite: a gap. low and high are drawn as an area: what a
// point stands for (least and most of a bucket of steps), or an error; with `span` the axis shows
// all of it. `marks`: points that were measured now and then, joined by a dashed line and never
// smoothed; `exact`: values without noise, never smoothed either. A chart of a title that is there already is drawn anew in its place; one that is missing
// is taken away. Colours are the page's: --s0 to --s6, classes chart, grid, cross, legend.
'use strict';
const PlumbCharts = (() => {
  const NS = 'http://www.w3.org/2000/svg';
  const H = 190, LEFT = 48, RIGHT = 12, TOP = 10, BOTTOM = 22;
  const colour = i => `var(--s${i % 7})`;

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

  // A value as a person reads it.
  const format = v => {
    if (v === null || v === undefined) return 'not finite';
    const a = Math.abs(v);
    if (a >= 1e7) return v.toExponential(2);
    if (a >= 1000) return String(Math.round(v)).replace(/\B(?=(\d{3})+$)/g, '\u202f');
    if (a >= 100) return v.toFixed(1);
    if (a >= 1) return v.toFixed(2);
    if (a >= 1e-2 || a === 0) return v.toFixed(3);
    return v.toExponential(1);
  };
  // A round number beside an axis: no zeros that say nothing.
  const tickText = v => {
    const a = Math.abs(v);
    if (a >= 1e9 || (a > 0 && a < 1e-3)) return (+v.toPrecision(6)).toExponential().replace('e+', 'e');
    if (a >= 1e6) return +(v / 1e6).toPrecision(6) + 'M';
    if (a >= 1e4) return +(v / 1e3).toPrecision(6) + 'k';
    return String(+v.toPrecision(6));
  };

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

  // About `count` round numbers that span [low, high].
  const ticks = (low, high, count) => {
    const raw = (high - low) / count, power = Math.pow(10, Math.floor(Math.log10(raw)));
    const step = [1, 2, 2.5, 5, 10].map(f => f * power).find(s => s >= raw * (1 - 1e-9));
    const out = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-6; ++k) out.push(k * step);
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
      this.card = html('div', 'chart', parent);
      const head = html('h3', '', this.card);
      this.title = html('b', '', head);
      this.value = html('span', '', head);
      this.note = html('p', '', this.card);
      this.svg = svg('svg', {role: 'img'}, this.card);
      this.legend = html('div', 'legend', this.card);
      this.clip = 'plumb-clip' + clips++;
      const move = e => board.hover(this, this.scale.at(e.clientX - this.svg.getBoundingClientRect().left));
      this.svg.addEventListener('pointermove', move);
      this.svg.addEventListener('pointerdown', move);
      this.svg.addEventListener('pointerleave', () => board.hover(this, null));
    }

    set(spec) {
      this.spec = spec;
      this.title.textContent = spec.title;
      this.note.textContent = spec.note || '';
      this.svg.setAttribute('aria-label', `${spec.title} over ${spec.axis}`);
      this.draw();
    }

    // What is drawn of a series: its line, and the areas and thin lines behind it.
    layers(s) {
      const window = s.marks || s.exact ? 1 : this.board.share * s.y.length;
      if (window <= 1) return {line: s.y, areas: s.low ? [[s.low, s.high]] : [], thin: null, smoothed: false};
      const {mean, deviation} = smooth(s.y, window);
      const band = [mean.map((m, i) => m === null ? null : m - deviation[i]),
                    mean.map((m, i) => m === null ? null : m + deviation[i])];
      return {line: mean, areas: s.low ? [[s.low, s.high], band] : [band], thin: s.low ? null : s.y,
              smoothed: true, deviation};
    }

    // The values that the y axis has to show. Single spikes may lie outside of it.
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
      if (low > high) return [0, 1];
      if (low === high) {
        const d = Math.abs(low) * 0.1 || 0.5;
        return [low - d, high + d];
      }
      const pad = (high - low) * 0.06;
      return [low >= 0 && low - pad < 0 ? 0 : low - pad, high + pad];
    }

    draw() {
      const root = this.svg, series = this.spec.series, W = root.clientWidth || 340;
      root.replaceChildren();
      root.setAttribute('viewBox', `0 0 ${W} ${H}`);
      this.drawn = series.map(s => this.layers(s));
      let x0 = Infinity, x1 = -Infinity;
      for (const s of series) {
        if (!s.x.length) continue;
        x0 = Math.min(x0, s.x[0]);
        x1 = Math.max(x1, s.x[s.x.length - 1]);
      }
      if (x0 > x1) [x0, x1] = [0, 1];
      if (x0 === x1) [x0, x1] = [x0 - 0.5, x1 + 0.5];
      const [y0, y1] = this.range(), width = W - LEFT - RIGHT, height = H - TOP - BOTTOM;
      const X = v => LEFT + (v - x0) / (x1 - x0) * width, Y = v => TOP + (y1 - v) / (y1 - y0) * height;
      this.scale = {X, Y, at: px => x0 + (px - LEFT) / width * (x1 - x0)};

      for (const t of ticks(y0, y1, 4)) {
        svg('line', {class: 'grid', x1: LEFT, x2: W - RIGHT, y1: Y(t), y2: Y(t)}, root);
        svg('text', {x: LEFT - 6, y: Y(t) + 4, 'text-anchor': 'end'}, root, tickText(t));
      }
      for (const t of ticks(x0, x1, Math.max(2, Math.floor(W / 90)))) {
        if (Number.isInteger(t) && X(t) < W - 8) svg('text', {x: X(t), y: H - 6, 'text-anchor': 'middle'}, root, tickText(t));
      }
      svg('text', {x: LEFT - 14, y: H - 6, 'text-anchor': 'end'}, root, this.spec.axis);
      svg('rect', {x: LEFT, y: TOP - 2, width, height: height + 4},
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
        const c = colour(i), layer = this.drawn[i];
        for (const [low, high] of layer.areas)
          svg('path', {class: 'area', d: area(s.x, low, high), fill: c, 'fill-opacity': 0.13 * faint}, body);
        if (layer.thin) svg('path', {d: line(s.x, layer.thin), stroke: c, 'stroke-opacity': 0.22 * faint}, body);
      });
      series.forEach((s, i) => {
        const c = colour(i), layer = this.drawn[i], style = {class: 'line', d: line(s.x, layer.line), stroke: c, 'stroke-width': 1.8};
        if (s.marks) style['stroke-dasharray'] = '5 4';
        svg('path', style, body);
        if (!s.marks && s.x.length > 40) return;
        s.x.forEach((x, k) => {
          if (layer.line[k] !== null) svg('circle', {cx: X(x), cy: Y(layer.line[k]), r: s.marks ? 3 : 2.4, fill: c}, root);
        });
      });
      this.cross = svg('g', {}, root);
      this.rest();
    }

    show(indexOf, where) {
      const series = this.spec.series, text = i => {
        const at = indexOf(series[i]);
        return at < 0 ? '' : format(this.drawn[i].line[at]);
      };
      this.value.textContent = series.length === 1 ? text(0) + where : where.replace(/^ at /, '');
      this.legend.replaceChildren();
      if (series.length < 2) return;
      series.forEach((s, i) => {
        const item = html('span', '', this.legend);
        item.title = s.metric || s.name;
        html('i', s.marks ? 'dashed' : '', item).style.borderColor = colour(i);
        item.append(s.name + ' ');
        html('em', '', item, text(i));
      });
    }

    rest() {
      if (this.cross) this.cross.replaceChildren();
      this.show(s => s.x.length - 1, '');
    }

    hover(x) {
      if (x === null) { this.rest(); return; }
      const series = this.spec.series, long = series.reduce((a, b) => b.x.length > a.x.length ? b : a);
      if (!long.x.length) return;
      const at = long.x[nearest(long.x, x)], {X, Y} = this.scale;
      this.cross.replaceChildren();
      svg('line', {class: 'cross', x1: X(at), x2: X(at), y1: TOP, y2: H - BOTTOM}, this.cross);
      series.forEach((s, i) => {
        const k = nearest(s.x, x), v = k < 0 ? null : this.drawn[i].line[k];
        if (v !== null) svg('circle', {cx: X(s.x[k]), cy: Y(v), r: 3.5, fill: colour(i)}, this.cross);
      });
      this.show(s => nearest(s.x, x), ` at ${this.spec.axis} ${at}`);
    }
  }

  class Board {
    constructor(host, options) {
      this.host = host;
      this.share = options.smoothing || 0;
      this.charts = new Map();    // title -> Chart
      this.sections = new Map();  // name -> the grid of its charts
      let width = 0, waiting = false;
      new ResizeObserver(() => {
        if (waiting || host.clientWidth === width) return;
        waiting = true;
        requestAnimationFrame(() => {
          waiting = false;
          width = host.clientWidth;
          this.redraw();
        });
      }).observe(host);
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
      for (const spec of specs) {
        let chart = this.charts.get(spec.title);
        if (!chart) this.charts.set(spec.title, chart = new Chart(this.grid(spec.section || ''), this));
        chart.set(spec);
      }
      for (const grid of this.sections.values()) grid.parentElement.hidden = !grid.childElementCount;
    }

    smoothing(share) {
      this.share = share;
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
  }

  return {board: (host, options) => new Board(host, options || {}), format, smooth, ticks, nearest};
})();
