# scikit-learn ships no types. These stubs have the functions that convscope calls.
class Images:
    filenames: list[str]

def load_sample_images() -> Images: ...
