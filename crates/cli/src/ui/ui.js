'use strict';
// Keeps a page up to date: the server sends what `main` should hold, and the parts that differ are exchanged, so that
// what is open, ticked or focused stays so.
(() => {
  const main = document.getElementById('main');
  const said = document.getElementById('live');
  const say = (text, lost = false) => {
    said.textContent = text;
    said.classList.toggle('lost', lost);
  };

  const PARTS = '[data-part], .head, nav, section > *';
  const sources = new WeakMap();
  const partsOf = (root) => [...root.querySelectorAll(PARTS)].filter((part) => !part.parentElement?.closest('[data-part]'));
  const remember = (root) => partsOf(root).forEach((part) => { if (!sources.has(part)) sources.set(part, part.outerHTML); });
  const nameOf = (part) => part.dataset.part ?? part.tagName;

  // What a person has done to an element, carried over to the one that replaces it.
  const carry = (from, to) => {
    const pair = (selector, act) => {
      const after = [...to.querySelectorAll(selector)];
      [...from.querySelectorAll(selector)].forEach((element, i) => { if (after[i]) act(element, after[i]); });
    };
    pair('details', (a, b) => { b.open = a.open; });
    pair('.scroll', (a, b) => { b.dataset.left = a.scrollLeft; b.dataset.top = a.scrollTop; });
    const ticked = new Set([...from.querySelectorAll('input:checked')].map((input) => input.value));
    to.querySelectorAll('input[type=checkbox]').forEach((input) => { input.checked = ticked.has(input.value); });
    const focus = 'a, input, button, summary, [tabindex]';
    const at = [...from.querySelectorAll(focus)].indexOf(document.activeElement);
    return () => {
      to.querySelectorAll('.scroll').forEach((box) => box.scrollTo(box.dataset.left ?? 0, box.dataset.top ?? 0));
      if (at >= 0) to.querySelectorAll(focus)[at]?.focus({ preventScroll: true });
    };
  };
  const exchange = (old, fresh) => {
    const after = carry(old, fresh);
    old.replaceWith(fresh);
    document.dispatchEvent(new CustomEvent('sibo:part', { detail: fresh }));
    after();
  };

  const show = (html) => {
    const template = document.createElement('template');
    template.innerHTML = html;
    const now = partsOf(template.content);
    now.forEach((part) => sources.set(part, part.outerHTML));
    const old = partsOf(main);
    const alike = old.length === now.length && old.every((part, i) => nameOf(part) === nameOf(now[i]));
    if (alike) {
      old.forEach((part, i) => { if (sources.get(part) !== sources.get(now[i])) exchange(part, now[i]); });
      return;
    }
    const holder = document.createElement('div');
    holder.append(template.content);
    const after = carry(main, holder);
    main.replaceChildren(...holder.childNodes);
    document.dispatchEvent(new CustomEvent('sibo:part', { detail: main }));
    after();
  };

  if (main.dataset.events) {
    remember(main);
    const source = new EventSource(main.dataset.events);
    source.addEventListener('inner', (event) => show(event.data));
    source.addEventListener('said', (event) => say(event.data));
    source.addEventListener('open', () => say('live'));
    source.addEventListener('error', () => say('Not up to date: sibo ui does not answer.', true));
  }
})();
