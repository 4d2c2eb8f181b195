// The other half of the node program: a person's files, the tools, the proxy. Does what files.py, apply.py, models.py, ask.py
// and the files of the tools do; tests compare the two. ASCII only.
//
//   node --input-type=module - TOOL URL plan|apply|undo-plan|undo        the key in LUME_KEY, never an argument
//
// Exit status: 0 done, 1 refused or failed, 3 nothing has to change.
import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import os from "node:os";
import path from "node:path";

const NAME = "lumeproxy", PROFILE = "lume", VERSION = 1, MAX_BYTES = 16 * 1024 * 1024;
const PRIVATE_FILE = 0o600, PRIVATE_FOLDER = 0o700, SUFFIX = ".lumeproxy-new";
const CALL_MS = 120000, MAX_ANSWER_BYTES = 4 * 1024 * 1024, SHOWN_CHARS = 300, CONTEXT_LINES = 2, SHOWN_COLUMNS = 160;

// --- places -----------------------------------------------------------------------------------------------------------

const home = os.homedir();
const folder = (variable, ...otherwise) => process.env[variable] || path.join(home, ...otherwise);

function stateFolder() {
  if (process.platform === "win32") return path.join(folder("LOCALAPPDATA", "AppData", "Local"), NAME, "setup");
  if (process.platform === "darwin") return path.join(home, "Library", "Application Support", NAME, "setup");
  return path.join(folder("XDG_STATE_HOME", ".local", "state"), NAME, "setup");
}

// --- files: see files.py ----------------------------------------------------------------------------------------------

const there = (file) => fs.lstatSync(file, { throwIfNoEntry: false }) !== undefined;

function realPath(file, depth = 0) {
  if (depth > 40) throw new Refused(`${file} can't be read: too many levels of symbolic links. Nothing was changed.`);
  if (!there(file)) {
    const parent = path.dirname(file);
    return parent === file ? file : path.join(realPath(parent, depth + 1), path.basename(file));
  }
  if (!fs.lstatSync(file).isSymbolicLink()) return fs.realpathSync(file);
  return realPath(path.resolve(path.dirname(file), fs.readlinkSync(file)), depth + 1);
}

function look(file) {
  try {
    const real = realPath(file);
    if (!there(real)) return { real, text: null, mode: PRIVATE_FILE };
    const about = fs.statSync(real);
    if (!about.isFile()) throw new Refused(`${file} is no file. Nothing was changed.`);
    if (about.size > MAX_BYTES) throw new Refused(`${file} is larger than ${MAX_BYTES / 1048576} MiB. Nothing was changed.`);
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(fs.readFileSync(real));
    return { real, text, mode: about.mode & 0o7777 };
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new Refused(`${file} can't be read: ${error.code === "ERR_ENCODING_INVALID_ENCODED_DATA" ? "it is not UTF-8 text"
      : error.message}. Nothing was changed.`);
  }
}

function checkWritable(file, found) {
  try {
    if (found.text !== null) {
      const about = fs.statSync(found.real);
      if (!(about.mode & 0o200)) throw new Refused(`${file} is read-only. Nothing was changed.`);
      fs.accessSync(found.real, fs.constants.W_OK);
      if (about.nlink > 1) throw new Refused(`${file} has ${about.nlink} names (hard links), of which a new file would keep one. Nothing was changed.`);
    }
    let parent = path.dirname(found.real);
    while (!there(parent) && parent !== path.dirname(parent)) parent = path.dirname(parent);
    if (!fs.statSync(parent).isDirectory()) throw new Refused(`${file} can't be written: ${parent} is no folder that can be written to. Nothing was changed.`);
    fs.accessSync(parent, fs.constants.W_OK | fs.constants.X_OK);
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new Refused(`${file} can't be written: ${error.message}. Nothing was changed.`);
  }
}

