"""The topics' description is made from the types and doesn't drift from them."""

import importlib.util
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[2] / "docs"


def asyncapi() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_asyncapi", DOCS / "asyncapi.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_says_what_the_types_say() -> None:
    module = asyncapi()
    assert (DOCS / "asyncapi.yaml").read_text(encoding="utf-8") == module.text(), "run: python docs/asyncapi.py"


def test_every_topic_of_a_feed_is_described() -> None:
    from chandlery.core.settings import KafkaSettings
    from chandlery.core.topics import topics_of

    names = {name.removeprefix("chandlery.x.") for name in topics_of(KafkaSettings(bootstrap="", feed="x"))}
    assert set(asyncapi().CHANNELS) == names
