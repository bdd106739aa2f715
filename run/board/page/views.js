// The head of a run, the ring, what was dropped, and the recipe.

import {colour, duration, fill, format, html, spark} from '/parts.js';
import {curvesOf, factsOf, link, recipe} from '/store.js';

const value = (facts, key) => {
  const v = facts && facts.values[key];
  return v ? v.value : undefined;
};

export const shortModel = line => [line.algorithm, line.model].filter(Boolean).join(' · ');

// How long ago, in its largest unit.
export const ago = (line, now) => {
  if (!line.wall_s) return '';
  const s = Math.max(0, now - line.wall_s);
  return s < 5 ? 'now' : s < 60 ? `${5 * Math.floor(s / 5)} s` : s < 3600 ? `${Math.floor(s / 60)} min`
    : s < 48 * 3600 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
};

// What metrics.jsonl does not have.
function lost(facts) {
  const {steps, text} = facts.missing, lines = facts.unreadable_lines;
  return [lines > 0 && `${lines} ${lines === 1 ? 'line' : 'lines'} of metrics.jsonl ${lines === 1 ? 'is' : 'are'} not readable and left out.`,
    steps > 0 && `${steps} ${steps === 1 ? 'step is' : 'steps are'} missing: ${text}. Curves pass over them.`].filter(Boolean).join(' ');
}

// ---- head ----

const TILES = [
  ['reward/mean', 'reward'], ['dpo/loss', 'loss'], ['sft/loss', 'loss'], ['eval/accuracy', 'held-out'],
  ['dpo/accuracy', 'pairs right'], ['rm/loss', 'loss'], ['rm/accuracy', 'pairs right'], ['rm/margin', 'margin'], ['objective/kl', 'KL'], ['dpo/margin', 'margin'],
  ['policy/entropy', 'entropy'], ['perf/tokens_per_s', 'tokens/s']];

export class Head {
  constructor(host) { this.host = host; }

  update(line, slot) {
    if (!line) {
      this.host.replaceChildren(html('h2', {}, 'No run yet'),
        html('p', {class: 'soft'}, 'A run appears here as soon as plumb train has written its folder.'));
      return;
    }
    const facts = factsOf(line.name), done = line.step + 1, total = Math.max(line.steps, done);
    const per = facts ? facts.pace_s : null;
    const left = line.state === 'running' && per ? (total - done) * per : null;
    const share = total ? done / total : 0;
    const bar = html('i');
    bar.style.width = `${100 * share}%`;
    bar.style.background = colour(slot);
    const late = line.state === 'running' && line.wall_s && per && link.now() - line.wall_s > Math.max(60, 10 * per);
    const tiles = TILES.filter(([key]) => value(facts, key) !== undefined).slice(0, 5).map(([key, name]) => {
      const curve = curvesOf(line.name, [key], 'step').get(key);
      return html('div', {class: 'tile'}, html('span', {}, name), html('b', {class: 'num'}, format(value(facts, key), key)),
        spark(curve, slot));
    });
    const swatch = html('i', {class: 'swatch'});
    swatch.style.background = colour(slot);
    fill(this.host,
      html('div', {class: 'title'}, html('h2', {}, swatch, line.name), html('span', {class: 'state ' + line.state}, line.state),
        html('span', {class: 'soft'}, shortModel(line))),
      line.state === 'failed' && html('p', {class: 'alert'}, line.reason || 'Its process left without a summary: it was killed, or the machine went down. plumb train … --resume goes on from its newest checkpoint.'),
      facts && (facts.missing.steps > 0 || facts.unreadable_lines > 0) && html('p', {class: 'alert'}, lost(facts)),
      late && html('p', {class: 'alert'}, `No step for ${duration(link.now() - line.wall_s)}.`),
      html('div', {class: 'tiles'},
        html('div', {class: 'tile wide'},
          html('span', {}, 'step'),
          html('b', {class: 'num'}, done.toLocaleString('en').replace(/,/g, '\u2009'), html('small', {}, total ? ` of ${total.toLocaleString('en').replace(/,/g, '\u2009')}` : '')),
          html('div', {class: 'progress', role: 'progressbar', 'aria-valuemin': 0, 'aria-valuemax': total, 'aria-valuenow': done, 'aria-label': 'steps done'}, bar),
          html('small', {class: 'soft'}, left !== null ? `${duration(left)} left · ${duration(per)} a step`.replace(/(\d+) s a step/, () => per < 10 ? `${per.toFixed(1)} s a step` : `${Math.round(per)} s a step`)
            : facts ? `${duration(facts.seconds)} of training · ${format(facts.tokens)} tokens` : '')),
        ...tiles));
  }
}

