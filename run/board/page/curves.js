// Curves of the chosen runs: which metrics, over steps, tokens or time, smoothed.

import {html, isShare} from '/parts.js';
import {curvesOf, factsOf, loading} from '/store.js';
/* global PlumbCharts */

// What metrics mean, in a few words (docs/metrics.md has all of it).
export const NOTES = {
  'reward/mean': 'over the answers with a score',
  'reward/std': 'over the answers with a score',
  'reward/zero_std_groups': 'groups whose answers all got the same reward: nothing to learn',
  'reward/unscored': 'answers of the step without a score',
  'eval/accuracy': 'held-out, solved at the first answer',
  'objective/kl': 'nats from the reference policy',
  'policy/loss': 'mean of the updates',
  'policy/entropy': 'nats a token; falling to 0 early: it stops trying',
  'policy/approx_kl': 'nats a token that an update moved',
  'policy/clip_fraction': 'tokens at which the clip took hold; above 20 %: too large updates',
  'policy/ratio': 'new over old probability',
  'response_length/mean': 'tokens an answer',
  'response_length/clipped': 'answers cut at the limit',
  'optim/grad_norm': 'before clipping',
  'optim/lr': 'learning rate',
  'sampling/logprob_diff_mean': 'learner against actor, nats; more than rounding is a fault',
  'offpolicy/staleness_mean': 'versions the answers are behind',
  'perf/tokens_per_s': 'tokens a second of the step',
  'perf/mfu': 'of the best square product of this machine, a lower bound',
  'perf/peak_memory_gb': '10⁹ bytes at the peak',
  'time/step': 'seconds',
  'time/generate': 'seconds inside the engines',
  'time/train': 'seconds of the update',
  'time/wait': 'seconds the learner waited for its batch',
  'replay/queue': 'finished groups that no step has taken',
  'value/loss': 'of the critic',
  'value/explained_variance': 'of the returns, by the critic',
  'dpo/loss': 'nats a pair',
  'dpo/accuracy': 'pairs whose chosen answer is preferred',
  'dpo/margin': 'chosen minus rejected reward',
  'rm/loss': 'nats a pair',
  'rm/accuracy': 'pairs whose chosen answer has the higher score',
  'rm/margin': 'chosen minus rejected score',
  'dpo/reward_chosen': 'against the reference',
  'dpo/reward_rejected': 'against the reference',
};

const FIRST = ['reward/mean', 'dpo/loss', 'rm/loss', 'eval/accuracy', 'dpo/accuracy', 'rm/accuracy', 'dpo/margin', 'rm/margin', 'objective/kl', 'sft/loss',
  'policy/entropy', 'response_length/mean', 'policy/approx_kl', 'policy/clip_fraction', 'optim/grad_norm',
  'perf/tokens_per_s', 'value/explained_variance', 'offpolicy/staleness_mean', 'time/step'];

