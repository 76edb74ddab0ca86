// Keeps the page's files for starts without a network. The page itself is always asked for first, so that nobody sees
// an old one while there is a network; files whose names hold a digest never change. Nothing of jobs is kept here.
const CACHE = "dockframe-page";
const WAIT_MS = 3000;
// What a few versions of the page come to; older files are dropped.
const MAX_FILES = 60;
const NAMED = /[\w.]+(?:-[\w.]+)*-[0-9a-f]{8,}\w*\.(?:js|css|wasm|svg)/g;
const base = new URL("./", location.href).pathname;

const isPage = (path) => path === base || path === `${base}index.html` || path.startsWith(`${base}j/`);
// A short address gets the same page with its files at the root.
const key = (path) => (path.startsWith(`${base}j/`) ? `${base}j/` : base);

// What cannot be kept is only not kept: the answer goes to the page whatever comes of this.
const keep = (request, response) => put(request, response).catch(() => {});
const put = async (request, response) => {
  const cache = await caches.open(CACHE);
  await cache.put(request, response);
  const held = await cache.keys();
  await Promise.all(held.slice(0, Math.max(0, held.length - MAX_FILES)).map((old) => cache.delete(old)));
};

const find = (request) => caches.match(request).catch(() => undefined);

const page = async (request, path) => {
  const fresh = fetch(request).then((response) => {
    if (response.ok && response.headers.get("content-type")?.startsWith("text/html")) {
      keep(key(path), response.clone());
    }
    return response;
  });
  const kept = await find(key(path));
  if (!kept) return fresh;
  const late = new Promise((resolve) => setTimeout(() => resolve(kept), WAIT_MS));
  return Promise.race([fresh.catch(() => kept), late]);
};

const file = async (request) => {
  const kept = await find(request);
  if (kept) return kept;
  const response = await fetch(request);
  if (response.ok) keep(request, response.clone());
  return response;
};

self.addEventListener("install", (event) => {
  self.skipWaiting();
  // Answers of relays, of whatever origin, go round this worker: waking it first would hold up each result.
  if (event.addRoutes && self.URLPattern) {
    const rules = ["/q/*", "/f/*"].map((pathname) => {
      return { condition: { urlPattern: new URLPattern({ pathname }) }, source: "network" };
    });
    event.waitUntil(event.addRoutes(rules).catch(() => {}));
  }
  // The files of this visit came before there was a worker: they are in the browser's own cache still.
  event.waitUntil(
    fetch(base).then(async (response) => {
      const names = new Set((await response.clone().text()).match(NAMED) ?? []);
      await keep(base, response);
      await (await caches.open(CACHE)).addAll([...names].map((name) => base + name));
    }),
  );
});
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== location.origin) return;
  if (request.mode === "navigate" && isPage(url.pathname)) event.respondWith(page(request, url.pathname));
  else if (url.pathname.startsWith(base) && url.pathname.match(NAMED)?.join() === url.pathname.slice(base.length)) {
    event.respondWith(file(request));
  }
});
