// Answers side by side: two runs, or two steps of one, by prompt or by step.

import {colour, format, html} from '/parts.js';
import {samples} from '/store.js';

const rewardClass = r => r === null || r === undefined ? 'none' : r >= 0.75 ? 'high' : r >= 0.35 ? 'middle' : 'low';

function part(name, value) {
  const bar = html('i');
  bar.style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
  return html('span', {class: 'part', title: `${name}: ${value}`}, html('span', {}, name), html('em', {}, bar),
    html('b', {class: 'num'}, format(value)));
}

function answer(a) {
  const text = a.completion === undefined ? '' : String(a.completion);
  const finish = a.finish || '';
  const parts = a.parts && typeof a.parts === 'object' ? Object.entries(a.parts) : [];
  return html('article', {class: 'answer'},
    html('header', {},
      html('b', {class: 'reward num ' + rewardClass(a.reward), title: 'reward'},
        a.reward === null || a.reward === undefined ? 'no score' : format(a.reward)),
      ...parts.filter(([, v]) => typeof v === 'number').map(([name, v]) => part(name, v)),
      finish && finish !== 'stop' && html('span', {class: 'tag'}, finish === 'length' ? 'cut at the limit' : finish),
      html('span', {class: 'soft right'}, a.sample === undefined ? '' : `answer ${a.sample + 1}`)),
    a.unscored_reason && html('p', {class: 'reason'}, a.unscored_reason),
    html('pre', {tabindex: '0'}, text));
}

class Pane {
  constructor(view, letter) {
    this.view = view;
    this.letter = letter;
    this.run = null;
    this.index = null;
    this.step = null;
    this.runs = html('select', {'aria-label': `Run ${letter}`, onchange: () => this.take(this.runs.value)});
    this.steps = html('select', {'aria-label': `Step ${letter}`, onchange: () => {
      this.step = Number(this.steps.value);
      this.newest = this.steps.selectedIndex === this.steps.options.length - 1;
      this.load();
    }});
    const by = d => () => {
      const at = this.steps.selectedIndex + d;
      if (at < 0 || at >= this.steps.options.length) return;
      this.steps.selectedIndex = at;
      this.steps.dispatchEvent(new Event('change'));
    };
    this.swatch = html('i', {class: 'swatch'});
    this.list = html('div', {class: 'groups'});
    this.box = html('section', {class: 'pane', 'aria-label': `Answers ${letter}`},
      html('div', {class: 'bar'}, this.swatch, this.runs,
        html('span', {class: 'steps'}, html('button', {type: 'button', class: 'quiet', 'aria-label': 'Step before', onclick: by(-1)}, '‹'),
          this.steps, html('button', {type: 'button', class: 'quiet', 'aria-label': 'Step after', onclick: by(1)}, '›'))),
      this.list);
  }

  async take(name, step = null) {
    this.run = name;
    this.step = step;
    const run = this.view.state.chosen().find(r => r.name === name);
    this.swatch.style.background = colour(run ? run.slot : 7);
    await this.refresh();
  }

  // What there is to choose from; keeps the step where it still is one.
  async refresh() {
    const name = this.run;
    try {
      const index = await samples(name);
      if (name !== this.run) return;
      this.index = index;
    } catch (error) {
      this.list.replaceChildren(html('p', {class: 'soft'}, error.message));
      return;
    }
    if (this.letter === 'A') this.view.listPrompts(this.index);
    this.fill();
    await this.load();
  }

  fill() {
    const prompt = this.view.prompt;
    const found = prompt && this.index.prompts.find(p => p.prompt_id === prompt);
    const steps = prompt ? (found ? found.steps : []) : this.index.steps;
    const shown = steps.slice(-2000);
    const options = shown.map(s => html('option', {value: s}, `step ${s}`));
    this.steps.replaceChildren(...options);
    if (!steps.length) { this.step = null; return; }
    if (this.step === null || !shown.includes(this.step))
      this.step = this.view.first && this.letter === 'A' && this.view.same() ? shown[0] : shown[shown.length - 1];
    this.steps.value = this.step;
  }

