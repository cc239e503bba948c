/*
 * The GPT in a browser: token ids in, logits out, and the next token drawn from them.
 *
 * Plain JavaScript that computes what Python does, with the same names: `model/gpt.py`,
 * `model/kv_cache.py`, `generation/tokens.py`, `generation/sampling.py` and `tokenizer/`.
 * It runs in a worker (see worker.js), and under node in the tests, which compare the two.
 *
 * Tensors are flat arrays, row after row. Shapes: T time, C n_embd, H n_head, K n_kv_head,
 * D head_dim, F hidden, V vocab, W window. Sums are taken in double precision, as JavaScript
 * does by itself. A layer returns an array of its own, which its next call overwrites.
 */
"use strict";

// ---------------------------------------------------------------- model/gpt.py

/** Weights by name, in views on the page's bytes. */
class Weights {
  constructor(entries, bytes) {
    this.bytes = bytes;
    this.entries = new Map(entries.map((entry) => [entry.name, entry]));
  }

  /** A matrix as {values, scale, rows, columns}: entry (r, c) is values[r * columns + c] * scale[r]. */
  matrix(name) {
    const { dtype, shape: [rows, columns], offset } = this.entries.get(name);
    const { buffer } = this.bytes, size = rows * columns;
    if (dtype === "int8") {
      const scale = new Float32Array(buffer, offset, rows);
      return { values: new Int8Array(buffer, offset + 4 * rows, size), scale, rows, columns };
    }
    const upper = new Uint16Array(buffer, offset, size); // bf16 is the upper half of a float
    const bits = Uint32Array.from(upper, (half) => half << 16);
    const values = new Float32Array(bits.buffer);
    return { values, scale: new Float32Array(rows).fill(1), rows, columns };
  }

  /** A vector, or null where the model has none. */
  vector(name) {
    const entry = this.entries.get(name);
    return entry ? new Float32Array(this.bytes.buffer, entry.offset, entry.shape[0]) : null;
  }
}

/** An array of at least this size: the one given, if it will do. */
function room(array, size) {
  return array !== undefined && array.length >= size ? array : new Float32Array(size);
}

class Embedding {
  constructor(matrix) {
    this.matrix = matrix;
  }

  /** Adds a row to the C numbers from `out[start]`. */
  addRow(row, out, start) {
    const { values, scale, columns } = this.matrix;
    for (let i = 0; i < columns; i++) out[start + i] += values[row * columns + i] * scale[row];
  }
}

class Linear {
  constructor(matrix, bias = null) {
    this.matrix = matrix;
    this.bias = bias;
  }

  static of(weights, name) {
    return new Linear(weights.matrix(`${name}.weight`), weights.vector(`${name}.bias`));
  }

  /** (T, in) to (T, out). */
  forward(x, T) {
    const { values, scale, rows, columns } = this.matrix;
    const out = (this.out = room(this.out, T * rows));
    let t = 0;
    for (; t + 4 <= T; t += 4) fourTokens(values, scale, rows, columns, x, out, t);
    for (; t < T; t++) oneToken(values, scale, rows, columns, x, out, t);
    if (this.bias) {
      for (t = 0; t < T; t++) for (let r = 0; r < rows; r++) out[t * rows + r] += this.bias[r];
    }
    return out;
  }
}

/** Multiplies one token by a matrix, four rows at a time: each of its numbers is read once for four. */
function oneToken(w, scale, rows, columns, x, out, t) {
  const from = t * columns, to = t * rows;
  let r = 0;
  for (; r + 4 <= rows; r += 4) {
    const i = r * columns, j = i + columns, k = j + columns, l = k + columns;
    let a = 0, b = 0, c = 0, d = 0;
    for (let n = 0; n < columns; n++) {
      const value = x[from + n];
      a += w[i + n] * value;
      b += w[j + n] * value;
      c += w[k + n] * value;
      d += w[l + n] * value;
    }
    out[to + r] = a * scale[r];
    out[to + r + 1] = b * scale[r + 1];
    out[to + r + 2] = c * scale[r + 2];
    out[to + r + 3] = d * scale[r + 3];
  }
  for (; r < rows; r++) {
    let sum = 0;
    for (let n = 0; n < columns; n++) sum += w[r * columns + n] * x[from + n];
    out[to + r] = sum * scale[r];
  }
}

