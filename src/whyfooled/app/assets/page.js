// Where a class is asked for, its name is completed.
addEventListener("focusin", ({ target }) => {
  if (target.matches("#wf-target input, #wf-label input")) target.setAttribute("list", "wf-classes");
});
// Gradio calls all places for files the same, and chosen methods by their numbers; here they have their own names.
addEventListener("focusin", ({ target }) => {
  const chip = target.closest("#wf-form .token");
  if (chip) target.setAttribute("aria-label", `Remove ${chip.innerText.trim()}`);
  if (!target.matches('#wf-form [aria-label^="Click to upload"]')) return;
  const label = target.closest(".block")?.querySelector("[data-testid=block-label]");
  if (label) target.setAttribute("aria-label", `${label.innerText.trim()}: choose or drop a file`);
});
// A list that is long enough to scroll would be a stop of its own, and stay open: Tab goes on to the next field.
addEventListener("keydown", ({ key }) => {
  if (key === "Tab") for (const list of document.querySelectorAll(".options, .options ul")) list.tabIndex = -1;
}, true);
// One that opened when its field had been left already, as by quick hands, is closed.
addEventListener("focusout", ({ target }) => {
  if (!target.matches("input[role=combobox]")) return;
  setTimeout(() => {
    const left = document.activeElement !== target && target.getAttribute("aria-expanded") === "true";
    if (left) target.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", code: "Escape", bubbles: true }));
  }, 400);
});
// A report in a frame says how high it is, and gets the room.
addEventListener("message", (event) => {
  const height = event.data && event.data.whyfooledHeight;
  if (!Number.isFinite(height)) return;
  for (const frame of document.querySelectorAll("iframe.wf-part")) {
    if (frame.contentWindow === event.source) frame.style.height = `${Math.min(Math.max(height, 120), 30000)}px`;
  }
});
