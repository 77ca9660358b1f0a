"use strict";
// Sorting, filtering, tips and links to a view. Without scripts the page shows everything, in order.

// An address's hash is an id, and for a table with filters its state: #leaderboard?text=resnet&sort=clean
const readHash = () => {
  const [id, query = ""] = location.hash.slice(1).split("?", 2);
  try {
    return [decodeURIComponent(id), new URLSearchParams(query)];
  } catch {
    return [id, new URLSearchParams()];
  }
};
const key = (row, column) => {
  const cell = row.cells[column];
  const text = (cell?.dataset.sort ?? cell?.textContent ?? "").trim();
  const number = Number(text);
  return text === "" || text === "–" || text === "nan" ? null : Number.isNaN(number) ? text : number;
};
const sortRows = (table, header, order) => {
  const sign = order === "ascending" ? 1 : -1;
  const column = Number(header.dataset.column);
  const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === typeof b) return sign * (a < b ? -1 : a > b ? 1 : 0);
    return typeof a === "number" ? -1 : 1;
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", order);
};
for (const table of document.querySelectorAll("table[data-sortable]")) {
  for (const header of table.querySelectorAll("th[data-column]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const before = header.getAttribute("aria-sort") ?? "";
      const turned = before === "ascending" ? "descending" : "ascending";
      sortRows(table, header, before ? turned : header.dataset.first);
      table.dispatchEvent(new Event("sorted"));
    });
  }
}

// A form with data-filters="ID" filters the rows of table ID: the words of its field "text" by the
// rows' data-text, each other field by the words of the attribute of the same name.
const marksOf = (row) => document.querySelectorAll(`svg [data-row="${CSS.escape(row)}"]`);
for (const form of document.querySelectorAll("form[data-filters]")) {
  const table = document.getElementById(form.dataset.filters);
  const section = table.closest("section").id;
  const rows = [...table.tBodies[0].rows];
  const fields = [...form.elements].filter((each) => each.name);
  const shown = form.querySelector("output");
  const filter = () => {
    let count = 0;
    for (const row of rows) {
      const fits = fields.every(({ name, value }) =>
        name === "text"
          ? value.toLowerCase().split(/\s+/).every((word) => row.dataset.text.includes(word))
          : value === "" || row.dataset[name].split(" ").includes(value)
      );
      row.hidden = !fits;
      count += fits;
      for (const mark of marksOf(row.dataset.row)) mark.classList.toggle("dim", !fits);
    }
    const all = rows.length === 1 ? "1 row" : `${rows.length} rows`;
    shown.textContent = count === rows.length ? all : `${count} of ${all}`;
  };
  const state = () => {
    const query = new URLSearchParams();
    for (const { name, value } of fields) if (value !== "") query.set(name, value);
    const sorted = table.querySelector("th[aria-sort][data-key]");
    if (sorted) query.set("sort", `${sorted.dataset.key}-${sorted.getAttribute("aria-sort")}`);
    return query.toString();
  };
  const save = () => {
    const query = state();
    const hash = query ? `#${section}?${query}` : `#${section}`;
    try {
      history.replaceState(null, "", hash);
    } catch {
      location.hash = hash;
    }
  };
  const restore = () => {
    const [id, query] = readHash();
    if (id !== section) return;
    for (const field of fields) {
      field.value = query.get(field.name) ?? "";
      if (field.value !== (query.get(field.name) ?? "")) field.value = "";
    }
    const [name, order] = (query.get("sort") ?? "").split("-");
    const header = table.querySelector(`th[data-key="${CSS.escape(name)}"]`);
    if (header && ["ascending", "descending"].includes(order)) sortRows(table, header, order);
    filter();
    if (query.size) document.getElementById(section).scrollIntoView();
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { filter(); save(); });
  form.addEventListener("reset", () => setTimeout(() => {
    for (const header of table.querySelectorAll("th[aria-sort]")) header.removeAttribute("aria-sort");
    table.tBodies[0].append(...rows);
    filter();
    save();
  }));
  table.addEventListener("sorted", save);
  addEventListener("hashchange", restore);
  for (const row of rows) {
    const light = (on) => () => { for (const mark of marksOf(row.dataset.row)) mark.classList.toggle("lit", on); };
    row.addEventListener("pointerenter", light(true));
    row.addEventListener("pointerleave", light(false));
  }
  filter();
  restore();
}

// Tips: what a mark or a chip says, by pointer, touch and keyboard.
const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "tooltip");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);
for (const title of document.querySelectorAll("svg title")) {
  const mark = title.parentElement;
  mark.dataset.tip = title.textContent;
  (mark.closest("a") ?? mark).setAttribute("aria-label", title.textContent);
  if (!mark.closest("a")) mark.setAttribute("role", "img");
  title.remove();
}
for (const chip of document.querySelectorAll(".chip[title], [data-tipped][title]")) {
  chip.dataset.tip = chip.title;
  chip.removeAttribute("title");
  if (!chip.href) chip.tabIndex = 0;
}
const showTip = (target, x, y) => {
  tip.textContent = target.dataset.tip;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x + 12, innerWidth - width - 8))}px`;
  tip.style.top = `${y + 16 + height > innerHeight ? Math.max(8, y - height - 12) : y + 16}px`;
};
const tipped = (event) => event.target.closest?.("[data-tip]") ?? event.target.querySelector?.(":scope > [data-tip]");
document.addEventListener("pointerover", (event) => {
  const target = event.target.closest?.("[data-tip]");
  if (target) showTip(target, event.clientX, event.clientY);
  else tip.hidden = true;
});
document.addEventListener("focusin", (event) => {
  const target = tipped(event);
  if (!target) return;
  const box = target.getBoundingClientRect();
  showTip(target, box.left, box.bottom - 12);
  event.target.setAttribute("aria-describedby", "tip");
});
document.addEventListener("focusout", (event) => {
  event.target.removeAttribute?.("aria-describedby");
  tip.hidden = true;
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

// What a link points to is opened first.
const open = () => {
  const target = document.getElementById(readHash()[0]);
  const fold = target?.closest("details") ?? target?.querySelector(":scope > details");
  if (fold && !fold.open) {
    fold.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", open);
document.addEventListener("click", (event) => {
  if (event.target.closest?.('a[href^="#"]')) setTimeout(open);
});
open();
// Paper has no folds.
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details:not([open])")) {
    fold.open = true;
    fold.dataset.printed = "";
  }
});
addEventListener("afterprint", () => {
  for (const fold of document.querySelectorAll("details[data-printed]")) {
    fold.open = false;
    delete fold.dataset.printed;
  }
});
