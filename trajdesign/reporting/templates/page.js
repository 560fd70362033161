"use strict";

// What every page has: its data, its colours, and what is not of one page. The script of each has drawAll.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const make = (parent, tag, properties) => parent.appendChild(Object.assign(document.createElement(tag), properties));
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// ---- colours: those of the style sheet, as they are in the theme of the moment

const ink = {};
let theme = "light";

function readInk() {
  const probe = make(document.body, "i", {});
  for (const name of ["card", "text", "soft", "line", "bad", "one", "two", "x", "y", "z"]) {
    probe.style.color = `var(--${name})`;
    ink[name] = getComputedStyle(probe).color;
  }
  probe.remove();
}

function setTheme(name) {
  theme = name;
  document.documentElement.dataset.theme = name;
  $("theme").textContent = name === "dark" ? "Light" : "Dark"; // what a click brings
  readInk();
  drawAll();
}

// Follows a pointer that is held down, from where it begins.
function drag(element, follow) {
  const at = (event) => {
    const box = element.getBoundingClientRect();
    follow(event.clientX - box.left, event.clientY - box.top, box, event.type === "pointerdown");
  };
  element.addEventListener("pointerdown", (event) => { element.setPointerCapture(event.pointerId); at(event); });
  element.addEventListener("pointermove", (event) => { if (element.hasPointerCapture(event.pointerId)) at(event); });
}

for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const command = button.previousElementSibling;
    getSelection().selectAllChildren(command); // what is left to do by hand where a page may not copy
    await navigator.clipboard?.writeText(command.textContent).catch(() => {});
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
const wishes = matchMedia("(prefers-color-scheme: dark)");
const wished = () => (wishes.matches ? "dark" : "light");
wishes.addEventListener("change", () => setTheme(wished()));
$("theme").addEventListener("click", () => setTheme(theme === "dark" ? "light" : "dark"));
let onScreen = "light";
addEventListener("beforeprint", () => {
  onScreen = theme;
  for (const details of document.querySelectorAll("details")) details.open = true;
  setTheme("light");
});
addEventListener("afterprint", () => setTheme(onScreen));
new ResizeObserver(drawAll).observe(document.querySelector("main"));
