"""One calm theme, light and dark, with the fonts of the visitor's system: the page asks no other host for anything."""

import gradio as gr

_ACCENT = gr.themes.Color(
    "#f0fdfa", "#ccfbf1", "#99f6e4", "#5eead4", "#2dd4bf", "#14b8a6", "#0d8f83", "#0f766e", "#115e59", "#134e4a",
    "#042f2e", name="accent",
)  # fmt: skip

THEME = gr.themes.Base(
    primary_hue=_ACCENT,
    secondary_hue=_ACCENT,
    neutral_hue="slate",
    font=("ui-sans-serif", "system-ui", "sans-serif"),
    font_mono=("ui-monospace", "monospace"),
    radius_size="lg",
    text_size="md",
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="#10161d",
    background_fill_primary_dark="#18212b",
    background_fill_secondary_dark="#141c24",
    block_background_fill="white",
    block_background_fill_dark="#18212b",
    block_border_width="1px",
    block_border_color="*neutral_200",
    block_border_color_dark="#2a3643",
    border_color_primary="*neutral_200",
    border_color_primary_dark="#2a3643",
    block_shadow="none",
    block_radius="*radius_lg",
    block_label_background_fill="transparent",
    block_label_background_fill_dark="transparent",
    block_label_border_width="0px",
    block_label_text_color="*neutral_500",
    block_label_text_color_dark="*neutral_400",
    block_title_text_color="*neutral_600",
    block_title_text_color_dark="*neutral_300",
    block_title_text_weight="600",
    body_text_color="*neutral_800",
    body_text_color_dark="*neutral_100",
    body_text_color_subdued="*neutral_500",
    body_text_color_subdued_dark="*neutral_400",
    link_text_color="*primary_700",
    link_text_color_hover="*primary_800",
    link_text_color_active="*primary_800",
    link_text_color_visited="*primary_700",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_600",
    button_primary_text_color="white",
    button_large_text_weight="600",
    checkbox_label_background_fill="transparent",
    checkbox_label_background_fill_dark="transparent",
    checkbox_label_background_fill_selected="*primary_50",
    checkbox_label_background_fill_selected_dark="#12332f",
    checkbox_label_border_color="*neutral_200",
    checkbox_label_border_color_dark="#2a3643",
    checkbox_label_border_color_selected="*primary_600",
    checkbox_label_border_color_selected_dark="*primary_500",
    checkbox_label_text_color_selected="*neutral_900",
    checkbox_label_text_color_selected_dark="white",
    slider_color="*primary_600",
)