  async load() {
    const prompt = this.view.prompt, name = this.run, step = this.step;
    if (step === null || !this.steps.options.length) {
      this.list.replaceChildren(html('p', {class: 'soft empty'}, prompt ? 'This run has no answer to this prompt.'
        : 'No answers yet. metrics.samples_every says how often a run keeps some.'));
      return;
    }
    try {
      const reply = await samples(name, `?step=${step}` + (prompt ? `&prompt=${prompt}` : ''));
      if (name !== this.run || step !== this.step || prompt !== this.view.prompt) return;
      const text = JSON.stringify(reply.groups);
      if (text === this.text) return;
      this.text = text;
      this.list.replaceChildren(...reply.groups.map(group => {
        const scored = group.answers.map(a => a.reward).filter(r => typeof r === 'number');
        const mean = scored.length ? scored.reduce((a, b) => a + b, 0) / scored.length : null;
        return html('section', {class: 'group'},
          html('div', {class: 'prompt'},
            html('p', {class: 'soft'}, `step ${group.step} · ${group.answers.length} answers · mean reward ${format(mean)}`),
            html('pre', {tabindex: '0'}, group.prompt === null ? '' : String(group.prompt)),
            group.ground_truth !== null && html('p', {class: 'truth'}, html('span', {class: 'soft'}, 'right is '), html('code', {}, String(group.ground_truth)))),
          ...group.answers.slice().sort((a, b) => (b.reward ?? -1e9) - (a.reward ?? -1e9)).map(answer));
      }));
    } catch (error) {
      this.list.replaceChildren(html('p', {class: 'soft'}, error.message));
    }
  }
}

export class Samples {
  constructor(host, state) {
    this.state = state;
    this.prompt = '';
    this.first = true;
    this.prompts = html('select', {'aria-label': 'Prompt', onchange: () => {
      this.prompt = this.prompts.value;
      for (const pane of [this.a, this.b]) if (pane.index) { pane.fill(); pane.load(); }
    }});
    this.a = new Pane(this, 'A');
    this.b = new Pane(this, 'B');
    host.replaceChildren(
      html('div', {class: 'bar tools'}, html('label', {class: 'wide'}, 'Prompt', this.prompts)),
      html('div', {class: 'panes'}, this.a.box, this.b.box));
    this.update();
  }

  remove() {}

  same() { return this.a.run === this.b.run; }

  listPrompts(index) {
    const options = [html('option', {value: ''}, 'any: all answers of a step'),
      ...index.prompts.map(p => html('option', {value: p.prompt_id},
        `${p.begins.replace(/\s+/g, ' ').slice(0, 90)} (${p.steps.length} ${p.steps.length === 1 ? 'step' : 'steps'})`))];
    this.prompts.replaceChildren(...options);
    if (this.first) {
      const again = index.prompts.find(p => p.steps.length > 1);
      this.prompt = again ? again.prompt_id : '';
    } else if (this.prompt && !index.prompts.some(p => p.prompt_id === this.prompt)) {
      this.prompt = '';
    }
    this.prompts.value = this.prompt;
  }

  async update() {
    const chosen = this.state.chosen(), names = chosen.map(r => r.name);
    if (!names.length) return;
    for (const pane of [this.a, this.b])
      pane.runs.replaceChildren(...names.map(n => html('option', {value: n}, n)));
    const a = names.includes(this.a.run) ? this.a.run : names[0];
    const b = names.includes(this.b.run) && (this.b.run !== a || names.length < 2) ? this.b.run : names[1] || names[0];
    this.a.runs.value = a;
    this.b.runs.value = b;
    if (a === this.a.run && b === this.b.run) return;
    const changedA = a !== this.a.run;
    this.b.run = b;
    if (changedA) await this.a.take(a);
    await this.b.take(b);
    this.first = false;
  }

  // More answers are there: whoever looks at the newest step gets the new one.
  onSamples(name) {
    for (const pane of [this.a, this.b]) {
      if (pane.run !== name) continue;
      const newest = pane.steps.selectedIndex === pane.steps.options.length - 1;
      if (newest && !this.first) pane.step = null;
      pane.refresh();
    }
  }
}
