// Render every page in pages/ to dist/, inside the frame of template.html.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { marked } from "marked";

const template = readFileSync("template.html", "utf8");

mkdirSync("dist", { recursive: true });
for (const file of readdirSync("pages")) {
  const name = file.replace(/\.md$/, "");
  const body = marked.parse(readFileSync(`pages/${file}`, "utf8"));
  writeFileSync(`dist/${name}.html`, template.replace("{{title}}", name).replace("{{body}}", body));
  console.log(`dist/${name}.html`);
}
