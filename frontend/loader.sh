#!/bin/sh
# Writes the file that starts the page and names it in index.html. Trunk's own way is an inline script, which
# `script-src 'self' 'wasm-unsafe-eval'` forbids. Runs as Trunk's post-build hook, in the project's root.
set -eu
cd "$TRUNK_STAGING_DIR"

# The newest of each name: `trunk serve` may leave older builds beside it.
script=$(ls -t dockframe-page-*.js | grep -v loader | head -n 1)
module=$(ls -t dockframe-page-*_bg.wasm | head -n 1)

cat > loader.js <<JS
import init from "./$script";
init({ module_or_path: new URL("./$module", import.meta.url) }).catch((error) => {
  const notice = document.createElement("p");
  notice.className = "notice";
  notice.textContent = "The page could not start: " + error + ". Reload it, or try a newer browser.";
  document.body.append(notice);
});
JS
if command -v sha256sum >/dev/null 2>&1; then sum=$(sha256sum loader.js); else sum=$(shasum -a 256 loader.js); fi
loader="loader-$(printf %s "$sum" | cut -c 1-16).js"
mv loader.js "$loader"

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
