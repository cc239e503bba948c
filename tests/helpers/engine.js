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

/** Sends messages to the page's worker, each once the last is answered; returns all answers. */
async function talk({ messages }) {
  const heard = [], scope = {};
  let answered;
  const post = (answer) => {
    heard.push(answer);
    if (answer.type !== "wrote" || answer.finished) answered();
  };
  const source = `${block("worker")}; scope.send = onmessage;`;
  new Function("scope", "onmessage", "postMessage", source)(scope, null, post);
  const opening = { type: "open", description: JSON.parse(block("description")), weights: block("weights") };
  for (const data of [opening, ...messages]) {
    const done = new Promise((resolve) => (answered = resolve));
    scope.send({ data });
    await done;
  }
  return heard;
}

async function answer(asked) {
  if (asked.do === "write") return write(asked);
  if (asked.do === "encode") {
    return asked.texts.map((text) => {
      const unknown = [], ids = tokenizer.encode(text, unknown);
      return { ids, unknown, text: tokenizer.decode(ids) };
    });
  }
  if (asked.do === "start") return tokenizer.start_ids;
  if (asked.do === "talk") return talk(asked);
  if (asked.do === "attention") return Array.from(attentionMaps(model, asked.ids));
  if (asked.do === "speed") {
    write({ ids: asked.ids, tokens: 50 });
    const started = performance.now();
    write({ ids: asked.ids, tokens: asked.tokens });
    return (1000 * asked.tokens) / (performance.now() - started);
  }
  const every = [], reader = new Reader(model);
  reader.read(asked.ids, (_, logits) => every.push(Array.from(logits)));
  if (asked.do === "logits") return every;
  const seen = new Uint8Array(model.vocab_size);
  for (const token of asked.ids) seen[token] = 1;
  return asked.settings.map((sampling) => Array.from(nextTokenProbabilities(every.at(-1), sampling, seen)));
}

(async () => {
  const answers = [];
  for (const asked of JSON.parse(fs.readFileSync(0, "utf-8"))) answers.push(await answer(asked));
  fs.writeSync(1, JSON.stringify(answers));
  process.exit(0);
})();
