// Reads /openapi.json, shows each call with what it takes, and sends it. All requests go to the server that this page came from.
const byId = id => document.getElementById(id);
const base = new URL(".", location.href);
let spec;

/** An element: its attributes, and its children. */
function made(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element && typeof value !== "string") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.flat().filter(child => child != null));
  return element;
}

/** A schema without references, and without the null that may stand in its place. */
function plain(schema) {
  if (schema?.$ref) return plain(schema.$ref.slice(2).split("/").reduce((at, key) => at[key], spec));
  const some = schema?.anyOf?.filter(one => one.type !== "null");
  return some?.length === 1 ? { ...schema, anyOf: undefined, ...plain(some[0]) } : schema ?? {};
}

/** What a value of a schema is, in words. */
function kind(given) {
  const schema = plain(given);
  if (schema.anyOf) return [...new Set(schema.anyOf.filter(one => one.type !== "null").map(kind))].join(" or ");
  if (schema.enum) return schema.enum.map(one => JSON.stringify(one)).join(" or ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") return `[${kind(schema.items)}, …]`;
  const low = schema.minimum ?? (schema.exclusiveMinimum != null ? `more than ${schema.exclusiveMinimum}` : null);
  const high = schema.maximum ?? (schema.exclusiveMaximum != null ? `less than ${schema.exclusiveMaximum}` : null);
  const range = [low, high].filter(one => one != null).join(" to ");
  return (schema.type ?? "any") + (range ? `, ${range}` : "");
}

/** A value to begin with. */
function example(given) {
  const schema = plain(given);
  if (schema.default != null) return schema.default;
  if (schema.enum) return schema.enum[0];
  const items = schema.items && (schema.minItems ?? 0) > 0 ? [example(schema.items)] : [];
  return { string: "", integer: schema.minimum ?? 0, number: schema.minimum ?? 0, boolean: false, array: items }[schema.type]
    ?? (schema.type === "object" || schema.properties ? body(schema) : null);
}

/** An object with the keys that must be there. */
function body(schema) {
  const keys = schema.required ?? [];
  return Object.fromEntries(keys.map(key => [key, example(schema.properties[key])]));
}

const quoted = text => `'${text.replaceAll("'", "'\\''")}'`;

/** One call: what it takes, and what is answered. */
class Call {
  constructor(method, path, about) {
    Object.assign(this, { method: method.toUpperCase(), path, about });
    const content = Object.entries(about.requestBody?.content ?? {});
    [this.type, this.media] = content.find(([type]) => type === "application/json") ?? content[0] ?? [];
    this.schema = plain(this.media?.schema);
    this.words = `${this.method} ${path} ${about.description ?? ""}`.toLowerCase();
    this.element = made("details", { id: about.operationId, ontoggle: () => this.open() },
      made("summary", {}, made("b", {}, this.method), made("code", {}, path), made("span", { class: "faint" }, about.description ?? "")));
  }

  /** What stands in it is made when it is first looked into. */
  open() {
    if (this.form) return;
    this.inputs = (this.about.parameters ?? []).map(one => {
      const about = [kind(one.schema), one.description].filter(Boolean).join("; ");
      const input = made("input", { name: one.name, required: one.required ?? false, autocomplete: "off" });
      return { ...one, input, field: made("label", { class: "field" }, one.name, input, made("span", { class: "faint" }, about)) };
    });
    this.curl = made("pre", { "aria-label": "as a curl command" });
    this.button = made("button", {}, "Send");
    this.status = made("p", { role: "status" });
    this.shown = made("pre", { hidden: true, tabIndex: 0, "aria-label": "the answer" });
    this.form = made("form", { oninput: () => this.tell(), onsubmit: event => { event.preventDefault(); this.send(); } },
      this.inputs.length ? made("div", { class: "fields" }, this.inputs.map(one => one.field)) : null,
      this.bodyFields(), this.curl, this.button, this.status, this.shown);
    this.element.append(this.form);
    this.tell();
  }

  bodyFields() {
    const fields = Object.entries(this.schema.properties ?? {});
    const rows = fields.map(([key, schema]) => made("tr", {},
      made("td", {}, key), made("td", {}, kind(schema)),
      made("td", {}, [this.schema.required?.includes(key) ? "must be there" : null, plain(schema).default != null ? `[default: ${JSON.stringify(plain(schema).default)}]` : null, schema.description].filter(Boolean).join("; "))));
    const table = rows.length ? made("table", {}, made("caption", {}, "Keys"), rows) : null;
    if (this.type === "application/json") {
      const text = JSON.stringify(body(this.schema), null, 2);
      this.text = made("textarea", { rows: String(Math.min(text.split("\n").length + 1, 12)), spellcheck: false }, text);
      return [made("label", { class: "field" }, "Body, JSON", this.text), table];
    }
    if (this.type === "multipart/form-data") {
      this.parts = fields.map(([key, schema]) => {
        const binary = plain(schema).format === "binary" || plain(schema).contentMediaType;
        const input = made("input", { name: key, type: binary ? "file" : "text", autocomplete: "off" });
        return { key, input, field: made("label", { class: "field" }, key, input) };
      });
      return [made("div", { class: "fields" }, this.parts.map(one => one.field)), table];
    }
    if (!this.type) return [];
    this.file = made("input", { type: "file" });
    return [made("label", { class: "field" }, `Body, ${this.type}`, this.file)];
  }

