// Rows in the order of a column, up and then down; what has no value of it stays at the end.
const table = document.getElementById("photographs"), heads = [...table.querySelectorAll("th[aria-sort]")];
const words = new Intl.Collator(undefined, { numeric: true });
const compare = (one, other) => (isNaN(one) || isNaN(other) ? words.compare(one, other) : one - other);
for (const head of heads) {
  head.querySelector("button").addEventListener("click", () => {
    const column = head.cellIndex, down = head.getAttribute("aria-sort") === "ascending";
    for (const one of heads) one.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const read = (row) => row.cells[column]?.dataset.value ?? "";
    const rows = [...table.tBodies[0].rows].sort((one, other) => {
      const [first, second] = [read(one), read(other)];
      if (first === "" || second === "") return (first === "") - (second === "");
      return down ? compare(second, first) : compare(first, second);
    });
    table.tBodies[0].append(...rows);
  });
}
