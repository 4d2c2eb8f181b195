// Part 4: the tools and the models that suit them, as models.py, claude_code.py, codex.py and opencode.py have it.
const PROFILE = "lume";

// --- models: see models.py --------------------------------------------------------------------------------------------

const PACKAGES = { messages: "@ai-sdk/anthropic", responses: "@ai-sdk/openai", chat: "@ai-sdk/openai-compatible" };
const speech = (model) =>
  model.startsWith("claude") ? "messages" : /^(?:gpt(?!-oss)|chatgpt|codex|o[0-9])/.test(model) ? "responses" : "chat";
const talkers = (models) =>
  models.filter(
    (model) => !/audio|tts|image|realtime|transcribe|embedding|moderation|instruct|search|vision|:/.test(model),
  );

function highest(models, pattern) {
  const found = models
    .map((model) => [pattern.exec(model), model])
    .filter(([hit]) => hit)
    .map(([hit, model]) => [Number(hit[1]), Number(hit[2] ?? 0), hit[3] ? 1 : 0, model]);
  const after = (one, other) =>
    one.reduce((order, part, i) => order || (part > other[i] ? 1 : part < other[i] ? -1 : 0), 0);
  return found.length ? found.reduce((best, one) => (after(one, best) > 0 ? one : best))[3] : null;
}

function cheapestClaude(models) {
  const names = models.filter((model) => model.startsWith("claude"));
  return (
    highest(models, /^claude-haiku-([0-9]+)-([0-9]+)$/) ??
    (names.includes("claude-echo") ? "claude-echo" : (names[0] ?? null))
  );
}

function newestGpt(models) {
  const names = talkers(models).filter((model) => speech(model) === "responses");
  return (
    highest(models, /^gpt-([0-9]+)(?:\.([0-9]+))?(-sol)?$/) ??
    (names.includes("gpt-echo") ? "gpt-echo" : (names[0] ?? null))
  );
}

// --- tools: see claude_code.py, codex.py, opencode.py -----------------------------------------------------------------

const message = (model) => [
  "/v1/messages",
  { model, max_tokens: 16, messages: [{ role: "user", content: "Say OK." }] },
];
const question = (model) => ["/v1/responses", { model, max_output_tokens: 16, input: "Say OK." }];
const noModel = (what) => new Refused(`This key may use no ${what}. Nothing was changed.`);

