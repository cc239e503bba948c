// Answers requests about a page's model: `node engine.js PAGE < requests.json`, under the tests.
"use strict";
const fs = require("node:fs");
const html = fs.readFileSync(process.argv[2], "utf-8");
const block = (id) => html.split(`id="${id}">`)[1].split("</script>")[0];
const engine = { exports: {} };
new Function("module", "onmessage", "postMessage", block("worker"))(engine);
const { load, Reader, attentionMaps, generator, nextTokenProbabilities, sample } = engine.exports;
const { model, tokenizer } = load(JSON.parse(block("description")), block("weights"));

function write({ ids, tokens, sampling }) {
  const reader = new Reader(model), random = generator(0), seen = new Uint8Array(model.vocab_size);
  let unread = ids.slice(-model.config.block_size);
  const out = [];
  for (let i = 0; i < tokens; i++) {
    const logits = reader.read(unread);
    for (const token of unread) seen[token] = 1;
    unread = [sample(logits, sampling || { temperature: 0 }, random, seen)];
    out.push(unread[0]);
  }
  return out;
}

const answers = JSON.parse(fs.readFileSync(0, "utf-8")).map((asked) => {
  if (asked.do === "write") return write(asked);
  if (asked.do === "encode") return asked.texts.map((text) => tokenizer.encode(text));
  if (asked.do === "decode") return tokenizer.decode(asked.ids);
  if (asked.do === "start") return tokenizer.start_ids;
  if (asked.do === "attention") return Array.from(attentionMaps(model, asked.ids));
  if (asked.do === "speed") {
    write({ ids: asked.ids, tokens: 50 });
    const started = performance.now();
    write({ ids: asked.ids, tokens: asked.tokens });
    return (1000 * asked.tokens) / (performance.now() - started);
  }
  const every = [];
  new Reader(model).read(asked.ids, (_, logits) => every.push(Array.from(logits)));
  if (asked.do === "logits") return every;
  const seen = new Uint8Array(model.vocab_size);
  for (const token of asked.ids) seen[token] = 1;
  return Array.from(nextTokenProbabilities(every.at(-1), asked.sampling, seen));
});
process.stdout.write(JSON.stringify(answers));
