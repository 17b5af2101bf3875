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
await build({
  entryPoints: { page: "src/main.js", train: "src/train/worker.js" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  plugins: [indentation],
  banner: { js: "// its source is page/ in the repository; whose code it holds: licenses.txt" },
});
copyFileSync("src/index.html", `${out}/index.html`);
const licences = ["preact", "htm", "uplot"].map(name => {
  const { version } = JSON.parse(readFileSync(`node_modules/${name}/package.json`));
  return `${name} ${version}\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim()}\n`;
});
writeFileSync(`${out}/licenses.txt`, licences.join(`\n${"-".repeat(72)}\n\n`));
