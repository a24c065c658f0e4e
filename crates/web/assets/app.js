// What moves on a page: it follows the ledger, the slider shows its position as it is drawn, filters act at once, and what
// expired cannot be pressed. Every page works without this, if less lively.
"use strict";

(() => {
  const live = document.getElementById("live");
  const REDRAW_MS_MIN = 400;
  const AGE_MS = 5000;
  let wanted = false;
  let drawing = null;
  let drawnAt = 0;

  const say = (words, isOn) => {
    live.textContent = words;
    live.classList.toggle("on", isOn);
    live.classList.toggle("off", !isOn);
  };

  // Somebody who writes, or has opened a list, is not interrupted: what is new is drawn when that is over.
  const isBusy = (element) => {
    const focused = document.activeElement;
    return element.contains(focused) && focused.matches("input:not([type=range], [type=checkbox], [type=radio]), select, textarea");
  };
  let kept = false;
  let isPressed = false;
  // Nor is what somebody has marked, to take it along.
  const isSelected = (element) => {
    const selection = getSelection();
    return selection !== null && !selection.isCollapsed && element.contains(selection.anchorNode);
  };

  const fields = (element) => [...element.querySelectorAll("input:not([type=hidden]), select, textarea")];
  const isChoice = (part) => part.type === "checkbox" || part.type === "radio";
  const nameOf = (part) =>
    [part.tagName, part.form?.getAttribute("action"), part.name, part.getAttribute("href"), part.tagName === "BUTTON" || isChoice(part) ? part.value : ""].join(" ");
  const isChanged = (field) => {
    // What was sent, and refused, stands there as somebody filled it in.
    if (field.form?.matches("[data-draft]")) return true;
    if (isChoice(field)) return field.checked !== field.defaultChecked;
    if (field.tagName !== "SELECT") return field.value !== field.defaultValue;
    return field.selectedIndex !== Math.max(0, [...field.options].findIndex((option) => option.defaultSelected));
  };

  // What somebody typed, opened, scrolled to and has the focus on is carried over to what comes in its place.
  const replace = (old, fresh) => {
    const typed = new Map(fields(old).filter(isChanged).map((field) => [nameOf(field), isChoice(field) ? field.checked : field.value]));
    const focused = old.contains(document.activeElement) ? nameOf(document.activeElement) : null;
    const opened = [...old.querySelectorAll("details")].map((part) => part.open);
    const scrolled = [...old.querySelectorAll(".scroll, pre")].map((part) => [part.scrollLeft, part.scrollTop]);
    old.replaceChildren(...fresh.childNodes);
    for (const field of fields(old)) {
      if (typed.has(nameOf(field))) field[isChoice(field) ? "checked" : "value"] = typed.get(nameOf(field));
    }
    const details = [...old.querySelectorAll("details")];
    if (details.length === opened.length) details.forEach((part, index) => (part.open = opened[index]));
    const parts = [...old.querySelectorAll(".scroll, pre")];
    if (parts.length === scrolled.length) parts.forEach((part, index) => ([part.scrollLeft, part.scrollTop] = scrolled[index]));
    if (focused !== null) {
      const again = [...old.querySelectorAll("a, button, input, select, textarea, summary, pre")].find((part) => nameOf(part) === focused);
      again?.focus({ preventScroll: true });
    }
  };

  // A list in which buttons stand: while somebody points into it, or is in it by keyboard, nothing in it moves. What comes
  // stands below, and what no longer waits is shut where it is.
  const patch = (list, fresh) => {
    const news = new Map([...fresh.querySelectorAll("[data-key]")].map((item) => [item.dataset.key, item]));
    for (const item of list.querySelectorAll("[data-key]")) {
      const now = news.get(item.dataset.key);
      news.delete(item.dataset.key);
      const isShut = now && !now.querySelector("fieldset:not(:disabled)");
      if (now && (isShut || !isBusy(item))) replace(item, now);
      if (!now) {
        item.classList.add("gone");
        for (const form of item.querySelectorAll("fieldset")) form.disabled = true;
      }
    }
    (list.querySelector("ol") ?? list).append(...news.values());
    kept = true;
  };

  // Draws the page at an address, and puts what is live in the place of what is there.
  const draw = async (address, keep) => {
    drawing?.abort();
    const own = (drawing = new AbortController());
    const response = await fetch(address, { headers: { accept: "text/html" }, signal: own.signal });
    const text = await response.text();
    const page = new DOMParser().parseFromString(text, "text/html");
    if (!response.ok) throw new Error(page.querySelector("h1")?.textContent ?? `status ${response.status}`);
    // Between pressing and letting go nothing is put in the place of what is pressed.
    if (keep && isPressed) {
      kept = true;
      return page;
    }
    for (const element of document.querySelectorAll("[data-live]")) {
      const next = page.querySelector(`[data-live="${element.dataset.live}"]`);
      if (!next) continue;
      const isKeyed = element.querySelector("[data-key]") !== null;
      if (keep && isKeyed && (element.matches(":hover") || element.contains(document.activeElement))) patch(element, next);
      else if (keep && (isBusy(element) || isSelected(element))) kept = true;
      else replace(element, next);
    }
    drawnAt = Date.now();
    settle();
    return page;
  };

  const redraw = async () => {
    if (wanted) return;
    wanted = true;
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, REDRAW_MS_MIN - (Date.now() - drawnAt))));
    wanted = false;
    try {
      const page = await draw(location.href, true);
      const slider = document.querySelector("[data-slider]");
      const range = page.querySelector("[data-slider] input[type=range]");
      if (slider && range) {
        for (const input of slider.querySelectorAll("input[type=range], [data-number]")) {
          const isAtEnd = input.value === input.max;
          input.max = range.max;
          if (isAtEnd && !new URL(location.href).searchParams.get("at")) input.value = range.max;
        }
      }
    } catch (error) {
      if (error.name !== "AbortError") say(error.message, false);
    }
  };

  // The page of a moment that is over stays as it is.
  const isThen = () => new URL(location.href).searchParams.get("at");

  // Browsers have six connections for one server, so a page that nobody sees gives its own back.
  if (document.querySelector("[data-live]")) {
    // What was kept as it was for somebody's sake is drawn once they have gone on.
    const goOn = () => setTimeout(() => kept && ((kept = false), isThen() || redraw()), 50);
    document.addEventListener("focusout", goOn);
    document.addEventListener("selectionchange", () => getSelection()?.isCollapsed && goOn());
    document.addEventListener("pointerdown", () => (isPressed = true), true);
    for (const end of ["pointerup", "pointercancel", "dragend", "blur"]) {
      // The click comes behind it.
      addEventListener(end, () => setTimeout(() => ((isPressed = false), goOn()), 0), true);
    }
    document.querySelectorAll("[data-live]").forEach((element) => element.addEventListener("mouseleave", goOn));
    // Ages grow, and owners go, without a word from the ledger.
    setInterval(() => document.hidden || isThen() || redraw(), AGE_MS);
    let source = null;
    let told = null;
    const follow = () => {
      if (source || document.hidden) return;
      source = new EventSource("/live");
      source.onopen = () => say("live", true);
      source.onmessage = (event) => {
        document.documentElement.dataset.position = event.data;
        say("live", true);
        if (told !== null && told !== event.data && !isThen()) redraw();
        told = event.data;
      };
      source.onerror = () => say("not live", false);
    };
    const leave = () => {
      source?.close();
      source = null;
    };
    follow();
    document.addEventListener("visibilitychange", () => (document.hidden ? leave() : follow()));
    addEventListener("pagehide", leave);
    addEventListener("pageshow", follow);
  }

  // The slider: the page is drawn as of where it is let go, and on the way there as fast as that goes.
  const slider = document.querySelector("[data-slider]");
  if (slider) {
    const range = slider.querySelector("input[type=range]");
    const number = slider.querySelector("[data-number]");
    range.hidden = false;
    let waiting = null;
    const go = () => {
      const address = new URL(location.href);
      address.searchParams.set("at", range.value);
      address.searchParams.delete("before");
      address.searchParams.delete("after");
      history.replaceState(null, "", address);
      draw(address, false)
        .then((page) => {
          const then = page.querySelector("[data-slider]");
          for (const part of ["[rel=prev]", "[rel=next]", ".then", ".quiet", ".now"]) {
            slider.querySelector(part)?.remove();
            const next = then?.querySelector(part);
            if (next) slider.append(next);
          }
        })
        .catch((error) => error.name !== "AbortError" && say(error.message, false));
    };
    const later = () => {
      clearTimeout(waiting);
      waiting = setTimeout(go, 120);
    };
    range.addEventListener("input", () => ((number.value = range.value), later()));
    number.addEventListener("change", () => {
      if (number.value === "") number.value = range.value;
      // The browser says which positions there are.
      if (number.reportValidity()) (range.value = number.value), later();
    });
    slider.addEventListener("submit", (event) => (event.preventDefault(), go()));
  }

  // Filters act at once; the address holds them.
  for (const form of document.querySelectorAll("[data-filter]")) {
    let waiting = null;
    const apply = () => {
      const address = new URL(form.action);
      for (const [name, value] of new FormData(form)) if (value) address.searchParams.set(name, value);
      history.replaceState(null, "", address);
      draw(address, false).catch((error) => error.name !== "AbortError" && say(error.message, false));
    };
    form.addEventListener("change", apply);
    form.addEventListener("input", () => (clearTimeout(waiting), (waiting = setTimeout(apply, 250))));
    form.addEventListener("submit", (event) => (event.preventDefault(), apply()));
  }

  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !confirm(question)) event.preventDefault();
  });

  // What is due now can no longer be pressed; its page says so when it is drawn.
  const settle = () => {
    for (const form of document.querySelectorAll("form[data-due]")) {
      const fields = form.querySelector("fieldset");
      if (fields && !fields.disabled && Number(form.dataset.due) <= Date.now()) {
        fields.disabled = true;
        redraw();
      }
    }
  };
  // Work that goes on here is not told of by the ledger.
  setInterval(() => (settle(), document.querySelector("[data-busy]") && redraw()), 500);
})();
