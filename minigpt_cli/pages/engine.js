/*
 * The GPT in a browser: token ids in, logits out, and the next token drawn from them.
 *
 * Plain JavaScript that computes what Python does, with the same names: `model/gpt.py`,
 * `model/kv_cache.py`, `generation/tokens.py` and `generation/sampling.py`. Text is cut by
 * tokenizer.js. It runs in a worker (see worker.js), and under node in the tests, which compare the two.
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
const room = (array, size) => (array && array.length >= size ? array : new Float32Array(size));

class Linear {
  constructor(weights, name, matrix = weights.matrix(`${name}.weight`)) {
    this.matrix = matrix;
    this.bias = weights.vector(`${name}.bias`);
  }

  /** (T, in) to (T, out). */
  forward(x, T) {
    const { values, scale, rows, columns } = this.matrix;
    const out = (this.out = room(this.out, T * rows));
    let t = 0;
    for (; t + 4 <= T; t += 4) fourTokens(values, scale, rows, columns, x, out, t);
    for (; t < T; t++) oneToken(values, scale, rows, columns, x, out, t);
    if (this.bias) for (let i = 0; i < T * rows; i++) out[i] += this.bias[i % rows];
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
      a += w[i + n] * value, b += w[j + n] * value;
      c += w[k + n] * value, d += w[l + n] * value;
    }
    out[to + r] = a * scale[r], out[to + r + 1] = b * scale[r + 1];
    out[to + r + 2] = c * scale[r + 2], out[to + r + 3] = d * scale[r + 3];
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
      a += weight * x[i + n], b += weight * x[j + n];
      c += weight * x[k + n], d += weight * x[l + n];
    }
    const to = t * rows + r;
    out[to] = a * scale[r], out[to + rows] = b * scale[r];
    out[to + 2 * rows] = c * scale[r], out[to + 3 * rows] = d * scale[r];
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
        out[start + i] = (x[start + i] - mean) * scale * this.weight[i] + (this.bias?.[i] ?? 0);
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
class ClassicAttention {
  constructor(config, weights, name) {
    this.config = config;
    this.D = config.n_embd / config.n_head;
    this.qkv = new Linear(weights, `${name}.qkv`);
    this.proj = new Linear(weights, `${name}.proj`);
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

/** With QK-norm and rotary positions (Su et al. 2021), as in Qwen3. */
class ModernAttention extends ClassicAttention {
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

class ClassicBlock {
  constructor(config, weights, name) {
    this.norm1 = new LayerNorm(weights, `${name}.norm1`);
    this.attention = new ClassicAttention(config, weights, `${name}.attention`);
    this.norm2 = new LayerNorm(weights, `${name}.norm2`);
    this.up = new Linear(weights, `${name}.up`);
    this.down = new Linear(weights, `${name}.down`);
    this.activation = config.activation === "relu" ? (x) => Math.max(x, 0) : gelu;
  }

  feedForward(x, T) {
    const hidden = this.up.forward(x, T), size = T * this.up.matrix.rows;
    for (let i = 0; i < size; i++) hidden[i] = this.activation(hidden[i]);
    return this.down.forward(hidden, T);
  }
}

const ERFC = [
  0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418,
  0.37409196, 1.00002368, -1.26551223,
];

/** The exact one (Hendrycks & Gimpel 2016): x Φ(x), with erfc as in Numerical Recipes, to 10⁻⁷. */
function gelu(x) {
  const z = Math.abs(x) / Math.SQRT2, t = 1 / (1 + 0.5 * z);
  const tail = 0.5 * t * Math.exp(ERFC.reduce((sum, c) => sum * t + c, 0) - z * z);
  return x * (x < 0 ? tail : 1 - tail);
}

class ModernBlock {
  constructor(config, weights, name) {
    this.norm1 = new RMSNorm(weights, `${name}.norm1`);
    this.attention = new ModernAttention(config, weights, `${name}.attention`);
    this.norm2 = new RMSNorm(weights, `${name}.norm2`);
    this.gate_up = new Linear(weights, `${name}.gate_up`);
    this.down = new Linear(weights, `${name}.down`);
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
    const { n_layer, n_head, n_kv_head, n_embd, block_size } = config;
    const layer = () => new Float32Array((n_kv_head * block_size * n_embd) / n_head); // (K, W, D)
    this.keys = Array.from({ length: n_layer }, layer);
    this.values = Array.from({ length: n_layer }, layer);
    this.window = config.block_size;
    this.length = 0; // tokens read so far, which is also the position of the next
  }
}

class GPT {
  constructor(config, weights) {
    const modern = config.family === "modern";
    this.config = config = { ...config, n_kv_head: (modern && config.n_kv_head) || config.n_head };
    this.has_relative_positions = modern;
    this.token_embedding = weights.matrix("token_embedding.weight");
    this.vocab_size = this.token_embedding.rows;
    this.position_embedding = modern ? null : weights.matrix("position_embedding.weight");
    const block = (_, i) => new (modern ? ModernBlock : ClassicBlock)(config, weights, `blocks.${i}`);
    this.blocks = Array.from({ length: config.n_layer }, block);
    this.norm = new (modern ? RMSNorm : LayerNorm)(weights, "norm");
    const tied = config.tie_embeddings ? [this.token_embedding] : [];
    this.head = new Linear(weights, "head", ...tied);
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
    const add = (change) => {
      for (let i = 0; i < T * C; i++) x[i] += change[i];
    };
    this.blocks.forEach((block, layer) => {
      add(block.attention.forward(block.norm1.forward(x, T), T, cache, layer, watch));
      add(block.feedForward(block.norm2.forward(x, T), T));
    });
    cache.length += T;
    const logits = (t) => this.head.forward(this.norm.forward(x.subarray(t * C), 1), 1).subarray(0, V);
    if (each) for (let t = 0; t < T; t++) each(t, logits(t));
    return logits(T - 1).slice();
  }

  embed(idx, position) {
    const C = this.config.n_embd, x = new Float32Array(idx.length * C);
    const addRow = ({ values, scale }, row, t) => {
      for (let i = 0; i < C; i++) x[t * C + i] += values[row * C + i] * scale[row];
    };
    idx.forEach((token, t) => {
      addRow(this.token_embedding, token, t);
      if (this.position_embedding) addRow(this.position_embedding, position + t, t);
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

// ------------------------------------------------------------------- the page

function decodeBase64(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** The model and the tokenizer of a page: its description, and its weights in base64. */
function load(page, base64) {
  return {
    model: new GPT(page.model, new Weights(page.tensors, decodeBase64(base64))),
    tokenizer: tokenizerFromJson(page.tokenizer),
  };
}

if (typeof module !== "undefined") {
  module.exports = { load, Reader, attentionMaps, generator, nextTokenProbabilities, sample, softmax };
}
