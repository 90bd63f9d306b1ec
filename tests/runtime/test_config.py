"""Options from every source: what is taken, what is refused, and in which words."""

import dataclasses
import string
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidist.runtime.config import (
    Address,
    Config,
    ConfigError,
    Duration,
    Size,
    from_table,
    load,
    option,
    options_of,
    parse_duration,
    parse_shift,
    parse_size,
    reference,
    show_duration,
    show_size,
)
from minidist.runtime.units import LARGEST, LONGEST_MS
from minidist.runtime.workers import texts_of


@dataclass(frozen=True, kw_only=True)
class ShopConfig(Config):
    component = "shop"

    max_memory: Size = option(Size(0), "Memory.", aliases=("maxmemory",), live=True, minimum=0)
    wait: Duration = option(Duration(30_000), "How long | to wait.", clock="loop", why="it is 50 % of a minute")
    mode: Literal["fast", "safe"] = option("fast", "How.")
    ratio: float = option(0.5, "A share.", minimum=0, maximum=1)
    count: int = option(3, "How many.", minimum=1, maximum=10, live=True)
    limit: int | None = option(None, "At most.", maximum=5)
    verbose: bool = option(False, "Say more.", live=True)
    upstream: tuple[str, ...] = option((), "Where to.")
    backup: Address | None = option(None, "Another place.")
    password: str = option("", "A secret.", secret=True)

    def validate(self) -> None:
        super().validate()
        self.refuse_exposed("backup")
        if self.mode == "safe" and self.count == 1:
            raise ConfigError("--count", self.count, "more than 1 with --mode safe")


def shop(*argv: str, **environ: str) -> ShopConfig:
    return load(ShopConfig, argv, {f"MINIDIST_SHOP_{name.upper()}": value for name, value in environ.items()})


