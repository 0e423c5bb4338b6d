import os
from pathlib import Path

import pytest

from byssus import SettingsError
from byssus.llm._settings import cache_path, check_budget, check_settings, settings


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [v for v in os.environ if v.startswith(("BYSSUS_", "OPENAI_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)


def write(text: str) -> None:
    Path("byssus.toml").write_text(text)


SMALL = """
[llm]
model = "small"
cache = "answers.db"
concurrency = 8
budget = {calls = 10}
[llm.models.small]
model = "SmolLM2"
base_url = "http://127.0.0.1:8080/v1"
temperature = 0.5
prices = {input = 1.0, output = 2.0}
"""


def test_what_there_is_without_anything(tmp_path: Path) -> None:
    found = settings()
    assert (found.file, found.mode, found.concurrency) == (None, "auto", 64)
    assert found.cache == tmp_path / ".byssus" / "llm.db"
    with pytest.raises(SettingsError, match="no model is named: set BYSSUS_LLM_MODEL"):
        found.model(None)


def test_a_file_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(SMALL)
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    model = settings().model(None)
    assert model.name == "SmolLM2"
    assert model.base_url == "http://127.0.0.1:8080/v1"
    assert model.key is None
    assert model.prices == {"input": 1.0, "output": 2.0}
    assert cache_path() == tmp_path / "answers.db"
    assert settings().concurrency == 8
    assert settings().budget == {"calls": 10}


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYSSUS_LLM_MODEL", "gpt-x")
    monkeypatch.setenv("OPENAI_API_KEY", "secret-openai")
    model = settings().model(None)
    assert (model.name, model.base_url) == ("gpt-x", "https://api.openai.com/v1")
    assert model.key == "secret-openai"
    assert settings().model("other").name == "other"
    monkeypatch.setenv("BYSSUS_LLM_BASE_URL", "https://elsewhere.example/v1")
    with pytest.raises(SettingsError, match="set BYSSUS_LLM_KEY in"):
        settings().model(None)
    monkeypatch.setenv("BYSSUS_LLM_BASE_URL", "http://localhost:1/v1")
    monkeypatch.setenv("BYSSUS_LLM_KEY", "secret-byssus")
    monkeypatch.setenv("BYSSUS_LLM_CACHE", "here.db")
    monkeypatch.setenv("BYSSUS_LLM_MODE", "replay")
    model = settings().model(None)
    assert (model.base_url, model.key) == ("http://localhost:1/v1", "secret-byssus")
    assert (settings().cache, settings().mode) == (Path("here.db"), "replay")


def test_a_named_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.toml"
    other.write_text(SMALL)
    monkeypatch.setenv("BYSSUS_CONFIG", str(other))
    assert settings().default == "small"
    monkeypatch.setenv("BYSSUS_CONFIG", "missing.toml")
    with pytest.raises(SettingsError, match=r"BYSSUS_CONFIG is 'missing.toml', which is no file"):
        settings()


def test_a_file_that_changes_is_read_again() -> None:
    write(SMALL)
    assert settings().concurrency == 8
    write(SMALL.replace("= 8", "= 9"))
    os.utime("byssus.toml", (1, 1))
    assert settings().concurrency == 9


REMOTE = '[llm.models.big]\nbase_url = "https://elsewhere.example/v1"\n'


def test_openais_key_does_not_go_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-openai")
    write(REMOTE)
    with pytest.raises(SettingsError, match="no key for big at https://elsewhere"):
        settings().model("big")
    monkeypatch.setenv("BIG_KEY", "secret-big")
    write(REMOTE + 'key_env = "BIG_KEY"\n')
    os.utime("byssus.toml", (1, 1))
    assert settings().model("big").key == "secret-big"


def test_keys_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    write(REMOTE + 'key = "secret-written"\n')
    found = settings()
    model = found.model("big")
    assert model.key == "secret-written"
    assert "secret" not in repr(found)
    monkeypatch.setenv("BYSSUS_LLM_KEY", "secret-too")
    assert "secret" not in repr(settings().model("gpt"))
    # nor a key in the wrong place
    write('[llm]\nmodel = 3\n[llm.models.big]\nkey = ["secret-list"]\n')
    os.utime("byssus.toml", (1, 1))
    with pytest.raises(SettingsError) as caught:
        settings()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[llm", "byssus.toml cannot be read"),
        ("[lmm]", "there is no 'lmm'; it knows llm"),
        ('[llm]\nmodle = "x"', "there is no 'modle'"),
        ("[llm]\nmodel = 3", "model cannot be of type int"),
        ("[llm]\nconcurrency = 0", "concurrency is 0; give 1 or more"),
        ("[llm]\nconcurrency = true", "concurrency cannot be of type bool"),
        ('[llm]\nmode = "fast"', "the mode 'fast' is none: there are auto, replay"),
        ("[llm]\nbudget = {calls = -1}", "calls is -1; give 0 or more"),
        ("[llm]\nbudget = {dollars = 1}", "there is no 'dollars'; it knows calls, tokens, usd"),
        ("[llm.models]\nx = 3", r"\[llm.models.x\] is 3, which is no section"),
        ("[llm.models.x]\ntemperature = -1.0", "temperature is -1.0; give 0 or more"),
        ('[llm.models.x]\nformat = "xml"', "format is 'xml'; give one of json_schema"),
        ("[llm.models.x]\nprices = {input = 1.0}", "give input and output"),
        ("[llm.models.x]\nmax_tokens = 0", "max_tokens is 0; give 1 or more"),
        ("[llm.models.x]\nmax_token = 3", "there is no 'max_token'"),
        ("[llm.models.x]\ntemperature = inf", "temperature is inf"),
        ("[llm.models.x]\nfrequency_penalty = nan", "frequency_penalty is nan; give a number"),
        ('[llm.models.x]\nomit = ["messages"]', "give names, but none of messages, model"),
        ("[llm.models.x]\nomit = [[1]]", "give names"),
        ("[llm.models.x]\nextra = {stream = true}", "JSON by name, but none of"),
        ("[llm.models.x]\nextra = {since = 2020-01-01}", "extra is .*give JSON"),
    ],
)
def test_files_that_are_wrong(text: str, words: str) -> None:
    write(text)
    with pytest.raises(SettingsError, match=words):
        settings()


def test_a_base_url_that_is_none() -> None:
    write('[llm.models.x]\nbase_url = "127.0.0.1:8080"\nkey = "k"\n')
    with pytest.raises(SettingsError, match=r"the base URL '127.0.0.1:8080' of x"):
        settings().model("x")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://[::1/v1",
            "http://h:99999/v1",
            "http://h:abc/v1",
            "http://h h/v1",
            "http://a\nb/v1",
        ),
        *(
            "http://me:pass@h/v1",
            "http://me:pass@[h/v1",
            "http://h/v1?token=pass",
            "http://h/#pass",
        ),
    ],
)
def test_more_base_urls_that_are_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYSSUS_LLM_BASE_URL", url)
    monkeypatch.setenv("BYSSUS_LLM_KEY", "k")
    with pytest.raises(SettingsError, match=r"the base URL .* is none: give") as caught:
        settings().model("x")
    assert "pass@" not in str(caught.value)
    assert "=pass" not in str(caught.value)


def test_keys_that_no_header_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYSSUS_LLM_KEY", "secret-key\n")  # as a file has it
    assert settings().model("x").key == "secret-key"
    for key in ("secret\nX-Evil: 1", "secret-é", "secret\udc80", " "):
        monkeypatch.setenv("BYSSUS_LLM_KEY", key)
        with pytest.raises(SettingsError, match="the key in BYSSUS_LLM_KEY is none") as caught:
            settings().model("x")
        assert "secret" not in str(caught.value)


def test_settings_and_budgets_of_code() -> None:
    check_settings({"temperature": 0.3, "extra": {"grammar": "x"}, "omit": ["seed"]}, "here")
    with pytest.raises(SettingsError, match="here: there is no 'base_url'"):
        check_settings({"base_url": "http://x"}, "here")
    with pytest.raises(SettingsError, match="here is 3: give settings by name"):
        check_settings(3, "here")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="here is 3: give limits by name"):
        check_budget(3, "here")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="usd is nan"):
        check_budget({"usd": float("nan")}, "here")