/** Multiplies four tokens by a matrix: each weight is read once for four. */
function fourTokens(w, scale, rows, columns, x, out, t) {
  const i = t * columns, j = i + columns, k = j + columns, l = k + columns;
  for (let r = 0; r < rows; r++) {
    const row = r * columns;
    let a = 0, b = 0, c = 0, d = 0;
    for (let n = 0; n < columns; n++) {
      const weight = w[row + n];
      a += weight * x[i + n];
      b += weight * x[j + n];
      c += weight * x[k + n];
      d += weight * x[l + n];
    }
    out[t * rows + r] = a * scale[r];
    out[(t + 1) * rows + r] = b * scale[r];
    out[(t + 2) * rows + r] = c * scale[r];
    out[(t + 3) * rows + r] = d * scale[r];
  }
}

/** Zero mean and unit variance, then a weight and perhaps a bias (Ba et al. 2016). */
class LayerNorm {
  constructor(weights, name) {
    this.weight = weights.vector(`${name}.weight`);
    this.bias = weights.vector(`${name}.bias`);
  }

  forward(x, T) {
    const C = this.weight.length, out = (this.out = room(this.out, T * C));
    for (let start = 0; start < T * C; start += C) {
      let mean = 0, variance = 0;
      for (let i = 0; i < C; i++) mean += x[start + i] / C;
      for (let i = 0; i < C; i++) variance += (x[start + i] - mean) ** 2 / C;
      const scale = 1 / Math.sqrt(variance + 1e-5);
      for (let i = 0; i < C; i++) {
        out[start + i] = (x[start + i] - mean) * scale * this.weight[i] + (this.bias ? this.bias[i] : 0);
      }
    }
    return out;
  }
}

/** Unit root mean square, then a weight (Zhang & Sennrich 2019). */
class RMSNorm {
  constructor(weights, name) {
    this.weight = weights.vector(`${name}.weight`);
  }

  forward(x, T) {
    const C = this.weight.length, out = (this.out = room(this.out, T * C));
    for (let t = 0; t < T; t++) this.normalize(x, t * C, out);
    return out;
  }

  /** Normalizes the numbers from `x[start]` into the same places of `out`. */
  normalize(x, start, out) {
    const size = this.weight.length;
    let squares = 0;
    for (let i = 0; i < size; i++) squares += x[start + i] ** 2;
    const scale = 1 / Math.sqrt(squares / size + 1e-6);
    for (let i = 0; i < size; i++) out[start + i] = x[start + i] * scale * this.weight[i];
  }
}

/** What both families have: heads, the cache, and softmax(q kᵀ / √D) v over the keys so far. */
class Attention {
  constructor(config, weights, name) {
    this.config = config;
    this.D = config.n_embd / config.n_head;
    this.qkv = Linear.of(weights, `${name}.qkv`);
    this.proj = Linear.of(weights, `${name}.proj`);
    this.scores = new Float64Array(config.block_size);
  }

  /** Queries, keys and values of each token side by side, (T, (H + 2K) D). */
  heads(x, T, position) {
    return this.qkv.forward(x, T);
  }

  forward(x, T, cache, layer, watch) {
    const { D } = this, { n_head: H, n_kv_head: K, n_embd: C } = this.config, W = cache.window;
    const qkv = this.heads(x, T, cache.length), width = (H + 2 * K) * D;
    const keys = cache.keys[layer], values = cache.values[layer];
    const out = (this.out = room(this.out, T * C));
    for (let t = 0; t < T; t++) {
      const position = cache.length + t, slot = position % W, held = Math.min(position + 1, W);
      for (let head = 0; head < K; head++) {
        const k = t * width + (H + head) * D, v = k + K * D, place = (head * W + slot) * D;
        for (let i = 0; i < D; i++) {
          keys[place + i] = qkv[k + i];
          values[place + i] = qkv[v + i];
        }
      }
      for (let head = 0; head < H; head++) {
        const place = Math.floor((head * K) / H) * W * D; // neighboring queries share a key
        this.attend(qkv, t * width + head * D, keys, values, place, held, out, t * C + head * D);
        if (watch) watch(layer, head, t, this.scores);
      }
    }
    return this.proj.forward(out, T);
  }