def refusal(*argv: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as refused:
        shop(*argv, **environ)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- sources ----------------------------------------------------------------------------------------------------------


def test_flags_beat_environment_beats_file_beats_defaults(tmp_path):
    file = tmp_path / "shop.toml"
    file.write_text('max_memory = "1mb"\ncount = 4\nratio = 0.25\nverbose = true\nupstream = ["a:1", "b:2"]\n')
    config = shop("--config", str(file), "--max-memory", "3mb", max_memory="2mb", count="5")
    assert config.max_memory == 3 * 1024**2
    assert config.count == 5
    assert config.ratio == 0.25
    assert config.verbose is True
    assert config.upstream == ("a:1", "b:2")
    assert config.wait == 30_000


def test_every_source_takes_the_same_words(tmp_path):
    file = tmp_path / "shop.toml"
    texts = {
        "max_memory": "64mb", "wait": "1500ms", "mode": "safe", "ratio": "0.5", "count": "7", "limit": "2",
        "verbose": "yes", "upstream": "a:1,b:2", "backup": "[::1]:53",
    }  # fmt: skip
    for name, text in texts.items():
        file.write_text(f"{name} = '{text}'")
        flagged = shop("--" + name.replace("_", "-"), text)
        assert flagged == shop(f"--{name.replace('_', '-')}={text}") == shop(**{name: text})
        assert flagged == shop("--config", str(file))
        assert flagged != shop() or name == "ratio"


def test_numbers_and_words_of_a_file_have_their_types(tmp_path):
    texts = {
        "count": "true", "verbose": "1", "mode": "1", "limit": "2.5", "count ": "1979-05-27", "upstream": "[[1]]",
        "listen": "{ a = 1 }", "wait": "30", "ratio": "nan",
    }  # fmt: skip
    for key, given_value in texts.items():
        file = tmp_path / "shop.toml"
        file.write_text(f"{key} = {given_value}")
        with pytest.raises(ConfigError, match=f"^{file}: {key.strip()}: given .*, allowed: "):
            shop("--config", str(file))


def test_aliases_work_in_flags_and_files():
    assert shop("--maxmemory", "5kb").max_memory == 5120
    assert from_table(ShopConfig, {"maxmemory": 7, "maxclients": 5}).max_memory == 7
    with pytest.raises(ConfigError, match="max_memory: given 2, allowed: max_memory once"):
        from_table(ShopConfig, {"maxmemory": 1, "max_memory": 2})


def test_yes_or_no_needs_no_value_and_takes_nothing_else():
    assert shop("--verbose").verbose is True
    assert shop("--verbose", "no").verbose is False
    assert shop("--verbose=off").verbose is False
    assert shop("--verbose", "--count", "2") == shop("--count=2", "--verbose", "on")
    assert refusal("--verbose", "perhaps").startswith("perhaps: given ''")
    assert refusal("--verbose=perhaps") == "--verbose: given 'perhaps', allowed: yes or no"


def test_lists_are_cut_at_commas_wherever_they_come_from():
    assert shop("--upstream", "a:1,b:2", "--upstream", "c:3").upstream == ("a:1", "b:2", "c:3")
    assert shop("--upstream", " a:1 ,, b:2").upstream == ("a:1", "b:2")
    assert shop(upstream="").upstream == ()
    assert from_table(ShopConfig, {"upstream": ["a:1,b:2", "c:3"]}).upstream == ("a:1", "b:2", "c:3")


def test_of_a_flag_given_twice_the_last_counts():
    assert shop("--count", "2", "--count", "3").count == 3


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--max-memory", "64xb"], "--max-memory: given '64xb', allowed: a size such as 64mb"),
        (["--wait", "30"], "--wait: given '30', allowed: a duration such as 1500ms, 30s, 2h"),
        (["--mode", "slow"], "--mode: given 'slow', allowed: one of fast, safe"),
        (["--count", "11"], "--count: given '11', allowed: a whole number, at least 1, at most 10"),
        (["--limit", "6"], "--limit: given '6', allowed: a whole number, at most 5"),
        (["--ratio", "2"], "--ratio: given '2', allowed: a number, at least 0, at most 1"),
        (["--listen", "6379"], "--listen: given '6379', allowed: HOST:PORT, [IPV6]:PORT or unix:/path"),
        (["--count"], "--count: given '', allowed: a whole number"),
        (["--count", "--verbose"], "--count: given '', allowed: a whole number"),
        (["--cuont", "3"], "--cuont: given '', allowed: the options of minidist shop --help; is --count meant?"),
        (["--max_memory=1"], "--max_memory: given '1', allowed: the options of minidist shop --help"),
        (["--max", "1"], "--max: given '', allowed: the options"),
        (["serve"], "serve: given '', allowed: the options of minidist shop --help"),
        (["--config", "/nowhere/x.toml"], "--config: given '/nowhere/x.toml', allowed: a readable TOML file"),
        (["--mode", "safe", "--count", "1"], "--count: given 1, allowed: more than 1 with --mode safe"),
        (["--tls-cert", "a.pem"], "--tls-cert/--tls-key: given 'a.pem', allowed: both or neither"),
        (["--tls-ca", "a.pem"], "--tls-ca: given 'a.pem', allowed: only with --tls-cert"),
        (["--listen", "0.0.0.0:1"], "--listen: given '0.0.0.0:1', allowed: a loopback address, or any with"),
        (["--listen", "127.example.org:1"], "--listen: given '127.example.org:1', allowed: a loopback address"),
        (["--backup", "[::]:1"], "--backup: given '[::]:1', allowed: a loopback address"),
        (["--admin", "0.0.0.0:1"], "--admin: given '0.0.0.0:1', allowed: a loopback address, or any with"),
        (["--name", "a b"], "--name: given 'a b', allowed: letters, digits"),
        (["--name", "x\ny"], "--name: given 'x\\ny', allowed: letters, digits"),
    ],
)
def test_refusals_name_the_option_what_was_given_and_what_is_allowed(argv, text):
    assert refusal(*argv).startswith(text)


