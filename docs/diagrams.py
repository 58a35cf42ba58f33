"""The diagrams of the lessons, drawn as SVG that follows light and dark and can be read on a phone.

    python docs/diagrams.py      # writes nbs/images/*.svg and puts them into the notebooks that show them

A notebook carries its diagram inside the cell (as a data address), because Colab shows neither files beside a notebook nor attachments.
The site takes the drawing out of the address and puts it into the page, where it follows the reader's choice of light or dark.
"""
import base64, json, re
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT/"nbs/images"
WIDTH = 360                                   # units; about as many pixels as a phone has beside its margins
TOKENS = ["[CLS]", "a", "lovely", ",", "lovely", "film", "[SEP]"]
LIGHT = dict(card="#ffffff", ink="#1d2733", soft="#4d5866", line="#6b7685", plain="#eef1f5", blue="#d3e4f5", gold="#f5e6b8", grey="#dcdfe4", strong="#2b6ca3", on="#ffffff")
DARK = dict(card="#1b2129", ink="#eef1f5", soft="#b9c2ce", line="#8f9aa8", plain="#2a323d", blue="#24476a", gold="#5a4a15", grey="#3d4550", strong="#8cc0f0", on="#10161d")


def colours(scheme: dict) -> str:
    "A colour scheme as CSS variables"
    return ";".join(f"--dg-{name}:{value}" for name, value in scheme.items())


FILLS = "".join(f".diagram .dg-{name}{{fill:var(--dg-{name})}}" for name in ("card", "plain", "blue", "gold", "grey", "strong"))
CSS = (f".diagram{{{colours(LIGHT)};font:12px system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}}"
       f"@media(prefers-color-scheme:dark){{.diagram{{{colours(DARK)}}}}}"                                       # what the system says,
       f"[data-theme=light] .diagram{{{colours(LIGHT)}}}[data-theme=dark] .diagram{{{colours(DARK)}}}{FILLS}"   # and on the site the reader
       ".diagram text{fill:var(--dg-ink)}.diagram .dg-soft{fill:var(--dg-soft);font-size:11px}.diagram .dg-on{fill:var(--dg-on)}"
       ".diagram .dg-mono{font-family:ui-monospace,Consolas,'DejaVu Sans Mono',monospace;font-size:10.5px}.diagram .dg-bold{font-weight:700}"
       ".diagram .dg-line{stroke:var(--dg-line);fill:none;stroke-width:1.5}.diagram .dg-head{fill:var(--dg-line)}"
       ".diagram .dg-edge{stroke:var(--dg-line);stroke-width:1}.diagram .dg-mark{stroke:var(--dg-strong);stroke-width:2}"
       ".diagram .dg-dash{stroke-dasharray:3 3}")


class Drawing:
    "Shapes and words at places in units; y grows downwards"
    def __init__(self): self.parts, self.height = [], 0.0

    def box(self, x, y, width, height, words="", fill="plain", look="", edge="edge"):
        "A rectangle with words in its middle, one line each"
        self.parts.append(f'<rect class="dg-{fill} dg-{edge}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4"/>')
        lines = words.split("\n") if words else []
        for n, line in enumerate(lines): self.words(x + width/2, y + height/2 + 4 + 14 * (n - (len(lines) - 1) / 2), line, look)
        self.height = max(self.height, y + height)

    def words(self, x, y, text, look="", anchor="middle"):
        "One line of text; `look` names classes: soft, mono, bold, on"
        named = " ".join(f"dg-{name}" for name in look.split())
        self.parts.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"' + (f' class="{named}"' if named else "") + f'>{escape(text, quote=False)}</text>')
        self.height = max(self.height, y + 4)

    def line(self, *points, dashed=False):
        "A line through points"
        path = "L".join(f"{x:g} {y:g}" for x, y in points)
        self.parts.append(f'<path class="dg-line{" dg-dash" if dashed else ""}" d="M{path}"/>')

    def arrow(self, *points, dashed=False):
        "A line that ends in an arrow's head; its last piece is upright or level"
        (x0, y0), (x, y) = points[-2:]
        dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
        self.line(*points[:-1], (x - 5*dx, y - 5*dy), dashed=dashed)
        a, b = (x - 7*dx - 4*dy, y - 7*dy - 4*dx), (x - 7*dx + 4*dy, y - 7*dy + 4*dx)
        self.parts.append(f'<path class="dg-head" d="M{x:g} {y:g}L{a[0]:g} {a[1]:g}L{b[0]:g} {b[1]:g}z"/>')
        self.height = max(self.height, y)

    def svg(self, alt: str) -> str:
        "The file"
        height = round(self.height + 12)
        return (f'<svg xmlns="http://www.w3.org/2000/svg" class="diagram" role="img" aria-label="{escape(alt)}" viewBox="0 0 {WIDTH} {height}" width="{1.35*WIDTH:g}" height="{1.35*height:g}">\n'
                f'<style>{CSS}</style>\n<rect class="dg-card" width="{WIDTH}" height="{height}" rx="8"/>\n' + "\n".join(self.parts) + "\n</svg>\n")


