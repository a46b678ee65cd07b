(() => {
  "use strict";
  const table = document.querySelector("table.index"),
    body = table.tBodies[0],
    rows = [...body.rows];
  const search = document.getElementById("search"),
    found = document.getElementById("found");
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every((word) => row.dataset.words.includes(word));
    found.value = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  search.addEventListener("input", filter);
  filter();
  table.tHead.querySelectorAll("th").forEach((head, column) => {
    const button = head.querySelector("button");
    button?.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      table.tHead.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column]?.dataset.value ?? row.cells[column]?.textContent.trim();
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (!x || !y) return x ? -1 : y ? 1 : 0; // what is not known comes last
        return (down ? -1 : 1) * x.localeCompare(y, "en", { numeric: true });
      });
      body.append(...rows);
    });
  });
})();
