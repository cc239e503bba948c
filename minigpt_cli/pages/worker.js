/*
 * The page's other thread: it has the model, and answers one request after another.
 *
 * A request is {type, …}, and so is an answer; `wrote` comes many times for one `write`. A new
 * request other than `shape` ends what is being written.
 */
"use strict";

const BARS = 10, THUMBNAIL = 48, SLICE = 30; // rows, pixels, milliseconds
const MOST_KEPT = 2 ** 22, MOST_MAPPED = 2 ** 24; // numbers

let model, tokenizer, sampling = {};
let writing = 0; // counts what was begun, so that a loop can see that it was ended
let kept = { idx: [], logits: [] }; // of the text so far, while all of it fits the window
let mapped = { key: null };
let shown = null; // what `bars` was last made of

const startsWith = (idx, before) => before.every((token, i) => token === idx[i]);

/** A token's text, so that it can be told from others; bytes that are not whole become escapes. */
function tokenText(token) {
  const bytes = tokenizer.token_bytes[token];
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    const hex = (byte) => `\\x${byte.toString(16).padStart(2, "0")}`;
    return Array.from(bytes, (byte) => (byte < 128 ? String.fromCharCode(byte) : hex(byte))).join("");
  }
}

/** Which tokens are in the part of the text that the model reads. */
function seenIn(idx) {
  const seen = new Uint8Array(model.vocab_size);
  for (const token of idx.slice(-model.config.block_size)) seen[token] = 1;
  return seen;
}

/** Whether all that is scored in a text of this length can be kept. */
const keeps = (length) =>
  length <= model.config.block_size && length * model.vocab_size <= MOST_KEPT;

/** Reads a text from its start and keeps what is scored after each token; returns the last. */
function readAll(idx, reader = new Reader(model)) {
  const logits = [], each = keeps(idx.length) ? (_, scores) => logits.push(scores.slice()) : null;
  const last = reader.read(idx.slice(-model.config.block_size), each);
  kept = { idx: each ? idx.slice() : [], logits };
  return last;
}

/** The logits of the token at `index` of a text, from 1. */
function scoresAt(idx, index) {
  const before = idx.slice(0, index);
  if (index > kept.logits.length || !startsWith(kept.idx, before)) {
    if (!keeps(idx.length)) return readAll(before);
    readAll(idx); // one reading serves every token of a text that fits the window
  }
  return kept.logits[index - 1];
}

/** What could come at `index`, as bars: by the settings, and as the model found it. */
function bars(index, logits, seen, chosen) {
  shown = { index, logits, seen, chosen };
  const own = softmax(logits), shaped = nextTokenProbabilities(logits, sampling, seen);
  const order = Array.from(own, (_, i) => i)
    .sort((a, b) => shaped[b] - shaped[a] || own[b] - own[a]).slice(0, BARS);
  if (chosen !== null && !order.includes(chosen)) order.push(chosen);
  return {
    index, chosen, of: model.vocab_size,
    drawable: shaped.reduce((count, p) => count + (p > 0 ? 1 : 0), 0),
    rows: order.map((token) => (
      { token, text: tokenText(token), shaped: shaped[token], own: own[token] }
    )),
  };
}

/** The text of tokens, each with what it completes and how likely the model found it. */
function described(idx) {
  const decoder = new StreamDecoder(tokenizer), whole = idx.length <= kept.logits.length;
  return idx.map((token, i) => ({
    token, text: decoder.push(token),
    likely: whole && i ? softmax(kept.logits[i - 1])[token] : null,
  }));
}

const channel = new MessageChannel();
/** Lets messages in; faster than a timer, which browsers slow down. */
const pause = (milliseconds) => new Promise((resolve) => {
  if (milliseconds) return void setTimeout(resolve, milliseconds);
  channel.port1.onmessage = resolve;
  channel.port2.postMessage(null);
});

