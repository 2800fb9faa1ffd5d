// A threshold that can be moved: rows are counted by bin, and it steps at the bins' edges.
const LEFT = 62, PLOT = 886, END = 949;

for (const box of document.querySelectorAll("[data-slider]")) {
  const policy = page.data.policies.find((each) => each.policy === box.dataset.slider);
  const range = box.querySelector("input");
  const threshold = box.querySelector("[data-threshold]");
  const told = box.querySelector("[data-flagged]");
  const back = box.querySelector("[data-back]");
  const chart = document.querySelector('[data-histogram="h-' + policy.policy + '"]');

  // Rows at or above each edge, from the last bin down; and those that no threshold changes.
  const over = new Array(1001).fill(0);
  for (const [bin, rows] of policy.bins) over[bin] += rows;
  for (let edge = 999; edge >= 0; edge -= 1) over[edge] += over[edge + 1];

  // Of contents that people judged: [found and violating, found]; with the shares of it.
  const above = (bins, edge) => bins.reduce((sum, [bin, rows]) => sum + (bin >= edge ? rows : 0), 0);
  const known = box.querySelector("[data-known]");
  const tell = (edge) => {
    if (!known) return;
    const hit = above(policy.known.violating, edge), wrong = above(policy.known.safe, edge);
    const all = above(policy.known.violating, 0);
    known.textContent = "Of what people judged it finds " + page.number(hit) + " of " + page.number(all) + " violations (recall " + page.percent(hit / all) + "); of " + page.number(hit + wrong) + " that it flags, " + page.number(hit) + " violate (precision " + page.percent(hit / (hit + wrong)) + ").";
  };

  const show = (text, value, flagged) => {
    tell(Math.ceil(value * 1000 - 1e-9));
    threshold.textContent = text;
    const more = flagged - policy.flagged;
    const change = more === 0 ? "as in the labels" : page.number(Math.abs(more)) + (more > 0 ? " more" : " fewer") + " than in the labels";
    told.textContent = page.number(flagged) + " of " + page.number(policy.ok) + " rows flagged (" + page.percent(flagged / policy.ok) + "), " + change + ".";
    range.setAttribute("aria-valuetext", text + ": " + page.number(flagged) + " rows flagged");
    const x = LEFT + value * PLOT;
    chart.querySelector("[data-below]").setAttribute("width", x - LEFT);
    const above = chart.querySelector("[data-above]");
    above.setAttribute("x", x);
    above.setAttribute("width", END - x);
    const cut = chart.querySelector("[data-cut]");
    cut.setAttribute("x1", x);
    cut.setAttribute("x2", x);
  };
  const own = () => {
    range.value = Math.round(policy.threshold * 1000);
    show(String(policy.threshold), policy.threshold, policy.flagged);
    back.disabled = true;
  };
  range.addEventListener("input", () => {
    const edge = Number(range.value);
    show((edge / 1000).toFixed(3), edge / 1000, policy.fixed + over[edge]);
    back.disabled = false;
  });
  back.addEventListener("click", () => { own(); range.focus(); });
  own();
  box.hidden = false;
}

// Samples by what they are.
const filters = document.querySelector("[data-filters]");
if (filters) {
  const samples = [...document.querySelectorAll("[data-sample]")];
  const selects = [...filters.querySelectorAll("[data-filter]")];
  const said = document.querySelector("[data-filtered]");
  const apply = () => {
    let shown = 0;
    for (const sample of samples) {
      const fits = selects.every((select) => {
        const value = sample.dataset[select.dataset.filter];
        return !select.value || (select.dataset.filter === "kind" ? value.split(" ").includes(select.value) : value === select.value);
      });
      sample.hidden = !fits;
      shown += fits;
    }
    said.textContent = shown === samples.length ? "" : shown + " of " + samples.length + " samples";
  };
  for (const select of selects) select.addEventListener("change", apply);
  filters.hidden = false;
  apply();
}
