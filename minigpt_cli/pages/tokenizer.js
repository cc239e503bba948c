/*
 * Text to token ids and back in a browser, as `tokenizer/` does it: characters, words, bytes, or
 * byte pairs by the model's own merges.
 */
"use strict";

const utf8 = new TextEncoder();

/** What every tokenizer can do: `token_bytes` has the bytes of each token. */
class Tokenizer {
  get start_ids() {
    return [Math.max(0, this.token_bytes.findIndex((bytes) => bytes.length === 1 && bytes[0] === 10))];
  }

  /** Token ids; characters outside the vocabulary are left out, and added to `unknown`. */
  encode(text, unknown = []) {
    const ids = this.pieces(text).map((piece) => {
      const id = this.stoi.get(piece) ?? this.unknown_id;
      if (id === undefined) unknown.push(piece);
      return id;
    });
    return ids.filter((id) => id !== undefined);
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
  constructor(itos, splitting = 1) {
    super(["<unk>", ...itos]);
    const letter = "\\p{L}\\p{N}_"; // Python's \w; and its \s is White_Space and four more
    const space = "\\p{White_Space}\\x1c-\\x1f", joined = `${letter}\\p{M}\\u200c\\u200d`;
    const word = splitting === 1 ? `[${letter}]+` : `[${letter}][${joined}]*`;
    this.pattern = new RegExp(`${word}|[${space}]+|[^${letter}${space}]`, "gu");
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

const GPT2_PATTERN =
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** Byte-level byte-pair encoding, by the model's own merges (Radford et al. 2019). */
class BPETokenizer extends Tokenizer {
  constructor({ model: { vocab, merges }, pre_tokenizer }) {
    super();
    const printable = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    let other = 256; // a byte that cannot be printed stands as the next character from U+0100 on
    const char = (_, byte) => String.fromCharCode(printable(byte) ? byte : other++);
    this.alphabet = Array.from({ length: 256 }, char);
    const byteOf = new Map(this.alphabet.map((char, byte) => [char, byte]));
    this.stoi = new Map(Object.entries(vocab));
    this.rank = new Map(merges.map((pair, i) => [Array.isArray(pair) ? pair.join(" ") : pair, i]));
    this.token_bytes = [];
    for (const [token, i] of this.stoi) {
      this.token_bytes[i] = Uint8Array.from(token, (char) => byteOf.get(char));
    }
    const split = pre_tokenizer.pretokenizers?.find((part) => part.type === "Split");
    const pattern = (split ? split.pattern.Regex : GPT2_PATTERN)
      .replace(/\\x\{/g, "\\u{").replace(/\\([sS])/g, (_, s) => `\\${s === "s" ? "p" : "P"}{White_Space}`);
    this.pattern = new RegExp(pattern, "gu");
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

/** A tokenizer again from what `Tokenizer.to_json` wrote. */
function tokenizerFromJson(saved) {
  if (saved.kind === "bpe") return new BPETokenizer(saved.tokenizer);
  if (saved.kind === "byte") return new ByteTokenizer();
  if (saved.kind === "word") return new WordTokenizer(saved.vocabulary, saved.splitting);
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