def token_row(drawing, x, y, tokens, fills, width, look="mono"):
    "Tokens side by side in boxes of one width, or of a width that fits each"
    for token, fill in zip(tokens, fills):
        own = width or 8 + 6.4 * len(token)
        drawing.box(x, y, own - 2, 20, token, fill, look)
        x += own


SEVEN = ["grey", "blue", "blue", "blue", "blue", "blue", "grey"]          # special tokens are grey


def draw_pipeline(d):
    "Text, tokens, ids, batch, logits, record"
    d.box(68, 12, 280, 24, "a lovely, lovely film", "card")
    token_row(d, 68, 66, TOKENS, SEVEN, 40.3)
    token_row(d, 68, 116, ["101", "1037", "8403", "1010", "8403", "2143", "102"], SEVEN, 40.3)
    for row, real in enumerate((7, 3, 10)):
        for column in range(10): d.box(110 + 18*column, 166 + 14*row, 16, 12, "", "blue" if column < real else "card")
    for row in range(3):
        for n, name in enumerate(("NEG", "POS")): d.box(128 + 72*n, 242 + 20*row, 70, 17, name, "gold" if (row == 0) == n else "card", "soft")
    d.box(68, 336, 280, 38, "right or wrong, row by row;\naccuracy and its interval, time, memory", "plain", "soft")
    for y, name in ((28, "text"), (80, "tokens"), (130, "ids"), (184, "batch"), (198, "(B, T)"), (266, "logits"), (280, "(B, 2)"), (359, "record")):
        d.words(10, y, name, "bold" if name[0] != "(" else "soft", "start")
    for y, end, name in ((37, 65, "split into pieces"), (87, 115, "look up"), (137, 165, "pad to one length"), (208, 241, "encoder and head"), (302, 335, "compare with the labels")):
        d.arrow((198, y), (198, end))
        d.words(206, (y + end) / 2 + 3, name, "soft", "start")


def draw_cut(d):
    "A review in tokens, and what a limit of nine leaves of it"
    opening, middle, ending = "the plot is thin and the jokes".split(), ["are", "old", ","], ["but", "what", "a", "lovely", ",", "lovely", "film"]
    d.words(12, 22, "The review: 17 tokens and two special ones", "bold", "start")
    token_row(d, 12, 32, ["[CLS]", *opening], ["grey"] + ["gold"] * 7, 0)
    token_row(d, 12, 56, middle, ["plain"] * 3, 0)
    token_row(d, 12, 80, [*ending, "[SEP]"], ["blue"] * 7 + ["grey"], 0)
    for y, side, tokens, fill, heard in ((132, "left", ending, "blue", "The model hears praise."), (204, "right", opening, "gold", "The model hears a complaint.")):
        d.words(12, y, f"Limit 9, cut on the {side}", "bold", "start")
        token_row(d, 12, y + 9, ["[CLS]", *tokens, "[SEP]"], ["grey", *[fill] * 7, "grey"], 0)
        d.words(12, y + 45, heard, "soft", "start")


def draw_batch(d):
    "Three reviews in one rectangle, and the mask"
    for top, name in ((0, "input_ids (3, 14)"), (112, "attention_mask (3, 14)")):
        d.words(12, top + 22, name, "bold", "start")
        for row, real in enumerate((7, 3, 14)):
            for column in range(14):
                special = column in (0, real - 1)
                fill = "card" if column >= real else "blue" if top else "grey" if special else "blue"
                d.box(12 + 24*column, top + 30 + 24*row, 22, 22, "" if not top and column < real else str(int(column < real)), fill, "mono")
    for x, fill, name in ((12, "blue", "token"), (84, "grey", "[CLS], [SEP]"), (196, "card", "padding, id 0")):
        d.box(x, 226, 14, 14, "", fill)
        d.words(x + 20, 237, name, "soft", "start")
    d.words(12, 262, "7 + 3 + 14 = 24 real tokens; 3 × 14 = 42 are computed", "", "start")