  /** One query over the `held` keys from `place`; leaves its weights in `scores`. */
  attend(q, start, keys, values, place, held, out, to) {
    const { D, scores } = this, scale = 1 / Math.sqrt(D);
    let most = -Infinity, sum = 0;
    for (let s = 0, key = place; s < held; s++, key += D) {
      let dot = 0;
      for (let i = 0; i < D; i++) dot += q[start + i] * keys[key + i];
      scores[s] = dot * scale;
      if (scores[s] > most) most = scores[s];
    }
    for (let s = 0; s < held; s++) sum += scores[s] = Math.exp(scores[s] - most);
    for (let i = 0; i < D; i++) out[to + i] = 0;
    for (let s = 0, value = place; s < held; s++, value += D) {
      const weight = (scores[s] /= sum);
      for (let i = 0; i < D; i++) out[to + i] += weight * values[value + i];
    }
  }
}

class ClassicAttention extends Attention {}

/** With QK-norm and rotary positions (Su et al. 2021), as in Qwen3. */
class ModernAttention extends Attention {
  constructor(config, weights, name) {
    super(config, weights, name);
    this.q_norm = new RMSNorm(weights, `${name}.q_norm`);
    this.k_norm = new RMSNorm(weights, `${name}.k_norm`);
    const { D } = this;
    this.frequency = Array.from({ length: D / 2 }, (_, i) => config.rope_theta ** ((-2 * i) / D));
  }

  heads(x, T, position) {
    const { D } = this, { n_head: H, n_kv_head: K } = this.config, qkv = super.heads(x, T, position);
    for (let t = 0; t < T; t++) {
      const cos = this.frequency.map((f) => Math.cos((position + t) * f));
      const sin = this.frequency.map((f) => Math.sin((position + t) * f));
      for (let head = 0; head < H + K; head++) {
        const start = (t * (H + 2 * K) + head) * D;
        (head < H ? this.q_norm : this.k_norm).normalize(qkv, start, qkv);
        for (let i = start, n = 0; n < D / 2; i++, n++) { // channel i turns with channel i + D/2
          const one = qkv[i], other = qkv[i + D / 2];
          qkv[i] = one * cos[n] - other * sin[n];
          qkv[i + D / 2] = other * cos[n] + one * sin[n];
        }
      }
    }
    return qkv;
  }
}

/** Adds `change`, (T, C), to the residual stream. */
function addTo(x, change, size) {
  for (let i = 0; i < size; i++) x[i] += change[i];
}

class ClassicBlock {
  constructor(config, weights, name) {
    this.config = config;
    this.norm1 = new LayerNorm(weights, `${name}.norm1`);
    this.attention = new ClassicAttention(config, weights, `${name}.attention`);
    this.norm2 = new LayerNorm(weights, `${name}.norm2`);
    this.up = Linear.of(weights, `${name}.up`);
    this.down = Linear.of(weights, `${name}.down`);
    this.activation = config.activation === "relu" ? (x) => Math.max(x, 0) : gelu;
  }

  feedForward(x, T) {
    const hidden = this.up.forward(x, T), size = T * this.up.matrix.rows;
    for (let i = 0; i < size; i++) hidden[i] = this.activation(hidden[i]);
    return this.down.forward(hidden, T);
  }
}

/** The exact one (Hendrycks & Gimpel 2016): x Φ(x). */
function gelu(x) {
  return x >= 0 ? x - 0.5 * x * erfc(x / Math.SQRT2) : 0.5 * x * erfc(-x / Math.SQRT2);
}

/** 1 - erf(x) for x ≥ 0, to a part in 10⁷ (Press et al. 1992, Numerical Recipes). */
function erfc(x) {
  const t = 1 / (1 + 0.5 * x);
  let sum = 0;
  for (const c of [
    0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418,
    0.37409196, 1.00002368, -1.26551223,
  ]) sum = sum * t + c;
  return t * Math.exp(sum - x * x);
}

