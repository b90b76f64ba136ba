# lazy_loader ships no types. This stub has the one function that convscope calls.
from collections.abc import Callable
from typing import Any

def attach_stub(package_name: str, filename: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]: ...
