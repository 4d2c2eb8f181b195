// Part 3: a person's files, and a set-up carried out on them, as files.py and apply.py do it.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

const NAME = "lumeproxy",
  VERSION = 1,
  MAX_BYTES = 16 * 1024 * 1024;
const PRIVATE_FILE = 0o600,
  PRIVATE_FOLDER = 0o700,
  SUFFIX = ".lumeproxy-new";

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
    if (about.size > MAX_BYTES)
      throw new Refused(`${file} is larger than ${MAX_BYTES / 1048576} MiB. Nothing was changed.`);
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(fs.readFileSync(real));
    return { real, text, mode: about.mode & 0o7777 };
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new Refused(
      `${file} can't be read: ${
        error.code === "ERR_ENCODING_INVALID_ENCODED_DATA" ? "it is not UTF-8 text" : error.message
      }. Nothing was changed.`,
    );
  }
}

function checkWritable(file, found) {
  try {
    if (found.text !== null) {
      const about = fs.statSync(found.real);
      if (!(about.mode & 0o200)) throw new Refused(`${file} is read-only. Nothing was changed.`);
      fs.accessSync(found.real, fs.constants.W_OK);
      if (about.nlink > 1)
        throw new Refused(
          `${file} has ${about.nlink} names (hard links), of which a new file would keep one. Nothing was changed.`,
        );
    }
    let parent = path.dirname(found.real);
    while (!there(parent) && parent !== path.dirname(parent)) parent = path.dirname(parent);
    if (!fs.statSync(parent).isDirectory())
      throw new Refused(
        `${file} can't be written: ${parent} is no folder that can be written to. Nothing was changed.`,
      );
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

const put = (found, text) =>
  text === null ? fs.rmSync(found.real, { force: true }) : write(found.real, text, found.mode);

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
    if (known.version !== VERSION || !Array.isArray(known.files) || !Array.isArray(known.folders))
      throw new SyntaxError("version");
    for (const file of known.files)
      if (!Array.isArray(file.leaves) || !Array.isArray(file.made)) throw new SyntaxError("file");
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
  if (earlier === null)
    throw new Refused(
      `There is no record of a set-up of ${tool} on this machine (${sideFile(tool)}). Nothing was changed.`,
    );
  return planned(earlier.files, (known, found) => undone(known, found.text, backupOf(known)));
}

function apply(tool, url, changes) {
  const earlier = load(tool),
    made = [];
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
    throw error.code
      ? new Refused(`The settings are as before, but a file can't be removed: ${error.message}.`)
      : error;
  }
  removeFolders(earlier.folders);
  try {
    handOn(earlier.folders.filter((name) => fs.existsSync(name)));
  } catch (error) {
    if (!error.code && !(error instanceof Refused)) throw error; // an empty folder that is left behind harms nobody
  }
}

function handOn(folders) {
  const names = fs.existsSync(stateFolder())
    ? fs
        .readdirSync(stateFolder())
        .filter((name) => name.endsWith(".json"))
        .sort()
    : [];
  if (!names.length || !folders.length) return;
  const theirs = load(names[0].slice(0, -".json".length));
  write(
    path.join(stateFolder(), names[0]),
    asciiJson({ ...theirs, folders: [...new Set([...folders, ...theirs.folders])] }),
    PRIVATE_FILE,
  );
}

const asciiJson = (value) =>
  JSON.stringify(value, null, 2)
    .replace(/[\u007f-\uffff]/g, (char) => "\\u" + char.charCodeAt(0).toString(16).padStart(4, "0"))
    .replaceAll("\\u007f", "\u007f") + "\n";

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
      if (look(one.file).text !== one.found.text)
        throw new Refused(`${one.file} was changed by somebody else meanwhile; run this again.`);
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

const failed = (error) =>
  error instanceof Refused
    ? error
    : error.code
      ? new Refused(`It can't be written: ${error.message}. Every file is as it was.`)
      : error;