class ModernBlock {
  constructor(config, weights, name) {
    this.config = config;
    this.norm1 = new RMSNorm(weights, `${name}.norm1`);
    this.attention = new ModernAttention(config, weights, `${name}.attention`);
    this.norm2 = new RMSNorm(weights, `${name}.norm2`);
    this.gate_up = Linear.of(weights, `${name}.gate_up`);
    this.down = Linear.of(weights, `${name}.down`);
  }

  /** SwiGLU (Shazeer 2020): silu(gate) · up. */
  feedForward(x, T) {
    const both = this.gate_up.forward(x, T), F = this.gate_up.matrix.rows / 2;
    const hidden = (this.hidden = room(this.hidden, T * F));
    for (let t = 0; t < T; t++) {
      for (let i = 0; i < F; i++) {
        const gate = both[2 * t * F + i], up = both[(2 * t + 1) * F + i];
        hidden[t * F + i] = (gate / (1 + Math.exp(-gate))) * up;
      }
    }
    return this.down.forward(hidden, T);
  }
}

/** Keys and values of the tokens already read: a ring of the last `window` of every layer. */
class KVCache {
  constructor(config) {
    const layer = () => new Float32Array((config.n_kv_head * config.block_size * config.n_embd) / config.n_head);
    this.keys = Array.from({ length: config.n_layer }, layer); // (K, W, D) each
    this.values = Array.from({ length: config.n_layer }, layer);
    this.window = config.block_size;
    this.length = 0; // tokens read so far, which is also the position of the next
  }
}

class GPT {
  constructor(config, weights) {
    const modern = config.family === "modern";
    this.config = config = { ...config, n_kv_head: (modern && config.n_kv_head) || config.n_head };
    this.has_relative_positions = modern;
    const tokens = weights.matrix("token_embedding.weight");
    this.vocab_size = tokens.rows;
    this.token_embedding = new Embedding(tokens);
    if (!modern) this.position_embedding = new Embedding(weights.matrix("position_embedding.weight"));
    const Block = modern ? ModernBlock : ClassicBlock;
    this.blocks = Array.from({ length: config.n_layer }, (_, i) => new Block(config, weights, `blocks.${i}`));
    this.norm = new (modern ? RMSNorm : LayerNorm)(weights, "norm");
    this.head = config.tie_embeddings ? new Linear(tokens) : Linear.of(weights, "head");
  }

  /**
   * Reads T tokens: several into an empty cache, or one more.
   *
   * `each(t, logits)` is called for every position, if given; `watch(layer, head, t, weights)` for
   * every query, with its weights on the slots of the cache. Returns the last position's logits, (V).
   */
  forward(idx, cache, each = null, watch = null) {
    const T = idx.length, C = this.config.n_embd, V = this.vocab_size;
    const x = this.embed(idx, cache.length);
    this.blocks.forEach((block, layer) => {
      addTo(x, block.attention.forward(block.norm1.forward(x, T), T, cache, layer, watch), T * C);
      addTo(x, block.feedForward(block.norm2.forward(x, T), T), T * C);
    });
    cache.length += T;
    const logits = (t) => this.head.forward(this.norm.forward(x.subarray(t * C), 1), 1).subarray(0, V);
    if (each) for (let t = 0; t < T; t++) each(t, logits(t));
    return logits(T - 1).slice();
  }

  embed(idx, position) {
    const C = this.config.n_embd, x = new Float32Array(idx.length * C);
    idx.forEach((token, t) => {
      this.token_embedding.addRow(token, x, t * C);
      if (this.position_embedding) this.position_embedding.addRow(position + t, x, t * C);
    });
    return x;
  }
}

/** Where each head looks while it reads these tokens, at most a window: (layer, head, T, T). */
function attentionMaps(model, idx) {
  const T = idx.length, { n_layer, n_head } = model.config;
  const maps = new Float32Array(n_layer * n_head * T * T);
  model.forward(idx, new KVCache(model.config), null, (layer, head, t, weights) => {
    maps.set(weights.subarray(0, t + 1), ((layer * n_head + head) * T + t) * T);
  });
  return maps;
}

// ------------------------------------------------------- generation/tokens.py

