"""Pictures can be read: on white paper and on the site's dark pages, on a desk and on a phone, with a caption and in words."""
import base64, json, re, struct
from pathlib import Path

import matplotlib, numpy as np, pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from sentiment_nbdev.pictures import LOOK, STYLE, WIDTH
from sentiment_nbdev.reports import draw_results, read_results

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT/"nbs").rglob("[!.]*.ipynb"))
FOLDERS = sorted({path.parent for path in (ROOT/"results").rglob("records")})
PHONE = 358                                                          # pixels of a picture on a page 390 pixels wide
DARK = to_rgb("#121212")                                             # the theme's dark page: tests/test_site.py looks at the real one
TURN = np.array([[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]])   # hue-rotate(180deg), as the standard has it


def luminance(color):
    "WCAG's relative luminance"
    return np.dot((0.2126, 0.7152, 0.0722), [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color])


def contrast(a, b):
    "WCAG's contrast ratio: 1 to 21"
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def on_dark(color):
    "What a colour becomes on a dark page: inverted, its hue turned back, white as dark as the page"
    turned = np.clip(TURN @ (1 - np.array(to_rgb(color))), 0, 1)
    return 1 - (1 - turned) * (1 - np.array(DARK))


def test_the_site_turns_pictures_as_it_is_computed_here():
    css = (ROOT/"docs/_static/custom.css").read_text()
    assert "filter: invert(1) hue-rotate(180deg); mix-blend-mode: screen" in css
    assert on_dark("white") == pytest.approx(DARK) and on_dark("black") == pytest.approx((1, 1, 1), abs=0.01)


def test_text_can_be_read_on_light_and_dark_pages():
    assert contrast(to_rgb("black"), (1, 1, 1)) >= 4.5 and contrast(on_dark("black"), DARK) >= 4.5


@pytest.mark.parametrize("color", sorted({look[0] for look in STYLE.values()} | {part['color'] for part in matplotlib.rc_params_from_file(LOOK)["axes.prop_cycle"]}))
def test_lines_stand_out_on_light_and_dark_pages(color):
    "3:1 is what WCAG asks of graphics"
    assert contrast(to_rgb(color), (1, 1, 1)) >= 3 and contrast(on_dark(color), DARK) >= 3


def test_the_computation_of_contrast_can_fail():
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21) and contrast(to_rgb("#ccbb44"), (1, 1, 1)) < 3


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.relative_to(ROOT/"results").as_posix())
def test_no_text_of_a_picture_is_small_on_a_phone(folder):
    "At least 9 pixels; powers of ten with exponents would be smaller"
    for name, figure in draw_results(read_results(folder)).items():
        figure.canvas.draw()
        texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert texts and min(text.get_size() for text in texts) / 72 / figure.get_size_inches()[0] * PHONE >= 9, name
        assert not [text.get_text() for text in texts if "^" in text.get_text()], name
        matplotlib.pyplot.close(figure)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_pictures_are_no_wider_than_ours(notebook):
    "Text of 10 points is at least 9 pixels high then"
    outputs = [out for cell in json.loads(notebook.read_text())["cells"] for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    for out in outputs:
        pixels = struct.unpack(">I", base64.b64decode("".join(out["data"]["image/png"]))[16:20])[0]
        assert out["metadata"]["image/png"]["width"] <= 1.05 * 100 * WIDTH and pixels >= 2 * out["metadata"]["image/png"]["width"]


@pytest.mark.parametrize("path", sorted((ROOT/"results").rglob("*.png")), ids=lambda path: path.relative_to(ROOT/"results").as_posix())
def test_kept_pictures_are_as_wide_as_the_style_says(path):
    width = struct.unpack(">I", path.read_bytes()[16:20])[0]
    assert width == round(200 * WIDTH)