// ---- ring ----

const NODES = {
  replay: ['Replay', 'leases prompts', [['replay/leased', 'leased'], ['replay/held', 'out now'], ['replay/expired', 'ran out'],
    ['replay/requeued', 'once more'], ['replay/released', 'given back']]],
  actor: ['Actor', 'writes answers', [['actor/groups_delivered', 'groups'], ['perf/decode_tokens_per_s', 'tokens/s'],
    ['response_length/mean', 'tokens each'], ['response_length/clipped', 'cut'], ['actor/refused_prompts', 'refused']]],
  reward: ['Reward', 'scores them', [['reward/groups', 'groups'], ['reward/mean', 'mean'], ['reward/unscored', 'unscored'],
    ['reward/retries', 'retries']]],
  store: ['Store', 'keeps them', [['replay/inserts', 'groups'], ['replay/bytes', 'bytes'], ['replay/queue', 'waiting'],
    ['replay/duplicates', 'came twice'], ['replay/trimmed', 'trimmed']]],
  learner: ['Learner', 'trains', [['policy/groups_used', 'groups used'], ['policy/updates', 'updates'],
    ['offpolicy/staleness_mean', 'staleness'], ['offpolicy/staleness_max', 'at most'], ['optim/skipped', 'skipped']]],
};
const EDGES = [['replay/held', 'leases out'], [null, 'finished groups'], [null, 'scored groups'], ['replay/queue', 'waiting']];
const TIMES = [['time/wait', 'waits for the batch'], ['time/train', 'trains'], ['time/publish', 'publishes'],
  ['time/checkpoint_wait', 'saves']];

export class Ring {
  constructor(host, state) { this.host = host; this.state = state; this.update(); }
  remove() {}

  update() {
    const run = this.state.chosen()[0];
    if (!run) return;
    const facts = factsOf(run.name), line = this.state.line(run.name);
    if (!facts || !line) return;
    if (value(facts, 'replay/leased') === undefined && ['dpo/loss', 'rm/loss', 'sft/loss'].some(key => value(facts, key) !== undefined)) {
      this.host.replaceChildren(html('p', {class: 'soft empty'}, 'Training on files has no ring: the learner reads its rows itself.'), this.times(facts));
      return;
    }
    const node = name => {
      const [title, does, rows] = NODES[name];
      const shown = rows.filter(([key]) => value(facts, key) !== undefined);
      return html('section', {class: 'node', 'data-node': name}, html('h3', {}, title), html('p', {class: 'soft'}, does),
        html('dl', {}, ...shown.flatMap(([key, label]) => [html('dt', {title: key}, label), html('dd', {class: 'num'}, format(value(facts, key), key))])));
    };
    const edge = (at) => {
      const [key, label] = EDGES[at], v = key ? value(facts, key) : undefined;
      return html('div', {class: 'edge'}, html('span', {}, v === undefined ? '' : html('b', {class: 'num'}, format(v, key)), ' ', label), html('i'));
    };
    const names = Object.keys(NODES);
    const ring = html('div', {class: 'ring' + (line.state === 'running' ? ' going' : '')});
    names.forEach((name, i) => { ring.append(node(name)); if (i < 4) ring.append(edge(i)); });
    ring.append(
      html('div', {class: 'return weights'}, html('span', {}, `weights of version ${line.step + 1}`,
        value(facts, 'time/publish') === undefined ? '' : ` · ${format(value(facts, 'time/publish'))} s`)),
      html('div', {class: 'return batch'}, html('span', {}, `batch of step ${line.step + 1}`)));
    this.host.replaceChildren(ring, this.times(facts));
  }