function makeFolders(wanted) {
  const made = [];
  for (let parent = wanted; !fs.existsSync(parent); parent = path.dirname(parent)) made.unshift(parent);
  for (const name of made) fs.mkdirSync(name, PRIVATE_FOLDER);
  return made;
}

function write(file, text, mode) {
  const draft = file + SUFFIX;
  try {
    fs.rmSync(draft, { force: true });
    const descriptor = fs.openSync(draft, "wx", PRIVATE_FILE);
    try {
      fs.writeFileSync(descriptor, text, "utf8");
      fs.fsyncSync(descriptor);
    } finally {
      fs.closeSync(descriptor);
    }
    fs.chmodSync(draft, mode);
    if (fs.existsSync(file) && process.platform !== "win32") {
      const about = fs.statSync(file);
      fs.chownSync(draft, about.uid, about.gid);
    }
    fs.renameSync(draft, file);
  } catch (error) {
    fs.rmSync(draft, { force: true });
    throw error;
  }
}

const put = (found, text) => (text === null ? fs.rmSync(found.real, { force: true }) : write(found.real, text, found.mode));

function removeFolders(folders) {
  for (const name of [...folders].reverse()) {
    try {
      fs.rmdirSync(name);
    } catch (error) {
      if (!["ENOTEMPTY", "EEXIST", "ENOENT", "EBUSY", "EPERM", "EACCES"].includes(error.code)) throw error; // one in use stays
    }
  }
}

// --- carrying out: see apply.py ---------------------------------------------------------------------------------------

const sideFile = (tool) => path.join(stateFolder(), `${tool}.json`);

function load(tool) {
  const { text } = look(sideFile(tool));
  if (text === null) return null;
  try {
    const known = JSON.parse(text);
    if (known.version !== VERSION || !Array.isArray(known.files) || !Array.isArray(known.folders)) throw new SyntaxError("version");
    for (const file of known.files) if (!Array.isArray(file.leaves) || !Array.isArray(file.made)) throw new SyntaxError("file");
    return known;
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error;
    throw new Refused(`${sideFile(tool)} is not a set-up's record that this version can read; nothing was changed.`);
  }
}

function backupOf(known) {
  if (!known?.backup) return null;
  const { text } = look(path.join(stateFolder(), known.backup));
  return text !== null && sha256(text) === known.before ? text : null;
}

function planned(items, make) {
  return items.map((item) => {
    const found = look(item.file);
    const made = make(item, found);
    if (made.now !== made.after) checkWritable(item.file, found);
    return { ...made, found };
  });
}

function plan(tool, wishes) {
  const earlier = load(tool);
  return planned(wishes, (wish, found) => {
    const known = earlier?.files.find((file) => file.file === wish.file) ?? null;
    return change(wish, found.text, known, backupOf(known));
  });
}

function planUndo(tool) {
  const earlier = load(tool);
  if (earlier === null) throw new Refused(`There is no record of a set-up of ${tool} on this machine (${sideFile(tool)}). Nothing was changed.`);
  return planned(earlier.files, (known, found) => undone(known, found.text, backupOf(known)));
}

function apply(tool, url, changes) {
  const earlier = load(tool), made = [];
  try {
    made.push(...makeFolders(stateFolder()));
    const records = changes.filter((one) => one.record !== null).map((one) => kept(tool, one));
    records.push(...(earlier?.files ?? []).filter((file) => !changes.some((one) => one.file === file.file)));
    for (const one of changes) if (one.now !== one.after) made.push(...makeFolders(path.dirname(one.found.real)));
    const record = { version: VERSION, tool, url, files: records, folders: [...(earlier?.folders ?? []), ...made] };
    write(sideFile(tool), asciiJson(record), PRIVATE_FILE);
    writeAll(changes);
  } catch (error) {
    forget(tool, earlier, made);
    throw failed(error);
  }
}

