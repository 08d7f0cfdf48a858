// The playground: a form is sent, and the answer is read as it is written.
(() => {
  const form = document.getElementById('play');
  if (!form) return;
  const byId = (id) => document.getElementById(id);
  const [columns, answers, layers, state, ask, stop] =
    ['columns', 'answers', 'layers', 'state', 'ask', 'stop'].map(byId);
  const element = (name, className, text = '') => {
    const made = document.createElement(name);
    made.className = className;
    made.textContent = text;
    return made;
  };

  // Columns: each is an adapter with its own lambda, or with another by the slider.
  const tend = (item) => {
    const other = item.querySelector('.other');
    const slider = item.querySelector('input[type=range]');
    other?.addEventListener('change', () => { item.querySelector('.lambda').hidden = !other.checked; });
    slider?.addEventListener('input', () => { item.querySelector('output').textContent = slider.value; });
    item.querySelector('.remove').addEventListener('click', () => {
      const next = item.nextElementSibling ?? item.previousElementSibling;
      item.remove();
      (next?.querySelector('.remove') ?? byId('add')).focus();
    });
  };
  const models = new Map();
  for (const item of columns.children) {
    models.set(item.dataset.column, item.cloneNode(true));
    tend(item);
  }
  byId('add').addEventListener('click', () => {
    const item = models.get(byId('which').value).cloneNode(true);
    tend(item);
    columns.append(item);
    const other = item.querySelector('.other');
    if (other) {
      other.checked = true;
      item.querySelector('.lambda').hidden = false;
      item.querySelector('input[type=range]').focus();
    }
  });
  const chosen = (item) => {
    const other = item.querySelector('.other')?.checked;
    return other ? `${item.dataset.column}:${item.querySelector('input[type=range]').value}` : item.dataset.column;
  };

  // What comes back.
  let boxes = [];
  const box = (n) => boxes[n];
  const hear = {
    queue: ({ words }) => { state.textContent = words; },
    begin: ({ column, name }) => {
      state.textContent = `Column ${column + 1} of ${boxes.length} is being answered.`;
      box(column).name.textContent = name;
      box(column).foot.textContent = 'answering';
      box(column).all.setAttribute('aria-busy', 'true');
    },
    piece: ({ column, text }) => { box(column).out.append(text); },
    end: ({ column, words }) => { finish(column, words); },
    classes: ({ column, classes, value, words }) => {
      const list = element('dl', 'classes');
      for (const { name, probability } of classes ?? []) {
        const meter = document.createElement('meter');
        meter.value = probability;
        meter.setAttribute('aria-hidden', 'true');
        const number = element('dd', 'number', probability.toFixed(3));
        number.prepend(meter);
        list.append(element('dt', '', name), number);
      }
      if (classes) box(column).out.replaceChildren(list);
      else box(column).out.textContent = value.toFixed(4);
      finish(column, words);
    },
    failed: ({ column, sentence }) => {
      if (column === null) { state.textContent = sentence; return; }
      box(column).out.append(element('span', 'bad', sentence));
      finish(column, '');
    },
    similarity: ({ html }) => {
      layers.innerHTML = html;
      document.dispatchEvent(new CustomEvent('sibo:part', { detail: layers }));
    },
    done: () => { state.textContent = 'Done.'; },
  };
  const finish = (column, words) => {
    box(column).foot.textContent = words;
    box(column).all.removeAttribute('aria-busy');
  };
  const makeBoxes = () => {
    boxes = [...columns.children].map((item) => {
      const all = element('article', 'column');
      const name = element('h2', 'name', item.querySelector('.name').textContent);
      const out = element('div', 'out');
      out.dir = 'auto';
      const foot = element('p', 'remark', 'waiting for its turn');
      all.append(name, out, foot);
      return { all, name, out, foot };
    });
    answers.replaceChildren(...boxes.map(({ all }) => all));
    layers.replaceChildren();
  };

  // Events as a server sends them: lines up to an empty one.
  const read = async (body) => {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      const events = text.split('\n\n');
      text = events.pop();
      for (const event of events) {
        const name = /^event: (.*)$/m.exec(event)?.[1];
        const data = [...event.matchAll(/^data: ?(.*)$/gm)].map((line) => line[1]).join('\n');
        if (name) hear[name]?.(JSON.parse(data));
      }
    }
  };

  let asking = null;
  const busy = (is) => { ask.disabled = is; stop.disabled = !is; };
  stop.addEventListener('click', () => asking?.abort());
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (asking) return;
    const sent = new URLSearchParams(new FormData(form));
    for (const item of columns.children) sent.append('column', chosen(item));
    makeBoxes();
    asking = new AbortController();
    busy(true);
    try {
      const answer = await fetch('/playground/ask', { method: 'POST', body: sent, signal: asking.signal });
      if (!answer.ok) throw new Error(await answer.text());
      await read(answer.body);
    } catch (error) {
      state.textContent = error.name === 'AbortError' ? 'Stopped.' : `No answer: ${error.message}`;
      for (const { all, foot } of boxes) {
        if (all.hasAttribute('aria-busy') || foot.textContent === 'waiting for its turn') foot.textContent = 'stopped';
        all.removeAttribute('aria-busy');
      }
    } finally {
      asking = null;
      busy(false);
    }
  });
  form.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
})();
