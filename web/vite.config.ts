import { defineConfig, type Plugin } from "vite";

/** Puts the script and the styles into the page, so that it is one file that opens from file://. */
function inlined(): Plugin {
  return {
    name: "inlined",
    enforce: "post",
    generateBundle(_, bundle) {
      const page = bundle["page.html"];
      if (page?.type !== "asset") throw new Error("there is no page.html");
      let html = String(page.source);
      for (const [name, file] of Object.entries(bundle)) {
        if (file.type === "chunk") {
          const script = file.code.trim().replaceAll("</script", "<\\/script");
          html = html.replace(/<script type="module"[^>]*src=[^>]*><\/script>\s*/, "");
          html = html.replace("</body>", () => `<script type="module">${script}</script>\n</body>`);
          delete bundle[name];
        } else if (name.endsWith(".css")) {
          html = html.replace(/<link rel="stylesheet"[^>]*>/, () => `<style>${String(file.source).trim()}</style>`);
          delete bundle[name];
        }
      }
      page.source = html;
    },
  };
}

export default defineConfig({
  base: "./",
  plugins: [inlined()],
  build: {
    outDir: "../src/ierf/graph/picture",
    emptyOutDir: false,
    modulePreload: false,
    target: "es2022",
    rollupOptions: { input: "page.html" },
  },
});