/** Reads a text as it grows, and scores what comes next. */
class Reader {
  constructor(model) {
    this.model = model;
    this.cache = new KVCache(model.config);
    this.history = [];
  }

  /** Reads on, by a prompt or by a token; a classic model with a full window reads half of it again. */
  read(idx, each = null) {
    const { model, cache } = this;
    if (!model.has_relative_positions) {
      this.history = [...this.history, ...idx].slice(-cache.window);
      if (cache.length === cache.window) {
        cache.length = 0;
        idx = this.history.slice(-Math.max(1, Math.floor(cache.window / 2)));
      }
    }
    return model.forward(idx, cache, each);
  }
}

// ----------------------------------------------------- generation/sampling.py

/** Logits to probabilities. */
function softmax(logits) {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const out = Float64Array.from(logits, (value) => Math.exp(value - most));
  const sum = out.reduce((a, b) => a + b, 0);
  return out.map((value) => value / sum);
}

function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

/** The distribution a token is drawn from; `seen` has a 1 for each token that is in the text. */
function nextTokenProbabilities(logits, sampling, seen) {
  let values = penalizeRepetition(logits, seen, sampling.repetition_penalty || 1);
  if (!sampling.temperature) {
    const best = argmax(values);
    return Float64Array.from(values, (_, i) => Number(i === best));
  }
  const most = values[argmax(values)];
  values = Float64Array.from(values, (value) => (value - most) / sampling.temperature);
  if (sampling.top_k) values = keepTopK(values, sampling.top_k);
  if (sampling.top_p) values = keepTopP(values, sampling.top_p);
  if (sampling.min_p) values = keepMinP(values, sampling.min_p);
  return softmax(values);
}

/** Divides positive logits of tokens seen before, and multiplies negative ones (Keskar 2019). */
function penalizeRepetition(logits, seen, penalty) {
  if (penalty === 1) return logits;
  return logits.map((value, i) => (seen[i] ? (value > 0 ? value / penalty : value * penalty) : value));
}

/** All but the k largest become -Infinity; ties with the k-th stay. */
function keepTopK(logits, k) {
  const smallest = logits.slice().sort()[Math.max(0, logits.length - k)];
  return logits.map((value) => (value < smallest ? -Infinity : value));
}

/** All but the smallest set that reaches probability p become -Infinity (Holtzman et al. 2020). */
function keepTopP(logits, p) {
  const probabilities = softmax(logits), out = logits.slice();
  const order = Uint32Array.from(logits, (_, i) => i).sort((a, b) => probabilities[b] - probabilities[a]);
  let before = 0;
  for (const i of order) {
    if (before >= p) out[i] = -Infinity;
    before += probabilities[i];
  }
  return out;
}

/** All below p times the most likely token's probability become -Infinity (Nguyen et al. 2024). */
function keepMinP(logits, p) {
  const least = Math.log(p) + logits[argmax(logits)];
  return logits.map((value) => (value < least ? -Infinity : value));
}

/** Draws a token: the first whose cumulative probability passes a random number. */
function sample(logits, sampling, random, seen) {
  const probabilities = nextTokenProbabilities(logits, sampling, seen);
  if (!sampling.temperature) return argmax(probabilities);
  let left = random();
  for (let i = 0; i < probabilities.length; i++) if ((left -= probabilities[i]) < 0) return i;
  return argmax(probabilities); // what rounding left over
}

/** Random numbers from 0 to 1 by a seed (mulberry32); not those of Python. */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// ------------------------------------------------------------------ tokenizer/

const utf8 = new TextEncoder();

/** What every tokenizer can do: `token_bytes` has the bytes of each token. */
class Tokenizer {
  get start_ids() {
    return [Math.max(0, this.token_bytes.findIndex((bytes) => bytes.length === 1 && bytes[0] === 10))];
  }

  /** Token ids; characters outside the vocabulary are left out, and added to `unknown`. */
  encode(text, unknown = []) {
    return this.pieces(text).flatMap((piece) => {
      if (this.stoi.has(piece)) return [this.stoi.get(piece)];
      if (this.unknown_id === undefined) unknown.push(piece);
      return this.unknown_id === undefined ? [] : [this.unknown_id];
    });
  }