  times(facts) {
    const step = value(facts, 'time/step');
    if (!step) return html('p');
    const its = TIMES.map(([key, label]) => [label, value(facts, key) || 0]);
    const rest = Math.max(0, step - its.reduce((a, [, s]) => a + s, 0));
    its.push(['the rest', rest]);
    const sum = its.reduce((a, [, s]) => a + s, 0);
    const bar = html('div', {class: 'stack', role: 'img', 'aria-label': its.map(([l, s]) => `${l} ${format(s)} s`).join(', ')},
      ...its.map(([, s], i) => {
        const piece = html('i');
        piece.style.width = `${100 * s / sum}%`;
        piece.style.background = i === its.length - 1 ? 'var(--line)' : colour(i);
        return piece;
      }));
    const legend = html('div', {class: 'shares'}, ...its.map(([label, s], i) => {
      const item = html('span', {}, html('i'), label, html('b', {class: 'num'}, `${format(s)} s`));
      item.firstChild.style.background = i === its.length - 1 ? 'var(--line)' : colour(i);
      return item;
    }));
    const beside = [['time/generate', 'the engines generated'], ['time/reward', 'the scorers scored']].filter(([k]) => value(facts, k) !== undefined)
      .map(([k, label]) => `${label} for ${format(value(facts, k))} s`).join(', ');
    return html('section', {class: 'box'}, html('h3', {}, `A step of ${format(step)} s at the learner`), bar, legend,
      beside && html('p', {class: 'soft'}, 'Meanwhile ' + beside + '.'));
  }
}

// ---- drops ----

