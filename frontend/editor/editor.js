// The code editor: CodeMirror behind one function. The page loads this file when an editor is first shown; until it is
// there, and where it cannot be had, a plain textarea stands in its place.
//
// It lives in a shadow root: there CodeMirror writes its styles into adopted style sheets, which a content security
// policy without `unsafe-inline` allows. Nothing is loaded from anywhere.
import { autocompletion, closeBrackets, closeBracketsKeymap, completeAnyWord } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { javascript } from "@codemirror/lang-javascript";
import { json } from "@codemirror/lang-json";
import { python } from "@codemirror/lang-python";
import {
  HighlightStyle, StreamLanguage, bracketMatching, indentOnInput, indentUnit, syntaxHighlighting,
} from "@codemirror/language";
import { c, cpp, java, scala } from "@codemirror/legacy-modes/mode/clike";
import { dockerFile } from "@codemirror/legacy-modes/mode/dockerfile";
import { go } from "@codemirror/legacy-modes/mode/go";
import { julia } from "@codemirror/legacy-modes/mode/julia";
import { lua } from "@codemirror/legacy-modes/mode/lua";
import { perl } from "@codemirror/legacy-modes/mode/perl";
import { properties } from "@codemirror/legacy-modes/mode/properties";
import { r } from "@codemirror/legacy-modes/mode/r";
import { ruby } from "@codemirror/legacy-modes/mode/ruby";
import { rust } from "@codemirror/legacy-modes/mode/rust";
import { shell } from "@codemirror/legacy-modes/mode/shell";
import { standardSQL } from "@codemirror/legacy-modes/mode/sql";
import { toml } from "@codemirror/legacy-modes/mode/toml";
import { xml } from "@codemirror/legacy-modes/mode/xml";
import { yaml } from "@codemirror/legacy-modes/mode/yaml";
import { highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
import { Annotation, EditorState } from "@codemirror/state";
import {
  EditorView, drawSelection, highlightActiveLine, highlightActiveLineGutter, keymap, lineNumbers, placeholder,
} from "@codemirror/view";
import { tags } from "@lezer/highlight";

const legacy = (mode) => () => StreamLanguage.define(mode);
const [typescript, cLike, scripts] = [
  () => javascript({ typescript: true, jsx: true }), legacy(cpp), legacy(shell),
];
// By the end of the file's name.
const byEnding = {
  py: python, r: legacy(r), jl: legacy(julia), sh: scripts, bash: scripts, zsh: scripts,
  js: () => javascript({ jsx: true }), mjs: javascript, cjs: javascript, jsx: () => javascript({ jsx: true }),
  ts: typescript, tsx: typescript, json, ipynb: json, geojson: json, yml: legacy(yaml), yaml: legacy(yaml),
  toml: legacy(toml), ini: legacy(properties), cfg: legacy(properties), env: legacy(properties),
  c: legacy(c), h: cLike, cc: cLike, cpp: cLike, hpp: cLike, java: legacy(java), scala: legacy(scala),
  go: legacy(go), rs: legacy(rust), rb: legacy(ruby), pl: legacy(perl), lua: legacy(lua),
  sql: legacy(standardSQL), xml: legacy(xml), html: legacy(xml), svg: legacy(xml), dockerfile: legacy(dockerFile),
};

const language = (name, text) => {
  const base = name.split("/").pop().toLowerCase();
  if (/^(dockerfile|containerfile)/.test(base)) return [legacy(dockerFile)()];
  const known = byEnding[base.includes(".") ? base.split(".").pop() : ""];
  if (known) return [known()];
  // A script without an ending says what it is in its first line.
  const interpreter = /^#!.*\b(python|Rscript|node|bash|zsh|sh|perl|ruby)\b/.exec(text)?.[1];
  const ending = { python: "py", Rscript: "r", node: "js", perl: "pl", ruby: "rb" };
  return interpreter ? [byEnding[ending[interpreter] ?? "sh"]()] : [];
};

// Colours are the page's own, which follow its theme.
const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.modifier, tags.controlKeyword], color: "var(--code-keyword)" },
  { tag: [tags.string, tags.special(tags.string), tags.regexp], color: "var(--code-string)" },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], color: "var(--code-number)" },
  { tag: [tags.comment, tags.meta], color: "var(--code-comment)", fontStyle: "italic" },
  { tag: [tags.function(tags.variableName), tags.definition(tags.variableName), tags.standard(tags.variableName)], color: "var(--code-name)" },
  { tag: [tags.typeName, tags.className, tags.tagName, tags.propertyName], color: "var(--code-type)" },
]);

