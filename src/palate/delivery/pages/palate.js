// What the feed does beyond plain links and forms: it reports what was on the screen, listens to keys, and shares links.
// Every page works without this file.
"use strict";

const root = document.body.dataset.root;
const MIN_SECONDS = 1; // shorter on the screen is no view
const MIN_SHARE = 0.5; // of the card, or of the screen when the card is taller
const reports = [];
const since = new Map(); // card -> when it came on the screen
const onScreen = new Set();
let lastPress = null; // the last vote on this page, for undo

// --- reporting -----------------------------------------------------------------------------------------------------

function report(card, type, value) {
  const { item, request, position, snapshot } = card.dataset;
  reports.push({ item, type, value, request: request || null, snapshot: snapshot || null, position: position === "" ? null : Number(position), time: Date.now() });
}

function reportShown(card) {
  if ("unlogged" in card.dataset) {
    delete card.dataset.unlogged;
    report(card, "shown", null);
  }
}

function send() {
  if (!reports.length) return;
  const body = JSON.stringify(reports.splice(0, 100));
  const sent = navigator.sendBeacon(`${root}/seen`, new Blob([body], { type: "application/json" }));
  if (!sent) fetch(`${root}/seen`, { method: "POST", body, headers: { "content-type": "application/json" }, keepalive: true });
  if (reports.length) send();
}

function leave(card) {
  const start = since.get(card);
  since.delete(card);
  const seconds = (performance.now() - start) / 1000;
  if (start !== undefined && seconds >= MIN_SECONDS) {
    reportShown(card);
    report(card, "viewed", Math.round(seconds * 10) / 10);
  }
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const room = Math.min(entry.boundingClientRect.height, entry.rootBounds ? entry.rootBounds.height : innerHeight);
    const visible = entry.intersectionRect.height >= MIN_SHARE * room && entry.isIntersecting;
    if (visible) onScreen.add(entry.target); else onScreen.delete(entry.target);
    if (visible && !since.has(entry.target) && document.visibilityState === "visible") since.set(entry.target, performance.now());
    if (!visible && since.has(entry.target)) leave(entry.target);
  }
}, { threshold: [0, 0.1, 0.25, 0.5, 0.75, 1] });

function watchCards() {
  for (const card of document.querySelectorAll(".card:not([data-watched])")) {
    card.dataset.watched = "";
    watcher.observe(card);
  }
}

function pause() {
  for (const card of [...since.keys()]) leave(card);
  send();
}

document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") pause();
  else for (const card of onScreen) since.set(card, performance.now());
});
addEventListener("pagehide", pause);
setInterval(send, 5000);

// --- coming back: the same cards, at the same place ------------------------------------------------------------------

function rememberPlace(card) {
  const cards = [...document.querySelectorAll("#cards .card")];
  const from = Math.max(0, cards.indexOf(card) - 30);
  const keys = cards.slice(from, from + 60).map((each) => each.dataset.key);
  if (keys.length) history.replaceState({ feed: location.search }, "", `${root}/?again=${keys.join(".")}#${card.id}`);
}

function forgetPlace() {
  if (new URLSearchParams(location.search).has("again")) history.replaceState(null, "", (history.state && history.state.feed) ? `${root}/${history.state.feed}` : `${root}/`);
}

addEventListener("pageshow", forgetPlace);

function followed(event) {
  const link = event.target.closest("a[data-open]");
  const card = link && link.closest(".card");
  if (!card || (event.type === "auxclick" && event.button !== 1)) return;
  reportShown(card);
  report(card, "opened", null);
  send();
  if (event.type === "click" && !event.ctrlKey && !event.metaKey && !event.shiftKey) rememberPlace(card);
}
document.addEventListener("click", followed);
document.addEventListener("auxclick", followed);

// --- votes and sharing -----------------------------------------------------------------------------------------------

function say(text) {
  const toast = document.querySelector(".toast");
  toast.textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { toast.textContent = ""; }, 2500);
}

