// The merging half of the node program that sets a tool up where there is no Python: texts in, texts out.
//
// Does what jsontext.py, documents.py and plan.py do (same bytes, same record; tests compare the two), except that TOML is
// written whole or not at all: a file that would have to be merged is left to its owner, with the lines to put into it.
// Put before machine.mjs by script.py. ASCII only, since a pipe of Windows PowerShell lets nothing else through.
import { createHash } from "node:crypto";

const DEPTH = 100; // nested deeper, it is no settings file
const NUMBER_CHARS = 1000;

class Refused extends Error {}
class Unreadable extends Error {}

// --- JSON text: see jsontext.py ---------------------------------------------------------------------------------------

const SPACE = /[ \t\r\n]*/y;
const SPACE_AND_COMMENTS = /(?:[ \t\r\n]+|\/\/[^\n]*|\/\*[^*]*\*+(?:[^/*][^*]*\*+)*\/)*/y;
const REST_OF_LINE = /(?:[ \t]+|\/\/[^\r\n]*|\/\*[^*\r\n]*\*+(?:[^/*\r\n][^*\r\n]*\*+)*\/)*(?=\r?\n)/y;
const STRING = /"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"/y;
const SCALAR = /(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)(?![A-Za-z0-9_.+-])/y;

function matchAt(pattern, text, at) {
  pattern.lastIndex = at;
  const found = pattern.exec(text);
  return found === null ? null : found[0];
}

const stripEnd = (text) => text.replace(/[ \t\r\n]+$/, "");
const isBlank = (text) => /^[ \t\r\n]*$/.test(text);

class Reader {
  constructor(text, comments) {
    this.text = text;
    this.comments = comments;
    this.space = comments ? SPACE_AND_COMMENTS : SPACE;
  }

  document() {
    const node = this.value(this.skip(0), 0);
    const end = this.skip(node.end);
    if (end < this.text.length) throw this.error(end, "there is more behind the end");
    return node;
  }

  skip(at) {
    return at + matchAt(this.space, this.text, at).length;
  }

  error(at, what) {
    const before = this.text.slice(0, at);
    const line = before.split("\n").length;
    return new Unreadable(`line ${line}, column ${[...before.slice(before.lastIndexOf("\n") + 1)].length + 1}: ${what}`);
  }

  value(at, depth) {
    const first = this.text.charAt(at);
    if (depth > DEPTH) throw this.error(at, `nested deeper than ${DEPTH} levels`);
    if (first === "{") return this.members(at, depth);
    if (first === "[") return this.elements(at, depth);
    if (first === '"') return this.string(at);
    const found = matchAt(SCALAR, this.text, at);
    if (found === null) throw this.error(at, first ? "no value begins like this" : "the text breaks off");
    if (found.length > NUMBER_CHARS) throw this.error(at, `a number of more than ${NUMBER_CHARS} characters`);
    return { start: at, end: at + found.length, value: JSON.parse(found), members: null };
  }

  string(at) {
    const found = matchAt(STRING, this.text, at);
    try {
      if (found !== null) return { start: at, end: at + found.length, value: JSON.parse(found), members: null };
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error; // a backslash before what it must not stand before
    }
    throw this.error(at, "a text in quotes does not end, or holds what it must not");
  }

  members(start, depth) {
    const members = [];
    const value = new Map();
    let at = this.skip(start + 1);
    while (this.text[at] !== "}") {
      if (members.length && members.at(-1).comma === null) throw this.error(at, "a comma or } is missing");
      if (this.text[at] !== '"') throw this.error(at, "a name in quotes is missing");
      const key = this.string(at);
      if (value.has(key.value)) throw this.error(at, `${JSON.stringify(key.value)} is there twice`);
      const colon = this.skip(key.end);
      if (this.text[colon] !== ":") throw this.error(colon, "a colon is missing");
      const inner = this.value(this.skip(colon + 1), depth + 1);
      members.push({ key: key.value, start: at, colon, value: inner, comma: null });
      value.set(key.value, inner.value);
      at = this.skip(inner.end);
      if (this.text[at] === ",") {
        members.at(-1).comma = at;
        at = this.skip(at + 1);
        if (this.text[at] === "}" && !this.comments) throw this.error(at, "a name in quotes is missing");
      }
    }
    return { start, end: at + 1, value, members };
  }

  elements(start, depth) {
    const values = [];
    let at = this.skip(start + 1), due = true;
    while (this.text[at] !== "]" || (due && values.length && !this.comments)) {
      if (!due) throw this.error(at, "a comma or ] is missing");
      const inner = this.value(at, depth + 1);
      values.push(inner.value);
      at = this.skip(inner.end);
      due = this.text[at] === ",";
      if (due) at = this.skip(at + 1);
    }
    return { start, end: at + 1, value: values, members: null };
  }
}

function parsed(text, format) {
  if (format === "toml") throw new Unreadable("it is TOML, which this script does not merge");
  if (text.startsWith("\ufeff")) throw new Unreadable("it begins with a byte order mark; save it as UTF-8 without one");
  if (isBlank(text)) throw new Unreadable("it is empty; delete it, or put {} into it");
  const node = new Reader(text, format === "jsonc").document();
  if (node.members === null) throw new Unreadable("it is no JSON object");
  return node;
}

// What we set is a plain object; what is read is a Map, so that no name in a file means anything to JavaScript.
const isTree = (value) => value !== null && typeof value === "object" && !Array.isArray(value) && !(value instanceof Map);
const plain = (value) =>
  value instanceof Map ? Object.fromEntries([...value].map(([key, inner]) => [key, plain(inner)]))
    : Array.isArray(value) ? value.map(plain) : value;

function ownLine(text, at) {
  const newline = text.lastIndexOf("\n", at - 1);
  const before = text.slice(newline + 1, at);
  return at > 0 && newline >= 0 && /^[ \t]*$/.test(before) ? before : null;
}

function lineIndent(text, at) {
  return /^[ \t]*/.exec(text.slice(at > 0 ? text.lastIndexOf("\n", at - 1) + 1 : 0, at))[0];
}

function styleOf(text, root) {
  const broken = text.indexOf("\r\n");
  const newline = broken >= 0 && broken === text.indexOf("\n") - 1 ? "\r\n" : "\n";
  const first = root.members[0];
  return { newline, unit: (first && ownLine(text, first.start)) || "  " };
}

const printed = (value, style, indent) =>
  JSON.stringify(value, null, style.unit).replaceAll("\n", style.newline + indent);

function compact(value, gap) {
  if (!isTree(value)) return JSON.stringify(value);
  return `{${Object.entries(value).map(([key, inner]) => `${JSON.stringify(key)}:${gap}${compact(inner, gap)}`).join("," + gap)}}`;
}

function assignInto(text, node, values, style, edits) {
  const known = new Map(node.members.map((member) => [member.key, member]));
  const fresh = {};
  for (const [key, value] of Object.entries(values)) {
    const member = known.get(key);
    if (member === undefined) fresh[key] = value;
    else if (!isTree(value)) {
      edits.push({ start: member.value.start, end: member.value.end, text: printed(value, style, lineIndent(text, member.start)) });
    } else if (member.value.members === null) throw new Unreadable(`${JSON.stringify(key)} in it is no object`);
    else assignInto(text, member.value, value, style, edits);
  }
  if (Object.keys(fresh).length) edits.push(...addition(text, node, fresh, style));
}

function addition(text, node, fresh, style) {
  const last = node.members.at(-1);
  const entries = Object.entries(fresh);
  if (last === undefined) {
    const indent = lineIndent(text, node.start);
    const kept = node.start + 1 + stripEnd(text.slice(node.start + 1, node.end - 1)).length;
    const lead = style.newline + indent + style.unit;
    const members = entries.map(([key, value]) => `${lead}${JSON.stringify(key)}: ${printed(value, style, indent + style.unit)}`);
    const end = kept === node.start + 1 ? style.newline + indent : text.slice(kept, node.end - 1);
    return [{ start: kept, end: node.end - 1, text: members.join(",") + end }];
  }
  const own = ownLine(text, last.start);
  const behind = last.comma === null ? last.value.end : last.comma + 1;
  if (own === null) {
    const gap = last.colon + 1 === last.value.start ? "" : " ";
    const added = entries.map(([key, value]) => `${JSON.stringify(key)}:${gap}${compact(value, gap)}`).join("," + gap);
    return [{ start: behind, end: behind, text: last.comma === null ? `,${gap}${added}` : `${gap}${added},` }];
  }
  const added = entries.map(([key, value]) => `${style.newline}${own}${JSON.stringify(key)}: ${printed(value, style, own)}`).join(",");
  const at = behind + (matchAt(REST_OF_LINE, text, behind) ?? "").length;
  if (last.comma !== null) return [{ start: at, end: at, text: added + "," }];
  return [{ start: behind, end: behind, text: "," }, { start: at, end: at, text: added }];
}

function removal(text, node, index) {
  const { members } = node;
  const member = members[index];
  const own = ownLine(text, member.start);
  const edits = [];
  let { start } = member, { end } = member.value;
  const before = index > 0 ? members[index - 1].comma : null;
  if (member.comma !== null) end = member.comma + 1;
  else if (index) edits.push({ start: before, end: before + 1, text: "" });
  if (own !== null) {
    start -= own.length;
    start -= text.slice(start - 2, start) === "\r\n" ? 2 : 1;
  } else if (index + 1 < members.length) {
    end += /^ */.exec(text.slice(end, members[index + 1].start))[0].length;
  } else if (index && isBlank(text.slice(before + 1, start))) start = before + 1;
  const inside = text.slice(node.start + 1, start) + text.slice(end, node.end - 1);
  edits.push(members.length === 1 && isBlank(inside) ? { start: node.start + 1, end: node.end - 1, text: "" } : { start, end, text: "" });
  return edits;
}

function edited(text, edits) {
  const pieces = [];
  let at = 0;
  for (const edit of [...edits].sort((one, other) => one.start - other.start || one.end - other.end)) {
    pieces.push(text.slice(at, edit.start), edit.text);
    at = edit.end;
  }
  return pieces.join("") + text.slice(at);
}

// --- trees: see documents.py ------------------------------------------------------------------------------------------

const ordered = (value) =>
  value instanceof Map ? [...value].map(([key, inner]) => [key, ordered(inner)])
    : isTree(value) ? Object.entries(value).map(([key, inner]) => [key, ordered(inner)])
      : Array.isArray(value) ? { list: value.map(ordered) } : { is: value };
const asMap = (value) => (isTree(value) ? new Map(Object.entries(value).map(([key, inner]) => [key, asMap(inner)])) : value);

function merged(tree, values) {
  const made = new Map(tree);
  for (const [key, value] of Object.entries(values)) {
    const inner = made.get(key);
    made.set(key, isTree(value) ? merged(inner instanceof Map ? inner : new Map(), value) : value);
  }
  return made;
}

function pruned(tree, keys) {
  if (!tree.has(keys[0])) return tree;
  const made = new Map(tree);
  if (keys.length === 1) made.delete(keys[0]);
  else if (tree.get(keys[0]) instanceof Map) made.set(keys[0], pruned(tree.get(keys[0]), keys.slice(1)));
  return made;
}

function checked(text, expected, format) {
  if (JSON.stringify(ordered(parsed(text, format).value)) !== JSON.stringify(ordered(expected))) {
    throw new Unreadable("an edit would have changed more of it than it should; nothing was written");
  }
  return text;
}

function assigned(text, values, format) {
  const root = parsed(text, format);
  const edits = [];
  assignInto(text, root, values, styleOf(text, root), edits);
  return checked(edited(text, edits), merged(root.value, values), format);
}

function removed(text, paths, format) {
  const expected = paths.reduce(pruned, parsed(text, format).value);
  for (const keys of paths) {
    let node = parsed(text, format);
    for (const key of keys.slice(0, -1)) node = node?.members?.find((member) => member.key === key)?.value;
    const index = (node?.members ?? []).findIndex((member) => member.key === keys.at(-1));
    if (index >= 0) text = edited(text, removal(text, node, index));
  }
  return checked(text, expected, format);
}

function fresh(values, format) {
  if (format !== "toml") return JSON.stringify(values, null, 2) + "\n";
  const lines = (table) => Object.entries(table).filter(([, value]) => !isTree(value))
    .map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`).join("");
  const tables = (keys, table) => Object.entries(table).filter(([, value]) => isTree(value))
    .flatMap(([key, value]) => [[[...keys, key], value], ...tables([...keys, key], value)]);
  const blocks = [lines(values)];
  for (const [keys, table] of tables([], values)) if (lines(table)) blocks.push(`[${keys.join(".")}]\n${lines(table)}`);
  return blocks.filter(Boolean).join("\n");
}

const MISSING = Symbol("missing");
const at = (tree, keys) => keys.reduce((value, key) => (value instanceof Map && value.has(key) ? value.get(key) : MISSING), tree);
const has = (tree, keys) => at(tree, keys) !== MISSING;
const isEmpty = (value) => (value instanceof Map ? value.size === 0 : Object.keys(value).length === 0);
const isInner = (value) => value instanceof Map || isTree(value);
const entriesOf = (value) => (value instanceof Map ? [...value] : Object.entries(value));
const leaves = (tree, above = []) => entriesOf(tree).flatMap(([key, value]) =>
  isInner(value) && !isEmpty(value) ? leaves(value, [...above, key]) : [[[...above, key], value]]);
const inner = (values, above = []) => Object.entries(values).flatMap(([key, value]) =>
  isTree(value) && !isEmpty(value) ? [[...above, key], ...inner(value, [...above, key])] : []);
const nested = (keys, value) => keys.reduceRight((made, key) => ({ [key]: made }), value);
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
const sha256 = (text) => createHash("sha256").update(text, "utf8").digest("hex");
const digest = (value) => sha256(JSON.stringify(plain(value)));

function joined(values, more) {
  const made = { ...values };
  for (const [key, value] of Object.entries(more)) {
    made[key] = isTree(value) && isTree(made[key]) ? joined(made[key], value) : value;
  }
  return made;
}

// --- plans: see plan.py -----------------------------------------------------------------------------------------------

const isOurs = (tree, leaf) => has(tree, leaf.path) && digest(at(tree, leaf.path)) === leaf.digest;

function wanted(tree, wish) {
  const isGentle = (keys) => (wish.gentle ?? []).some((other) => same(other, keys));
  return leaves(wish.values).filter(([keys]) => !isGentle(keys) || !has(tree, keys))
    .reduce((made, [keys, value]) => joined(made, nested(keys, value)), {});
}

function change(wish, now, earlier, backup) {
  try {
    if (earlier && now !== null && ![earlier.before, earlier.after].includes(sha256(now))) return repeated(wish, now, earlier);
    const before = earlier ? restored(now, earlier, backup).text : now;
    if (before !== null && wish.format === "toml") throw tomlByHand(wish);
    const tree = before === null ? new Map() : parsed(before, wish.format).value;
    const values = wanted(tree, wish);
    if (isEmpty(values)) return { file: wish.file, now, before, after: before, record: null };
    const after = before === null ? fresh(values, wish.format) : assigned(before, values, wish.format);
    return { file: wish.file, now, before, after, record: recordOf(wish, tree, values, before, after) };
  } catch (error) {
    throw unreadable(wish.file, error);
  }
}

function tomlByHand(wish) {
  return new Unreadable(`it is there already, and this script merges no TOML. Put these lines into it by hand, with your key:\n\n${
    fresh(wish.values, "toml").replace(process.env.LUME_KEY, "lume_...")}\n`);
}

function unreadable(file, error) {
  return error instanceof Unreadable ? new Refused(`${file} can't be merged: ${error.message}. Nothing was changed.`) : error;
}

function recordOf(wish, tree, values, before, after) {
  let found = leaves(values).map(([keys, value]) => ({
    path: keys, had: has(tree, keys), was: has(tree, keys) ? plain(at(tree, keys)) : null, digest: digest(value),
    paired: (wish.paired ?? []).some((pair) => same(pair, keys)),
  }));
  const pair = found.filter((leaf) => leaf.paired);
  const lone = pair.filter((leaf) => leaf.had && digest(leaf.was) === leaf.digest && !pair.every((other) => other.had));
  found = found.map((leaf) => (lone.includes(leaf) ? { ...leaf, had: false, was: null } : leaf));
  return {
    file: wish.file, format: wish.format, before: before === null ? null : sha256(before), after: sha256(after), backup: null,
    made: inner(values).filter((keys) => !has(tree, keys)), leaves: found, exact: lone.length === 0,
  };
}

function repeated(wish, now, earlier) {
  const tree = parsed(now, wish.format).value;
  const known = earlier.leaves.filter((leaf) => isOurs(tree, leaf));
  const values = wanted(known.map((leaf) => leaf.path).reduce(pruned, tree), wish);
  const named = leaves(values).map(([keys]) => keys);
  const gone = known.filter((leaf) => !named.some((keys) => same(keys, leaf.path)));
  const after = assigned(takenBack(now, tree, gone, earlier), values, wish.format);
  const made = recordOf(wish, tree, values, now, after);
  const found = made.leaves.map((leaf) => {
    const past = known.find((other) => same(other.path, leaf.path)) ?? leaf;
    return { ...leaf, had: past.had, was: past.was };
  });
  const objects = [...earlier.made, ...made.made.filter((keys) => !earlier.made.some((other) => same(other, keys)))];
  return { file: wish.file, now, before: null, after, record: {
    ...earlier, format: wish.format, after: sha256(after), made: objects, leaves: found, exact: false } };
}

function undone(record, now, backup) {
  try {
    const { text, kept = [], along = [] } = restored(now, record, backup);
    return { file: record.file, now, before: text, after: text, record: null, kept, along };
  } catch (error) {
    throw unreadable(record.file, error);
  }
}

function restored(now, record, backup) {
  if (now === null) return { text: null };
  if (record.exact && sha256(now) === record.after && (record.before === null || backup !== null)) {
    return { text: record.before === null ? null : backup };
  }
  if (sha256(now) === record.before) return { text: now };
  if (record.format === "toml") {
    throw new Unreadable(`it was changed since, and this script merges no TOML. Take these keys out of it by hand: ${
      record.leaves.map((leaf) => leaf.path.join(".")).join(", ")}`);
  }
  const tree = parsed(now, record.format).value;
  const pair = record.leaves.some((leaf) => leaf.paired && isOurs(tree, leaf));
  const ours = record.leaves.filter((leaf) => isOurs(tree, leaf) || (leaf.paired && pair));
  const changed = record.leaves.filter((leaf) => has(tree, leaf.path) && !isOurs(tree, leaf));
  const kept = changed.filter((leaf) => !ours.includes(leaf)).map((leaf) => leaf.path);
  const along = changed.filter((leaf) => ours.includes(leaf)).map((leaf) => leaf.path);
  const text = takenBack(now, tree, ours, record);
  return { text: record.before === null && /^[{} \t\r\n]*$/.test(text) ? null : text, kept, along };
}

function takenBack(text, tree, ours, record) {
  const back = ours.filter((leaf) => leaf.had).reduce((made, leaf) => joined(made, nested(leaf.path, leaf.was)), {});
  const gone = ours.filter((leaf) => !leaf.had && has(tree, leaf.path)).map((leaf) => leaf.path);
  text = removed(text, collapsed(tree, gone, record.made), record.format);
  return isEmpty(back) ? text : assigned(text, back, record.format);
}

function collapsed(tree, gone, made) {
  const key = (keys) => JSON.stringify(keys);
  const rest = new Set(gone.map(key));
  const chosen = [];
  for (const keys of made) {
    if (!has(tree, keys) || chosen.some((above) => same(keys.slice(0, above.length), above))) continue;
    const value = at(tree, keys);
    const inside = isInner(value) && !isEmpty(value) ? leaves(value, keys).map(([found]) => key(found)) : [key(keys)];
    if (inside.every((found) => rest.has(found) || found === key(keys))) {
      chosen.push(keys);
      inside.forEach((found) => rest.delete(found));
    }
  }
  return [...chosen, ...gone.filter((keys) => rest.has(key(keys)))];
}
