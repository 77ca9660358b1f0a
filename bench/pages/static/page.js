"use strict";
// Sorting, and opening what a link points to. Without scripts the page shows everything, ranked.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const headers = table.querySelectorAll("th[data-column]");
  const key = (row, column) => {
    const cell = row.cells[column];
    const text = (cell.dataset.sort ?? cell.textContent).trim();
    const number = Number(text);
    return text === "" || text === "–" ? null : Number.isNaN(number) ? text : number;
  };
  for (const header of headers) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const before = header.getAttribute("aria-sort") ?? "";
      const turned = before === "ascending" ? "descending" : "ascending";
      const order = before ? turned : header.dataset.first;
      const sign = order === "ascending" ? 1 : -1;
      const column = Number(header.dataset.column);
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        if (typeof a === typeof b) return sign * (a < b ? -1 : a > b ? 1 : 0);
        return typeof a === "number" ? -1 : 1;
      });
      body.append(...rows.map(([, row]) => row));
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", order);
    });
  }
}
const open = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
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
