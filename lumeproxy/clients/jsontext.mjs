// Part 1 of the node program that sets a tool up where there is no Python: edits of JSON text, as jsontext.py makes them.
//
// The parts are put together by script.py, in the order of its PARTS, to one module. They do what the Python beside them does:
// same files, same record, same bytes; tests compare the two. Only TOML is written whole or not at all here: a file that would
// have to be merged is left to its owner, with the lines to put into it. ASCII only, since a pipe of Windows PowerShell lets
// nothing else through.

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
    return new Unreadable(
      `line ${line}, column ${[...before.slice(before.lastIndexOf("\n") + 1)].length + 1}: ${what}`,
    );
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
    let at = this.skip(start + 1),
      due = true;
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
const isTree = (value) =>
  value !== null && typeof value === "object" && !Array.isArray(value) && !(value instanceof Map);
const plain = (value) =>
  value instanceof Map
    ? Object.fromEntries([...value].map(([key, inner]) => [key, plain(inner)]))
    : Array.isArray(value)
      ? value.map(plain)
      : value;

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
  return `{${Object.entries(value)
    .map(([key, inner]) => `${JSON.stringify(key)}:${gap}${compact(inner, gap)}`)
    .join("," + gap)}}`;
}

function assignInto(text, node, values, style, edits) {
  const known = new Map(node.members.map((member) => [member.key, member]));
  const fresh = {};
  for (const [key, value] of Object.entries(values)) {
    const member = known.get(key);
    if (member === undefined) fresh[key] = value;
    else if (!isTree(value)) {
      edits.push({
        start: member.value.start,
        end: member.value.end,
        text: printed(value, style, lineIndent(text, member.start)),
      });
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
    const members = entries.map(
      ([key, value]) => `${lead}${JSON.stringify(key)}: ${printed(value, style, indent + style.unit)}`,
    );
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
  const added = entries
    .map(([key, value]) => `${style.newline}${own}${JSON.stringify(key)}: ${printed(value, style, own)}`)
    .join(",");
  const at = behind + (matchAt(REST_OF_LINE, text, behind) ?? "").length;
  if (last.comma !== null) return [{ start: at, end: at, text: added + "," }];
  return [
    { start: behind, end: behind, text: "," },
    { start: at, end: at, text: added },
  ];
}

function removal(text, node, index) {
  const { members } = node;
  const member = members[index];
  const own = ownLine(text, member.start);
  const edits = [];
  let { start } = member,
    { end } = member.value;
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
  edits.push(
    members.length === 1 && isBlank(inside)
      ? { start: node.start + 1, end: node.end - 1, text: "" }
      : { start, end, text: "" },
  );
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
