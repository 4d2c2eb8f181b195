// Part 2: what a set-up changes and what an undo does, from texts alone, as documents.py, record.py and plan.py have it.
import { createHash } from "node:crypto";

// --- trees: see documents.py ------------------------------------------------------------------------------------------

const ordered = (value) =>
  value instanceof Map
    ? [...value].map(([key, inner]) => [key, ordered(inner)])
    : isTree(value)
      ? Object.entries(value).map(([key, inner]) => [key, ordered(inner)])
      : Array.isArray(value)
        ? { list: value.map(ordered) }
        : { is: value };
const asMap = (value) =>
  isTree(value) ? new Map(Object.entries(value).map(([key, inner]) => [key, asMap(inner)])) : value;

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
  const lines = (table) =>
    Object.entries(table)
      .filter(([, value]) => !isTree(value))
      .map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`)
      .join("");
  const tables = (keys, table) =>
    Object.entries(table)
      .filter(([, value]) => isTree(value))
      .flatMap(([key, value]) => [[[...keys, key], value], ...tables([...keys, key], value)]);
  const blocks = [lines(values)];
  for (const [keys, table] of tables([], values)) if (lines(table)) blocks.push(`[${keys.join(".")}]\n${lines(table)}`);
  return blocks.filter(Boolean).join("\n");
}

const MISSING = Symbol("missing");
const at = (tree, keys) =>
  keys.reduce((value, key) => (value instanceof Map && value.has(key) ? value.get(key) : MISSING), tree);
const has = (tree, keys) => at(tree, keys) !== MISSING;
const isEmpty = (value) => (value instanceof Map ? value.size === 0 : Object.keys(value).length === 0);
const isInner = (value) => value instanceof Map || isTree(value);
const entriesOf = (value) => (value instanceof Map ? [...value] : Object.entries(value));
const leaves = (tree, above = []) =>
  entriesOf(tree).flatMap(([key, value]) =>
    isInner(value) && !isEmpty(value) ? leaves(value, [...above, key]) : [[[...above, key], value]],
  );
const inner = (values, above = []) =>
  Object.entries(values).flatMap(([key, value]) =>
    isTree(value) && !isEmpty(value) ? [[...above, key], ...inner(value, [...above, key])] : [],
  );
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
  return leaves(wish.values)
    .filter(([keys]) => !isGentle(keys) || !has(tree, keys))
    .reduce((made, [keys, value]) => joined(made, nested(keys, value)), {});
}

function change(wish, now, earlier, backup) {
  try {
    if (earlier && now !== null && ![earlier.before, earlier.after].includes(sha256(now)))
      return repeated(wish, now, earlier);
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
  return new Unreadable(
    `it is there already, and this script merges no TOML. Put these lines into it by hand, with your key:\n\n${fresh(
      wish.values,
      "toml",
    ).replace(process.env.LUME_KEY, "lume_...")}\n`,
  );
}

function unreadable(file, error) {
  return error instanceof Unreadable
    ? new Refused(`${file} can't be merged: ${error.message}. Nothing was changed.`)
    : error;
}

function recordOf(wish, tree, values, before, after) {
  let found = leaves(values).map(([keys, value]) => ({
    path: keys,
    had: has(tree, keys),
    was: has(tree, keys) ? plain(at(tree, keys)) : null,
    digest: digest(value),
    paired: (wish.paired ?? []).some((pair) => same(pair, keys)),
  }));
  const pair = found.filter((leaf) => leaf.paired);
  const lone = pair.filter((leaf) => leaf.had && digest(leaf.was) === leaf.digest && !pair.every((other) => other.had));
  found = found.map((leaf) => (lone.includes(leaf) ? { ...leaf, had: false, was: null } : leaf));
  return {
    file: wish.file,
    format: wish.format,
    before: before === null ? null : sha256(before),
    after: sha256(after),
    backup: null,
    made: inner(values).filter((keys) => !has(tree, keys)),
    leaves: found,
    exact: lone.length === 0,
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
  return {
    file: wish.file,
    now,
    before: null,
    after,
    record: {
      ...earlier,
      format: wish.format,
      after: sha256(after),
      made: objects,
      leaves: found,
      exact: false,
    },
  };
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
    throw new Unreadable(
      `it was changed since, and this script merges no TOML. Take these keys out of it by hand: ${record.leaves
        .map((leaf) => leaf.path.join("."))
        .join(", ")}`,
    );
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
