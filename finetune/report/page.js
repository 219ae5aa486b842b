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

// Paper has nothing to click on.
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
});
