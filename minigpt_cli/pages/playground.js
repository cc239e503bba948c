/*
 * The page's behavior. The model runs in a worker (worker.js); here is only what is seen.
 *
 * Nothing of the model or of a text ever becomes HTML: it is set as text content.
 */
"use strict";

const $ = (id) => document.getElementById(id);
const about = JSON.parse($("description").textContent);
const inspect = about.inspect;
const SLIDERS = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty"];
const OFF = { top_k: "100", top_p: "1", min_p: "0", repetition_penalty: "1" };
const DEEPEST = 48; // percent of color behind a text, so that it can still be read
const SURPRISES = [1, 2.5, 4.5, 7]; // bits from which on a shade begins

let language = navigator.language.startsWith("zh") ? "zh" : "en";
let words = WORDS[language];
let state = "loading"; // then ready, or writing
let tokens = []; // {token, text, likely}; the text so far
let cells = []; // {first, last, text, likely, element}: whole characters, of one or more tokens
let here = 0; // the place whose bars are shown; tokens.length is the end
let bars = null, maps = null, said = () => words.loading, notice = () => "";
let run = 0, wroteFrom = 0; // counts requests, so that an answer to an earlier one is not heard
let earlier = []; // texts before a branch was taken
let draft = null; // what is being read as the start of a text: "show" the text, or only its "bars"
let chosenHead = { layer: 0, head: 0 }, lookFrom = null;

const idx = () => tokens.map((each) => each.token);

/** Signs for what cannot be seen, and escapes for what could turn the page's text around. */
const escaped = (char) => `\\u${char.codePointAt(0).toString(16).padStart(4, "0")}`;
const harmless = (text) =>
  text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, escaped);
const SIGNS = { " ": "␣", "\n": "↵", "\t": "⇥" };
const visible = (text) =>
  text.replace(/^\p{M}/u, "◌$&").replace(/[ \n\t]/g, (char) => SIGNS[char])
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, escaped);

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// ---------------------------------------------------------------- the worker

const program = new Blob([$("worker").textContent], { type: "text/javascript" });
const worker = new Worker(URL.createObjectURL(program));
worker.onmessage = ({ data }) => data.run === run && hear[data.type](data);
worker.onerror = (event) => say(() => words.failed(event.message || event.type));

function ask(type, more = {}) {
  if (type !== "shape" && type !== "attention") run++;
  worker.postMessage({ type, run, sampling: sampling(), inspect, ...more });
}

const hear = {
  ready() {
    $("weights").remove(); // the worker has them
    setState("ready");
    performance.mark("ready");
    say(() => words.ready);
    readPrompt("bars");
  },
  read(answer) {
    if (answer.request === "show") {
      tokens = answer.tokens;
      earlier = [];
      rebuild();
      const unknown = answer.unknown.slice(0, 8);
      notice = () => (unknown.length ? words.unknown(unknown) : answer.never ? words.never(answer.never) : "");
      write();
    } else if (state === "ready" && !cells.length) {
      draft = answer.tokens;
      showBars(answer.bars);
    }
  },
  wrote({ batch, bars: found, finished, tail, speed }) {
    if (state !== "writing") return;
    for (const each of batch) add(each);
    if (finished) {
      if (tail) closeCell(tail);
      setState("ready");
      const count = tokens.length - wroteFrom;
      say(() => `${words.wrote(count, speed)} ${notice()}`);
    }
    if (found) showBars(found);
    else here = tokens.length;
    moveCaret();
    if (finished) look();
  },
  bars: (answer) => showBars(answer.bars),
  attention(answer) {
    maps = answer;
    drawHeads();
    drawMap();
    shadeText();
  },
  stopped() {},
  /** The token of a branch. */
  piece({ piece }) {
    add(piece);
    here = tokens.length;
    write();
  },
  failed({ message }) {
    if (state === "writing") setState("ready");
    say(() => words.failed(message));
  },
};

// ----------------------------------------------------------------- the text

/** Goes on from the text so far. */
function write() {
  wroteFrom = tokens.length;
  setState("writing");
  say(notice);
  const given = $("seed").value;
  const seed = given === "" ? Math.floor(Math.random() * 2 ** 32) : Number(given);
  ask("write", { idx: idx(), tokens: limit(), seed, slow: $("slow").checked });
}

const limit = () => Math.max(1, Math.min(10000, Math.floor(Number($("length").value)) || 300));

function stop() {
  if (state !== "writing") return;
  ask("stop");
  setState("ready");
  say(() => `${words.stopped} ${notice()}`);
  if (inspect) goTo(tokens.length);
  look();
}

/** Reads the prompt: to show it and write on, or only for the bars of what could follow. */
function readPrompt(request) {
  if (request === "show") setState("writing");
  if (request === "show" || inspect) ask("read", { text: $("prompt").value, request });
}

