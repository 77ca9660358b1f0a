"use strict";
// Shows what runs, and loads the page again when the site was built again. Only served pages have it.
(() => {
  const page = location.pathname;
  const wait = 2000;
  let version = null;
  let missed = 0;
  const panel = document.createElement("section");
  panel.className = "live";
  panel.setAttribute("aria-label", "Running evaluations");
  panel.hidden = true;
  document.getElementById("main").prepend(panel);
  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const bar = (run) => {
    const meter = make("progress");
    meter.max = 1;
    meter.value = run.share;
    meter.setAttribute("aria-label", `${run.candidate}: part of the work that is done`);
    return meter;
  };
  const item = (run) => {
    const box = make("div", undefined, `run-now ${run.state}`);
    const head = make("p");
    head.append(make("strong", run.candidate), ` ${run.suite}, ${run.protocol}`, make("span", run.state, "chip"));
    box.append(head, bar(run), make("p", run.text, "secondary"));
    return box;
  };
  const idle = () => !document.activeElement?.matches("input, select, textarea");
  const show = (state) => {
    const open = panel.querySelector("details")?.open ?? true;
    const fold = make("details");
    fold.open = open;
    const number = state.runs.length;
    fold.append(make("summary", `${number} unfinished run${number === 1 ? "" : "s"}`), ...state.runs.map(item));
    panel.replaceChildren(fold);
    panel.hidden = number === 0;
  };
  const ask = async () => {
    try {
      const answer = await fetch(`/progress?page=${encodeURIComponent(page)}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const state = await answer.json();
      missed = 0;
      show(state);
      version ??= state.version;
      if (state.version !== version && idle()) {
        location.reload();
        return;
      }
    } catch {
      missed += 1;
      if (missed === 3) {
        panel.hidden = false;
        panel.replaceChildren(make("p", "bench view has stopped: this page is no longer refreshed.", "secondary"));
      }
    }
    setTimeout(ask, Math.min(wait * 2 ** Math.min(missed, 4), 30000));
  };
  ask();
})();