async function write({ run, idx, tokens, seed, slow, inspect }) {
  const mine = writing, random = generator(seed), reader = new Reader(model);
  const decoder = new StreamDecoder(tokenizer), started = performance.now();
  const held = idx.slice(), seen = seenIn(idx);
  for (const token of idx) decoder.push(token);
  let logits = readAll(held, reader), batch = [], written = 0;
  let sliceEnds = performance.now() + SLICE;
  while (written < tokens) {
    const token = sample(logits, sampling, random, seen), index = held.length;
    batch.push({ token, text: decoder.push(token), likely: inspect ? softmax(logits)[token] : null });
    held.push(token);
    written++;
    if (slow || performance.now() > sliceEnds) {
      postMessage({ type: "wrote", run, batch, bars: inspect ? bars(index, logits, seen, token) : null });
      batch = [];
      await pause(slow ? 90 : 0);
      if (mine !== writing) return;
      sliceEnds = performance.now() + SLICE;
    }
    seen[token] = 1;
    logits = reader.read([token]);
    if (kept.logits.length && keeps(held.length)) {
      kept.idx.push(token);
      kept.logits.push(logits);
    } else kept = { idx: [], logits: [] };
  }
  const end = inspect ? bars(held.length, logits, seen, null) : null;
  const speed = (1000 * written) / (performance.now() - started);
  postMessage({ type: "wrote", run, batch, bars: end, finished: true, tail: decoder.flush(), speed });
}

/** Where one head looked, and small pictures of all heads. */
function attention({ idx, layer, head }) {
  const { n_layer, n_head, block_size } = model.config;
  const most = Math.floor(Math.sqrt(MOST_MAPPED / (n_layer * n_head)));
  const read = idx.slice(-Math.min(block_size, most)), T = read.length, key = read.join();
  if (mapped.key !== key) {
    const maps = attentionMaps(model, read), size = Math.min(T, THUMBNAIL);
    const small = new Float32Array(n_layer * n_head * size * size);
    for (let one = 0; one < n_layer * n_head; one++) {
      for (let t = 0; t < T; t++) {
        for (let s = 0; s <= t; s++) { // the largest weight shows, however small the picture
          const row = Math.floor((t * size) / T), column = Math.floor((s * size) / T);
          const place = (one * size + row) * size + column;
          small[place] = Math.max(small[place], maps[(one * T + t) * T + s]);
        }
      }
    }
    mapped = { key, maps, small, size };
  }
  const place = (layer * n_head + head) * T * T;
  return {
    first: idx.length - T, T, layer, head, small: mapped.small, size: mapped.size,
    weights: mapped.maps.slice(place, place + T * T),
  };
}

const answers = {
  open({ description, weights }) {
    ({ model, tokenizer } = load(description, weights));
    return { type: "ready" };
  },
  /** A text as tokens, and what could follow it. */
  read({ text, request, inspect }) {
    const unknown = [];
    let idx = tokenizer.encode(text, unknown);
    const never = idx.filter((token) => token === tokenizer.unknown_id).length;
    const empty = !idx.length;
    if (empty) idx = tokenizer.start_ids;
    const logits = inspect ? readAll(idx) : null, tokens = described(idx);
    if (empty) Object.assign(tokens[0], { text: "", start: true }); // it is read, and not shown
    return {
      type: "read", request, tokens, unknown: [...new Set(unknown)], never,
      bars: inspect ? bars(idx.length, logits, seenIn(idx), null) : null,
    };
  },
  /** What else could have come at one place of a text. */
  at({ idx, index }) {
    const chosen = index < idx.length ? idx[index] : null;
    return { type: "bars", bars: bars(index, scoresAt(idx, index), seenIn(idx.slice(0, index)), chosen) };
  },
  /** One more token of a text, as the reader chose it. */
  piece({ idx, token, likely }) {
    const decoder = new StreamDecoder(tokenizer);
    for (const each of idx) decoder.push(each);
    return { type: "piece", piece: { token, text: decoder.push(token), likely } };
  },
  write,
  attention: (asked) => ({ type: "attention", ...attention(asked) }),
  stop: () => ({ type: "stopped" }),
  /** Other settings: what is shown changes, and what is written from now on. */
  shape() {
    return shown && { type: "bars", bars: bars(shown.index, shown.logits, shown.seen, shown.chosen) };
  },
};

onmessage = async ({ data }) => {
  if (data.sampling) sampling = data.sampling;
  if (data.type !== "shape") writing++;
  try {
    const answer = await answers[data.type](data);
    if (answer) postMessage({ ...answer, run: data.run });
  } catch (error) {
    postMessage({ type: "failed", run: data.run, message: String(error) });
  }
};