/** Adds a token to the text, and a cell once it completes a character. */
function add(each) {
  tokens.push(each);
  if (each.text) closeCell(each.text);
}

/** Makes a cell of all tokens that are in none yet. */
function closeCell(text) {
  const first = cells.length ? cells.at(-1).last + 1 : hidden(), last = tokens.length - 1;
  if (first > last) return;
  const inside = tokens.slice(first, last + 1);
  const known = inside.every((each) => each.likely !== null);
  const likely = known ? inside.reduce((product, each) => product * each.likely, 1) : null;
  const element = make("span", "cell", harmless(text));
  if (text.startsWith("\n")) element.classList.add("line");
  if (likely !== null && inspect) {
    const shade = SURPRISES.filter((bits) => -Math.log2(likely) >= bits).length;
    if (shade) element.classList.add(`s${shade}`);
  }
  element.dataset.cell = cells.length;
  cells.push({ first, last, text, likely, element });
  $("text").insertBefore(element, caret.parentNode ? caret : null);
}

let marked = null;
const caret = make("span", "caret");
caret.setAttribute("aria-hidden", "true");

/** Builds the text again from its tokens, after some were taken away. */
function rebuild() {
  const all = tokens;
  tokens = [];
  cells = [];
  $("text").replaceChildren();
  maps = null;
  all.forEach(add);
  moveCaret();
}

/** How many tokens are not shown: a text without a prompt begins from a line break. */
const hidden = () => (tokens[0]?.start ? 1 : 0);

function moveCaret() {
  marked?.classList.remove("here");
  marked = here < tokens.length && state !== "writing" ? cellOf(here)?.element : null;
  marked?.classList.add("here");
  if (marked) caret.remove();
  else if (cells.length) $("text").append(caret);
}

const cellOf = (token) => cells.find((cell) => cell.last >= token) || null;

/** Shows what could have come at a place of the text; at the end, what could come. */
function goTo(index) {
  if (!tokens.length) return;
  const wasWriting = state === "writing";
  here = Math.max(hidden(), Math.min(index, tokens.length));
  setState("ready");
  if (wasWriting) say(() => words.stopped);
  if (here === 0) showBars({ index: 0, chosen: tokens[0].token, rows: [] });
  else ask("at", { idx: idx(), index: here });
  lookFrom = null;
  moveCaret();
  shadeText();
}

/** Leaves the text at a place and goes on with another token. */
function branch(token) {
  if (!tokens.length || !cells.length) { // nothing written yet: the prompt, and this token
    tokens = draft || [];
    here = tokens.length;
  } else if (here < tokens.length) {
    earlier.push(tokens);
  }
  tokens = tokens.slice(0, here);
  notice = () => "";
  rebuild();
  const row = bars.rows.find((each) => each.token === token);
  setState("writing");
  ask("piece", { idx: idx(), token, likely: row.own });
}

// ----------------------------------------------------------------- the bars

function showBars(found) {
  bars = found;
  here = found.index;
  if (!inspect) return;
  const list = $("bars"), before = tokens.slice(0, here);
  const context = visible(Array.from(textOf(before)).slice(-14).join(""));
  const taken = state === "writing" ? null : found.rows.find((row) => row.token === found.chosen);
  $("where").textContent = !found.rows.length ? words.first
    : taken ? words.instead(visible(taken.text), taken.own)
    : context ? words.after(context) : "\u00a0";
  while (list.children.length > found.rows.length) list.lastChild.remove();
  while (list.children.length < found.rows.length) list.append(makeBar());
  found.rows.forEach((row, i) => fillBar(list.children[i].firstChild, row, found.chosen));
  $("drawable").textContent = found.rows.length ? words.drawable(found.drawable, found.of) : "";
}

/** The text before the bars' place; that of the prompt, if there is no text yet. */
const textOf = (before) => (cells.length ? before : draft || []).map((each) => each.text).join("");

function makeBar() {
  const button = make("button"), track = make("span", "track");
  button.type = "button";
  track.append(make("span", "shaped"), make("span", "own"));
  button.append(make("span", "token"), track, make("span", "share"));
  button.onclick = () => branch(Number(button.dataset.token));
  const item = make("li");
  item.append(button);
  return item;
}

function fillBar(button, row, chosen) {
  const [token, track, share] = button.children, name = visible(row.text);
  token.textContent = name;
  track.children[0].style.setProperty("--w", 100 * row.shaped);
  track.children[1].style.setProperty("--w", 100 * row.own);
  share.textContent = row.shaped ? percent(row.shaped) : "–";
  button.dataset.token = row.token;
  button.dataset.share = row.shaped;
  button.dataset.own = row.own;
  button.setAttribute("aria-label", words.choose(name, row.shaped));
  if (row.token === chosen) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
}

// ------------------------------------------------------------ where it looks

