// What the page knows of the runs: the list, newest values and curves, kept up to date by the
// server's events. Curves are fetched once, reduced, and grow by what the events bring.

const listeners = new Set();
export const runs = new Map();    // name -> line of the list
const facts = new Map();          // name -> reply of /api/runs/NAME, or a promise of it
const curves = new Map();         // name|axis -> Map(key -> {x, mean, min, max})
const recent = new Map();         // name -> the newest rows that events brought
const asked = new Map();          // name|axis -> keys that are on their way
const queue = new Map();          // name|axis -> keys to ask for with the next request
const wanted = new Map();         // name -> when to fetch its curves afresh
export const link = {state: 'connecting', now: () => Date.now() / 1000 + skew};
let skew = 0;                     // the server's clock minus ours, seconds
let source = null, followed = [];

const POINTS = 600, GROWN = 300, RECENT = 200;
let versions = 0;                 // of curves: another one, another number

export const listen = f => { listeners.add(f); return () => listeners.delete(f); };
const tell = (what, name) => listeners.forEach(f => f(what, name));

const path = (name, rest = '') => '/api/runs/' + encodeURIComponent(name) + rest;

export async function get(address) {
  const reply = await fetch(address, {headers: {Accept: 'application/json'}});
  const body = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error(body.error || `the board answered ${reply.status}`);
  return body;
}

export const samples = (name, query = '') => get(path(name, '/samples') + query);
export const recipe = name => get(path(name, '/recipe'));

// The newest values of a run. Known ones at once, others when they have come.
export function factsOf(name) {
  const known = facts.get(name);
  if (known) return known instanceof Promise ? null : known;
  facts.set(name, get(path(name)).then(reply => {
    skew = reply.now_s - Date.now() / 1000;
    facts.set(name, reply);
    tell('facts', name);
  }, () => { facts.delete(name); }));
  return null;
}

// The same again; what is known stays until the news have come.
function renew(name) {
  get(path(name)).then(reply => {
    skew = reply.now_s - Date.now() / 1000;
    facts.set(name, reply);
    tell('facts', name);
  }, () => {});
}

const tailOf = (row, axis) => axis === 'tokens' ? row.tokens : axis === 'time' ? row.seconds : row.step;

function grow(curve, row, key, axis) {
  if (!(key in row.values)) return false;
  const value = row.values[key];
  curve.version = ++versions;
  curve.x.push(tailOf(row, axis));
  curve.mean.push(value);
  if (curve.min) { curve.min.push(value); curve.max.push(value); }
  return true;
}

// Curves of a run; what is not here yet is fetched, and told when it has come.
export function curvesOf(name, keys, axis) {
  const id = name + '|' + axis;
  let have = curves.get(id);
  if (!have) curves.set(id, have = new Map());
  const coming = asked.get(id), missing = keys.filter(k => !have.has(k) && !(coming && coming.has(k)));
  if (missing.length) {
    // All that this turn of the page wants goes in one request.
    if (!queue.has(id)) {
      queue.set(id, new Set());
      queueMicrotask(() => {
        const all = [...queue.get(id)];
        queue.delete(id);
        fetchCurves(name, all, axis);
      });
    }
    missing.forEach(k => queue.get(id).add(k));
  }
  return have;
}

// Whether curves are still to come.
export const loading = (name, axis) => asked.has(name + '|' + axis) || queue.has(name + '|' + axis);

async function fetchCurves(name, keys, axis) {
  const id = name + '|' + axis;
  if (!asked.has(id)) asked.set(id, new Set());
  const coming = asked.get(id);
  keys.forEach(k => coming.add(k));
  try {
    for (let at = 0; at < keys.length; at += 32) {
      const some = keys.slice(at, at + 32);
      const query = some.map(k => 'keys=' + encodeURIComponent(k)).join('&');
      const reply = await get(path(name, `/series?points=${POINTS}&x=${axis}&${query}`));
      let have = curves.get(id);
      if (!have) curves.set(id, have = new Map());
      for (const key of some) {
        const curve = reply.series[key] || {x: [], mean: []};
        curve.fetched = curve.x.length;
        curve.version = ++versions;
        for (const row of recent.get(name) || [])
          if (row.step > reply.last_step) grow(curve, row, key, axis);
        have.set(key, curve);
      }
    }
  } catch (error) {
    console.warn(`curves of ${name}: ${error.message}`);
  } finally {
    keys.forEach(k => coming.delete(k));
    if (!coming.size) asked.delete(id);
    tell('curves', name);
  }
}

function refetch(name, wait) {
  if (wanted.has(name)) return;
  wanted.set(name, setTimeout(() => {
    wanted.delete(name);
    for (const [id, have] of curves) {
      const bar = id.lastIndexOf('|');
      if (id.slice(0, bar) === name && have.size) fetchCurves(name, [...have.keys()], id.slice(bar + 1));
    }
  }, wait));
}

// Seconds a step takes of late, as the server reckons it; 0 as long as few steps have come.
function paceOf(rows) {
  if (rows.length <= 10) return 0;
  const took = rows.slice(1).map((row, i) => Math.max(0, row.wall_s - rows[i].wall_s)), largest = Math.max(...took);
  const sum = took.reduce((a, b) => a + b, 0), steps = rows[rows.length - 1].step - rows[0].step;
  return largest > sum / 2 ? (sum - largest) / Math.max(1, steps - 1) : sum / Math.max(1, steps);
}

