// The report's own behaviour: its curves, the smoothing, the filter of samples. Reads the element
// "data": {"charts": [specs of run/report/charts.js]}.
'use strict';
(() => {
  const board = PlumbCharts.board(document.getElementById('charts'), {smoothing: {share: 0.05}});
  board.set(JSON.parse(document.getElementById('data').textContent).charts);

  const slider = document.getElementById('smooth');
  if (slider) {
    const shown = document.getElementById('smooth-value');
    slider.addEventListener('input', () => {
      shown.textContent = slider.value === '0' ? 'off' : slider.value + '\u00a0%';
      board.smoothing({share: Number(slider.value) / 100});
    });
  }

  const filter = document.getElementById('filter');
  if (filter) filter.addEventListener('input', () => {
    const wanted = filter.value.toLowerCase();
    let shown = 0;
    for (const sample of document.querySelectorAll('.sample')) {
      sample.hidden = !sample.textContent.toLowerCase().includes(wanted);
      shown += !sample.hidden;
    }
    document.getElementById('shown').textContent = shown + ' shown';
  });
})();
