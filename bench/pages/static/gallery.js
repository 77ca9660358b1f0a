"use strict";
// Filters of the gallery, and the numbers as files. Without scripts the page shows all images.
{
  const BATCH = 40;
  const list = document.getElementById("shots");
  const filters = document.getElementById("choose");
  const more = document.getElementById("more");
  if (list && filters && more) {
    const cards = [...list.children];
    const number = (card, name) => (card.dataset[name] === "" ? NaN : Number(card.dataset[name]));
    const orders = {
      least: (a, b) => number(a, "passes") - number(b, "passes"),
      most: (a, b) => number(b, "passes") - number(a, "passes"),
      sure: (a, b) => (number(b, "sure") || 0) - (number(a, "sure") || 0),
      index: (a, b) => number(a, "index") - number(b, "index"),
    };
    let most = BATCH;
    const show = () => {
      const { class: label, attack, order, size, shown } = filters.elements;
      const chosen = cards.filter(
        (card) =>
          (label.value === "" || card.dataset.class === label.value) &&
          (attack.value === "" || card.dataset.attack === attack.value),
      );
      if (order.value) chosen.sort(orders[order.value]);
      for (const card of cards) card.hidden = true;
      for (const card of chosen.slice(0, most)) card.hidden = false;
      list.append(...chosen);
      list.classList.toggle("large", size.value === "large");
      more.hidden = chosen.length <= most;
      shown.value = `${Math.min(most, chosen.length)} of ${chosen.length} shown`;
    };
    filters.addEventListener("change", () => {
      most = BATCH;
      show();
    });
    filters.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", () => {
      const next = most;
      most += 2 * BATCH;
      show();
      const card = [...list.children].filter((each) => !each.hidden)[next];
      if (card) {
        card.tabIndex = -1;
        card.focus({ preventScroll: true });
      }
    });
    addEventListener("beforeprint", () => {
      for (const card of cards) card.hidden = false;
    });
    addEventListener("afterprint", show);
    filters.hidden = false;
    show();
  }

  const data = document.getElementById("data");
  const downloads = document.getElementById("downloads");
  if (data && downloads) {
    const file = (text, kind) => URL.createObjectURL(new Blob([text], { type: kind }));
    const cell = (value) => {
      const text = value === null ? "" : String(value);
      return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const numbers = JSON.parse(data.textContent);
    document.getElementById("json").href = file(data.textContent, "application/json");
    const csv = document.getElementById("csv");
    if (csv && numbers.samples) {
      const names = Object.keys(numbers.samples);
      const rows = numbers.samples.index.map((_, place) =>
        names.map((name) => cell(numbers.samples[name][place])).join(","),
      );
      csv.href = file([names.join(","), ...rows, ""].join("\n"), "text/csv");
    } else {
      csv?.remove();
    }
    downloads.hidden = false;
  }
}