def test_an_unknown_variable_or_key_is_refused(tmp_path):
    assert refusal(max_memroy="1").startswith(
        "MINIDIST_SHOP_MAX_MEMROY: given '1', allowed: MINIDIST_SHOP_… of listen,"
    )
    assert refusal(max_memroy="1").endswith("is max_memory meant?")
    with pytest.raises(ConfigError, match=r"groups\.a\.cuont: given 1, allowed: one of listen, .*; is count meant\?"):
        from_table(ShopConfig, {"cuont": 1}, "groups.a.")


@pytest.mark.parametrize("content", [b"count = ", b"\xff\xfe", b"count = 1\ncount = 2"])
def test_a_file_that_is_not_toml_is_one_line(tmp_path, content):
    file = tmp_path / "shop.toml"
    file.write_bytes(content)
    assert refusal("--config", str(file)).startswith(f"--config: given '{file}', allowed: a readable TOML file (")
    assert refusal("--config", str(tmp_path)).startswith(f"--config: given '{tmp_path}', allowed: a readable TOML file")


@pytest.mark.parametrize("text", ["1_000", " 5", "5 ", "٣", "", "+", "1e3", "0x10", "5.0", "9" * 30, "9" * 5000])
def test_whole_numbers_are_plain_digits(text):
    assert "--limit" in refusal("--limit=" + (text or " "))


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1_0", "٣", ".5", "1.", "1e999", "", "0x1p3"])
def test_numbers_are_finite(text):
    assert "--ratio" in refusal("--ratio=" + text)


def test_guards_off_loopback(tmp_path):
    for guard in (["--insecure"], ["--auth-file", "x"], ["--tls-cert", "c", "--tls-key", "k"]):
        assert shop("--listen", "0.0.0.0:1", *guard).listen.host == "0.0.0.0"
    assert shop("--admin", "0.0.0.0:1", "--admin-token-file", "x").admin.port == 1
    assert shop("--listen", "unix:/tmp/x", "--admin", "unix:/tmp/y").listen.path == "/tmp/x"


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:6379", Address("127.0.0.1", 6379)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:53", Address("::1", 53)),
        ("[fe80::1%eth0]:65535", Address("fe80::1%eth0", 65535)),
        ("my-host.example:80", Address("my-host.example", 80)),
        ("unix:/run/x.sock", Address("", 0, "/run/x.sock")),
        ("unix:x", Address("", 0, "x")),
    ],
)
def test_addresses(text, address):
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", "host", ":80", "host:", "host:65536", "host:-1", "host:+1", "host:٣", "::1:53", "[::1]", "[host]:1", "[]:1",
     "[127.0.0.1]:1", "a b:1", "http://x:1", "x/y:1", "unix:", "unix:/a\0b", "1.2.3.4:1\n", "[::1]:1 "],
)  # fmt: skip
def test_what_is_no_address(text):
    with pytest.raises(ValueError):
        Address.parse(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("localhost", True), ("LocalHost", True), ("::1", True),
     ("127.evil.example", False), ("127.0.0.1.evil.example", False), ("0.0.0.0", False), ("::", False)],
)  # fmt: skip
def test_loopback(host, loopback):
    assert Address(host, 1).is_loopback is loopback


def test_sizes():
    assert [parse_size(text) for text in ("0", "5", "5b", "1k", "1KB", "2 mb", "1g", "1Gb")] == [
        0, 5, 5, 1000, 1024, 2 * 1024**2, 1000**3, 1024**3,
    ]  # fmt: skip
    for text in ("", "-1", "1.5mb", "1tb", "mb", "5  mb", "1\u212ab", "9" * 19 + "gb", "٣kb"):
        with pytest.raises(ValueError):
            parse_size(text)


