// Style and script of the report page; run/report/report.cc puts the data between them.
//
// Purpose: constants only. Nothing here loads anything: the page has to open from a file, offline,
// years later. The script reads the element "data":
// {"charts":[{"title","note","percent"?,"series":[{"name","x":[],"y":[]}]}]}.
#pragma once

#include <string_view>

namespace plumb::run {

inline constexpr std::string_view kReportStyle = R"css(
:root{--page:#fbfbfa;--card:#fff;--ink:#1d1f21;--soft:#5d636a;--line:#e1e3e5;--grid:#eceeef;--code:#f4f5f5;
--good:#1a7f37;--bad:#b3261e;--s0:#1f63b5;--s1:#b8560b;--s2:#1c8059;--s3:#8a3fa8;--s4:#a8324c;--s5:#5b6770}
@media (prefers-color-scheme:dark){:root{--page:#15171a;--card:#1d2024;--ink:#e7e9eb;--soft:#a1a8b0;--line:#31363c;
--grid:#2a2e33;--code:#16181b;--good:#5fc27e;--bad:#f0877d;--s0:#74aef2;--s1:#eda05a;--s2:#5ec79c;--s3:#c98fe0;
--s4:#ee8aa0;--s5:#a7b2bc}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1240px;margin:0 auto;padding:24px 20px 64px}
h1{font-size:22px;margin:0 0 2px;overflow-wrap:anywhere}
h2{font-size:17px;margin:36px 0 12px}
.soft{color:var(--soft)}
.mono,code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:12.5px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:12px;margin:18px 0 10px}
.tile,.chart,.box{background:var(--card);border:1px solid var(--line);border-radius:8px}
.tile{padding:12px 14px}
.tile b{display:block;font-size:24px;line-height:1.25;font-weight:600;font-variant-numeric:tabular-nums}
.tile>span{color:var(--soft);font-size:13px}
.tile.wide{grid-column:span 2}
.up{color:var(--good)}.down{color:var(--bad)}
.facts{margin:10px 0;display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;font-size:13.5px}
.facts dt{color:var(--soft)}.facts dd{margin:0;overflow-wrap:anywhere}
.notes{margin:12px 0;padding:10px 14px 10px 30px;border-left:3px solid var(--s1);background:var(--card);font-size:14px}
.bar{display:flex;flex-wrap:wrap;gap:10px 18px;align-items:center;margin-bottom:12px;font-size:14px}
.bar input[type=range]{width:160px;accent-color:var(--s0);vertical-align:middle}
.bar input[type=search]{font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);border-radius:6px;
padding:6px 10px;width:260px;max-width:100%}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,370px),1fr));gap:14px}
.chart{padding:12px 12px 6px;min-width:0}
.chart h3{font-size:14px;margin:0;display:flex;justify-content:space-between;gap:8px;font-weight:600}
.chart h3 span{font-variant-numeric:tabular-nums;color:var(--soft);font-weight:400;white-space:nowrap}
.chart p{margin:0 0 4px;font-size:12.5px;color:var(--soft)}
.chart svg{display:block;width:100%;height:190px;touch-action:pan-y}
.chart text{fill:var(--soft);font-size:11px;font-variant-numeric:tabular-nums}
.chart .grid{stroke:var(--grid)}.chart .cross{stroke:var(--soft);stroke-dasharray:3 3}
.legend{display:flex;flex-wrap:wrap;gap:2px 12px;font-size:12.5px;color:var(--soft)}
.legend i{display:inline-block;width:10px;height:3px;border-radius:2px;margin-right:5px;vertical-align:middle}
table{border-collapse:collapse;width:100%;font-size:13.5px}
th{text-align:left;font-weight:600;color:var(--soft);font-size:12.5px}
th,td{padding:7px 10px;border-bottom:1px solid var(--line);vertical-align:top}
td.num,th.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.samples td.text{width:34%}
.samples td.text div{white-space:pre-wrap;overflow-wrap:anywhere;max-height:15em;overflow:auto;font-size:12.5px;
font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.parts{white-space:nowrap}.parts span{display:block}
.box{overflow:auto}.tall{max-height:80vh}.tall th{position:sticky;top:0;background:var(--card)}
details{margin:10px 0}summary{cursor:pointer;font-weight:600}
pre{background:var(--code);border:1px solid var(--line);border-radius:8px;padding:12px;overflow:auto;margin:10px 0}
@media (max-width:720px){main{padding:16px 12px 48px}.tile.wide{grid-column:span 2}
.tiles{grid-template-columns:repeat(2,minmax(0,1fr));gap:8px}.tile b{font-size:20px}
.facts{grid-template-columns:1fr}.facts dd{margin-bottom:6px}
.samples thead{display:none}.samples,.samples tbody,.samples tr,.samples td{display:block;width:auto}
.samples tr{border-bottom:1px solid var(--line);padding:8px 0}
.samples tr:last-child{border-bottom:0}
.samples td,.samples td.text{border:0;padding:3px 12px;text-align:left;width:auto;white-space:normal}
.samples td::before{content:attr(data-name) " ";color:var(--soft);font-size:12px;font-family:system-ui,sans-serif}
.samples td.text::before{display:block}.parts span{display:inline-block;margin-right:10px}
.samples td.short{display:inline-block;padding-right:0}}
)css";