/** Asks for the attention over the text, if it is looked at and the text stands still. */
function look() {
  if (!inspect || !$("look").open) return shadeText();
  if (!cells.length) $("look_at").textContent = words.no_text;
  else if (state === "ready") ask("attention", { idx: idx(), ...chosenHead });
}

function makeHeads() {
  const { n_layer, n_head } = about.model, grid = $("heads");
  grid.style.setProperty("--n", n_head);
  for (let layer = 0; layer < n_layer; layer++) {
    for (let head = 0; head < n_head; head++) {
      const button = make("button");
      button.type = "button";
      button.setAttribute("role", "radio");
      button.append(make("canvas"));
      button.onclick = () => {
        chosenHead = { layer, head };
        markHead();
        look();
      };
      grid.append(button);
    }
  }
  grid.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: n_head, ArrowUp: -n_head }[event.key];
    const next = step && grid.children[[...grid.children].indexOf(document.activeElement) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.click();
  };
  markHead();
}

function markHead() {
  const { n_head } = about.model;
  [...$("heads").children].forEach((button, i) => {
    const at = { layer: Math.floor(i / n_head), head: i % n_head };
    const chosen = at.layer === chosenHead.layer && at.head === chosenHead.head;
    button.setAttribute("aria-checked", chosen);
    button.tabIndex = chosen ? 0 : -1;
    button.setAttribute("aria-label", words.head(at.layer, at.head));
    button.title = words.head(at.layer, at.head);
  });
}

/** Paints weights, (size, size), in the accent color; as powers, so that small ones show. */
function paint(canvas, weights, size) {
  const [red, green, blue] = accent();
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d"), image = context.createImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    image.data.set([red, green, blue, 255 * weights[i] ** 0.4], 4 * i);
  }
  context.putImageData(image, 0, 0);
}

function accent() {
  const hex = getComputedStyle(document.documentElement).getPropertyValue("--head").trim();
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

function drawHeads() {
  const { small, size } = maps;
  [...$("heads").children].forEach((button, i) =>
    paint(button.firstChild, small.subarray(i * size * size, (i + 1) * size * size), size));
}

function drawMap() {
  $("map").hidden = false;
  $("map").setAttribute("aria-label", words.head(maps.layer, maps.head));
  paint($("map"), maps.weights, maps.T);
}

/** Shades the text by where the chosen head looks from one place of it. */
function shadeText() {
  const text = $("text"), on = Boolean(inspect && maps && $("look").open && state === "ready");
  text.classList.toggle("looking", on);
  const tinted = Boolean(inspect && !on && $("tint").checked);
  text.classList.toggle("tinted", tinted);
  document.querySelector(".legend")?.classList.toggle("off", !tinted);
  if (!on) return;
  const from = Math.min(lookFrom ?? here, tokens.length - 1), row = from - maps.first;
  const last = row < 0 ? -1 : from, weights = cells.map((cell) => {
    let weight = 0;
    for (let i = Math.max(cell.first, maps.first); i <= Math.min(cell.last, last); i++) {
      weight += maps.weights[row * maps.T + i - maps.first];
    }
    return weight;
  });
  const most = Math.max(1e-9, ...weights);
  cells.forEach((cell, i) => {
    cell.element.style.setProperty("--look", DEEPEST * Math.sqrt(weights[i] / most));
  });
  const cell = cellOf(from), note = maps.first ? ` ${words.only_last(maps.T)}` : "";
  $("look_at").textContent = words.looks(maps.layer, maps.head, cell ? visible(cell.text) : "") + note;
}

// ------------------------------------------------------------- the controls

function sampling() {
  const of = (name) => ($(name).value === OFF[name] ? null : Number($(name).value));
  return Object.fromEntries(SLIDERS.map((name) => [name, of(name)]));
}

function showSettings() {
  for (const name of SLIDERS) {
    const off = $(name).value === OFF[name];
    const shown = off ? words.off : name === "top_k" ? $(name).value : Number($(name).value).toFixed(2);
    document.querySelector(`output[for=${name}]`).textContent = shown;
    $(name).setAttribute("aria-valuetext", shown);
  }
}

function setState(next) {
  state = document.body.dataset.state = next;
  document.body.classList.toggle("writing", next === "writing");
  $("write").disabled = next === "loading";
  $("write").textContent = next === "writing" ? words.stop : words.write;
  $("more").disabled = next !== "ready" || !cells.length;
  $("copy").disabled = !cells.length;
  if (inspect) {
    $("where").setAttribute("aria-live", next === "writing" ? "off" : "polite");
    $("undo").hidden = !earlier.length || next === "writing";
    $("back").disabled = $("forth").disabled = !cells.length;
  }
  shadeText();
}

/** Says something in the status line; in whichever language is chosen later. */
function say(what) {
  said = what;
  $("status").textContent = what();
}

function speak() {
  words = WORDS[language];
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  const title = about.title || words.title(about);
  document.title = document.querySelector("h1").textContent = title;
  for (const element of document.querySelectorAll("[data-words]")) {
    const found = words[element.dataset.words];
    element.textContent = typeof found === "function" ? found(about) : found;
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", words[element.dataset.label]);
    element.title = words[element.dataset.label];
  }
  $("text").dataset.empty = words.empty;
  $("text").setAttribute("aria-label", inspect ? words.text_label : words.text_plain);
  $("language").textContent = language === "zh" ? "English" : "中文";
  $("language").lang = language === "zh" ? "en" : "zh";
  $("seed").placeholder = words.any;
  tellAbout();
  showSettings();
  setState(state);
  say(said);
  if (!inspect) return;
  $("heads").setAttribute("aria-label", words.look);
  markHead();
  if (bars) showBars(bars);
}

function tellAbout() {
  const units = UNITS[language][about.tokenizer.kind], [first, list, last] = words.about(about, units);
  const items = make("ul");
  items.append(...(inspect ? list : list.slice(2, 3)).map((line) => make("li", "", line)));
  $("about").replaceChildren(make("p", "", first), items, make("p", "", last));
  const facts = {
    corpus: about.corpus, parameters: grouped(about.parameters), shape: words.shape(about.model),
    context: `${grouped(about.model.block_size)} ${units}`,
    tokens: `${grouped(about.vocab_size)} ${units}`,
    step: grouped(about.step), val_loss: about.val_loss?.toFixed(4),
    bits: about.bits_per_byte?.toFixed(3), dtype: about.dtype,
  };
  const rows = Object.entries(facts).filter(([, value]) => value !== undefined).map(([name, value]) => {
    const row = make("tr"), head = make("th", "", words.facts[name]);
    head.scope = "row";
    row.append(head, make("td", "", value));
    return row;
  });
  $("facts").replaceChildren(...rows);
  $("command").textContent = about.command;
}

async function copy() {
  const text = cells.map((cell) => cell.text).join("");
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a page from a file may not be allowed to: select it, so that the reader can
    getSelection().selectAllChildren($("text"));
    document.execCommand("copy");
  }
  say(() => words.copied);
}

