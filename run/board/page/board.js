// The page: which runs are looked at, what of them, and what the address says about both.

import {colour, format, html} from '/parts.js';
import {Curves} from '/curves.js';
import {Samples} from '/samples.js';
import {begin, factsOf, follow, link, listen, runs} from '/store.js';
import {Drops, Head, Recipe, Ring, ago, shortModel} from '/views.js';

const $ = id => document.getElementById(id);
const TABS = {curves: Curves, samples: Samples, ring: Ring, drops: Drops, recipe: Recipe};
const SMOOTH = 0.6;  // at first: the curve as it is stays behind it
const MOST = 8;  // runs at once: colours that can be told apart

const state = {
  run: '', also: [], tab: 'curves', x: 'step', smooth: SMOOTH, keys: null,
  slots: new Map(),  // name -> colour; kept while a run is chosen
  line: name => runs.get(name),
  chosen: () => [state.run, ...state.also].filter(n => runs.has(n)).map(name => ({name, slot: state.slots.get(name)})),
};

function giveColours() {
  const names = [state.run, ...state.also];
  for (const name of [...state.slots.keys()]) if (!names.includes(name)) state.slots.delete(name);
  for (const name of names) {
    if (state.slots.has(name)) continue;
    const taken = new Set(state.slots.values());
    for (let slot = 0; ; ++slot) if (!taken.has(slot)) { state.slots.set(name, slot); break; }
  }
}

function readAddress() {
  const q = new URLSearchParams(location.hash.slice(1));
  state.run = q.get('run') || '';
  state.also = [...new Set(q.getAll('with'))].filter(n => n !== state.run).slice(0, MOST - 1);
  state.tab = TABS[q.get('tab')] ? q.get('tab') : 'curves';
  state.x = ['step', 'tokens', 'time'].includes(q.get('x')) ? q.get('x') : 'step';
  state.smooth = q.has('smooth') ? Math.min(0.98, Math.max(0, Number(q.get('smooth')) || 0)) : SMOOTH;
  state.keys = q.has('key') ? q.getAll('key').filter(Boolean) : null;
}

function writeAddress(push) {
  const q = new URLSearchParams();
  if (state.run) q.set('run', state.run);
  state.also.forEach(n => q.append('with', n));
  if (state.tab !== 'curves') q.set('tab', state.tab);
  if (state.x !== 'step') q.set('x', state.x);
  if (state.smooth !== SMOOTH) q.set('smooth', state.smooth);
  if (state.keys) (state.keys.length ? state.keys : ['']).forEach(k => q.append('key', k));
  const address = '#' + q.toString();
  if (address === location.hash) return;
  history[push ? 'pushState' : 'replaceState'](null, '', address);
}

let view = null, viewed = '';
const head = new Head($('head'));

function change(what, push = false) {
  Object.assign(state, what);
  writeAddress(push);
  show();
}

function show() {
  if (!runs.has(state.run)) {
    const first = ordered()[0];
    if (first) state.run = first.name;
    state.also = state.also.filter(n => n !== state.run);
  }
  giveColours();
  const chosen = state.chosen();
  follow(chosen.map(r => r.name));
  list();
  head.update(runs.get(state.run), state.slots.get(state.run) || 0);
  document.title = (state.run ? state.run + ' · ' : '') + 'Plumb board';
  $('menu').title = state.run;
  for (const tab of $('tabs').children) {
    const on = tab.dataset.tab === state.tab;
    tab.setAttribute('aria-selected', String(on));
    tab.tabIndex = on ? 0 : -1;
  }
  if (!state.run) { $('view').replaceChildren(); return; }
  if (viewed !== state.tab) {
    if (view) view.remove();
    viewed = state.tab;
    $('view').replaceChildren();
    view = new TABS[state.tab]($('view'), state, what => change(what));
  } else {
    view.update();
  }
}

// ---- the list ----

const ORDERS = {
  state: (a, b) => ({running: 0, failed: 1, stopped: 2, ended: 2}[a.state] - {running: 0, failed: 1, stopped: 2, ended: 2}[b.state]) ||
    b.wall_s - a.wall_s || a.name.localeCompare(b.name),
  name: (a, b) => a.name.localeCompare(b.name, undefined, {numeric: true}),
  reward: (a, b) => (b.reward ?? -1e30) - (a.reward ?? -1e30),
  margin: (a, b) => (b.margin ?? -1e30) - (a.margin ?? -1e30),
  accuracy: (a, b) => (b.accuracy ?? -1e30) - (a.accuracy ?? -1e30),
};

function ordered() {
  const wanted = $('find').value.trim().toLowerCase();
  return [...runs.values()].filter(l => !wanted || `${l.name} ${l.algorithm} ${l.model} ${l.state}`.toLowerCase().includes(wanted))
    .sort(ORDERS[$('order').value]);
}

const rows = new Map();  // name -> its element and what it shows