def draw_attention(d):
    "One token looks at all seven"
    shares = (0.05, 0.04, 0.10, 0.06, 0.55, 0.13, 0.07)                    # like the head in the picture below: most to the token before
    left, step = 60, 42
    middle = left + 5*step + 20                                             # the token that looks: film
    for n, token in enumerate(TOKENS):
        x = left + n*step
        d.box(x, 12, 40, 20, token, SEVEN[n], "mono", "mark" if n == 5 else "edge")
        d.box(x, 88, 40, 20, "k", "gold")
        d.line((x + 20, 109), (x + 20, 126))
        d.box(x, 127, 40, 20, "q·k", "card", "soft")
        d.box(x, 222 - 56*shares[n], 40, 56*shares[n], "", "strong")
        d.box(x, 238, 40, 20, "v", "blue")
        d.line((x + 20, 259), (x + 20, 272))
    d.arrow((middle, 33), (middle, 51))
    d.box(middle - 20, 52, 40, 20, "q", "strong", "on bold")
    d.line((middle - 21, 62), (38, 62), (38, 137))
    d.arrow((38, 137), (left - 1, 137))
    d.line((left, 222), (left + 7*step - 2, 222))
    d.line((left + 20, 272), (left + 6*step + 20, 272))
    d.arrow((middle, 272), (middle, 291))
    d.box(middle - 98, 292, 160, 22, "new vector of film", "blue", "bold", "mark")
    for y, name in ((26, "token"), (102, "keys"), (200, "shares"), (252, "values")): d.words(8, y, name, "soft", "start")
    d.words(8, 156, "score", "soft", "start")
    d.words(left, 166, "softmax: shares add up to one (invented ones here)", "soft", "start")
    d.words(8, 307, "values, mixed by share", "soft", "start")


def draw_encoder(d):
    "From ids to logits, with shapes"
    for n, token in enumerate(TOKENS):
        x = 8 + 40*n
        d.box(x, 12, 39, 20, token, SEVEN[n], "mono")
        for top, end in ((33, 51), (78, 96), (160, 178)): d.arrow((x + 19, top), (x + 19, end))
        d.box(x, 179, 39, 22, "", "gold" if n == 0 else "plain", "", "mark" if n == 0 else "edge")
    d.box(8, 52, 279, 25, "embeddings: a vector for each id", "plain")
    d.box(8, 97, 279, 62, "six layers, one after the other:\ntokens look at each other (attention),\nthen each vector is transformed", "blue")
    d.arrow((27, 202), (27, 221))
    d.box(8, 222, 120, 25, "pooler", "plain")
    d.arrow((68, 248), (68, 266))
    d.box(8, 267, 120, 25, "head (new)", "strong", "on bold")
    d.arrow((37, 293), (37, 311))
    d.arrow((99, 293), (99, 311))
    d.box(8, 312, 58, 20, "NEG", "gold")
    d.box(70, 312, 58, 20, "POS", "gold")
    d.words(136, 218, "the vector of [CLS] stands for the text", "soft", "start")
    for y, shape in ((26, "(B, T)"), (69, "(B, T, 384)"), (132, "(B, T, 384)"), (194, "(B, T, 384)")): d.words(293, y, shape, "soft", "start")
    for y, shape in ((239, "(B, 384)"), (284, "384 → 2"), (326, "logits (B, 2)")): d.words(136, y, shape, "soft", "start")


def draw_loop(d):
    "One step of training, and what happens after each pass"
    left, right = 24, 196
    steps = [(left, 34, "batch of rows", "plain"), (right, 34, "model → logits", "blue"), (right, 98, "loss: the surprise\nat the true class", "gold"),
             (right, 162, "backward: a gradient\nfor each parameter", "gold"), (left, 162, "clip it, if it is\ntoo long", "plain"), (left, 98, "step: every trained\nparameter moves", "blue")]
    d.words(180, 20, "each step", "bold")
    for x, y, words, fill in steps: d.box(x, y, 140, 38, words, fill)
    d.arrow((left + 141, 53), (right - 1, 53))
    d.arrow((right + 70, 73), (right + 70, 97))
    d.arrow((right + 70, 137), (right + 70, 161))
    d.arrow((right - 1, 181), (left + 141, 181))
    d.arrow((left + 70, 161), (left + 70, 137))
    d.arrow((left + 70, 97), (left + 70, 73))
    d.line((12, 222), (348, 222), dashed=True)
    d.words(180, 242, "after each pass over the training rows", "bold")
    d.box(24, 252, 312, 24, "validation rows: keep this state if it is the best so far", "plain", "soft")
    d.words(180, 300, "once, at the end", "bold")
    d.box(24, 310, 312, 24, "test rows: how good is the state that was kept?", "plain", "soft")


