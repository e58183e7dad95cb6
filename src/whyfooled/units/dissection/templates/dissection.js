const data = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);
const CHUNK = 30;
const [boxHeight, boxWidth] = data.box;
const end = Math.max(data.cutoff, ...data.units.map(unit => iouOf(unit)));
const share = value => value === null ? "–" : value.toFixed(3);
const number = value => value === null ? "–" : String(+value.toPrecision(3));
// Larger than under every permutation.
const lowest = 1.0001 / (1 + data.permutations);
let items = [], next = 0;

function iouOf(unit) { return unit.c.length ? unit.c[0][1] : 0; }
function nameOf(unit) { return unit.c.length ? data.concepts[unit.c[0][0]][0] : ""; }
function ratioOf(unit) { return unit.n ? iouOf(unit) / unit.n : iouOf(unit) > 0 && unit.n === 0 ? Infinity : 0; }
function categoryOf(concept) { return data.categories[data.concepts[concept][1]]; }

function make(tag, name, ...inside) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...inside);
  return element;
}

function draw(className, d) {
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("class", className);
  path.setAttribute("d", d);
  path.setAttribute("vector-effect", "non-scaling-stroke");
  return path;
}

function swatch(colour) {
  const element = make("span", "swatch");
  element.style.background = colour;
  return element;
}

function picture(unit, [image, value, outline, active]) {
  const place = make("div", active ? "top" : "top idle");
  place.title = `${data.images[image]}: largest activation ${number(value)}${active ? "" : ", not active"}`;
  place.addEventListener("click", () => place.classList.toggle("large"));
  if (data.files[image]) {
    const shown = make("img");
    shown.loading = "lazy";
    shown.alt = data.images[image];
    shown.src = data.files[image];
    place.append(shown);
  }
  const over = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  over.setAttribute("viewBox", `0 0 ${boxWidth} ${boxHeight}`);
  over.setAttribute("preserveAspectRatio", "none");
  if (outline) over.append(draw("dim", `M0 0h${boxWidth}v${boxHeight}h${-boxWidth}z${outline}`));
  const mask = unit.c.length ? data.masks[`${image}:${unit.c[0][0]}`] : "";
  if (mask) over.append(draw("mask", mask));
  if (outline) over.append(draw("casing", outline), draw("area", outline));
  place.append(over);
  return place;
}

function meter(unit) {
  const bar = make("div", "meter"), filled = make("span");
  filled.style.width = `${100 * iouOf(unit) / end}%`;
  filled.style.background = categoryOf(unit.c[0][0])[1];
  bar.append(filled);
  if (unit.n !== null) {
    const mark = make("b");
    mark.style.left = `${Math.min(100, 100 * unit.n / end)}%`;
    bar.append(mark);
  }
  return bar;
}

function card(unit) {
  const what = make("div");
  what.append(make("p", "number", make("b", "", data.layers[unit.l]), ` unit ${unit.u}${unit.d ? "" : ", no detector"}`));
  if (unit.c.length) {
    const [concept, iou] = unit.c[0], [category, colour] = categoryOf(concept);
    what.append(make("p", "best", swatch(colour), data.concepts[concept][0], " ", make("small", "", category)), meter(unit));
    const chance = unit.n === null ? "" : `, by chance ${share(unit.n)}${unit.n > 0 ? ` (×\u00a0${(iou / unit.n).toFixed(1)})` : ""}`;
    what.append(make("p", "number", make("b", "", `IoU ${share(iou)}`), chance));
    const many = `active in ${unit.i} of ${data.total} image${data.total > 1 ? "s" : ""}`;
    what.append(make("p", "number", `${many}; ${Math.round(100 * unit.o)}\u00a0% of the overlap in one`));
    const others = unit.c.slice(1).map(([other, value]) => `${data.concepts[other][0]} ${share(value)}`);
    if (others.length) what.append(make("p", "number", `then ${others.join(", ")}`));
  } else if (!unit.x) {
    what.append(make("p", "", "overlaps with no concept"));
  }
  if (unit.x) what.append(make("p", "dead", `dead: it gave ${number(unit.t)} everywhere`));
  else what.append(make("p", "number", `active above ${number(unit.t)}${unit.a ? "" : ", which it never is"}`));
  const article = make("article", "unit", what, make("div", "tops", ...unit.p.map(one => picture(unit, one))));
  article.dataset.unit = `${data.layers[unit.l]}/${unit.u}`;
  return article;
}

function heading(units) {
  const unit = units[0], best = Math.max(...units.map(iouOf));
  if (!unit.c.length) return make("h3", "", "no concept", make("small", "", `${units.length} unit${units.length > 1 ? "s" : ""}`));
  const [category, colour] = categoryOf(unit.c[0][0]);
  const text = `${category}, ${units.length} unit${units.length > 1 ? "s" : ""}, IoU up to ${share(best)}`;
  return make("h3", "", swatch(colour), nameOf(unit), make("small", "", text));
}

const byPlace = (a, b) => a.l - b.l || a.u - b.u;
const orders = {
  iou: (a, b) => iouOf(b) - iouOf(a) || byPlace(a, b),
  ratio: (a, b) => (ratioOf(b) > ratioOf(a)) - (ratioOf(b) < ratioOf(a)) || orders.iou(a, b),
  unit: byPlace,
  concept: (a, b) => !nameOf(a) - !nameOf(b) || nameOf(a).localeCompare(nameOf(b)) || orders.iou(a, b),
};

function wanted(unit) {
  const layer = at("layer").value, category = at("category").value, text = at("concept").value.trim().toLowerCase();
  return (layer === "" || unit.l === +layer)
    && (category === "" || unit.c.length && data.concepts[unit.c[0][0]][1] === +category)
    && (!at("detectors").checked || unit.d)
    && (!at("above").checked || unit.q === null || unit.q <= lowest)
    && (!at("several").checked || unit.o !== null && unit.o <= 0.5)
    && nameOf(unit).toLowerCase().includes(text);
}

function groups(units) {
  const found = new Map();
  for (const unit of units) {
    const concept = unit.c.length ? unit.c[0][0] : -1;
    if (!found.has(concept)) found.set(concept, []);
    found.get(concept).push(unit);
  }
  return [...found.values()].flatMap(group => [() => heading(group), ...group.map(unit => () => card(unit))]);
}

function more() {
  at("units").append(...items.slice(next, next + CHUNK).map(build => build()));
  next += CHUNK;
}

function show() {
  const units = data.units.filter(wanted).sort(orders[at("order").value]);
  items = at("grouped").checked ? groups(units) : units.map(unit => () => card(unit));
  next = 0;
  at("units").className = at("grouped").checked ? "grouped" : "";
  at("units").replaceChildren();
  at("count").textContent = `${units.length} of ${data.units.length} units`;
  more();
}

document.querySelector(".controls").addEventListener("submit", event => event.preventDefault());
at("units").style.setProperty("--shape", `${boxWidth}/${boxHeight}`);
for (const id of ["layer", "category", "concept", "order", "grouped", "detectors", "above", "several"]) at(id).addEventListener("input", show);
const watcher = new IntersectionObserver(([entry]) => {
  if (!entry.isIntersecting || next >= items.length) return;
  more();
  // Asked again, for the end of the list may still be in sight.
  watcher.unobserve(entry.target);
  watcher.observe(entry.target);
}, {rootMargin: "1200px"});
show();
watcher.observe(at("more"));