async function share(button) {
  const { url, title } = button.dataset;
  const address = new URL(url, location.href).href;
  const card = button.closest(".card");
  try {
    if (navigator.share && matchMedia("(pointer: coarse)").matches) await navigator.share({ url: address, title });
    else { await navigator.clipboard.writeText(address); say("Link copied"); }
    if (card) { report(card, "share", null); send(); }
  } catch (error) {
    if (error.name !== "AbortError") say(`Copy this link: ${address}`);
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (!button) return;
  if (button.dataset.act === "share") { event.preventDefault(); event.stopPropagation(); share(button); return; }
  if (["like", "dislike", "save"].includes(button.dataset.act)) {
    lastPress = { card: button.closest(".card"), act: button.dataset.act };
    if (lastPress.card) reportShown(lastPress.card), send();
  }
}, true);

// The form is replaced by the answer: the button that was pressed must keep the focus.
let pressed = null;
document.addEventListener("htmx:before:request", (event) => {
  const form = event.target.closest("form.acts");
  const button = form && document.activeElement && form.contains(document.activeElement) ? document.activeElement : null;
  pressed = button && { act: button.dataset.act, card: form.closest(".card") };
});
document.addEventListener("htmx:after:swap", () => {
  watchCards();
  if (pressed && pressed.card) (pressed.card.querySelector(`button[data-act="${pressed.act}"]`) || pressed.card).focus({ preventScroll: true });
  pressed = null;
});
document.addEventListener("htmx:response:error", () => say("That didn't work. Please try again."));
document.addEventListener("htmx:error", () => say("No connection. Please try again."));

document.addEventListener("click", (event) => { // an open menu closes when something else is pressed
  for (const menu of document.querySelectorAll(".acts details[open]")) if (!menu.contains(event.target)) menu.open = false;
});

// --- keys ------------------------------------------------------------------------------------------------------------

const smooth = () => (matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth");

function current() {
  return document.activeElement && document.activeElement.closest(".card");
}

function nearest() {
  const cards = [...document.querySelectorAll(".card")];
  return cards.find((card) => card.getBoundingClientRect().bottom > 90) || null;
}

function move(step) {
  const cards = [...document.querySelectorAll(".card")];
  const here = current();
  const next = here ? cards[cards.indexOf(here) + step] : nearest();
  if (!next) return;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "start", behavior: smooth() });
}

function press(act, card = current() || nearest()) {
  const button = card && card.querySelector(`button[data-act="${act}"]`);
  if (!button) return;
  card.focus({ preventScroll: true });
  button.click();
  const on = button.getAttribute("aria-pressed") === "true";
  say({ like: on ? "Like undone" : "Liked", dislike: on ? "Dislike undone" : "Disliked", save: on ? "No longer saved" : "Saved" }[act]);
}

function undo() {
  if (!lastPress || !lastPress.card || !lastPress.card.isConnected) return;
  const { card, act } = lastPress;
  if (card.querySelector(`button[data-act="${act}"]`).getAttribute("aria-pressed") === "true") press(act, card);
  lastPress = null;
}

function openLink(card = current() || nearest()) {
  const link = card && card.querySelector("a[data-open]");
  if (link) link.click();
}

function help() {
  const dialog = document.getElementById("help");
  if (dialog && !dialog.open) dialog.showModal();
}

const keys = { j: () => move(1), k: () => move(-1), l: () => press("like"), d: () => press("dislike"), s: () => press("save"), u: undo, o: () => openLink(), "?": help };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog[open]")) return;
  if (event.key === "Escape") for (const menu of document.querySelectorAll(".acts details[open]")) { menu.open = false; menu.querySelector("summary").focus(); }
  const answer = document.querySelector(`button[data-press~="${CSS.escape(event.key)}"]`);
  if (answer) { event.preventDefault(); answer.click(); return; }
  const act = document.querySelector(".card") && keys[event.key];
  if (act) { event.preventDefault(); act(); }
});

// --- pictures that can't be had leave no hole ------------------------------------------------------------------------

function dropPicture(image) {
  const frame = image.closest(".picture");
  if (!frame) { image.remove(); return; }
  if (frame.querySelector(".play")) { image.remove(); return; }
  frame.closest(".body").classList.remove("beside");
  frame.remove();
}
document.addEventListener("error", (event) => { if (event.target.tagName === "IMG") dropPicture(event.target); }, true);
for (const image of document.images) if (image.complete && image.getAttribute("src") && !image.naturalWidth && image.loading !== "lazy") dropPicture(image);

watchCards();
