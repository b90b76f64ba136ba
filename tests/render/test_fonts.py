from convscope.render import fonts


def test_wrapped_lines_fit_and_keep_every_word():
    text = "the picture is not what the unit looks for because its gradient is zero"
    lines = fonts.wrap(text, fonts.BODY, 150)
    assert len(lines) > 2
    assert all(fonts.width(line, fonts.BODY) <= 150 for line in lines)
    assert " ".join(lines) == text


def test_wrap_keeps_line_breaks_and_ends_in_an_ellipsis_where_lines_are_short():
    assert fonts.wrap("a\n\nb", fonts.BODY, 100) == ["a", "", "b"]
    lines = fonts.wrap("one two three four five six seven", fonts.BODY, 60, most=2)
    assert len(lines) == 2
    assert lines[1].endswith("…")


def test_shorten_leaves_what_fits_alone():
    assert fonts.shorten("unit 12", fonts.BODY, 200) == "unit 12"
    short = fonts.shorten("a " * 50, fonts.BODY, 80)
    assert short.endswith("…")
    assert 60 < fonts.width(short, fonts.BODY) <= 80


def test_names_of_files_are_shortened_in_the_middle():
    names = [f"n01440764_a_long_name_of_a_photograph_{number}.jpg" for number in (1, 2)]
    short = [fonts.shorten(f"{number} {name}", fonts.SMALL, 120) for number, name in enumerate(names)]
    assert short[0] != short[1] and all(text.endswith(f"{number}.jpg") for number, text in enumerate(short, 1))
    assert all(90 < fonts.width(text, fonts.SMALL) <= 120 for text in short)


def test_legible_replaces_what_the_font_lacks():
    assert fonts.legible("dög\t犬 $x$") == "dög ? $x$"
