import base64
import re

from convscope import render
from convscope.render.page import fragment
from convscope.render.panels import View
from render_stand_ins import feature_visualization


def test_everything_from_the_outside_is_escaped():
    html = fragment(View('<b>"x"', ()), b"png", {"layer": "<script>alert(1)</script>", "parameters": {'a"<': [1, "&"]}})
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
    assert "parameters.a&quot;&lt;" in html
    assert "1, &amp;" in html
    assert 'alt="&lt;b&gt;&quot;x&quot;"' in html


def test_the_picture_is_inside_and_nothing_is_loaded_from_elsewhere():
    result = feature_visualization(2, 64)
    html = render.html(result.view(), result.manifest)
    (encoded,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert base64.b64decode(encoded) == render.png(result.view())
    assert "http" not in html
    assert ">parameters.recipe</th>" in html
    assert ">crops</td>" in html


def test_no_parameters_no_table():
    assert "<table>" not in fragment(View("x", ()), b"", {})