  /** What is to be sent: an address, and what `fetch` takes. */
  request() {
    const url = new URL(this.path.replace(/^\//, "").replaceAll(/\{(\w+)\}/g, (_, name) =>
      encodeURIComponent(this.inputs.find(one => one.name === name).input.value || name.toUpperCase())), base);
    for (const { name, input, in: place } of this.inputs) {
      if (place === "query" && input.value !== "") url.searchParams.set(name, input.value);
    }
    const headers = {};
    const token = byId("token").value.trim();
    if (token) headers.authorization = `Bearer ${token}`;
    let content;
    if (this.text?.value.trim()) content = this.text.value;
    if (this.file?.files[0]) content = this.file.files[0];
    if (this.parts) {
      content = new FormData();
      for (const { key, input } of this.parts) {
        const value = input.type === "file" ? input.files[0] : input.value;
        if (value) content.append(key, value);
      }
    } else if (content) headers["content-type"] = this.type;
    return [url, { method: this.method, headers, body: content }];
  }

  /** The same as a line for a shell. */
  tell() {
    const [url, { headers, body: content }] = this.request();
    const words = ["curl", ...(this.method === "GET" ? [] : ["-X", this.method]), quoted(url.href)];
    for (const [name, value] of Object.entries(headers)) {
      words.push("-H", name === "authorization" ? '"authorization: Bearer $TOKEN"' : quoted(`${name}: ${value}`));
    }
    if (content instanceof FormData) {
      for (const [key, value] of content) words.push("-F", quoted(`${key}=${value instanceof File ? `@${value.name}` : value}`));
    } else if (content instanceof File) words.push("--data-binary", quoted(`@${content.name}`));
    else if (content) words.push("-d", quoted(content));
    this.curl.textContent = words.join(" ");
  }

  async send() {
    this.button.disabled = true;
    this.shown.hidden = true;
    this.status.replaceChildren("…");
    try {
      const began = performance.now();
      const [url, asked] = this.request();
      const answer = await fetch(url, asked);
      const type = answer.headers.get("content-type") ?? "";
      const line = made("span", { class: answer.ok ? "good" : "bad" }, `${answer.status} ${answer.statusText}`);
      this.status.replaceChildren(line, made("span", { class: "faint" }, ` after ${Math.round(performance.now() - began)} ms, ${type}`));
      await this.show(answer, type);
    } catch (error) {
      this.status.replaceChildren(made("span", { class: "bad" }, `no answer: ${error.message}`));
    }
    this.button.disabled = false;
  }

  async show(answer, type) {
    if (type.startsWith("application/octet-stream")) {
      const whole = await answer.blob();
      const link = made("a", { href: URL.createObjectURL(whole), download: this.path.split("/").pop() }, `save ${whole.size} bytes`);
      this.status.append(" ", link);
      return;
    }
    this.shown.hidden = false;
    this.shown.textContent = "";
    if (type.startsWith("application/json")) {
      const text = await answer.text();
      this.shown.textContent = text.length < 200_000 ? JSON.stringify(JSON.parse(text), null, 2) : text;
      return;
    }
    for await (const part of parts(answer.body.pipeThrough(new TextDecoderStream()))) this.shown.append(part);
  }
}

/** What a stream gives, as it comes. */
async function* parts(stream) {
  const reader = stream.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}

async function begin() {
  spec = await (await fetch(new URL("openapi.json", base))).json();
  byId("version").textContent = spec.info.version;
  const groups = new Map();
  const calls = [];
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, about] of Object.entries(methods)) {
      const call = new Call(method, path, about);
      calls.push(call);
      const tag = about.tags?.[0] ?? "server";
      groups.set(tag, [...(groups.get(tag) ?? []), call]);
    }
  }
  byId("calls").replaceChildren(made("p", { class: "faint" }, spec.info.description ?? ""), ...[...groups].map(([tag, some]) =>
    made("section", {}, made("h2", {}, tag), some.map(call => call.element))));
  const find = () => {
    const words = byId("find").value.toLowerCase().split(/\s+/);
    for (const call of calls) call.element.hidden = !words.every(word => call.words.includes(word));
    for (const section of document.querySelectorAll("section")) section.hidden = !section.querySelector("details:not([hidden])");
  };
  byId("find").addEventListener("input", find);
  byId("token").addEventListener("input", () => calls.filter(call => call.form).forEach(call => call.tell()));
  const named = location.hash && byId(location.hash.slice(1));
  if (named) named.open = true;
}

begin().catch(error => byId("calls").replaceChildren(made("p", { class: "bad", role: "alert" }, `openapi.json cannot be read: ${error.message}`)));