  /** The text of these tokens; bytes that are not UTF-8 become U+FFFD. */
  decode(idx) {
    const decoder = new StreamDecoder(this);
    return idx.map((token) => decoder.push(token)).join("") + decoder.flush();
  }
}

class CharTokenizer extends Tokenizer {
  constructor(itos) {
    super();
    this.stoi = new Map(itos.map((piece, i) => [piece, i]));
    this.token_bytes = itos.map((piece) => utf8.encode(piece));
  }

  pieces(text) {
    return Array.from(text);
  }
}

class WordTokenizer extends CharTokenizer {
  constructor(itos, pattern) {
    super(["<unk>", ...itos]);
    this.pattern = new RegExp(pattern, "gu");
    this.unknown_id = 0;
  }

  pieces(text) {
    return text.match(this.pattern) || [];
  }
}

/** UTF-8, where half a character becomes a question mark. */
function bytesOf(text) {
  return utf8.encode(text.replace(/[\ud800-\udfff]/gu, "?"));
}

class ByteTokenizer extends Tokenizer {
  token_bytes = Array.from({ length: 256 }, (_, i) => Uint8Array.of(i));

  encode(text) {
    return Array.from(bytesOf(text));
  }
}

/** Byte-level byte-pair encoding, by the model's own merges (Radford et al. 2019). */
class BPETokenizer extends Tokenizer {
  constructor({ vocab, merges }) {
    super();
    const printable = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    let other = 256;
    this.alphabet = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : other++));
    const byteOf = new Map(this.alphabet.map((char, byte) => [char, byte]));
    this.stoi = new Map(Object.entries(vocab));
    this.rank = new Map(merges.map((pair, i) => [Array.isArray(pair) ? pair.join(" ") : pair, i]));
    this.token_bytes = [];
    for (const [token, i] of this.stoi) this.token_bytes[i] = Uint8Array.from(token, (char) => byteOf.get(char));
    this.pattern =
      /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
  }

  pieces(text) {
    return (text.match(this.pattern) || []).flatMap((word) => this.merge(word));
  }

  /** Joins the pair that was learned first, until none is left. */
  merge(word) {
    const parts = Array.from(bytesOf(word), (byte) => this.alphabet[byte]);
    for (;;) {
      let best = Infinity, place = 0;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.rank.get(`${parts[i]} ${parts[i + 1]}`);
        if (rank < best) [best, place] = [rank, i];
      }
      if (best === Infinity) return parts;
      parts.splice(place, 2, parts[place] + parts[place + 1]);
    }
  }
}

/** A tokenizer again from what `Tokenizer.to_json` wrote; `pattern` is how words are cut. */
function tokenizerFromJson(saved, pattern) {
  if (saved.kind === "bpe") return new BPETokenizer(saved.tokenizer.model);
  if (saved.kind === "byte") return new ByteTokenizer();
  if (saved.kind === "word") return new WordTokenizer(saved.vocabulary, pattern);
  return new CharTokenizer(Array.from(saved.vocabulary));
}

/** Decodes tokens one at a time, holding back characters that are not complete yet. */
class StreamDecoder {
  constructor(tokenizer) {
    this.token_bytes = tokenizer.token_bytes;
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  }

  push(token) {
    return this.decoder.decode(this.token_bytes[token], { stream: true });
  }

  flush() {
    return this.decoder.decode();
  }
}

// ------------------------------------------------------------------- the page

/** The model and the tokenizer of a page: its description, and its weights in base64. */
function load(page, base64) {
  const text = Uint8Array.fromBase64 ? "" : atob(base64);
  const bytes = Uint8Array.fromBase64
    ? Uint8Array.fromBase64(base64)
    : Uint8Array.from({ length: text.length }, (_, i) => text.charCodeAt(i));
  return {
    model: new GPT(page.model, new Weights(page.tensors, bytes)),
    tokenizer: tokenizerFromJson(page.tokenizer, page.pattern),
  };
}

if (typeof module !== "undefined") {
  module.exports = { load, Reader, attentionMaps, generator, nextTokenProbabilities, sample, softmax };
}
