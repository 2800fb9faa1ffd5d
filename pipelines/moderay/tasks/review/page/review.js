"use strict";
// The page of `moderay review`. Contents come from other people: whatever is shown is set as text,
// never as markup, so that no script, image or link of theirs is one here.

const FOLDED = 1500; // characters of a content that are shown before it is unfolded
const LONG_RATIONALE = 250;
const RETRY_MS = [300, 1000, 2000, 4000];
const byId = (id) => document.getElementById(id);
const local = { get: (k) => localStorage.getItem(k), set: (k, v) => localStorage.setItem(k, v) };

let sitting = null; // who reviews what
let item = null; // what is asked
let revealed = false; // whether the item is answered
let last = null; // what undo takes back
let busy = true; // whether something is on its way
let unfolded = false;

function element(tag, { text, ...attributes } = {}, children = []) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Control characters as signs that can be seen; nothing obeys them here, but people should know.
function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, (c) =>
    c === "\u007f" ? "\u2421" : c === "\r" ? "" : String.fromCharCode(0x2400 + c.charCodeAt(0)));
}

function say(text, trouble = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("trouble", trouble);
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function reason(response) {
  const text = await response.text();
  try {
    return String(JSON.parse(text).error ?? text);
  } catch {
    return text;
  }
}

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  for (let turn = 0; ; turn += 1) {
    let trouble = "moderay review does not answer: is it still running?";
    try {
      const response = await fetch(path, { ...options, cache: "no-store", redirect: "error" });
      if (response.ok) return await response.json();
      const text = await reason(response);
      if (response.status < 500) throw new Refused(response.status, text);
      trouble = text;
    } catch (error) {
      if (error instanceof Refused) throw error;
    }
    say(`${body ? "Your answer is not saved yet" : "Waiting"}: ${trouble} Trying again …`, true);
    await wait(RETRY_MS[Math.min(turn, RETRY_MS.length - 1)]);
  }
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// An answer on its way outlives a reload of the page.
const pendingName = () => `moderay-pending-${sitting.reviewer}-${sitting.output}`;

async function send(answer) {
  local.set(pendingName(), JSON.stringify(answer));
  say("Saving …");
  try {
    const kept = await ask("/api/answers", answer);
    localStorage.removeItem(pendingName());
    say("Saved");
    return kept;
  } catch (error) {
    // Of a page whose link is void, the next one gives the answer.
    if (error.status !== 403) localStorage.removeItem(pendingName());
    throw error;
  }
}

async function work(what) {
  if (busy) return;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    await what();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    say(error.message, true);
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

async function start() {
  busy = false;
  await work(async () => {
    sitting = await ask("/api/sitting");
    byId("output").textContent = sitting.output;
    byId("reviewer").textContent = sitting.reviewer;
    for (const name of ["always", "hurry"]) byId(name).checked = local.get(name) === "yes";
    const pending = local.get(pendingName());
    if (pending !== null) {
      try {
        await send(JSON.parse(pending));
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
      }
    }
    await show("/api/item");
  });
}

async function show(path) {
  const found = await ask(path);
  if (byId("status").classList.contains("trouble")) say("");
  item = found.item;
  revealed = false;
  unfolded = false;
  placed(found);
  if (item === null) {
    await finish();
    return;
  }
  byId("done").hidden = true;
  byId("work").hidden = false;
  byId("policy").hidden = false;
  byId("note").value = "";
  drawPolicy();
  drawContent(byId("always").checked);
  drawLabels();
  drawRevealed(item.revealed, null);
  byId("answering").hidden = false;
  byId("onward").hidden = true;
  byId("question").focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function placed({ progress, last: said }) {
  last = said;
  const given = progress.labelled + progress.skipped;
  byId("bar").max = Math.max(progress.total, 1);
  byId("bar").value = given;
  byId("progress").textContent =
    `${given} of ${progress.total}` + (progress.skipped ? `, ${progress.skipped} skipped` : "");
  for (const button of document.querySelectorAll(".undo")) button.disabled = last === null;
}

function drawPolicy() {
  const policy = sitting.policies[item.policy];
  byId("question").textContent = `Which label of ${policy.title || policy.id}?`;
  byId("policy-title").textContent = `${policy.title || policy.id}, version ${policy.version}`;
  if (byId("policy-text").dataset.policy === policy.id) return;
  byId("policy-text").dataset.policy = policy.id;
  const parts = [];
  let lines = [];
  const flush = () => {
    const text = lines.join("\n").trim();
    if (text) parts.push(element("p", { class: "text", dir: "auto" }, emphasised(text)));
    lines = [];
  };
  for (const line of policy.text.split("\n")) {
    const heading = /^#+\s+(.*)$/.exec(line);
    const point = /^\s*[-*]\s+(.*)$/.exec(line);
    if (heading) {
      flush();
      if (heading[1] !== policy.title) {
        parts.push(element("h3", { text: heading[1], dir: "auto" }));
      }
    } else if (point) {
      flush();
      lines.push(`\u2022 ${point[1]}`);
    } else if (line.trim() === "") {
      flush();
    } else {
      lines.push(line);
    }
  }
  flush();
  byId("policy-text").replaceChildren(...parts);
  byId("policy-text").scrollTop = 0;
}

// A policy's **emphasis**; the rest of its Markdown is read as it is written.
function emphasised(text) {
  return text.split(/\*\*([^*\n]+)\*\*/).map((part, number) =>
    number % 2 ? element("strong", { text: part }) : part);
}

function drawContent(clear) {
  const { text, turns, problem, length, sent } = item.content;
  const box = byId("content");
  const shown = [];
  let left = unfolded ? Infinity : FOLDED;
  if (problem) {
    shown.push(element("p", { text: `This content cannot be shown: ${problem}`, class: "problem" }));
  } else if (turns.length) {
    for (const turn of turns) {
      if (left <= 0) break;
      shown.push(element("div", { class: "turn", dir: "auto" }, [
        element("span", { text: visible(turn.role), class: "role" }),
        element("p", { text: visible(turn.content.slice(0, left)), dir: "auto" }),
      ]));
      left -= turn.content.length;
    }
  } else {
    shown.push(element("p", { text: visible(text.slice(0, left)), dir: "auto" }));
    left -= text.length;
  }
  box.replaceChildren(...shown);
  box.scrollTop = 0;
  byId("unfold").hidden = left > 0 || unfolded;
  byId("unfold").replaceChildren(
    `Unfold all ${length.toLocaleString("en")} characters `, element("kbd", { text: "e" }));
  byId("where").textContent = `${item.shard} row ${item.row}` +
    (sent < length ? `; its first ${sent.toLocaleString("en")} characters` : "");
  blur(!clear);
}

function blur(wanted) {
  byId("content").classList.toggle("blurred", wanted);
  byId("content").inert = wanted;
  byId("unblur").hidden = !wanted;
}

function side(violates) {
  return element("span", {
    text: violates ? "violates" : "safe", class: `side ${violates ? "violates" : "safe"}`,
  });
}

function drawLabels() {
  const { labels } = sitting.policies[item.policy];
  byId("labels").replaceChildren(...labels.map((label, number) => {
    const name = element("span", { class: "name" }, [label.name, " ", side(label.violates)]);
    const key = element("kbd", { text: number < 9 ? String(number + 1) : "·" });
    const parts = [key, name];
    if (label.title) parts.push(element("span", { text: label.title, class: "title" }));
    const button = element("button", { type: "button" }, parts);
    button.addEventListener("click", () => answer(label.name));
    return button;
  }));
}

function labelText(name) {
  const found = sitting.policies[item.policy].labels.find((label) => label.name === name);
  return found && found.title ? `${name}, ${found.title}` : name;
}

// A text that may be long, so that what follows it stays in sight.
function foldable(text) {
  const whole = element("span", { text: visible(text), class: "text", dir: "auto" });
  if (text.length <= LONG_RATIONALE) return whole;
  const start = `${visible(text.slice(0, LONG_RATIONALE))} …`;
  return element("details", {}, [element("summary", { text: start, dir: "auto" }), whole]);
}

// What the model and others said; `said`: the person's own label, where it is given.
function drawRevealed(shown, said) {
  const box = byId("revealed");
  box.hidden = shown === null;
  if (shown === null) return;
  const { verdict, others } = shown;
  const parts = [];
  if (said !== null && verdict !== null) {
    const same = verdict.label === said;
    parts.push(element("p", {
      text: same ? "You and the model agree." : "You and the model differ.", class: "outcome",
    }));
  }
  const pairs = said === null ? [] : [["You", [labelText(said)]]];
  if (verdict === null) {
    pairs.push(["Model", ["its verdict is not there any more"]]);
  } else if (verdict.label === null) {
    pairs.push(["Model", [`no verdict (${verdict.status})`]]);
  } else {
    pairs.push(["Model", [`${labelText(verdict.label)} `, side(verdict.violates)]]);
    if (verdict.probability !== null) {
      pairs.push(["P(violates)", [verdict.probability.toFixed(3)]]);
    }
    pairs.push(["Decided by", [verdict.decided_by || "nobody"]]);
    if (verdict.rationale) {
      pairs.push(["Rationale", [foldable(verdict.rationale)]]);
    }
  }
  for (const other of others) {
    pairs.push([other.reviewer, [labelText(other.label) + (other.note ? `: ${other.note}` : "")]]);
  }
  parts.push(element("dl", {}, pairs.flatMap(([name, what]) =>
    [element("dt", { text: name, dir: "auto" }), element("dd", {}, what)])));
  if (verdict !== null && verdict.reasoning) {
    parts.push(element("details", {}, [
      element("summary", { text: "Reasoning" }),
      element("p", { text: visible(verdict.reasoning), class: "text", dir: "auto" }),
    ]));
  }
  box.replaceChildren(...parts);
}

function answer(label) {
  if (item === null || revealed) return;
  work(async () => {
    const note = byId("note").value.trim();
    const kept = await send({
      id: newId(), policy: item.policy, content_hash: item.content_hash, label, note: note || null,
    });
    placed(kept);
    if (label === null || byId("hurry").checked) {
      await show("/api/item");
      say(label === null ? "Skipped" : "Saved");
      return;
    }
    revealed = true;
    byId("answering").hidden = true;
    byId("onward").hidden = false;
    drawRevealed(kept.revealed, label);
    byId("next").focus({ preventScroll: true });
    byId("onward").scrollIntoView({ block: "nearest" });
  });
}

function undo() {
  if (last === null) return;
  work(async () => {
    const { id, policy, content_hash, note } = last;
    placed(await send({ id: newId(), policy, content_hash, withdraws: id }));
    await show(`/api/item?${new URLSearchParams({ policy, content_hash })}`);
    byId("note").value = note || "";
    say("Taken back: answer again");
  });
}

const next = () => revealed && work(() => show("/api/item"));

async function finish() {
  sitting = await ask("/api/sitting");
  byId("work").hidden = true;
  byId("policy").hidden = true;
  byId("done").hidden = false;
  const { total, labelled, skipped } = sitting.progress;
  byId("done-title").textContent = total ? "All of it is answered" : "There is nothing to review";
  byId("done-text").textContent = total
    ? `${labelled} labelled, ${skipped} skipped. Every answer is saved. moderay decide makes the labels follow them.`
    : "No row of these queues was found.";
  const rows = sitting.agreement.map((pair) => element("tr", {}, [
    element("td", { text: pair.policy }),
    element("td", { text: pair.people.join(" and "), dir: "auto" }),
    element("td", { text: String(pair.both), class: "number" }),
    element("td", { text: `${(100 * pair.same / pair.both).toFixed(0)}%`, class: "number" }),
    element("td", { text: pair.kappa === null ? "–" : pair.kappa.toFixed(2), class: "number" }),
  ]));
  const head = ["Policy", "Reviewers", "Both", "Same label", "Kappa"].map((text, number) =>
    element("th", { text, scope: "col", ...(number > 1 ? { class: "number" } : {}) }));
  byId("agreement").replaceChildren(...(rows.length ? [element("table", {}, [
    element("caption", { text: "How far you agree with others" }),
    element("thead", {}, [element("tr", {}, head)]), element("tbody", {}, rows),
  ])] : []));
  byId("done-title").focus();
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  if (event.target === byId("note")) {
    if (event.key === "Escape") byId("note").blur();
    return;
  }
  const digit = /^[1-9]$/.test(event.key) ? Number(event.key) : 0;
  const labels = item === null ? [] : sitting.policies[item.policy].labels;
  const onButton = event.target.closest("button, summary, input") !== null;
  const actions = {
    b: () => item && blur(!byId("content").classList.contains("blurred")),
    e: () => byId("unfold").hidden || byId("unfold").click(),
    n: () => item && !revealed && byId("note").focus(),
    s: () => answer(null),
    u: undo,
    Enter: () => onButton || next(),
    "?": () => byId("keys").showModal(),
  };
  const action = digit && digit <= labels.length
    ? () => answer(labels[digit - 1].name) : actions[event.key];
  if (!action || (event.key === "Enter" && onButton)) return;
  event.preventDefault();
  if (!event.repeat) action();
}

byId("unblur").addEventListener("click", () => { blur(false); byId("content").focus(); });
byId("unfold").addEventListener("click", () => { unfolded = true; drawContent(true); });
byId("skip").addEventListener("click", () => answer(null));
byId("next").addEventListener("click", next);
byId("help").addEventListener("click", () => byId("keys").showModal());
for (const button of document.querySelectorAll(".undo")) button.addEventListener("click", undo);
for (const name of ["always", "hurry"]) {
  byId(name).addEventListener("change", (event) => {
    local.set(name, event.target.checked ? "yes" : "no");
    if (name === "always" && event.target.checked) blur(false);
  });
}
document.addEventListener("keydown", pressed);
if (window.matchMedia("(max-width: 52rem)").matches) byId("policy-fold").open = false;
start();
