#!/bin/sh
# Writes the file that starts the page and names it in index.html. Trunk's own way is an inline script, which
# `script-src 'self' 'wasm-unsafe-eval'` forbids. Bundles the code editor beside it, a file that is loaded only when
# an editor is opened. Runs as Trunk's post-build hook, in the project's root.
set -eu
root=$PWD
cd "$TRUNK_STAGING_DIR"

# named FILE BEGINNING: gives a file a name that holds its content's digest, so that it can be cached for ever.
named() {
  if command -v sha256sum >/dev/null 2>&1; then sum=$(sha256sum "$1"); else sum=$(shasum -a 256 "$1"); fi
  name="$2-$(printf %s "$sum" | cut -c 1-16).js"
  mv "$1" "$name"
  printf %s "$name"
}

# Without node the page has textareas in place of the editor.
editor=
bundler=$root/frontend/editor/node_modules/.bin/esbuild
if [ -x "$bundler" ]; then
  rm -f editor-*.js
  "$bundler" "$root/frontend/editor/editor.js" --bundle --minify --format=esm --target=es2022 --legal-comments=none \
    --log-level=warning --outfile=editor.js
  editor="globalThis.dockframeEditor = () => import(\"./$(named editor.js editor)\");"
fi

# The newest of each name: `trunk serve` may leave older builds beside it.
script=$(ls -t dockframe-page-*.js | grep -v loader | head -n 1)
module=$(ls -t dockframe-page-*_bg.wasm | head -n 1)
if [ -x "$bundler" ]; then
  "$bundler" "$script" --minify --format=esm --target=es2022 --log-level=warning --allow-overwrite --outfile="$script"
fi

cat > loader.js <<JS
import init from "./$script";
$editor
init({ module_or_path: new URL("./$module", import.meta.url) }).catch((error) => {
  const notice = document.createElement("p");
  notice.className = "notice";
  notice.textContent = "The page could not start: " + error + ". Reload it, or try a newer browser.";
  document.body.append(notice);
});
// For starts without a network. Where storage is denied even the look at it throws.
try {
  navigator.serviceWorker?.register(new URL("./sw.js", import.meta.url)).catch(() => {});
} catch {}
JS
cp "$root/frontend/sw.js" sw.js
loader=$(named loader.js loader)

awk -v loader="$loader" -v script="$script" -v module="$module" '
  /<!-- loader:/ {
    print "<link rel=\"modulepreload\" href=\"./" script "\">"
    print "<link rel=\"preload\" href=\"./" module "\" as=\"fetch\" type=\"application/wasm\" crossorigin>"
    print "<script type=\"module\" src=\"./" loader "\"></script>"
    next
  }
  { print }
' index.html > index.html.new
grep -q "$loader" index.html.new || { echo "index.html has no place for the loader" >&2; exit 1; }
mv index.html.new index.html
