"use strict";
// What all pages share: their data, and contents that are shown when somebody asks.
const page = {
  data: (() => {
    const held = document.getElementById("page-data");
    return held ? JSON.parse(held.textContent) : null;
  })(),

  // Rows that stand for others may stand for a part of one.
  number: (value) => Math.round(value).toLocaleString("en-US"),

  percent: (share) => {
    if (!Number.isFinite(share)) return "–";
    const digits = (share >= 0.01 && share <= 0.99) || share === 0 || share === 1 ? 1 : share >= 1e-4 ? 2 : 4;
    return (100 * share).toFixed(digits) + "%";
  },

  lift: (veil, lifted) => {
    const button = veil.querySelector(".lift");
    const text = veil.querySelector(".text");
    veil.classList.toggle("lifted", lifted);
    button.setAttribute("aria-expanded", String(lifted));
    button.textContent = button.textContent.replace(/^(Show|Hide)/, lifted ? "Hide" : "Show");
    if (lifted) { text.removeAttribute("aria-hidden"); text.tabIndex = 0; }
    else { text.setAttribute("aria-hidden", "true"); text.removeAttribute("tabindex"); text.scrollTop = 0; }
  },
};

document.addEventListener("click", (event) => {
  const button = event.target.closest(".lift");
  if (!button) return;
  const veil = button.closest("[data-veil]");
  page.lift(veil, !veil.classList.contains("lifted"));
});

for (const all of document.querySelectorAll("[data-lift-all]")) {
  all.addEventListener("click", () => {
    const lifted = all.getAttribute("aria-pressed") !== "true";
    all.setAttribute("aria-pressed", String(lifted));
    all.textContent = lifted ? "Hide all contents" : "Show all contents";
    for (const veil of document.querySelectorAll("[data-veil]")) page.lift(veil, lifted);
  });
}