const MEANINGS = [
  [/^dropped\/unscored$/, 'groups dropped: a reward part failed'],
  [/^dropped\/aborted$/, 'groups dropped: no answer was generated'],
  [/^dropped\/trajectories$/, 'answers in the dropped groups'],
  [/^dropped\//, 'groups dropped'],
  [/^refused\/stale$/, 'groups refused: answered by too old a policy'],
  [/^refused\/other_weights$/, 'groups refused: sampled by other weights than the version has'],
  [/^refused\//, 'groups that did not belong to the run'],
  [/^reopened\/unscored$/, 'answers forgotten and asked for again: no score'],
  [/^reopened\/stale$/, 'groups that grew too old before a step took them'],
  [/^reopened\//, 'answers forgotten and asked for again'],
  [/^reward\/failed\//, 'attempts of this reward part that failed'],
  [/^reward\/aborted$/, 'answers that were never generated'],
  [/^reward\/retries$/, 'rewards tried again'],
  [/^reward\/non_finite$/, 'scores that were not finite'],
  [/^replay\/unscored_trajectories$/, 'answers that arrived without a score'],
  [/^replay\/aborted_trajectories$/, 'of these, never generated'],
  [/^replay\/duplicates$/, 'second answers to a lease: acknowledged, not stored'],
  [/^replay\/expired$/, 'leases past their deadline'],
  [/^replay\/requeued$/, 'leases handed out again after a failed reward'],
  [/^replay\/corrupt_reads$/, 'records whose checksum was wrong'],
  [/^replay\/no_space$/, 'writes that a full disk refused'],
  [/^actor\/refused_prompts$/, 'prompts the actor refused'],
  [/^actor\/untokenizable$/, 'prompts without tokens'],
  [/^actor\/stale_leases$/, 'leases that were stale when they came'],
  [/^optim\/(critic_)?skipped$/, 'updates skipped: something was not finite'],
  [/^metrics\/non_finite$/, 'metrics that were not finite'],
];

export class Drops {
  constructor(host, state) {
    this.host = host;
    this.state = state;
    this.zeros = false;
    this.update();
  }
  remove() {}

  update() {
    const run = this.state.chosen()[0];
    const facts = run && factsOf(run.name);
    if (!facts) return;
    const rows = Object.keys(facts.values).map(key => [key, MEANINGS.find(([pattern]) => pattern.test(key))])
      .filter(([, found]) => found).map(([key, found]) => [key, found[1], value(facts, key) ?? 0]);
    // A resumed or killed run's metrics may lack what its summary says.
    const dropped = facts.summary && facts.summary.dropped || {};
    for (const name in dropped) {
      if (!rows.some(([key]) => key === 'dropped/' + name)) rows.push(['dropped/' + name, 'groups dropped', dropped[name]]);
    }
    const shown = rows.filter(([, , n]) => this.zeros || n).sort((a, b) => b[2] - a[2]);
    const curves = shown.length ? curvesOf(run.name, shown.map(([key]) => key), 'step') : new Map();
    const zero = rows.length - rows.filter(([, , n]) => n).length;
    this.host.replaceChildren(
      html('div', {class: 'bar tools'}, html('label', {class: 'check'}, html('input', {type: 'checkbox', checked: this.zeros,
        onchange: e => { this.zeros = e.target.checked; this.update(); }}), `counters that are 0 (${zero})`)),
      shown.length ? html('div', {class: 'box scroll'}, html('table', {class: 'drops'},
        html('thead', {}, html('tr', {}, ...['Counter', 'Total', 'Last 100 steps', 'Since the start', 'Means'].map(t => html('th', {scope: 'col'}, t)))),
        html('tbody', {}, ...shown.map(([key, means, n]) => {
          const curve = curves.get(key);
          return html('tr', {}, html('th', {scope: 'row'}, html('code', {}, key)), html('td', {class: 'num'}, format(n)),
            html('td', {class: 'num'}, this.late(curve, n)), html('td', {}, spark(curve, run.slot, 120, 24)), html('td', {class: 'soft'}, means));
        }))))
        : html('p', {class: 'soft empty'}, 'Nothing was dropped, refused or asked for again.'));
  }

  late(curve, total) {
    if (!curve || !curve.x.length) return '';
    const end = curve.x[curve.x.length - 1];
    let at = curve.x.length - 1;
    while (at >= 0 && curve.x[at] > end - 100) --at;
    const before = at < 0 ? 0 : curve.mean[at];
    const more = total - (before ?? 0);
    return more > 0 ? '+' + format(Math.round(more)) : '0';
  }
}

// ---- recipe ----

export class Recipe {
  constructor(host, state) {
    this.host = host;
    this.state = state;
    this.known = new Map();
    this.only = state.chosen().length > 1;
    this.filter = html('input', {type: 'search', placeholder: 'Find an option', 'aria-label': 'Find an option', oninput: () => this.draw()});
    this.check = html('input', {type: 'checkbox', checked: this.only, onchange: () => { this.only = this.check.checked; this.draw(); }});
    this.body = html('div');
    host.replaceChildren(html('div', {class: 'bar tools'}, this.filter, html('label', {class: 'check'}, this.check, 'only what differs')), this.body);
    this.update();
  }
  remove() {}

  update() {
    const names = this.state.chosen().map(r => r.name), id = names.join('\n');
    if (id === this.id) return;
    if (this.id !== undefined && names.length > 1 && this.id.split('\n').length < 2) this.check.checked = this.only = true;
    this.id = id;
    for (const name of names) {
      recipe(name).then(reply => { this.known.set(name, reply); this.draw(); }, () => {});
    }
    this.draw();
  }

  draw() {
    const chosen = this.state.chosen().filter(r => this.known.has(r.name)).slice(0, 4);
    this.check.disabled = chosen.length < 2;
    const wanted = this.filter.value.trim().toLowerCase(), keys = [];
    for (const run of chosen) for (const [key] of this.known.get(run.name).options) if (!keys.includes(key)) keys.push(key);
    const of = new Map(chosen.map(r => [r.name, new Map(this.known.get(r.name).options)]));
    const rows = [];
    let section = '';
    for (const key of keys) {
      const values = chosen.map(r => of.get(r.name).get(key));
      const differs = values.some(v => v !== values[0]);
      if (this.only && chosen.length > 1 && !differs) continue;
      if (wanted && !(key + ' ' + values.join(' ')).toLowerCase().includes(wanted)) continue;
      const room = key.slice(0, key.lastIndexOf('.'));
      if (room !== section) {
        section = room;
        rows.push(html('tr', {class: 'room'}, html('th', {colspan: chosen.length + 1, scope: 'rowgroup'}, room)));
      }
      rows.push(html('tr', {class: differs ? 'differs' : ''}, html('th', {scope: 'row'}, key.slice(room.length + 1)),
        ...values.map(v => html('td', {class: 'mono'}, v === undefined ? '–' : v))));
    }
    const head = html('tr', {}, html('th', {scope: 'col'}, 'Option'), ...chosen.map(r => {
      const swatch = html('i', {class: 'swatch'});
      swatch.style.background = colour(r.slot);
      return html('th', {scope: 'col'}, swatch, r.name);
    }));
    const changes = chosen.flatMap(r => this.known.get(r.name).changes.map(c => html('tr', {}, html('td', {}, r.name),
      html('td', {class: 'num'}, String(c.step)), html('td', {class: 'mono'}, String(c.option)), html('td', {class: 'mono'}, `${c.before} → ${c.now}`))));
    fill(this.body,
      rows.length ? html('div', {class: 'box scroll'}, html('table', {class: 'recipe'}, html('thead', {}, head), html('tbody', {}, ...rows)))
        : html('p', {class: 'soft empty'}, chosen.length > 1 && this.only ? 'These runs have the same recipe.' : 'No option is shown.'),
      changes.length ? html('section', {class: 'box scroll'}, html('h3', {}, 'Changed by resumes'), html('table', {}, html('thead', {}, html('tr', {},
        ...['Run', 'From step', 'Option', 'Change'].map(t => html('th', {scope: 'col'}, t)))), html('tbody', {}, ...changes))) : '');
  }
}