def draw_lora(d):
    "The way of x through W and beside it through A and B"
    d.box(150, 12, 60, 24, "x", "plain", "bold")
    d.line((180, 37), (180, 52))
    d.line((85, 52), (275, 52))
    d.arrow((85, 52), (85, 79))
    d.arrow((275, 52), (275, 79))
    d.box(20, 80, 130, 130, "W\nfrozen\n384 × 384", "grey")
    d.box(210, 80, 130, 24, "A: 384 → 4", "blue")
    d.arrow((275, 105), (275, 131))
    d.box(262, 132, 26, 20, "", "gold")
    d.words(294, 147, "4 numbers", "soft", "start")
    d.arrow((275, 153), (275, 185))
    d.box(210, 186, 130, 24, "B: 4 → 384", "blue")
    d.arrow((275, 211), (275, 231))
    d.box(232, 232, 86, 22, "× α / r", "plain")
    d.line((85, 211), (85, 276))
    d.arrow((85, 276), (165, 276))
    d.line((275, 255), (275, 276))
    d.arrow((275, 276), (195, 276))
    d.box(166, 263, 28, 26, "+", "plain", "bold")
    d.arrow((180, 290), (180, 309))
    d.box(150, 310, 60, 24, "h", "plain", "bold")
    d.words(12, 326, "147,456 numbers stay", "soft", "start")
    d.words(348, 326, "3,072 are trained", "soft", "end")


def draw_splits(d):
    "Which split is seen when"
    columns = {"train": 154, "validation": 220, "test": 286}
    rows = [("1  try the rates\n     (first seed)", "learn", "choose", ""), ("2  train at the best,\n     once per seed", "learn", "keep best", ""),
            ("3  open the test,\n     once", "", "", "judge"), ("4  compare methods\n     row by row", "", "", "compare")]
    for name, x in columns.items(): d.words(x + 27, 24, name, "bold")
    for n, (words, *uses) in enumerate(rows):
        top = 34 + 50*n
        for k, line in enumerate(words.split("\n")): d.words(12, top + 17 + 15*k, line.replace("     ", "\u2003 "), "", "start")
        for (name, x), use, fill in zip(columns.items(), uses, ("blue", "gold", "strong")):
            idle = "closed" if name == "test" else "–"
            d.box(x - 4, top, 62, 42, use or idle, fill if use else "card", "on bold" if use and fill == "strong" else "soft")
    d.words(12, 252, "Every method: the same rows, seeds, passes and", "soft", "start")
    d.words(12, 267, "number of rates. Only validation rows choose.", "soft", "start")


DRAWN = {
    "pipeline": (draw_pipeline, "Six stages from top to bottom: the text a lovely, lovely film; its seven tokens; their ids; a batch of three padded rows; two logits per row; a record with accuracy, interval, time and memory"),
    "cut": (draw_cut, "A review of 17 tokens. With a limit of nine and a cut on the left the praise at its end is left, with a cut on the right the complaint at its beginning"),
    "batch": (draw_batch, "Three rows of 7, 3 and 14 tokens in a rectangle of 3 by 14 squares, the rest filled with padding; below it the mask, 1 for tokens and 0 for padding"),
    "attention": (draw_attention, "The query of the token film meets the keys of all seven tokens; the scores become shares, drawn as bars, most to the token before; the values mixed in these shares are its new vector"),
    "encoder": (draw_encoder, "Seven tokens pass the embeddings and six layers; the vector of the first token, CLS, passes the pooler and the new head and becomes two logits, with the shape after each part"),
    "loop": (draw_loop, "The training loop as a ring: batch, model, loss, backward, clip, step; after each pass the validation rows decide whether the state is kept; the test rows come once at the end"),
    "lora": (draw_lora, "The input x takes two ways, through the frozen matrix W and through the thin matrices A and B with four numbers between them, scaled by alpha over r; both are added to h"),
    "splits": (draw_splits, "A table of four steps and three splits: training rows teach and validation rows choose in steps one and two while the test stays closed; in steps three and four only the test is used"),
}


def diagram(name: str) -> str:
    "A diagram as the text of an SVG file"
    draw, alt = DRAWN[name]
    drawing = Drawing()
    draw(drawing)
    return drawing.svg(alt)


def as_cell(name: str) -> str:
    "The markdown of a cell that shows a diagram wherever the notebook is opened"
    return f"![{DRAWN[name][1]}](data:image/svg+xml;base64,{base64.b64encode(diagram(name).encode()).decode()})"


def renew(notebook: Path) -> None:
    "Draw again what the cells of a notebook carry"
    read = json.loads(notebook.read_text())
    for cell in read["cells"]:
        name = cell.get("id", "").removeprefix("diagram-")
        if cell["cell_type"] == "markdown" and name in DRAWN and "data:image/svg+xml" in "".join(cell["source"]): cell["source"] = [as_cell(name)]
    text = json.dumps(read, ensure_ascii=False, indent=1) + "\n"
    if text != notebook.read_text(): notebook.write_text(text)


def main():
    IMAGES.mkdir(exist_ok=True)
    for name in DRAWN: (IMAGES/f"{name}.svg").write_text(diagram(name))
    for notebook in sorted((ROOT/"nbs").glob("*.ipynb")): renew(notebook)


if __name__ == "__main__": main()