const TOOLS = {
  "claude-code": {
    title: "Claude Code",
    wishes(url, key, models) {
      if (!models.length) throw noModel("model here");
      const env = {
        ANTHROPIC_BASE_URL: url,
        ANTHROPIC_AUTH_TOKEN: key,
        CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY: "1",
        CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK: "1",
      };
      return [
        {
          file: path.join(folder("CLAUDE_CONFIG_DIR", ".claude"), "settings.json"),
          format: "json",
          values: { env },
          paired: [
            ["env", "ANTHROPIC_BASE_URL"],
            ["env", "ANTHROPIC_AUTH_TOKEN"],
          ],
        },
        {
          file: path.join(folder("CLAUDE_CONFIG_DIR"), ".claude.json"),
          format: "json",
          values: { hasCompletedOnboarding: true },
          gentle: [["hasCompletedOnboarding"]],
        },
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
        name: "lumeproxy",
        base_url: `${url}/v1`,
        wire_api: "responses",
        experimental_bearer_token: key,
        supports_websockets: false,
      };
      const values = { model_provider: NAME, model: codexModel(models), model_providers: { [NAME]: provider } };
      const file = path.join(folder("CODEX_HOME", ".codex"), `${PROFILE}.config.toml`);
      return [
        {
          file,
          format: "toml",
          values,
          paired: ["base_url", "experimental_bearer_token"].map((name) => ["model_providers", NAME, name]),
        },
      ];
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
      const provider = {
        npm,
        name: "lumeproxy",
        options: { baseURL: `${url}/v1`, apiKey: key },
        models: Object.fromEntries(usable.map((model) => [model, entry(model)])),
      };
      const where = path.join(folder("XDG_CONFIG_HOME", ".config"), "opencode");
      const file = path.join(where, there(path.join(where, "opencode.jsonc")) ? "opencode.jsonc" : "opencode.json");
      return [
        {
          file,
          format: "jsonc",
          gentle: [["$schema"]],
          values: { $schema: "https://opencode.ai/config.json", provider: { [NAME]: provider } },
          paired: ["baseURL", "apiKey"].map((name) => ["provider", NAME, "options", name]),
        },
      ];
    },
    trial(models) {
      if (cheapestClaude(models)) return message(cheapestClaude(models));
      if (newestGpt(models)) return question(newestGpt(models));
      return [
        "/v1/chat/completions",
        { model: talkers(models)[0], max_tokens: 16, messages: [{ role: "user", content: "Say OK." }] },
      ];
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

const SWITCHES = ["BEDROCK", "VERTEX", "FOUNDRY", "MANTLE", "ANTHROPIC_AWS", "ANTHROPIC_GOOGLE_CLOUD", "GATEWAY"].map(
  (end) => `CLAUDE_CODE_USE_${end}`,
);
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
  const where =
    {
      win32: path.join(process.env.ProgramFiles || "C:\\Program Files", "ClaudeCode"),
      darwin: "/Library/Application Support/ClaudeCode",
    }[process.platform] ?? "/etc/claude-code";
  const more = path.join(where, "managed-settings.d");
  const names = fs.existsSync(more)
    ? fs
        .readdirSync(more)
        .filter((name) => name.endsWith(".json"))
        .sort()
    : [];
  return [path.join(where, "managed-settings.json"), ...names.map((name) => path.join(more, name))];
}

function* overriding(file, names) {
  const values = valuesOf(file, "json");
  for (const name of names) {
    const value = at(values, ["env", name]);
    if (value !== MISSING && value !== null && !(SWITCHES.includes(name) && isOff(value)))
      yield `${file} sets ${name}: ${
        name === "ANTHROPIC_API_KEY" ? "Claude Code asks about it and sends it along" : "it defeats this set-up"
      }. Take it out of there.`;
  }
  if (values.get("apiKeyHelper"))
    yield `${file} has an apiKeyHelper: Claude Code runs it and sends its key along. Take it out of there.`;
}

function* warnings(tool) {
  if (tool === "claude-code") {
    if (process.env.ANTHROPIC_API_KEY)
      yield "ANTHROPIC_API_KEY is set in this shell: Claude Code asks about it and sends it along. Unset it.";
    for (const name of SWITCHES) {
      if (!isOff(process.env[name] ?? ""))
        yield `${name} is set in this shell: Claude Code then goes to that provider, not to the proxy. Unset it.`;
    }
    const own = path.join(folder("CLAUDE_CONFIG_DIR", ".claude"), "settings.json");
    yield* overriding(own, ["ANTHROPIC_API_KEY", ...SWITCHES]);
    const all = ["ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", ...SWITCHES];
    const project = ["settings.json", "settings.local.json"].map((name) => path.join(process.cwd(), ".claude", name));
    for (const file of [...project.filter((name) => path.dirname(name) !== path.dirname(own)), ...managedFiles()])
      yield* overriding(file, all);
  }
  if (tool === "codex") {
    const file = path.join(folder("CODEX_HOME", ".codex"), "config.toml");
    if (/^\s*\[\s*profiles\s*\.\s*["']?lume["']?\s*\]/m.test(look(file).text ?? ""))
      yield `${file} has a [profiles.lume] of the old kind; codex -p lume then ends in an error. Remove it.`;
  }
  if (tool === "opencode") {
    const where = path.join(folder("XDG_CONFIG_HOME", ".config"), "opencode");
    const file = path.join(where, there(path.join(where, "opencode.jsonc")) ? "opencode.jsonc" : "opencode.json");
    const values = valuesOf(file, "jsonc");
    const enabled = values.get("enabled_providers"),
      disabled = values.get("disabled_providers");
    if (Array.isArray(enabled) && !enabled.includes(NAME))
      yield `${file} has a list of enabled_providers without "lumeproxy", so it stays hidden. Add it there.`;
    if (Array.isArray(disabled) && disabled.includes(NAME))
      yield `${file} has "lumeproxy" in disabled_providers, so it stays hidden. Take it out of there.`;
    const others = [
      process.env.OPENCODE_CONFIG,
      ...["opencode.json", "opencode.jsonc", ".opencode/opencode.json"].map((name) => path.join(process.cwd(), name)),
    ];
    for (const other of others.filter((name) => name && name !== file)) {
      if (has(valuesOf(other, "jsonc"), ["provider", NAME]))
        yield `${other} has a provider of the same name, which defeats this set-up. Take it out of there.`;
    }
  }
}
