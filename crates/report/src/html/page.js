'use strict';
(() => {
  const root = document.documentElement;

  // Colours: the system's choice until the button is used; kept where the browser allows it.
  const button = document.getElementById('theme');
  const kept = {
    get() { try { return localStorage.getItem('sibo-theme'); } catch { return null; } },
    set(value) { try { localStorage.setItem('sibo-theme', value); } catch { /* private window */ } },
  };
  const system = matchMedia('(prefers-color-scheme: dark)');
  const isDark = () => (root.dataset.theme ?? (system.matches ? 'dark' : 'light')) === 'dark';
  const label = () => { button.textContent = isDark() ? 'Light colours' : 'Dark colours'; };
  const before = kept.get();
  if (before === 'dark' || before === 'light') root.dataset.theme = before;
  label();
  button.hidden = false;
  system.addEventListener('change', label);
  button.addEventListener('click', () => {
    root.dataset.theme = isDark() ? 'light' : 'dark';
    kept.set(root.dataset.theme);
    label();
  });

  // Values under the pointer: the same words that browsers show by themselves without scripts.
  const words = new WeakMap();
  const takeWords = (part) => {
    for (const title of part.querySelectorAll('svg .hit > title')) {
      words.set(title.parentNode, title.textContent);
      title.remove();
    }
  };
  const tip = document.createElement('div');
  tip.className = 'tip';
  tip.hidden = true;
  tip.setAttribute('aria-hidden', 'true');
  document.body.append(tip);
  let held = null;
  const hide = () => {
    held?.classList.remove('held');
    held = null;
    tip.hidden = true;
  };
  const show = (hit, x, y) => {
    if (hit !== held) {
      hide();
      held = hit;
      hit.classList.add('held');
      const [first, ...rest] = words.get(hit).split('\n');
      const strong = document.createElement('b');
      strong.textContent = first;
      tip.replaceChildren(strong, rest.map((line) => '\n' + line).join(''));
      tip.hidden = false;
    }
    const { width, height } = tip.getBoundingClientRect();
    const right = x + 14 + width < innerWidth - 8 ? x + 14 : x - 14 - width;
    const below = y + 16 + height < innerHeight - 8 ? y + 16 : y - 16 - height;
    tip.style.transform = `translate(${Math.max(8, right)}px,${Math.max(8, below)}px)`;
  };
  const follow = (event) => {
    const hit = event.target.closest?.('.hit');
    if (hit && words.has(hit)) show(hit, event.clientX, event.clientY); else hide();
  };
  document.addEventListener('pointermove', follow);
  document.addEventListener('pointerdown', follow);
  document.addEventListener('scroll', hide, { passive: true });
  document.addEventListener('keydown', (event) => { if (event.key === 'Escape') hide(); });

  // Copying is offered where the browser allows it for this page.
  const offerCopy = (part) => {
    for (const head of navigator.clipboard ? part.querySelectorAll('.code-head') : []) offer(head);
  };
  const offer = (head) => {
    const copy = document.createElement('button');
    copy.type = 'button';
    copy.textContent = 'Copy';
    copy.addEventListener('click', async () => {
      try {
        await navigator.clipboard.writeText(head.parentNode.querySelector('code').textContent);
        copy.textContent = 'Copied';
      } catch {
        copy.textContent = 'Not allowed here';
      }
      setTimeout(() => { copy.textContent = 'Copy'; }, 2000);
    });
    head.append(copy);
  };

  const prepare = (part) => { takeWords(part); offerCopy(part); };
  prepare(document);
  document.addEventListener('sibo:part', (event) => { hide(); prepare(event.detail); });
})();