export const noteOf = key => NOTES[key] ||
  (/^reward\/.+\/mean$/.test(key) ? 'this part, before its weight' :
   /latency/.test(key) ? 'seconds a call' : /^time\//.test(key) ? 'seconds' : '');

export class Curves {
  constructor(host, state, change) {
    this.state = state;
    this.change = change;
    this.open = false;
    const axis = (value, text) => html('button', {type: 'button', 'data-x': value,
      onclick: () => change({x: value})}, text);
    this.axes = html('div', {class: 'segments', role: 'group', 'aria-label': 'Horizontal axis'},
      axis('step', 'Steps'), axis('tokens', 'Tokens'), axis('time', 'Time'));
    this.slider = html('input', {type: 'range', min: 0, max: 98, value: Math.round(100 * state.smooth),
      'aria-label': 'Smoothing', oninput: () => change({smooth: Number(this.slider.value) / 100})});
    this.chooser = html('button', {type: 'button', 'aria-expanded': 'false', 'aria-controls': 'metrics',
      onclick: () => this.openChooser(!this.open)}, 'Choose metrics');
    this.filter = html('input', {type: 'search', placeholder: 'Find a metric', 'aria-label': 'Find a metric',
      oninput: () => this.list()});
    this.metrics = html('div', {class: 'metrics'});
    this.panel = html('div', {id: 'metrics', class: 'panel', hidden: true},
      html('div', {class: 'bar'}, this.filter,
        html('button', {type: 'button', class: 'quiet', onclick: () => change({keys: null})}, 'The usual ones'),
        html('button', {type: 'button', class: 'quiet', onclick: () => change({keys: []})}, 'None')),
      this.metrics);
    this.grid = html('div');
    this.smooth = state.smooth;
    host.replaceChildren(
      html('div', {class: 'bar tools'}, this.axes, html('label', {class: 'smooth'}, 'Smoothing', this.slider), this.chooser),
      this.panel, this.grid);
    this.board = PlumbCharts.board(this.grid, {smoothing: {weight: state.smooth}});
    this.update();
  }

  remove() { this.board.remove(); }

  openChooser(open) {
    this.open = open;
    this.panel.hidden = !open;
    this.chooser.setAttribute('aria-expanded', String(open));
    if (open) { this.list(); this.filter.focus(); }
  }

  // All metrics of the chosen runs.
  names() {
    const names = new Set();
    for (const run of this.state.chosen()) {
      const facts = factsOf(run.name);
      if (facts) Object.keys(facts.values).forEach(n => names.add(n));
    }
    return [...names].sort();
  }

  keys(names) {
    if (this.state.keys) return this.state.keys;
    const there = new Set(names);
    return FIRST.filter(k => there.has(k)).slice(0, 12);
  }

  list() {
    const names = this.names(), on = new Set(this.keys(names)), wanted = this.filter.value.trim().toLowerCase();
    const rooms = new Map();
    for (const name of names) {
      if (wanted && !name.toLowerCase().includes(wanted)) continue;
      const room = name.split('/')[0];
      if (!rooms.has(room)) rooms.set(room, []);
      rooms.get(room).push(name);
    }
    this.metrics.replaceChildren(...[...rooms].map(([room, some]) => html('fieldset', {}, html('legend', {}, room),
      ...some.map(name => html('label', {title: noteOf(name)},
        html('input', {type: 'checkbox', checked: on.has(name), onchange: e => {
          const keys = this.keys(this.names()).filter(k => k !== name);
          if (e.target.checked) keys.push(name);
          this.change({keys});
        }}), name.slice(room.length + 1) || name)))));
    if (!rooms.size) this.metrics.append(html('p', {class: 'soft'}, 'No metric has this in its name.'));
  }

  update() {
    const {x, smooth} = this.state, chosen = this.state.chosen();
    for (const button of this.axes.children) button.setAttribute('aria-pressed', String(button.dataset.x === x));
    const names = this.names(), keys = this.keys(names);
    const had = new Map(chosen.map(run => {
      const facts = factsOf(run.name);
      const its = facts ? keys.filter(k => k in facts.values) : [];
      return [run.name, its.length ? curvesOf(run.name, its, x) : new Map()];
    }));
    if (smooth !== this.smooth) this.board.smoothing({weight: this.smooth = smooth});
    const waiting = chosen.some(r => loading(r.name, x));
    this.board.set(keys.map(key => {
      const those = chosen.filter(run => (had.get(run.name).get(key) || {x: []}).x.length)
        .map(run => ({run, curve: had.get(run.name).get(key)}));
      return {title: key, note: noteOf(key), axis: x, percent: isShare(key), waiting,
        version: JSON.stringify([x, waiting && !those.length, ...those.map(({run, curve}) => [run.name, run.slot, curve.version])]),
        // Copies: events make the curves longer between two drawings.
        series: those.map(({run, curve}) => ({name: run.name, colour: run.slot, x: curve.x.slice(), y: curve.mean.slice(),
          low: curve.min && curve.min.slice(), high: curve.max && curve.max.slice()}))};
    }));
    if (this.open && !this.panel.contains(document.activeElement)) this.list();
  }
}
