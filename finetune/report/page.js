"use strict";
// Without this script all passes are shown one below the other, as in print.
document.documentElement.classList.add("js");

function made(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}

// One pass of a way at a time, chosen by a slider or by arrow keys on it.
for (const steps of document.querySelectorAll(".steps")) {
  const items = [...steps.querySelectorAll(".step")];
  if (items.length < 2) continue;
  const slider = made("input", {type: "range", min: 1, max: items.length, step: 1});
  slider.setAttribute("aria-label", steps.dataset.name);
  const label = made("output", {});
  const back = made("button", {type: "button", textContent: "\u2039", ariaLabel: "pass before"});
  const on = made("button", {type: "button", textContent: "\u203a", ariaLabel: "next pass"});
  const bar = made("div", {className: "bar"});
  bar.append(back, slider, on, label);
  steps.before(bar);
  const show = (number) => {
    slider.value = number;
    const chosen = Number(slider.value) - 1; // within the slider's range
    items.forEach((item, place) => item.classList.toggle("shown", place === chosen));
    label.textContent = `${items[chosen].dataset.label} (${chosen + 1} of ${items.length})`;
    slider.setAttribute("aria-valuetext", label.textContent);
  };
  slider.addEventListener("input", () => show(slider.value));
  back.addEventListener("click", () => show(Number(slider.value) - 1));
  on.addEventListener("click", () => show(Number(slider.value) + 1));
  steps.show = show;
  show(items.length);
}

// page.html#step=2 shows the second pass everywhere: for links, and for tests.
function follow() {
  const found = /^#step=(\d+)$/.exec(location.hash);
  if (!found) return;
  for (const steps of document.querySelectorAll(".steps")) if (steps.show) steps.show(found[1]);
}
addEventListener("hashchange", follow);
follow();

// Below the pointer, the values of all curves stand in the place of their last ones.
for (const svg of document.querySelectorAll("svg[data-span]")) {
  const [first, last, low, high] = svg.dataset.span.split(" ").map(Number);
  const [left, right, top, bottom] = svg.dataset.edges.split(" ").map(Number);
  const curves = [...svg.querySelectorAll(".curve")].map((path) =>
    path.getAttribute("d").split(/[ML]/).slice(1).map((pair) => pair.split(" ").map(Number)));
  const values = [...svg.parentElement.querySelectorAll(".legend b")];
  const former = values.map((one) => one.textContent);
  const title = svg.parentElement.querySelector("figcaption"), name = title.textContent;
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const nearest = curves.map((points) =>
      points.reduce((a, b) => Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
    nearest.forEach(([, y], place) => {
      const share = (bottom - y) / (bottom - top);
      values[place].textContent = (low + share * (high - low)).toPrecision(3);
    });
    const share = (nearest[0][0] - left) / (right - left);
    const update = Math.round(first + share * (last - first));
    title.textContent = `${name}: update ${update.toLocaleString("en")}`;
  });
  svg.addEventListener("pointerleave", () => {
    values.forEach((one, place) => { one.textContent = former[place]; });
    title.textContent = name;
  });
}

// Paper has nothing to click on.
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
});