function applyUndo(tool, changes) {
  const earlier = load(tool);
  try {
    writeAll(changes);
  } catch (error) {
    throw failed(error);
  }
  try {
    removeCopies(tool);
    fs.rmSync(sideFile(tool));
  } catch (error) {
    throw error.code ? new Refused(`The settings are as before, but a file can't be removed: ${error.message}.`) : error;
  }
  removeFolders(earlier.folders);
  try {
    handOn(earlier.folders.filter((name) => fs.existsSync(name)));
  } catch (error) {
    if (!error.code && !(error instanceof Refused)) throw error; // an empty folder that is left behind harms nobody
  }
}

function handOn(folders) {
  const names = fs.existsSync(stateFolder()) ? fs.readdirSync(stateFolder()).filter((name) => name.endsWith(".json")).sort() : [];
  if (!names.length || !folders.length) return;
  const theirs = load(names[0].slice(0, -".json".length));
  write(path.join(stateFolder(), names[0]), asciiJson({ ...theirs, folders: [...new Set([...folders, ...theirs.folders])] }), PRIVATE_FILE);
}

const asciiJson = (value) => JSON.stringify(value, null, 2).replace(/[\u007f-\uffff]/g,
  (char) => "\\u" + char.charCodeAt(0).toString(16).padStart(4, "0")).replaceAll("\\u007f", "\u007f") + "\n";

function kept(tool, one) {
  if (one.before === null) return one.record;
  const name = `${tool}.${path.basename(one.file).replace(/^\.+/, "")}.before`;
  write(path.join(stateFolder(), name), one.before, PRIVATE_FILE);
  return { ...one.record, backup: name };
}

function writeAll(changes) {
  const done = [];
  try {
    for (const one of changes) {
      if (one.now === one.after) continue;
      if (look(one.file).text !== one.found.text) throw new Refused(`${one.file} was changed by somebody else meanwhile; run this again.`);
      done.push(one);
      put(one.found, one.after);
    }
  } catch (error) {
    for (const one of done) put(one.found, one.now);
    throw error;
  }
}

function forget(tool, earlier, made) {
  if (earlier !== null) {
    write(sideFile(tool), asciiJson(earlier), PRIVATE_FILE);
    return;
  }
  fs.rmSync(sideFile(tool), { force: true });
  removeCopies(tool);
  removeFolders(made);
}

function removeCopies(tool) {
  for (const name of fs.existsSync(stateFolder()) ? fs.readdirSync(stateFolder()) : []) {
    if (name.startsWith(`${tool}.`) && name.endsWith(".before")) fs.rmSync(path.join(stateFolder(), name));
  }
}

const failed = (error) => (error instanceof Refused ? error : error.code
  ? new Refused(`It can't be written: ${error.message}. Every file is as it was.`) : error);

// --- models: see models.py --------------------------------------------------------------------------------------------

const PACKAGES = { messages: "@ai-sdk/anthropic", responses: "@ai-sdk/openai", chat: "@ai-sdk/openai-compatible" };
const speech = (model) => (model.startsWith("claude") ? "messages" : /^(?:gpt(?!-oss)|chatgpt|codex|o[0-9])/.test(model) ? "responses" : "chat");
const talkers = (models) => models.filter((model) => !/audio|tts|image|realtime|transcribe|embedding|moderation|instruct|search|vision|:/.test(model));

function highest(models, pattern) {
  const found = models.map((model) => [pattern.exec(model), model]).filter(([hit]) => hit)
    .map(([hit, model]) => [Number(hit[1]), Number(hit[2] ?? 0), hit[3] ? 1 : 0, model]);
  const after = (one, other) => one.reduce((order, part, i) => order || (part > other[i] ? 1 : part < other[i] ? -1 : 0), 0);
  return found.length ? found.reduce((best, one) => (after(one, best) > 0 ? one : best))[3] : null;
}

function cheapestClaude(models) {
  const names = models.filter((model) => model.startsWith("claude"));
  return highest(models, /^claude-haiku-([0-9]+)-([0-9]+)$/) ?? (names.includes("claude-echo") ? "claude-echo" : names[0] ?? null);
}

