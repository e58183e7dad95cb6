// A table that is wider than its place says that it scrolls.
const tables = new ResizeObserver((changed) => {
  for (const { target } of changed) target.classList.toggle("scrolls", target.scrollWidth > target.clientWidth);
});
for (const table of document.querySelectorAll(".wide")) tables.observe(table);
