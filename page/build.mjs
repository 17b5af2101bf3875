// Bundles the page: src/main.js and src/style.css into the files that the wheel carries.
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

/** Templates of html keep their newlines, between which htm sees no spaces; their indentation need not travel. */
const indentation = {
  name: "indentation",
  setup: made => made.onLoad({ filter: /\/src\/.*\.js$/ }, ({ path }) => {
    const text = readFileSync(path, "utf8");
    return { contents: text.includes("html`") ? text.replace(/\n +/g, "\n") : text, loader: "js" };
  }),
};

const out = process.argv[2] ?? "../src/throughtime/play/static";
const made = entryPoints => build({
  entryPoints,
  outdir: out,
  bundle: true,
  splitting: true,
  chunkNames: "shared",  // there is one: what page.js and panels.js both have
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  plugins: [indentation],
  banner: { js: "// its source is page/ in the repository; whose code it holds: licenses.txt" },
});
await made({ page: "src/main.js", panels: "src/panels/index.js" });
await made({ panels: "src/panels/panels.css" });
await made({ train: "src/train/worker.js", microphone: "src/panels/microphone.js" });  // each by itself, in threads of their own
copyFileSync("src/index.html", `${out}/index.html`);
const licences = ["preact", "htm", "uplot"].map(name => {
  const { version } = JSON.parse(readFileSync(`node_modules/${name}/package.json`));
  return `${name} ${version}\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim()}\n`;
});
writeFileSync(`${out}/licenses.txt`, licences.join(`\n${"-".repeat(72)}\n\n`));