const theme = EditorView.theme({
  "&": { color: "var(--text)", backgroundColor: "var(--ground)", fontSize: "var(--size-code)", maxBlockSize: "70vh" },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "1px" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.5", overflow: "auto" },
  ".cm-content": { minBlockSize: "2.6em", padding: "6px 0" },
  ".cm-line": { padding: "0 10px" },
  ".cm-gutters": { backgroundColor: "var(--code)", color: "var(--dim)", border: "0" },
  ".cm-activeLine": { backgroundColor: "color-mix(in srgb, var(--text) 4%, transparent)" },
  ".cm-activeLineGutter": { backgroundColor: "transparent", color: "var(--text)" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  "&.cm-focused .cm-selectionBackground, .cm-selectionBackground": {
    background: "color-mix(in srgb, var(--accent) 28%, transparent) !important",
  },
  ".cm-placeholder": { color: "var(--dim)" },
  ".cm-panels, .cm-tooltip": { backgroundColor: "var(--panel)", color: "var(--text)", borderColor: "var(--line)" },
  ".cm-tooltip-autocomplete > ul > li[aria-selected]": { background: "var(--accent)", color: "var(--on-accent)" },
  ".cm-textfield, .cm-button": {
    background: "var(--ground)", backgroundImage: "none", color: "var(--text)", border: "1px solid var(--line)",
    borderRadius: "4px",
  },
  ".cm-matchingBracket": { background: "color-mix(in srgb, var(--good) 25%, transparent) !important" },
  ".cm-searchMatch": { background: "color-mix(in srgb, var(--warn) 35%, transparent)" },
});

const fromOutside = Annotation.define();

// Puts an editor into `parent`. `options`: `text`, `name` (of the file, which gives the syntax), `label` (for who
// cannot see it), `placeholder`, `isSmall` (no line numbers), `onChange(text)` on every edit, `onSave()` on Ctrl-S and
// Ctrl-Enter.
export function open(parent, options) {
  const root = parent.shadowRoot ?? parent.attachShadow({ mode: "open" });
  const save = () => (options.onSave?.(), true);
  const view = new EditorView({
    parent: root,
    root,
    state: EditorState.create({
      doc: options.text,
      extensions: [
        options.isSmall ? [] : [lineNumbers(), highlightActiveLineGutter(), highlightActiveLine()],
        history(), drawSelection(),
        indentOnInput(), bracketMatching(), closeBrackets(), indentUnit.of("    "), EditorState.tabSize.of(4),
        search({ top: true }), highlightSelectionMatches(), autocompletion({ override: [completeAnyWord] }),
        syntaxHighlighting(colours), theme, placeholder(options.placeholder ?? ""),
        language(options.name ?? "", options.text),
        keymap.of([
          { key: "Mod-s", run: save, preventDefault: true },
          { key: "Mod-Enter", run: save, preventDefault: true },
          ...closeBracketsKeymap, ...defaultKeymap, ...searchKeymap, ...historyKeymap, indentWithTab,
        ]),
        EditorView.lineWrapping,
        EditorView.contentAttributes.of({
          "aria-label": options.label, spellcheck: "false", autocapitalize: "off", autocorrect: "off",
          "aria-description": "Tab indents; press Escape first to leave with Tab",
        }),
        EditorView.updateListener.of((update) => {
          const isOurs = update.transactions.some((transaction) => transaction.annotation(fromOutside));
          if (update.docChanged && !isOurs) options.onChange(update.state.doc.toString());
        }),
      ],
    }),
  });
  return {
    // The text changed elsewhere; undo still goes back over it.
    set(text) {
      if (text === view.state.doc.toString()) return;
      view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: text }, annotations: fromOutside.of(true) });
    },
    focus: () => view.focus(),
    close: () => view.destroy(),
  };
}