CSS = """
.gradio-container { width: 100%; max-width: 1160px !important; margin: 0 auto !important;
  padding: 32px 24px 16px !important; }
.gradio-container > .main { padding: 0 !important; }
.gradio-container .html-container { padding: 0; }
footer { margin-top: 28px; font-size: var(--text-sm); }
footer .divider, footer img { display: none !important; }
.toast-title-row .chevron { display: none; }
:is(button, summary, a, [tabindex]):focus-visible { outline: 2px solid var(--primary-600); outline-offset: 2px; }
.dark :is(button, summary, a, [tabindex]):focus-visible { outline-color: var(--primary-400); }

#heading h1 { font-size: 1.75rem; font-weight: 650; letter-spacing: -0.015em; line-height: 1.2; margin: 0; }
#heading p { max-width: 72ch; margin: 6px 0 8px; line-height: 1.5; }
#heading p, #hint p, #about p, #problems details *, .empty p, .pictures figcaption, .face .cycle, .generated, .note,
#examples p, .compare figcaption, .heat summary, .scale, .facts, .terms, #add p {
  color: var(--body-text-color-subdued); }
#tabs [role=tab] { font-size: var(--text-md); padding: 8px 14px; color: var(--body-text-color-subdued); }
#tabs [role=tab][aria-selected=true] { color: var(--primary-700); font-weight: 600; }
.dark #tabs [role=tab][aria-selected=true] { color: var(--primary-400); }
#photo-tab { gap: 28px; align-items: flex-start; padding-top: 12px; }
#ask, #answer { gap: 14px; }
h2 { font-size: var(--text-md); font-weight: 600; margin: 0; }

#photo { background: var(--block-background-fill); }
#photo:not(:has(.image-frame)) { border-color: var(--neutral-300); }
.dark #photo:not(:has(.image-frame)) { border-color: var(--neutral-700); }
#photo .source-selection { gap: 4px; }
#photo .source-selection button { display: flex; align-items: center; gap: 6px; width: auto; height: 36px;
  padding: 0 12px; font-size: var(--text-sm); color: var(--body-text-color-subdued); }
#photo .source-selection button svg { width: 18px; height: 18px; flex: none; }
#photo .source-selection button:nth-of-type(1)::after { content: "Upload"; }
#photo .source-selection button:nth-of-type(2)::after { content: "Camera"; }
#photo .source-selection button:nth-of-type(3)::after { content: "Paste"; }
#photo .source-selection :is(button.selected, button:hover) { color: var(--primary-700); }
.dark #photo .source-selection :is(button.selected, button:hover) { color: var(--primary-400); }
/* With a photo in place these three do nothing; the button that makes room for another takes their place. */
#photo:has(.image-frame) .source-selection { visibility: hidden; }
#photo:has(.image-frame) .icon-button-wrapper { inset: auto 0 0 0; justify-content: center; height: 40px;
  border: 0; border-top: 1px solid var(--border-color-primary); border-radius: 0; }
#photo:has(.image-frame) .icon-button-wrapper button { display: flex; width: auto; padding: 4px 10px; gap: 6px; }
#photo:has(.image-frame) .icon-button-wrapper button::after { content: "Another photo"; font-size: var(--text-sm); }
#photo .selectable img { cursor: pointer; }

#examples p { margin: 0 0 6px; font-size: var(--text-sm); }
.strip, .tiles { list-style: none; margin: 0; padding: 0; display: grid; gap: 8px; }
#examples .strip { grid-template-columns: repeat(6, minmax(0, 1fr)); }
.strip li, .tiles li { margin: 0; padding: 0; list-style: none; }
.strip button, .tiles button { display: block; width: 100%; padding: 0; text-align: left; cursor: pointer;
  background: none; border: 0; border-radius: var(--radius-md); color: inherit; font-weight: 400; }
.strip img, .tiles img { display: block; width: 100%; margin: 0; aspect-ratio: 1; object-fit: cover;
  border-radius: var(--radius-md); }
.strip button:hover img, .tiles button:hover img { filter: brightness(1.08); }

:is(#face, #model, #direction) .wrap { gap: 4px; }
:is(#face, #model, #direction) .wrap label { padding: 6px 10px; }
:is(#face, #model) .wrap { display: grid; grid-template-columns: repeat(auto-fill, minmax(116px, 1fr)); }
#chain .form { border: 0; }
#hint p { margin: 0; }
#hint p.warn { color: #b45309; }
.dark #hint p.warn { color: #fbbf24; }
#go { gap: 10px; align-items: stretch; }
:is(#go, #take) button { padding-inline: 12px; white-space: nowrap; font-size: var(--text-md); }
#about p { margin: 0 0 4px; font-size: var(--text-sm); line-height: 1.5; }
#about strong { color: var(--body-text-color); }
.quiet { align-self: flex-start; width: auto; padding: 2px 0; background: none; border: 0; box-shadow: none;
  color: var(--primary-700); font-weight: 500; }
.quiet:hover { background: none; text-decoration: underline; }
.dark .quiet { color: var(--primary-400); }
#problems { font-size: var(--text-sm); }
summary { cursor: pointer; }
#problems ul { margin: 6px 0 0; padding-left: 18px; list-style: disc; }
#no-models { max-width: 60ch; }

.empty { display: grid; place-content: center; justify-items: center; gap: 14px; min-height: 360px; padding: 24px;
  border: 1px dashed var(--neutral-300); border-radius: var(--block-radius); text-align: center; }
.dark .empty { border-color: var(--neutral-700); }
.empty p { margin: 0; max-width: 36ch; line-height: 1.5; }
.empty .flow { display: flex; align-items: center; gap: 12px; }
.empty .flow span { width: 52px; height: 52px; border: 1px dashed currentColor; border-radius: var(--radius-md);
  opacity: .5; }

/* The state of the queue: one quiet line at the top of the answer. */
#details .wrap.center { padding: 0; }
#details .wrap.center svg, #answer .wrap:has(> .error) { display: none; }
#details .meta-text-center { inset: 0; padding: 14px; transform: none; font-family: var(--font); }

/* Before lies below, after above it: cut at --at, and as opaque as the strength, which is what blending is. */
.compare { margin: 0; --side: 560px; }
.compare .stage { --at: 50%; position: relative; aspect-ratio: var(--ratio); margin: 0 auto;
  width: min(100%, calc(var(--side) * var(--ratio))); overflow: hidden; border-radius: var(--block-radius); }
.compare .stage img { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; border-radius: 0; }
.compare .after { clip-path: inset(0 0 0 var(--at)); opacity: var(--strength); }
.compare .line { position: absolute; inset: 0 auto 0 var(--at); width: 2px; margin-left: -1px; background: white;
  box-shadow: 0 0 0 1px rgb(0 0 0 / .35); pointer-events: none; }
.compare .line::after { content: "‹ ›"; position: absolute; top: 50%; left: 50%; width: 40px; height: 40px;
  translate: -50% -50%; display: grid; place-content: center; border-radius: 50%; background: white; color: #0f1720;
  font-weight: 600; line-height: 1; box-shadow: 0 1px 6px rgb(0 0 0 / .35); }
.compare input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize;
  touch-action: pan-y; }
.compare .stage:has(input:focus-visible) { outline: 3px solid var(--primary-500); outline-offset: 2px; }
.compare figcaption { display: flex; justify-content: space-between; margin-top: 6px; font-size: var(--text-sm); }
#take { align-items: center; gap: 14px; }

.faces { display: grid; gap: 14px; }
.face, .gallery, .visit { padding: 14px; border: 1px solid var(--border-color-primary);
  border-radius: var(--block-radius); background: var(--block-background-fill); }
.face h2, .gallery h2, .visit h2 { margin: 0 0 10px; }
.pictures { display: grid; grid-template-columns: repeat(var(--count), minmax(0, 1fr)); gap: 8px; }
.pictures figure { margin: 0; }
.pictures img { display: block; width: 100%; margin: 0; aspect-ratio: 1; object-fit: cover;
  border-radius: var(--radius-md); }
.pictures figcaption { margin-top: 5px; font-size: var(--text-sm); }
.face .cycle { margin: 10px 0 0; font-size: var(--text-sm); line-height: 1.5; }
.face .cycle b { color: var(--body-text-color); font-weight: 600; font-variant-numeric: tabular-nums; }
.generated, .note { margin: 10px 0 0; font-size: var(--text-sm); }
.heat { margin-top: 8px; font-size: var(--text-sm); }
.heat .pictures { margin-top: 8px; }
.scale { display: grid; grid-template-columns: auto 1fr; column-gap: 8px; margin: 0; align-content: space-between;
  font-size: var(--text-xs); }
.scale .bar { grid-row: 1 / 3; width: 12px; border-radius: 6px;
  background: linear-gradient(to bottom, #000004, #420a68, #932667, #dd513a, #fca50a, #fcffa4); }
.scale span:last-child { align-self: end; }
.gallery .note { margin: 0 0 10px; }
.gallery ul + .note { margin: 10px 0 0; }
.tiles { grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 12px; }
.tiles b, .tiles span { display: block; font-size: var(--text-sm); line-height: 1.35; }
.tiles b { margin-top: 5px; font-weight: 600; }
.tiles span { font-size: var(--text-xs); color: var(--body-text-color-subdued); }
.visit .strip { grid-template-columns: repeat(auto-fill, minmax(76px, 1fr)); }
.visit .strip span { display: block; margin-top: 4px; font-size: var(--text-xs); line-height: 1.3; }

#models, #added { margin-top: 12px; }
#models .prose, #added .prose { display: grid; gap: 16px; }
.model, .model .columns { display: grid; grid-template-columns: minmax(0, 1fr); gap: 16px 32px; }
.model { padding: 20px; margin: 0 0 16px;
  border: 1px solid var(--border-color-primary);
  border-radius: var(--block-radius); background: var(--block-background-fill); line-height: 1.5; }
.model figure { margin: 0; }
.model figure img { width: 100%; margin: 0; border-radius: var(--radius-md); }
.model h2 { font-size: 1.25rem; }
.model .directions { margin: 2px 0 6px; color: var(--primary-700); font-weight: 500; }
.dark .model .directions { color: var(--primary-400); }
.model header p { max-width: 72ch; }
.model h3 { font-size: var(--text-md); font-weight: 600; margin: 5px 0 6px; }
.model :is(p, ul, ol) { margin: 0 0 8px; }
.model :is(ul, ol) { padding-left: 20px; list-style: disc; }
.model li { margin: 0 0 4px; }
.model details { margin: 12px 0; }
.model code { overflow-wrap: anywhere; }
.model details table { display: block; overflow-x: auto; }
.model details > :first-child { font-weight: 500; }
.model pre { overflow-x: auto; padding: 10px 12px; border-radius: var(--radius-md); font-size: var(--text-sm);
  background: var(--background-fill-secondary); }
.model .facts, .model .terms { font-size: var(--text-sm); margin: 6px 0 0; }
.model table { width: 100%; border-collapse: collapse; margin: 0 0 12px; font-size: var(--text-sm); }
.model :is(th, td) { padding: 5px 8px; text-align: left; font-weight: 400; border: 0;
  border-bottom: 1px solid var(--border-color-primary); }
.model :is(table, thead, tbody, tr) { border: 0 !important; }
.model thead th { font-weight: 600; }
.model td { font-variant-numeric: tabular-nums; }
.model .table { overflow-x: auto; }
#add { margin-top: 12px; }
#add p { margin: 4px 0 0; max-width: 72ch; }
.part { margin: 8px 0 12px; }

@media (min-width: 900px) {
  /* With many faces, two cards side by side keep the page short. */
  .faces:has(> :nth-child(4)) { grid-template-columns: 1fr 1fr; }
  .faces:has(> :nth-child(4)) figcaption { font-size: var(--text-xs); }
  .model .columns:has(> :nth-child(2)) { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
@media (max-width: 640px) {
  .gradio-container { padding: 20px 14px 12px !important; }
  #heading h1 { font-size: 1.45rem; }
  #photo { height: 300px !important; }
  .empty { min-height: 180px; }
  .pictures figcaption { font-size: var(--text-xs); }
  .face .pictures { --count: 2; }
  .face .pictures:not([style*="4"], [style*="5"]) { --count: 3 !important; }
  .model { padding: 14px; }
  .tiles { grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); }
}
"""
