// Part 5: the proxy asked, the change shown, and the command itself, as ask.py and the command line do it.
//
//   node --input-type=module - TOOL URL plan|apply|undo-plan|undo        the key in LUME_KEY, never an argument
//
// Exit status: 0 done, 1 refused or failed, 3 nothing has to change.
import http from "node:http";
import https from "node:https";

const CALL_MS = 120000,
  MAX_ANSWER_BYTES = 4 * 1024 * 1024,
  SHOWN_CHARS = 300,
  CONTEXT_LINES = 2,
  SHOWN_COLUMNS = 160;

// --- the proxy: see ask.py --------------------------------------------------------------------------------------------

function ask(url, where, key, body) {
  const sent = body === undefined ? "" : JSON.stringify(body);
  const headers = { authorization: `Bearer ${key}`, "user-agent": "lumeproxy-setup", accept: "application/json" };
  if (sent)
    Object.assign(headers, {
      "content-type": "application/json",
      "anthropic-version": "2023-06-01",
      "content-length": Buffer.byteLength(sent),
    });
  return new Promise((resolve, reject) => {
    const request = (url.startsWith("https:") ? https : http).request(
      url + where,
      { method: sent ? "POST" : "GET", headers, timeout: CALL_MS },
      (response) => {
        const pieces = [];
        let size = 0;
        response.on("data", (piece) => {
          size += piece.length;
          if (size > MAX_ANSWER_BYTES) request.destroy(new Error("the answer is too long"));
          pieces.push(piece);
        });
        response.on("error", reject);
        response.on("end", () =>
          resolve({ status: response.statusCode, headers: response.headers, text: Buffer.concat(pieces).toString() }),
        );
      },
    );
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
    const told = String(tree?.error?.message ?? "")
      .replace(/[^\x20-\x7e\xa0-\uffff]/g, "")
      .slice(0, SHOWN_CHARS);
    throw new Refused(`${url} answered ${status}${told ? `: ${told}` : "."}`);
  }
  if (tree === null || typeof tree !== "object") throw new Refused(`What answers at ${url} is no such proxy.`);
  return { tree, headers };
}

async function listModels(url, key) {
  const { tree } = await answer(url, "/v1/models", key);
  const names = Array.isArray(tree.data) ? tree.data.map((entry) => entry?.id) : [null];
  if (!names.every((name) => typeof name === "string"))
    throw new Refused(`What answers at ${url} is no such proxy: its list of models makes no sense.`);
  return names.filter((name) => !/[\x00-\x1f\x7f-\x9f]/.test(name));
}

// --- showing ----------------------------------------------------------------------------------------------------------

const masked = (line) =>
  line
    .replace(/(lume_[0-9A-Za-z]{8})_[0-9A-Za-z]+/g, "$1_...")
    .replace(
      /((?:token|key|secret|password|credential|authorization|cookie)[\w-]*["']?\s*[:=]\s*["'](?:Bearer )?)(?!lume_)[^"']{6,}/gi,
      "$1...",
    );
const cut = (line) => (line.length <= SHOWN_COLUMNS ? line : line.slice(0, SHOWN_COLUMNS - 3) + "...");
const tilde = (file) => (file.startsWith(home + path.sep) ? "~" + file.slice(home.length) : file);

function diff(one) {
  // What is the same at both ends is left out: our edits lie close together.
  const split = (text) => (text === null ? [] : text.replace(/\r?\n$/, "").split(/\r?\n/));
  const old = split(one.now),
    made = split(one.after);
  let top = 0,
    bottom = 0;
  while (top < Math.min(old.length, made.length) && old[top] === made[top]) top += 1;
  while (bottom < Math.min(old.length, made.length) - top && old.at(-1 - bottom) === made.at(-1 - bottom)) bottom += 1;
  const lines = [
    `--- ${one.now === null ? "(no file)" : tilde(one.file)}`,
    `+++ ${one.after === null ? "(no file)" : tilde(one.file)}`,
  ];
  lines.push(...old.slice(Math.max(0, top - CONTEXT_LINES), top).map((line) => " " + line));
  lines.push(
    ...old.slice(top, old.length - bottom).map((line) => "-" + line),
    ...made.slice(top, made.length - bottom).map((line) => "+" + line),
  );
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
    const open =
      url.startsWith("http:") && !isNear
        ? [`${url} is not encrypted: whoever is on the way to it reads the key and all that is said. Use https.`]
        : [];
    for (const warning of [...open, ...warnings(name)]) process.stderr.write(`Warning: ${warning}\n`);
    return changing.length ? 0 : 3;
  }
  if (changing.length) apply(name, url, changes);
  const [where, body] = tool.trial(models);
  const proof = await answer(url, where, key, body).catch((error) => {
    throw new Refused(
      `${tool.title} is set up, but a call through the proxy failed: ${error.message} To take the set-up back, run this script with --undo.`,
    );
  });
  const cost = (proof.headers["x-lume-charge"] ?? "").replace(/\.?0+$/, "");
  say(
    `${tool.title} is set up: a call of ${body.model} through ${url} was answered${cost ? `, for $${cost}` : ""}.\n\nStart it:\n\n    ${tool.next(models)}\n`,
  );
  return 0;
}

function takeBack(tool, name, act) {
  const changes = planUndo(name);
  for (const one of changes) {
    if (act === "undo-plan" && one.now !== one.after) say(diff(one));
    for (const keys of one.kept)
      process.stderr.write(`Warning: ${keys.join(".")} in ${one.file} was changed since, and stays as it is.\n`);
    for (const keys of one.along)
      process.stderr.write(
        `Warning: ${keys.join(".")} in ${one.file} was changed since, and goes all the same: address and key go together.\n`,
      );
  }
  if (act === "undo-plan") return 0;
  applyUndo(name, changes);
  say(`${tool.title} is as it was before.`);
  return 0;
}

function checkKey(key) {
  if (!/^lume_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}$/.test(key ?? ""))
    throw new Refused(
      "That is no key of a lumeproxy: one begins with lume_ and has 52 characters. It was sent nowhere.",
    );
}

const [toolName, url, act] = process.argv.slice(2);
try {
  const undo = act === "undo" || act === "undo-plan";
  process.exitCode = undo
    ? takeBack(TOOLS[toolName], toolName, act)
    : await connect(TOOLS[toolName], toolName, url, process.env.LUME_KEY, act);
} catch (error) {
  if (!(error instanceof Refused)) throw error;
  process.stderr.write(`lumeproxy: ${error.message}\n`);
  process.exitCode = 1;
}