function newestGpt(models) {
  const names = talkers(models).filter((model) => speech(model) === "responses");
  return highest(models, /^gpt-([0-9]+)(?:\.([0-9]+))?(-sol)?$/) ?? (names.includes("gpt-echo") ? "gpt-echo" : names[0] ?? null);
}

// --- tools: see claude_code.py, codex.py, opencode.py -----------------------------------------------------------------

const message = (model) => ["/v1/messages", { model, max_tokens: 16, messages: [{ role: "user", content: "Say OK." }] }];
const question = (model) => ["/v1/responses", { model, max_output_tokens: 16, input: "Say OK." }];
const noModel = (what) => new Refused(`This key may use no ${what}. Nothing was changed.`);

const TOOLS = {
  "claude-code": {
    title: "Claude Code",
    wishes(url, key, models) {
      if (!models.length) throw noModel("model here");
      const env = {
        ANTHROPIC_BASE_URL: url, ANTHROPIC_AUTH_TOKEN: key,
        CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY: "1", CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK: "1",
      };
      return [
        { file: path.join(folder("CLAUDE_CONFIG_DIR", ".claude"), "settings.json"), format: "json", values: { env },
          paired: [["env", "ANTHROPIC_BASE_URL"], ["env", "ANTHROPIC_AUTH_TOKEN"]] },
        { file: path.join(folder("CLAUDE_CONFIG_DIR"), ".claude.json"), format: "json",
          values: { hasCompletedOnboarding: true }, gentle: [["hasCompletedOnboarding"]] },
      ];
    },
    trial: (models) => message(cheapestClaude(models) ?? models[0]),
    next(models) {
      const names = models.filter((model) => model.startsWith("claude"));
      return names.some((name) => name !== "claude-echo") ? "claude" : `claude --model ${names[0] ?? models[0]}`;
    },
  },
  codex: {
    title: "Codex",
    wishes(url, key, models) {
      const provider = {
        name: "lumeproxy", base_url: `${url}/v1`, wire_api: "responses", experimental_bearer_token: key, supports_websockets: false,
      };
      const values = { model_provider: NAME, model: codexModel(models), model_providers: { [NAME]: provider } };
      const file = path.join(folder("CODEX_HOME", ".codex"), `${PROFILE}.config.toml`);
      return [{ file, format: "toml", values,
        paired: ["base_url", "experimental_bearer_token"].map((name) => ["model_providers", NAME, name]) }];
    },
    trial: (models) => question(codexModel(models)),
    next: () => `codex -p ${PROFILE}`,
  },
  opencode: {
    title: "opencode",
    wishes(url, key, models) {
      const usable = talkers(models);
      if (!usable.length) throw noModel("model here");
      const npm = PACKAGES[speech(usable[0])];
      const entry = (model) => {
        const own = PACKAGES[speech(model)];
        return own === npm ? { name: model } : { name: model, provider: { npm: own } };
      };
      const provider = { npm, name: "lumeproxy", options: { baseURL: `${url}/v1`, apiKey: key },
        models: Object.fromEntries(usable.map((model) => [model, entry(model)])) };
      const where = path.join(folder("XDG_CONFIG_HOME", ".config"), "opencode");
      const file = path.join(where, there(path.join(where, "opencode.jsonc")) ? "opencode.jsonc" : "opencode.json");
      return [{ file, format: "jsonc", gentle: [["$schema"]],
        values: { $schema: "https://opencode.ai/config.json", provider: { [NAME]: provider } },
        paired: ["baseURL", "apiKey"].map((name) => ["provider", NAME, "options", name]) }];
    },
    trial(models) {
      if (cheapestClaude(models)) return message(cheapestClaude(models));
      if (newestGpt(models)) return question(newestGpt(models));
      return ["/v1/chat/completions", { model: talkers(models)[0], max_tokens: 16, messages: [{ role: "user", content: "Say OK." }] }];
    },
    next(models) {
      const real = models.filter((model) => !["claude-echo", "gpt-echo"].includes(model));
      return `opencode --model ${NAME}/${newestGpt(real) ?? cheapestClaude(real) ?? talkers(models)[0]}`;
    },
  },
};

