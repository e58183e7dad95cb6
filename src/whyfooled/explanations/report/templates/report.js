// The two photographs, one in the place of the other: by the button, and by the arrow keys on it.
const button = document.getElementById("flicker");
if (button) {
  const photos = document.getElementById("photos"), calm = matchMedia("(prefers-reduced-motion: reduce)");
  let timer = 0;
  const show = (which) => { photos.dataset.shown = which; };
  const swap = () => show(photos.dataset.shown === "clean" ? "adversarial" : "clean");
  const stop = () => { clearInterval(timer); timer = 0; button.setAttribute("aria-pressed", "false"); };
  button.addEventListener("click", () => {
    if (timer) { stop(); show("clean"); return; }
    swap();
    // Twice a second is below what can harm; who wants no motion swaps by hand.
    if (!calm.matches) { timer = setInterval(swap, 500); button.setAttribute("aria-pressed", "true"); }
  });
  button.addEventListener("keydown", (event) => {
    const which = { ArrowLeft: "clean", ArrowRight: "adversarial" }[event.key];
    if (which) { event.preventDefault(); stop(); show(which); }
  });
}

// How much of the photograph is seen through the maps.
for (const slider of document.querySelectorAll(".slider input")) {
  slider.addEventListener("input", () => document.documentElement.style.setProperty("--photo", slider.value));
}

// The colours of the regions.
for (const choice of document.querySelectorAll("input[name=palette]")) {
  choice.addEventListener("change", () => { document.documentElement.dataset.palette = choice.value; });
}

// A region's numbers (the strongest is drawn last): under the pointer, under the finger, or by the arrow keys from the strongest on.
const maps = [...document.querySelectorAll(".regions svg")];
if (maps.length) {
  const shapes = maps.map((map) => [...map.querySelectorAll(".shape")].reverse());
  const numbers = document.getElementById("region-numbers");
  const finders = [...document.querySelectorAll("button.find")];
  let chosen = -1;
  const choose = (index) => {
    chosen = index;
    numbers.textContent = shapes[0][index].dataset.says;
    maps.forEach((map, place) => map.querySelector(".mark").setAttribute("d", shapes[place][index].getAttribute("d")));
    for (const finder of finders) finder.closest("tr").classList.toggle("chosen", Number(finder.dataset.rank) === index);
  };
  // And from the table to the picture: rows are numbered from the strongest as the shapes are.
  for (const finder of finders) {
    const index = Number(finder.dataset.rank);
    finder.closest("tr").addEventListener("pointerenter", () => choose(index));
    finder.addEventListener("focus", () => choose(index));
    finder.addEventListener("click", () => { choose(index); maps[0].scrollIntoView({ block: "nearest" }); });
  }
  maps.forEach((map, place) => {
    const find = (event) => {
      const index = shapes[place].indexOf(event.target);
      if (index >= 0 && index !== chosen) choose(index);
    };
    map.addEventListener("pointermove", find);
    map.addEventListener("click", find);
    map.parentElement.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      choose(Math.min(Math.max(chosen + step, 0), shapes[place].length - 1));
    });
  });
}

// In a frame: how high the page is, so that what frames it can give it the room.
if (window.parent !== window) {
  const content = document.querySelector("main");
  new ResizeObserver(() => window.parent.postMessage({ whyfooledHeight: content.offsetHeight }, "*")).observe(content);
}