inline constexpr std::string_view kReportScript = R"js(
'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const host = document.getElementById('charts');
  const NS = 'http://www.w3.org/2000/svg';
  const colour = i => `var(--s${i % 6})`;
  const element = (name, attributes, parent, text) => {
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
    parent.appendChild(e);
    return e;
  };
  const format = v => {
    if (v === null || v === undefined) return 'not finite';
    const a = Math.abs(v);
    if (a >= 1e6) return v.toExponential(2);
    if (a >= 1000) return String(Math.round(v));
    if (a >= 100) return v.toFixed(1);
    if (a >= 1) return v.toFixed(2);
    if (a >= 1e-2 || a === 0) return v.toFixed(3);
    return v.toExponential(1);
  };

  // Moving average that weighs like an exponential one but is unbiased at the start; gaps stay gaps.
  const smooth = (y, weight) => {
    if (weight === 0) return y;
    let sum = 0, norm = 0;
    return y.map(v => {
      if (v === null) return null;
      sum = weight * sum + (1 - weight) * v;
      norm = weight * norm + (1 - weight);
      return sum / norm;
    });
  };

  // About `count` round numbers that span [low, high].
  const ticks = (low, high, count) => {
    const raw = (high - low) / count, power = Math.pow(10, Math.floor(Math.log10(raw)));
    const step = [1, 2, 2.5, 5, 10].map(f => f * power).find(s => s >= raw);
    const out = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-6; ++k) out.push(k * step);
    return out;
  };

  let weight = 0;
  const charts = [];
  const hoverAll = step => charts.forEach(c => c.hover(step));

  const makeChart = spec => {
    const card = html('div', 'chart', host);
    const head = html('h3', '', card, spec.title);
    const value = html('span', '', head);
    html('p', '', card, spec.note);
    const svg = element('svg', {role: 'img', 'aria-label': spec.title + ' over ' + spec.axis}, card);
    const legend = html('div', 'legend', card);
    let scale = null, cross = null, lines = [];

    const showLegend = indexOf => {
      legend.replaceChildren();
      if (spec.series.length < 2) return;
      spec.series.forEach((s, i) => {
        const item = html('span', '', legend);
        html('i', '', item).style.background = colour(i);
        const at = indexOf(s);
        item.append(s.name + (at < 0 ? '' : ' ' + format(lines[i][at])));
      });
    };
    const last = s => s.x.length - 1;

    const draw = () => {
      svg.replaceChildren();
      const W = svg.clientWidth || 340, H = 190, left = 48, right = 10, top = 10, bottom = 22;
      svg.setAttribute('viewBox', `0 0 ${W} ${H}`);
      lines = spec.series.map(s => smooth(s.y, spec.raw ? 0 : weight));
      const xs = spec.series.flatMap(s => s.x);
      const ys = (weight > 0.5 && !spec.raw ? lines : spec.series.map(s => s.y)).flat().filter(v => v !== null);
      let x0 = xs.reduce((a, b) => Math.min(a, b), Infinity), x1 = xs.reduce((a, b) => Math.max(a, b), -Infinity);
      let y0 = ys.reduce((a, b) => Math.min(a, b), Infinity), y1 = ys.reduce((a, b) => Math.max(a, b), -Infinity);
      if (!ys.length) { y0 = 0; y1 = 1; }
      if (x0 === x1) { x0 -= 0.5; x1 += 0.5; }
      if (y0 === y1) { const d = Math.abs(y0) * 0.1 || 0.5; y0 -= d; y1 += d; }
      const pad = (y1 - y0) * 0.06;
      y0 = y0 >= 0 && y0 - pad < 0 ? 0 : y0 - pad;
      y1 += pad;
      scale = {x: v => left + (v - x0) / (x1 - x0) * (W - left - right),
               y: v => top + (y1 - v) / (y1 - y0) * (H - top - bottom),
               step: px => x0 + (px - left) / (W - left - right) * (x1 - x0)};
      for (const t of ticks(y0, y1, 4)) {
        element('line', {class: 'grid', x1: left, x2: W - right, y1: scale.y(t), y2: scale.y(t)}, svg);
        element('text', {x: left - 6, y: scale.y(t) + 4, 'text-anchor': 'end'}, svg, format(t).replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, ''));
      }
      for (const t of ticks(x0, x1, Math.max(2, Math.floor(W / 90)))) {
        if (Number.isInteger(t)) element('text', {x: scale.x(t), y: H - 6, 'text-anchor': 'middle'}, svg, String(t));
      }
      const path = (x, y) => {
        let d = '', pen = false;
        y.forEach((v, i) => {
          if (v === null) { pen = false; return; }
          d += (pen ? 'L' : 'M') + scale.x(x[i]).toFixed(1) + ' ' + scale.y(v).toFixed(1);
          pen = true;
        });
        return d;
      };
      const clip = 'clip' + charts.indexOf(self);
      element('rect', {x: left, y: top - 2, width: W - left - right, height: H - top - bottom + 4},
              element('clipPath', {id: clip}, element('defs', {}, svg)));
      const body = element('g', {'clip-path': `url(#${clip})`, fill: 'none', 'stroke-linejoin': 'round'}, svg);
      spec.series.forEach((s, i) => {
        if (weight > 0 && !spec.raw) element('path', {d: path(s.x, s.y), stroke: colour(i), 'stroke-opacity': 0.25}, body);
        element('path', {d: path(s.x, lines[i]), stroke: colour(i), 'stroke-width': 1.8}, body);
      });
      spec.series.forEach((s, i) => {
        if (s.x.length > 40) return;
        s.x.forEach((x, k) => lines[i][k] !== null &&
          element('circle', {cx: scale.x(x), cy: scale.y(lines[i][k]), r: 2.6, fill: colour(i)}, svg));
      });
      cross = element('g', {}, svg);
      rest();
    };

    const rest = () => {
      if (cross) cross.replaceChildren();
      const s = spec.series[0];
      value.textContent = spec.series.length === 1 && s.x.length ? format(lines[0][last(s)]) : '';
      showLegend(last);
    };

    const nearest = (s, step) => {
      let low = 0, high = s.x.length - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (s.x[middle] < step) low = middle + 1; else high = middle;
      }
      return low > 0 && step - s.x[low - 1] < s.x[low] - step ? low - 1 : low;
    };

    const self = {draw, hover: step => {
      if (step === null) { rest(); return; }
      cross.replaceChildren();
      const at = nearest(spec.series[0], step), x = spec.series[0].x[at];
      element('line', {class: 'cross', x1: scale.x(x), x2: scale.x(x), y1: 10, y2: 168}, cross);
      spec.series.forEach((s, i) => {
        const k = nearest(s, step);
        if (lines[i][k] !== null) element('circle', {cx: scale.x(s.x[k]), cy: scale.y(lines[i][k]), r: 3.5, fill: colour(i)}, cross);
      });
      value.textContent = (spec.series.length === 1 ? format(lines[0][at]) + ' at ' : '') + spec.axis + ' ' + x;
      showLegend(s => nearest(s, step));
    }};
    const move = e => hoverAll(scale.step((e.clientX - svg.getBoundingClientRect().left)));
    svg.addEventListener('pointermove', move);
    svg.addEventListener('pointerdown', move);
    svg.addEventListener('pointerleave', () => hoverAll(null));
    charts.push(self);
  };

  data.charts.forEach(makeChart);
  const drawAll = () => charts.forEach(c => c.draw());
  drawAll();
  let width = window.innerWidth;
  window.addEventListener('resize', () => {
    if (window.innerWidth !== width) { width = window.innerWidth; drawAll(); }
  });
  const slider = document.getElementById('smooth');
  if (slider) slider.addEventListener('input', () => { weight = Number(slider.value) / 100; drawAll(); });

  const filter = document.getElementById('filter');
  if (filter) filter.addEventListener('input', () => {
    const wanted = filter.value.toLowerCase();
    let shown = 0;
    for (const row of document.querySelectorAll('.samples tbody tr')) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      if (row.hidden) row.style.display = 'none'; else { row.style.display = ''; ++shown; }
    }
    document.getElementById('shown').textContent = shown + ' shown';
  });
})();
)js";

}  // namespace plumb::run