function codexModel(models) {
  // The user's own choice stands at the top of config.toml; whatever is odd about it there, the newest will do.
  const config = look(path.join(folder("CODEX_HOME", ".codex"), "config.toml")).text ?? "";
  const root = config.split(/^\s*\[/m)[0];
  const own = /^model\s*=\s*(["'])([^"'\\\r\n]*)\1\s*(?:#.*)?$/m.exec(root);
  if (own && models.includes(own[2])) return own[2];
  const model = newestGpt(models);
  if (model === null) throw noModel("OpenAI model here, and Codex speaks to no other");
  return model;
}

const SWITCHES = ["BEDROCK", "VERTEX", "FOUNDRY", "MANTLE", "ANTHROPIC_AWS", "ANTHROPIC_GOOGLE_CLOUD", "GATEWAY"].map((end) => `CLAUDE_CODE_USE_${end}`);
const isOff = (value) => ["", "0", "false", "no", "off"].includes(String(value).toLowerCase());

function valuesOf(file, format) {
  try {
    const { text } = look(file);
    return text === null ? new Map() : parsed(text, format).value;
  } catch (error) {
    if (error instanceof Refused || error instanceof Unreadable) return new Map(); // what is to be changed is refused elsewhere
    throw error;
  }
}

function managedFiles() {
  const where = { win32: path.join(process.env.ProgramFiles || "C:\\Program Files", "ClaudeCode"), darwin: "/Library/Application Support/ClaudeCode" }[process.platform] ?? "/etc/claude-code";
  const more = path.join(where, "managed-settings.d");
  const names = fs.existsSync(more) ? fs.readdirSync(more).filter((name) => name.endsWith(".json")).sort() : [];
  return [path.join(where, "managed-settings.json"), ...names.map((name) => path.join(more, name))];
}

function* overriding(file, names) {
  const values = valuesOf(file, "json");
  for (const name of names) {
    const value = at(values, ["env", name]);
    if (value !== MISSING && value !== null && !(SWITCHES.includes(name) && isOff(value))) yield `${file} sets ${name}: ${
      name === "ANTHROPIC_API_KEY" ? "Claude Code asks about it and sends it along" : "it defeats this set-up"}. Take it out of there.`;
  }
  if (values.get("apiKeyHelper")) yield `${file} has an apiKeyHelper: Claude Code runs it and sends its key along. Take it out of there.`;
}

function* warnings(tool) {
  if (tool === "claude-code") {
    if (process.env.ANTHROPIC_API_KEY) yield "ANTHROPIC_API_KEY is set in this shell: Claude Code asks about it and sends it along. Unset it.";
    for (const name of SWITCHES) {
      if (!isOff(process.env[name] ?? "")) yield `${name} is set in this shell: Claude Code then goes to that provider, not to the proxy. Unset it.`;
    }
    const own = path.join(folder("CLAUDE_CONFIG_DIR", ".claude"), "settings.json");
    yield* overriding(own, ["ANTHROPIC_API_KEY", ...SWITCHES]);
    const all = ["ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", ...SWITCHES];
    const project = ["settings.json", "settings.local.json"].map((name) => path.join(process.cwd(), ".claude", name));
    for (const file of [...project.filter((name) => path.dirname(name) !== path.dirname(own)), ...managedFiles()]) yield* overriding(file, all);
  }
  if (tool === "codex") {
    const file = path.join(folder("CODEX_HOME", ".codex"), "config.toml");
    if (/^\s*\[\s*profiles\s*\.\s*["']?lume["']?\s*\]/m.test(look(file).text ?? "")) yield `${file} has a [profiles.lume] of the old kind; codex -p lume then ends in an error. Remove it.`;
  }
  if (tool === "opencode") {
    const where = path.join(folder("XDG_CONFIG_HOME", ".config"), "opencode");
    const file = path.join(where, there(path.join(where, "opencode.jsonc")) ? "opencode.jsonc" : "opencode.json");
    const values = valuesOf(file, "jsonc");
    const enabled = values.get("enabled_providers"), disabled = values.get("disabled_providers");
    if (Array.isArray(enabled) && !enabled.includes(NAME)) yield `${file} has a list of enabled_providers without "lumeproxy", so it stays hidden. Add it there.`;
    if (Array.isArray(disabled) && disabled.includes(NAME)) yield `${file} has "lumeproxy" in disabled_providers, so it stays hidden. Take it out of there.`;
    const others = [process.env.OPENCODE_CONFIG, ...["opencode.json", "opencode.jsonc", ".opencode/opencode.json"].map((name) => path.join(process.cwd(), name))];
    for (const other of others.filter((name) => name && name !== file)) {
      if (has(valuesOf(other, "jsonc"), ["provider", NAME])) yield `${other} has a provider of the same name, which defeats this set-up. Take it out of there.`;
    }
  }
}

// --- the proxy: see ask.py --------------------------------------------------------------------------------------------

function ask(url, where, key, body) {
  const sent = body === undefined ? "" : JSON.stringify(body);
  const headers = { authorization: `Bearer ${key}`, "user-agent": "lumeproxy-setup", accept: "application/json" };
  if (sent) Object.assign(headers, { "content-type": "application/json", "anthropic-version": "2023-06-01", "content-length": Buffer.byteLength(sent) });
  return new Promise((resolve, reject) => {
    const request = (url.startsWith("https:") ? https : http).request(url + where, { method: sent ? "POST" : "GET", headers, timeout: CALL_MS }, (response) => {
      const pieces = [];
      let size = 0;
      response.on("data", (piece) => {
        size += piece.length;
        if (size > MAX_ANSWER_BYTES) request.destroy(new Error("the answer is too long"));
        pieces.push(piece);
      });
      response.on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, text: Buffer.concat(pieces).toString() }));
    });
    request.on("timeout", () => request.destroy(new Error("no answer in time")));
    request.on("error", (error) => reject(new Refused(`${url} can't be reached: ${error.message}.`)));
    request.end(sent);
  });
}

async function answer(url, where, key, body) {
  const { status, headers, text } = await ask(url, where, key, body);
  let tree = null;
  try {
    tree = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  if (status !== 200) {
    const told = String(tree?.error?.message ?? "").replace(/[^\x20-\x7e\xa0-\uffff]/g, "").slice(0, SHOWN_CHARS);
    throw new Refused(`${url} answered ${status}${told ? `: ${told}` : "."}`);
  }
  if (tree === null || typeof tree !== "object") throw new Refused(`What answers at ${url} is no such proxy.`);
  return { tree, headers };
}

async function listModels(url, key) {
  const { tree } = await answer(url, "/v1/models", key);
  const names = Array.isArray(tree.data) ? tree.data.map((entry) => entry?.id) : [null];
  if (!names.every((name) => typeof name === "string")) throw new Refused(`What answers at ${url} is no such proxy: its list of models makes no sense.`);
  return names.filter((name) => !/[\x00-\x1f\x7f-\x9f]/.test(name));
}

// --- showing ----------------------------------------------------------------------------------------------------------

const masked = (line) => line.replace(/(lume_[0-9A-Za-z]{8})_[0-9A-Za-z]+/g, "$1_...").replace(
  /((?:token|key|secret|password|credential|authorization|cookie)[\w-]*["']?\s*[:=]\s*["'](?:Bearer )?)(?!lume_)[^"']{6,}/gi, "$1...");
const cut = (line) => (line.length <= SHOWN_COLUMNS ? line : line.slice(0, SHOWN_COLUMNS - 3) + "...");
const tilde = (file) => (file.startsWith(home + path.sep) ? "~" + file.slice(home.length) : file);

function diff(one) {
  // What is the same at both ends is left out: our edits lie close together.
  const split = (text) => (text === null ? [] : text.replace(/\r?\n$/, "").split(/\r?\n/));
  const old = split(one.now), made = split(one.after);
  let top = 0, bottom = 0;
  while (top < Math.min(old.length, made.length) && old[top] === made[top]) top += 1;
  while (bottom < Math.min(old.length, made.length) - top && old.at(-1 - bottom) === made.at(-1 - bottom)) bottom += 1;
  const lines = [`--- ${one.now === null ? "(no file)" : tilde(one.file)}`, `+++ ${one.after === null ? "(no file)" : tilde(one.file)}`];
  lines.push(...old.slice(Math.max(0, top - CONTEXT_LINES), top).map((line) => " " + line));
  lines.push(...old.slice(top, old.length - bottom).map((line) => "-" + line), ...made.slice(top, made.length - bottom).map((line) => "+" + line));
  lines.push(...old.slice(old.length - bottom, old.length - bottom + CONTEXT_LINES).map((line) => " " + line));
  return lines.map((line) => cut(masked(line))).join("\n");
}

const say = (text) => process.stdout.write(text + "\n");

async function connect(tool, name, url, key, act) {
  checkKey(key);
  const models = await listModels(url, key);
  const changes = plan(name, tool.wishes(url, key, models));
  const changing = changes.filter((one) => one.now !== one.after);
  if (act === "plan") {
    for (const one of changing) say(diff(one));
    const host = new URL(url).hostname;
    const isNear = host === "localhost" || host === "[::1]" || /^127\./.test(host);
    const open = url.startsWith("http:") && !isNear ? [`${url} is not encrypted: whoever is on the way to it reads the key and all that is said. Use https.`] : [];
    for (const warning of [...open, ...warnings(name)]) process.stderr.write(`Warning: ${warning}\n`);
    return changing.length ? 0 : 3;
  }
  if (changing.length) apply(name, url, changes);
  const [where, body] = tool.trial(models);
  const proof = await answer(url, where, key, body).catch((error) => {
    throw new Refused(`${tool.title} is set up, but a call through the proxy failed: ${error.message} To take the set-up back, run this script with --undo.`);
  });
  const cost = (proof.headers["x-lume-charge"] ?? "").replace(/\.?0+$/, "");
  say(`${tool.title} is set up: a call of ${body.model} through ${url} was answered${cost ? `, for $${cost}` : ""}.\n\nStart it:\n\n    ${tool.next(models)}\n`);
  return 0;
}

function takeBack(tool, name, act) {
  const changes = planUndo(name);
  for (const one of changes) {
    if (act === "undo-plan" && one.now !== one.after) say(diff(one));
    for (const keys of one.kept) process.stderr.write(`Warning: ${keys.join(".")} in ${one.file} was changed since, and stays as it is.\n`);
    for (const keys of one.along) process.stderr.write(`Warning: ${keys.join(".")} in ${one.file} was changed since, and goes all the same: address and key go together.\n`);
  }
  if (act === "undo-plan") return 0;
  applyUndo(name, changes);
  say(`${tool.title} is as it was before.`);
  return 0;
}

function checkKey(key) {
  if (!/^lume_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}$/.test(key ?? "")) throw new Refused("That is no key of a lumeproxy: one begins with lume_ and has 52 characters. It was sent nowhere.");
}

const [toolName, url, act] = process.argv.slice(2);
try {
  const undo = act === "undo" || act === "undo-plan";
  process.exitCode = undo ? takeBack(TOOLS[toolName], toolName, act)
    : await connect(TOOLS[toolName], toolName, url, process.env.LUME_KEY, act);
} catch (error) {
  if (!(error instanceof Refused)) throw error;
  process.stderr.write(`lumeproxy: ${error.message}\n`);
  process.exitCode = 1;
}