function onRows(event) {
  const news = JSON.parse(event.data), name = news.run;
  const before = recent.get(name) || [];
  recent.set(name, before.concat(news.rows).slice(-RECENT));
  for (const [id, have] of curves) {
    const bar = id.lastIndexOf('|');
    if (id.slice(0, bar) !== name) continue;
    const axis = id.slice(bar + 1);
    for (const [key, curve] of have) {
      for (const row of news.rows) {
        if (curve.x.length && tailOf(row, axis) <= curve.x[curve.x.length - 1]) continue;
        grow(curve, row, key, axis);
      }
      if (curve.x.length - curve.fetched > GROWN) refetch(name, 200);
    }
  }
  const known = facts.get(name);
  if (known && known.values && news.rows.length && news.rows[0].step > known.step + known.every) {
    renew(name);  // a step is missing: the server says which
  } else if (known && known.values) {
    for (const row of news.rows) {
      known.step = row.step;
      known.tokens = row.tokens;
      known.pace_s = paceOf(recent.get(name)) || known.pace_s;
      known.seconds = row.seconds;
      for (const key in row.values)
        if (row.values[key] !== null) known.values[key] = {value: row.values[key], step: row.step};
    }
  }
  tell('rows', name);
}

function onReload(event) {
  const name = JSON.parse(event.data).run;
  recent.delete(name);
  renew(name);
  refetch(name, 50);
  tell('reload', name);
}

// The board has as many readers of events as it takes: the page asks by itself, and tries for a
// place among them now and then.
const POLL_MS = 3000, POLLS = 10;
let polls = 0, timer = 0;

function endPolling() {
  clearInterval(timer);
  timer = 0;
}

async function poll() {
  if (++polls % POLLS === 0) { open(); return; }
  try {
    const reply = await get('/api/runs'), there = new Set(reply.runs.map(line => line.name));
    if (!timer) return;  // events have come meanwhile
    skew = reply.now_s - Date.now() / 1000;
    for (const name of runs.keys()) if (!there.has(name)) { runs.delete(name); facts.delete(name); tell('run', name); }
    for (const line of reply.runs) {
      const before = runs.get(line.name);
      runs.set(line.name, line);
      const moved = !before || before.step !== line.step || before.wall_s !== line.wall_s || before.state !== line.state;
      if (moved && followed.includes(line.name)) {
        recent.delete(line.name);
        renew(line.name);
        refetch(line.name, 0);
      }
      if (moved) tell('run', line.name);
      if (moved && followed.includes(line.name)) tell('samples', line.name);
    }
    link.state = 'polling';
  } catch (error) {
    link.state = 'away';
  }
  tell('link');
}

function open() {
  if (source) source.close();
  const query = followed.map(name => 'run=' + encodeURIComponent(name)).join('&');
  source = new EventSource('/api/events' + (query ? '?' + query : ''));
  let first = true;
  source.onopen = () => {
    endPolling();
    link.state = 'live';
    // What came while nobody listened.
    if (!first) followed.forEach(name => refetch(name, 50));
    first = false;
    tell('link');
  };
  source.onerror = () => {
    // A connection that broke is tried again by the browser; one that was refused is not.
    if (source && source.readyState === EventSource.CLOSED) {
      if (!timer) timer = setInterval(poll, POLL_MS);
      poll();
      return;
    }
    link.state = 'away';
    tell('link');
  };
  source.addEventListener('run', e => {
    const line = JSON.parse(e.data), before = runs.get(line.name);
    runs.set(line.name, line);
    if (before && before.state !== line.state) { renew(line.name); tell('state', line.name); }
    tell('run', line.name);
  });
  source.addEventListener('gone', e => {
    const {name} = JSON.parse(e.data);
    runs.delete(name);
    facts.delete(name);
    tell('run', name);
  });
  source.addEventListener('rows', onRows);
  source.addEventListener('reload', onReload);
  source.addEventListener('samples', e => tell('samples', JSON.parse(e.data).run));
}

// From now on events tell the new steps of these runs.
export function follow(names) {
  const next = names.slice(0, 16);
  if (source && next.join('\n') === followed.join('\n')) return;
  // What was asked for while the page opened is as new as the events.
  const fresh = source ? next.filter(name => !followed.includes(name)) : [];
  followed = next;
  open();
  // Curves from a time when they were not followed have a hole.
  fresh.forEach(name => {
    facts.delete(name);
    for (const id of [...curves.keys()]) if (id.slice(0, id.lastIndexOf('|')) === name) curves.delete(id);
  });
}

// A hidden page keeps no connection: a browser has six for a place.
document.addEventListener('visibilitychange', () => {
  if (document.hidden) {
    if (source) source.close();
    source = null;
    endPolling();
  } else if (!source) {
    open();
    followed.forEach(name => { facts.delete(name); refetch(name, 50); });
  }
});

export async function begin() {
  const reply = await get('/api/runs');
  skew = reply.now_s - Date.now() / 1000;
  for (const line of reply.runs) runs.set(line.name, line);
  return reply;
}