def test_durations():
    assert [parse_duration(text) for text in ("0", "0s", "5ms", "1.5s", "1.001s", "2 min", "2m", "1H", "1d")] == [
        0, 0, 5, 1500, 1001, 120_000, 120_000, 3_600_000, 86_400_000,
    ]  # fmt: skip
    for text in ("", "5", "-1s", "1e3s", "0.4ms", "1w", "1.s", ".5s", "٣s", "36501d", "9" * 400 + "s", "1s ", "1ss"):
        with pytest.raises(ValueError):
            parse_duration(text)
    assert [parse_shift(text) for text in ("1h", "+1h", "-1s", "-0")] == [3_600_000, 3_600_000, -1000, 0]
    for text in ("", "-", "--1s", "+-1s", "1"):
        with pytest.raises(ValueError):
            parse_shift(text)


@given(st.integers(0, LARGEST))
def test_a_shown_size_reads_as_itself(size):
    assert parse_size(show_size(size)) == size


@given(st.integers(0, LONGEST_MS))
def test_a_shown_duration_reads_as_itself(duration_ms):
    assert parse_duration(show_duration(duration_ms)) == duration_ms


words = st.text(string.ascii_letters + string.digits + ":=/.-_", min_size=1, max_size=8)


@given(
    st.builds(
        ShopConfig,
        listen=st.sampled_from([Address("::1", 1), Address("", 0, "/x"), Address("localhost", 0)]),
        max_memory=st.integers(0, LARGEST).map(Size),
        wait=st.integers(0, LONGEST_MS).map(Duration),
        ratio=st.floats(0, 1),
        count=st.integers(2, 10),
        limit=st.none() | st.integers(-LARGEST, 5),
        verbose=st.booleans(),
        upstream=st.lists(words, max_size=3).map(tuple),
        backup=st.none() | st.just(Address("127.0.0.1", 7)),
        password=words,
    )
)
def test_options_travel_as_text_to_the_processes_that_share_them(config):
    assert from_table(ShopConfig, texts_of(config)) == config


# --- changes and what is shown ----------------------------------------------------------------------------------------


def test_changed_takes_all_or_nothing():
    config = shop("--count", "2")
    changed = config.changed(count="5", verbose="yes", max_memory="1kb")
    assert (changed.count, changed.verbose, changed.max_memory) == (5, True, 1024)
    assert (config.count, config.verbose) == (2, False)
    for texts in ({"count": "5", "verbose": "maybe"}, {"count": "99"}):
        with pytest.raises(ConfigError):
            config.changed(**texts)
    for name in ("mode", "nothing"):
        with pytest.raises(ConfigError, match="allowed: what can change at run time: max_clients, idle_timeout"):
            config.changed(**{name: "fast"})
    with pytest.raises(ConfigError, match="more than 1 with --mode safe"):
        dataclasses.replace(config, mode="safe").changed(count="1")


def test_secrets_are_starred():
    assert shop("--password", "hunter2").shown()["password"] == "***"
    assert shop().shown()["password"] == ""
    with pytest.raises(ConfigError) as refused:
        from_table(ShopConfig, {"password": ["hunter2"]})
    assert "hunter2" not in str(refused.value)


def test_shown_has_every_option_as_text():
    shown = shop("--upstream", "a:1,b:2", "--max-memory", "64mb").shown()
    assert set(shown) == set(options_of(ShopConfig))
    assert (shown["max_memory"], shown["upstream"], shown["wait"], shown["seed"]) == ("64mb", "a:1,b:2", "30s", "")


def test_help_names_every_option_and_its_aliases(capsys):
    with pytest.raises(SystemExit) as ended:
        shop("--count", "2", "--help")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for each in options_of(ShopConfig).values():
        assert f"  {', '.join(each.flags)} {each.kind.metavar}\n" in printed
    assert "--max-memory, --maxmemory SIZE" in printed
    assert "--config FILE" in printed


def test_the_reference_is_a_table_of_every_option():
    table = reference(ShopConfig).splitlines()
    assert len(table) == 2 + len(options_of(ShopConfig))
    assert (
        "| `--wait` | 30s | a duration such as 1500ms, 30s, 2h | How long \\| to wait. Why: it is 50 % of a minute."
        in (reference(ShopConfig))
    )
    assert "Also `maxmemory`. Can change at run time. |" in reference(ShopConfig)