function row(line) {
  let r = rows.get(line.name);
  if (!r) {
    const name = line.name;
    const check = html('input', {type: 'checkbox', 'aria-label': `Compare ${name}`, title: 'Compare', onchange: () => compare(name, check.checked)});
    const button = html('button', {type: 'button', class: 'run', onclick: () => {
      openMenu(false);
      change({run: name, also: state.also.filter(n => n !== name)}, true);
    }});
    r = {check, button, element: html('li', {}, check, button), text: ''};
    rows.set(name, r);
  }
  const now = link.now(), slot = state.slots.get(line.name), focused = line.name === state.run;
  // What there is of them: a margin between answers is no reward.
  const shown = ['reward', 'margin', 'loss'].map(name => [name, line[name] ?? null]).find(([, v]) => v !== null);
  const text = JSON.stringify([line, slot, focused, state.slots.size > 1, ago(line, now)]);
  if (text === r.text) return r.element;
  r.text = text;
  const done = line.step + 1, fill = html('i');
  fill.style.width = `${line.steps ? Math.min(100, 100 * done / line.steps) : 0}%`;
  if (slot !== undefined) fill.style.background = colour(slot);
  r.check.checked = slot !== undefined;
  r.check.disabled = focused;
  r.check.style.accentColor = slot === undefined ? '' : colour(slot);
  r.element.classList.toggle('on', focused);
  if (focused) r.button.setAttribute('aria-current', 'true'); else r.button.removeAttribute('aria-current');
  r.button.replaceChildren(
    html('span', {class: 'first'}, html('strong', {}, line.name), html('span', {class: 'state ' + line.state}, line.state)),
    html('span', {class: 'soft second'}, html('span', {}, shortModel(line) || '\u00a0'), html('span', {class: 'right', title: 'since its last step'}, ago(line, now))),
    html('span', {class: 'progress'}, fill),
    html('span', {class: 'soft third'}, html('span', {class: 'num'}, line.steps ? `${done}/${line.steps}` : String(done)),
      shown && html('span', {class: 'num'}, `${shown[0]} `, html('b', {}, format(shown[1]))),
      line.accuracy !== null && html('span', {class: 'num'}, 'acc ', html('b', {}, format(line.accuracy, 'accuracy')))));
  return r.element;
}

function list() {
  const lines = ordered(), elements = lines.map(row), ul = $('runs');
  for (const name of [...rows.keys()]) if (!runs.has(name)) rows.delete(name);
  // Only what moved is moved: the focus stays where it is.
  if (elements.length !== ul.children.length || elements.some((e, i) => ul.children[i] !== e)) {
    const focus = document.activeElement;
    ul.replaceChildren(...elements);
    if (focus && ul.contains(focus)) focus.focus();
  }
  $('norun').hidden = lines.length > 0;
  $('norun').textContent = runs.size ? 'No run is called like this.' : 'No runs here yet.';
}

function compare(name, on) {
  const also = state.also.filter(n => n !== name);
  if (on && also.length < MOST - 1) also.push(name);
  change({also});
}

function openMenu(open) {
  $('side').classList.toggle('open', open);
  $('menu').setAttribute('aria-expanded', String(open));
}

// ---- events ----

let asked = false;
const changed = new Set();
function later(what, name) {
  changed.add(what + '|' + (name || ''));
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    const names = new Set(state.chosen().map(r => r.name));
    let all = false;
    for (const change of changed) {
      const bar = change.indexOf('|'), what = change.slice(0, bar), name = change.slice(bar + 1);
      if (what === 'samples' && view && view.onSamples) view.onSamples(name);
      if (what === 'run' || what === 'state' || names.has(name)) all = true;
    }
    changed.clear();
    showLink();
    if (all) show();
  });
}

function showLink() {
  const running = [...runs.values()].filter(l => l.state === 'running').length;
  $('link').className = 'link ' + link.state;
  const text = link.state === 'live' ? 'live' : link.state === 'away' ? 'the board is away; trying again' :
    link.state === 'polling' ? 'many pages are open: every 3 s' : 'connecting';
  const more = link.state === 'live' || link.state === 'polling' ? ` · ${runs.size} ${runs.size === 1 ? 'run' : 'runs'}` + (running ? `, ${running} running` : '') : '';
  const [, says, counts] = $('link').children;
  if (says.textContent !== text) says.textContent = text;
  if (counts.textContent !== more) counts.textContent = more;
}

$('tabs').addEventListener('click', e => { if (e.target.dataset.tab) change({tab: e.target.dataset.tab}, true); });
$('tabs').addEventListener('keydown', e => {
  const tabs = [...$('tabs').children], at = tabs.indexOf(document.activeElement);
  const to = {ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1}[e.key];
  if (to === undefined || at < 0) return;
  e.preventDefault();
  const tab = tabs[(to + tabs.length) % tabs.length];
  change({tab: tab.dataset.tab}, true);
  tab.focus();
});
$('find').addEventListener('input', list);
$('order').addEventListener('change', list);
$('menu').addEventListener('click', () => openMenu(!$('side').classList.contains('open')));
document.addEventListener('keydown', e => {
  if (e.key === 'Escape') openMenu(false);
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement && document.activeElement.tagName);
  if (e.key === '/' && !typing) { e.preventDefault(); openMenu(true); $('find').focus(); }
});
addEventListener('popstate', () => { readAddress(); show(); });
addEventListener('hashchange', () => { readAddress(); show(); });
setInterval(() => { list(); head.update(runs.get(state.run), state.slots.get(state.run) || 0); }, 5000);
listen(later);

readAddress();
[state.run, ...state.also].filter(Boolean).forEach(factsOf);
begin().then(() => { show(); showLink(); }, error => {
  $('head').replaceChildren(html('p', {class: 'alert'}, error.message));
});