function listen() {
  $("write").onclick = () => {
    if (state === "writing") stop();
    else if (state === "ready") readPrompt("show");
  };
  $("prompt").onkeydown = (event) => {
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) $("write").click();
  };
  let timer;
  $("prompt").oninput = () => {
    clearTimeout(timer);
    timer = setTimeout(() => state === "ready" && !cells.length && readPrompt("bars"), 150);
  };
  $("more").onclick = () => {
    rebuild();
    write();
  };
  $("copy").onclick = copy;
  for (const name of SLIDERS) {
    $(name).oninput = () => {
      showSettings();
      if (state !== "loading") ask("shape");
    };
  }
  $("language").onclick = () => {
    language = language === "zh" ? "en" : "zh";
    speak();
    shadeText();
  };
  if (inspect) listenInside();
}

function listenInside() {
  const text = $("text"), cellAt = (event) => cells[event.target.closest?.(".cell")?.dataset.cell];
  text.onclick = (event) => {
    const cell = cellAt(event);
    if (cell && getSelection().isCollapsed) goTo(cell.first);
  };
  text.onpointerover = (event) => {
    const cell = event.pointerType === "mouse" && maps && cellAt(event);
    if (!cell) return;
    lookFrom = cell.last;
    shadeText();
  };
  text.onpointerleave = () => {
    lookFrom = null;
    shadeText();
  };
  text.onkeydown = (event) => {
    const cell = cellOf(here);
    const to = {
      ArrowLeft: () => cellOf((cell ? cell.first : tokens.length) - 1)?.first ?? 0,
      ArrowRight: () => (cell ? cell.last + 1 : tokens.length), Home: () => 0, End: () => tokens.length,
    }[event.key];
    if (!to || !cells.length || event.metaKey || event.ctrlKey || event.altKey) return;
    event.preventDefault();
    goTo(to());
  };
  $("back").onclick = () => goTo(here - 1);
  $("forth").onclick = () => goTo(here + 1);
  $("undo").onclick = () => {
    tokens = earlier.pop();
    rebuild();
    goTo(tokens.length);
    look();
  };
  $("tint").onchange = shadeText;
  $("look").ontoggle = look;
  matchMedia("(prefers-color-scheme: dark)").onchange = () => maps && (drawHeads(), drawMap());
  makeHeads();
}

document.body.classList.toggle("inspect", inspect);
$("top_k").max = Math.min(100, about.vocab_size);
$("top_k").value = OFF.top_k = $("top_k").max;
$("prompt").value = about.prompt;
listen();
speak();
ask("open", { description: about, weights: $("weights").textContent });
