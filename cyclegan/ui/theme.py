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
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_600",
    button_primary_background_fill_hover_dark="*primary_700",
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

#heading h1 { font-size: 1.75rem; font-weight: 650; letter-spacing: -0.015em; line-height: 1.2; margin: 0; }
#heading p { max-width: 72ch; margin: 6px 0 8px; line-height: 1.5; }
#heading p, #hint p, #about p, #problems details *, .empty p, .trio figcaption, .face .cycle, .generated {
  color: var(--body-text-color-subdued); }
#photo-tab { gap: 28px; align-items: flex-start; }
#ask, #answer { gap: 14px; }

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

#face .wrap, #model .wrap, #direction .wrap { gap: 6px; }

#hint p { margin: 0; }
#hint p.warn { color: #b45309; }
.dark #hint p.warn { color: #fbbf24; }
#about p { margin: 0 0 4px; font-size: var(--text-sm); line-height: 1.5; }
#about strong { color: var(--body-text-color); }
#problems { font-size: var(--text-sm); }
#problems summary { cursor: pointer; }
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
#result { overflow: hidden; }
#result img { max-height: 560px; object-fit: contain; }
.faces { display: grid; gap: 14px; }
.face { padding: 14px; border: 1px solid var(--border-color-primary); border-radius: var(--block-radius);
  background: var(--block-background-fill); }
.face h3 { margin: 0 0 10px; font-size: var(--text-md); font-weight: 600; }
.trio { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 8px; }
.trio figure { margin: 0; }
.trio img { display: block; width: 100%; margin: 0; aspect-ratio: 1; object-fit: cover;
  border-radius: var(--radius-md); }
.trio figcaption { margin-top: 5px; font-size: var(--text-sm); }
.face .cycle { margin: 10px 0 0; font-size: var(--text-sm); line-height: 1.5; }
.face .cycle b { color: var(--body-text-color); font-weight: 600; font-variant-numeric: tabular-nums; }
.generated { margin: 10px 0 0; font-size: var(--text-sm); }

@media (min-width: 900px) {
  /* With many faces, two cards side by side keep the page short. */
  .faces:has(> :nth-child(4)) { grid-template-columns: 1fr 1fr; }
  .faces:has(> :nth-child(4)) figcaption { font-size: var(--text-xs); }
}
@media (max-width: 640px) {
  .gradio-container { padding: 20px 14px 12px !important; }
  #heading h1 { font-size: 1.45rem; }
  #photo { height: 300px !important; }
  .empty { min-height: 180px; }
  .trio figcaption { font-size: var(--text-xs); }
}
"""
