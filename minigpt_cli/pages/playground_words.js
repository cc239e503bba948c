/* What the page says, in English and in Chinese; `about` is the page's description of its model. */
"use strict";

const percent = (share) => (share > 0 && share < 0.0005 ? "<0.1%" : `${(100 * share).toFixed(1)}%`);
const grouped = (number) => Number(number).toLocaleString("en-US");

const UNITS = {
  en: { char: "characters", word: "words and marks", byte: "bytes", bpe: "pieces of words" },
  zh: { char: "字符", word: "词和标点", byte: "字节", bpe: "词元" },
};

const WORDS = {
  en: {
    title: (about) => `A small GPT trained on ${about.corpus}`,
    subtitle: (about) =>
      `A language model with ${grouped(about.parameters)} parameters that learned to write by reading “${about.corpus}”. ` +
      "It runs right here in the page; nothing you type leaves your device.",
    loading: "Unpacking the model …",
    ready: "Ready.",
    prompt: "Start a text; the model continues it",
    empty: "What it writes will appear here.",
    text_label: "The text. Arrow keys move through it; each place shows what else could have come.",
    text_plain: "The text", write: "Write", stop: "Stop", more: "Continue", copy: "Copy", copied: "Copied.", undo: "Back to the earlier text",
    expected: "expected", surprising: "surprising",
    next: "What could come next", back: "one token back", forth: "one token forward",
    after: (text) => `after “${text}”`,
    instead: (token, likely) => `The model gave “${token}” ${percent(likely)}. What else could have come:`,
    first: "Nothing comes before the first token, so nothing predicts it.",
    choose: (token, share) => `continue with ${token}, ${percent(share)}`,
    drawable: (count, all) =>
      `${count === all ? `Any of the ${grouped(all)}` : `${grouped(count)} of the ${grouped(all)}`} tokens can be picked. ` +
      "Choose one yourself to continue from there.",
    settings: "How it chooses", temperature: "Temperature", top_k: "Top-k", top_p: "Top-p", further: "More settings",
    min_p: "Min-p", repetition_penalty: "Repetition penalty", length: "Length in tokens", seed: "Seed",
    slow: "Slow motion", tint: "Color by surprise", off: "off", any: "random",
    look: "Where it looks",
    look_hint: "Each layer has several attention heads, and each head decides where in the text to look. Pick one, then point at the text.",
    head: (layer, head) => `Layer ${layer}, head ${head}`,
    looks: (layer, head, token) => `Layer ${layer}, head ${head}: the shading in the text shows where it looks from “${token}”. ` +
      "In the picture, each row is a token, and its columns are the tokens before it.",
    only_last: (count) => `(Only the last ${grouped(count)} tokens.)`,
    no_text: "Write something first.",
    wrote: (count, speed) => `${grouped(count)} tokens, ${grouped(Math.round(speed))} per second.`,
    stopped: "Stopped.",
    unknown: (list) => `The model has never seen ${list.map((char) => `“${char}”`).join(", ")}: left out.`,
    never: (count) => `${count === 1 ? "One word is" : `${grouped(count)} words are`} unknown to the model (<unk>).`,
    failed: (message) => `Something went wrong: ${message}`,
    what: "What am I looking at?", model: "About this model", again: "Train one like it with minigpt:",
    about: (about, units) => [
      `This page holds a whole language model: ${grouped(about.parameters)} numbers, learned by reading “${about.corpus}”. ` +
        `It can do one thing: look at the last ${grouped(about.model.block_size)} ${units} and say how likely each of the ` +
        `${grouped(about.vocab_size)} ${units} it knows is to come next. To write, it picks one at random by those odds, adds it, and looks again.`,
      [
        "Colors show how surprised the model was. Where there is none, it saw the text coming.",
        "Bars show what could come next. The outline is what the model thinks; the bar is what your settings make of it.",
        "A low temperature sticks to the most likely choice; a high one gives unlikely choices a chance. Move the slider and watch the bars.",
        "Click anywhere in the text to see what else could have come there. Click a bar to see where that leads.",
        `Inside are ${about.model.n_layer} layers of ${about.model.n_head} attention heads. Each head looks back at whatever helps: the last space, the start of the line, an earlier copy of the same word.`,
      ],
      about.val_loss === null ? "" :
        `On text it had never read, its loss was ${about.val_loss.toFixed(2)}: at each step it was about as unsure as if it had to ` +
        `guess among ${Math.exp(about.val_loss).toFixed(1)} equally likely ${units}. Before training, it was guessing among ${grouped(about.vocab_size)}.`,
    ],
    facts: {
      corpus: "trained on", parameters: "parameters", shape: "shape", context: "context", tokens: "vocabulary",
      step: "steps", val_loss: "validation loss", bits: "bits per byte", dtype: "stored as",
    },
    shape: (m) => `${m.family}, ${m.n_layer} layers, ${m.n_head} heads, ${m.n_embd} wide`,
    footer: (about) => `Made by minigpt ${about.version}. This page works without a network.`,
  },
  zh: {
    title: (about) => `用 ${about.corpus} 训练的小 GPT`,
    subtitle: (about) =>
      `一个有 ${grouped(about.parameters)} 个参数的语言模型，从“${about.corpus}”里学会了写字。它就在这个网页里运行：你输入的内容不会离开这里。`,
    loading: "正在打开模型……",
    ready: "准备好了。",
    prompt: "写个开头，模型来续写",
    empty: "它写的文字会出现在这里。",
    text_label: "正文。用方向键移动；每一处都会显示还可能出现什么。",
    text_plain: "正文", write: "开始写", stop: "停", more: "接着写", copy: "复制", copied: "已复制。", undo: "回到之前的文字",
    expected: "意料之中", surprising: "出乎意料",
    next: "接下来可能是", back: "后退一个词元", forth: "前进一个词元",
    after: (text) => `在“${text}”之后`,
    instead: (token, likely) => `模型认为“${token}”的概率是 ${percent(likely)}。这里还可能出现：`,
    first: "第一个词元之前什么都没有，无从预测。",
    choose: (token, share) => `改用 ${token} 继续，${percent(share)}`,
    drawable: (count, all) => count === all
      ? `全部 ${grouped(all)} 个词元都可能被选中。点一个，从这里换条路走。`
      : `${grouped(all)} 个词元中有 ${grouped(count)} 个可能被选中。点一个，从这里换条路走。`,
    settings: "怎样选择", temperature: "温度", top_k: "Top-k", top_p: "Top-p", further: "更多设置",
    min_p: "Min-p", repetition_penalty: "重复惩罚", length: "长度（词元数）", seed: "随机种子",
    slow: "慢放", tint: "按意外程度着色", off: "关", any: "随机",
    look: "它在看哪里",
    look_hint: "模型的每一层都有几个注意力头，每个头决定看文中的哪些地方。选一个头，再指向文字。",
    head: (layer, head) => `第 ${layer} 层，第 ${head} 个头`,
    looks: (layer, head, token) => `第 ${layer} 层，第 ${head} 个头：文中的深浅表示它从“${token}”看向哪里。图中每一行是一个词元，列是它之前的词元。`,
    only_last: (count) => `只看这段文字的最后 ${grouped(count)} 个词元。`,
    no_text: "先写点什么吧。",
    wrote: (count, speed) => `${grouped(count)} 个词元，每秒 ${grouped(Math.round(speed))} 个。`,
    stopped: "停下了。",
    unknown: (list) => `模型从没见过${list.map((char) => `“${char}”`).join("、")}，已略去。`,
    never: (count) => `有 ${grouped(count)} 个词模型不认识（<unk>）。`,
    failed: (message) => `模型无法在这里运行：${message}`,
    what: "我看到的是什么？", model: "关于这个模型", again: "训练一个同样的模型：",
    about: (about, units) => [
      `这个网页里装着一个完整的语言模型：${grouped(about.parameters)} 个参数，都是读“${about.corpus}”学来的。` +
        `它只做一件事：看最后 ${grouped(about.model.block_size)} 个${units}，说出它认识的 ${grouped(about.vocab_size)} 个${units}里，` +
        "每一个接下来出现的可能性。写作时，它按这些概率随机选一个，接上去，再看一遍。",
      [
        "颜色表示模型有多意外：没有颜色的，它早就料到了。",
        "横条是接下来可能出现的内容：外框是模型自己的想法，实心条是经过你的设置之后的结果。",
        "温度低，它总选最可能的；温度高，不太可能的也有机会。拖动它，看横条怎么变。",
        "点文中任何一处，看那里还可能出现什么；再点一个横条，看看会走到哪里去。",
        `里面有 ${about.model.n_layer} 层，每层 ${about.model.n_head} 个注意力头。每个头回头看有用的地方：上一个空格、行首、前面出现过的同样的字。`,
      ],
      about.val_loss === null ? "" :
        `在没读过的文字上，它的损失是 ${about.val_loss.toFixed(2)}：每一步的犹豫，大约相当于在 ${Math.exp(about.val_loss).toFixed(1)} 个${units}里盲选。` +
        `刚开始训练时，它是在 ${grouped(about.vocab_size)} 个里盲选。`,
    ],
    facts: {
      corpus: "训练文本", parameters: "参数", shape: "结构", context: "上下文", tokens: "词表",
      step: "训练步数", val_loss: "验证损失", bits: "每字节比特数", dtype: "存储格式",
    },
    shape: (m) => `${m.family}，${m.n_layer} 层，${m.n_head} 个头，宽 ${m.n_embd}`,
    footer: (about) => `由 minigpt ${about.version} 生成。这个网页无需联网即可使用。`,
  },
};
