"""Whether a figure can be read where it is shown smallest."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

PHONE_PIXELS = 290
"""How wide a figure is in a fold on a phone of 390 pixels."""


def assert_read_on_a_phone(figure):
    """Check that no text is smaller than 11 pixels, and none leaves the figure."""
    FigureCanvasAgg(figure).draw()
    for text in figure.findobj(lambda one: isinstance(one, Text) and one.get_visible() and one.get_text().strip()):
        assert text.get_fontsize() * PHONE_PIXELS / (72 * figure.get_figwidth()) >= 11, text.get_text()
    drawn = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert -0.01 <= drawn.x0 <= drawn.x1 <= width + 0.01
    assert -0.01 <= drawn.y0 <= drawn.y1 <= height + 0.01
