// A host for several frames side by side. It answers their handshake, and no more.
const sheet = { inputs: {} };
const id = "sheet000";

sheet.load = (name, url, { left, top, width, height }) => {
  const frame = document.createElement("iframe");
  frame.name = name;
  Object.assign(frame.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
  frame.src = url;
  document.body.append(frame);
};
window.addEventListener("message", ({ data, source }) => {
  if (data?.method !== "SetupIframeClientRequest") return;
  const params = { iframeId: data.iframeId, parentId: id, version: "2", state: { inputs: sheet.inputs } };
  source.postMessage({
    jsonrpc: "2.0", id: "_", method: "SetupIframeServerResponse", params, iframeId: data.iframeId, parentId: id,
  }, "*");
});
window.sheet = sheet;
