for (const slider of document.querySelectorAll(".slider input")) {
  slider.addEventListener("input", () => document.documentElement.style.setProperty("--photo", slider.value));
}
for (const choice of document.querySelectorAll("input[name=palette]")) {
  choice.addEventListener("change", () => { document.documentElement.dataset.palette = choice.value; });
}
