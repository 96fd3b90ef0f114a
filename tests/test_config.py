import subprocess
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

from fmlm_cli.config import (
    CompareSettings,
    EvaluateSettings,
    FinetuneSettings,
    MasksSettings,
    PredictSettings,
    PretrainSettings,
    Section,
    TokenizeSettings,
    build,
    choices,
    nested,
    parse_assignments,
    read_yaml,
    saved_settings,
    setting_names,
    to_yaml,
)
from fmlm_cli.config.layers import merge
from fmlm_cli.config.schema import BudgetSettings, CorruptionSettings, RateScheduleSettings
from fmlm_cli.errors import UserError

quick = settings(derandomize=True, deadline=None, max_examples=60)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def refusal(path: Path, section: type[Section] = PretrainSettings) -> str:
    """What `read_yaml` says against a file: one line, with the file's name replaced by FILE."""
    with pytest.raises(UserError) as caught:
        read_yaml(path, section)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


def assigned(*assignments: str) -> PretrainSettings:
    return build(PretrainSettings, parse_assignments(assignments, PretrainSettings))


class TestYamlFile:
    def test_what_stands_there_is_read(self, write: Any) -> None:
        path = write(
            "# a comment\nout: runs/ä\nmasking:\n  segments: 5\n  corruption: {mask: 1, random: 0, keep: 0}\n"
            "optimizer:\n  learning_rate: 1e-4\n  betas: [0.9, 0.95]\n"
        )
        settings = build(PretrainSettings, read_yaml(path, PretrainSettings))
        assert settings.out == "runs/ä"
        assert settings.masking.segments == 5
        assert settings.masking.corruption.mask == 1
        assert settings.optimizer.learning_rate == 1e-4
        assert settings.optimizer.betas == (0.9, 0.95)
        assert settings.batch == PretrainSettings().batch

    @pytest.mark.parametrize(
        ("text", "line", "name", "hint"),
        [
            ("seed: 1\noptimiser:\n  clip: 2\n", 2, "optimiser", "optimizer"),
            ("seed: 1\n\noptimizer:\n  learning_rat: 1\n", 4, "optimizer.learning_rat", "optimizer.learning_rate"),
            ("learning_rate: 1\n", 1, "learning_rate", "optimizer.learning_rate"),
            ("masking: {segments: 3,\n  corruption: {masks: 1}}\n", 2, "masking.corruption.masks", "masking.corruption.mask"),
            ("masking:\n  seed: 3\n", 2, "masking.seed", "masking."),
            ("sed: 1\nout: x\n", 1, "sed", "seed"),
        ],
    )  # fmt: skip
    def test_unknown_setting(self, write: Any, text: str, line: int, name: str, hint: str) -> None:
        message = refusal(write(text))
        assert message.startswith(f"FILE:{line}: unknown setting '{name}'; did you mean '{hint}")

    def test_unknown_setting_that_resembles_none(self, write: Any) -> None:
        message = refusal(write("seed: 1\nqqqqqqqqqq: 3\n"))
        assert message.startswith("FILE:2: unknown setting 'qqqqqqqqqq'; a command's --settings lists ")
        assert len(message) < 120  # not a hundred names

    def test_keys_that_are_no_text(self, write: Any) -> None:
        assert "FILE:2: unknown setting '7'" in refusal(write("seed: 1\n7: 3\n"))
        assert refusal(write("? [a, b]\n: 3\n")).startswith("FILE:")

    @pytest.mark.parametrize(
        ("text", "line", "name"),
        [
            ("seed: 1\nout: x\nseed: 2\n", 3, "seed"),
            ("masking:\n  rate: 0.1\n  rate: 0.1\n", 3, "rate"),
            ("batch: {size: 1}\nseed: 1\nbatch:\n  micro_size: 2\n", 3, "batch"),
        ],
    )
    def test_setting_given_twice(self, write: Any, text: str, line: int, name: str) -> None:
        assert refusal(write(text)) == f"FILE:{line}: not valid YAML ('{name}' is given twice)"

    @pytest.mark.parametrize(
        ("text", "line", "name", "reason"),
        [
            ("out: x\nseed: many\n", 2, "seed", "not 'many'"),
            ("seed: -1\n", 1, "seed", "give 0 or more, not -1"),
            (f"seed: {2**63}\n", 1, "seed", "not 9223372036854775808"),
            ("batch:\n  size: 0\n", 2, "batch.size", "not 0"),
            ("batch:\n  size: 1.5\n", 2, "batch.size", "not 1.5"),
            (
                "batch:\n  micro_size: 0\n",
                2,
                "batch.micro_size",
                "should be auto or a whole number greater than 0, not 0",
            ),
            (
                "batch:\n  micro_size: all\n",
                2,
                "batch.micro_size",
                "should be auto or a whole number greater than 0, not 'all'",
            ),
            ("speed:\n  compile: maybe\n", 2, "speed.compile", "auto, true or false, not 'maybe'"),
            ("speed:\n  compile: 1\n", 2, "speed.compile", "auto, true or false, not 1"),
            ("optimizer:\n  learning_rate: .inf\n", 2, "optimizer.learning_rate", "finite"),
            ("optimizer:\n  weight_decay: .nan\n", 2, "optimizer.weight_decay", "finite"),
            ("optimizer:\n\n  betas: [0.9, 2]\n", 3, "optimizer.betas.1", "not 2"),
            ("optimizer:\n  betas: [0.9]\n", 2, "optimizer.betas.1", "missing"),
            ("precision: float8\n", 1, "precision", "'bfloat16-weights' or 'float16', not 'float8'"),
            (
                "optimizer:\n  on_nonfinite: ignore\n",
                2,
                "optimizer.on_nonfinite",
                "'stop' or 'skip', not 'ignore'",
            ),
            ("data:\n  packing: dense\n", 2, "data.packing", "'documents', 'concat' or 'none', not 'dense'"),
            ("seed: 3\nmasking: 3\n", 2, "masking", "not 3"),
            ("seed: {a: 1}\n", 1, "seed", "not {'a': 1}"),
            ("model:\n  dropout: 1.1\n", 2, "model.dropout", "give 1 or less, not 1.1"),
            ("masking:\n  rate: null\n  strategy: null\n", 3, "masking.strategy", "not None"),
        ],
    )
    def test_wrong_value(self, write: Any, text: str, line: int, name: str, reason: str) -> None:
        message = refusal(write(text))
        assert message.startswith(f"FILE:{line} ({name}): ")
        assert reason in message

    def test_corruption_shares_sum_to_one(self, write: Any) -> None:
        message = refusal(write("seed: 0\nmasking:\n  corruption:\n    mask: 0.7\n"))
        assert message == "FILE:3 (masking.corruption): mask + random + keep must be 1, not 0.9"

    @pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "null\n", "{}\n"])
    def test_empty_file(self, write: Any, text: str) -> None:
        assert build(PretrainSettings, read_yaml(write(text), PretrainSettings)) == PretrainSettings()

    @pytest.mark.parametrize(("text", "kind"), [("- seed: 1\n", "list"), ("seed\n", "str"), ("3\n", "int")])
    def test_no_settings_at_top_level(self, write: Any, text: str, kind: str) -> None:
        assert (
            refusal(write(text)) == f"FILE: settings are written as `name: value`, this file holds a {kind}"
        )

    @pytest.mark.parametrize(
        ("text", "start"),
        [
            ("seed: 1\nout: [a\nx: 3\n", "FILE:3: not valid YAML ("),
            ("seed: 1\n\tout: a\n", "FILE:2: not valid YAML ("),
            ("a: 1\n---\nb: 2\n", "FILE:2: not valid YAML ("),
            ("seed: !!python/object:os.system 1\n", "FILE:1: not valid YAML ("),
            ("seed: *nowhere\n", "FILE:1: not valid YAML ("),
            (b"seed: \xff\xfe1\n", "FILE is not a UTF-8 text file"),
        ],
    )
    def test_no_yaml(self, write: Any, text: str | bytes, start: str) -> None:
        assert refusal(write(text)).startswith(start)

    def test_no_file(self, tmp_path: Path) -> None:
        assert refusal(tmp_path / "none.yaml").startswith("no such configuration file: ")
        assert refusal(tmp_path).endswith(": cannot read it (Is a directory): give another file")
        assert "cannot read it (File name too long)" in refusal(tmp_path / ("x" * 300))


class TestAssignments:
    def test_values_are_read_as_yaml(self) -> None:
        settings = assigned(
            "optimizer.learning_rate=1e-4",
            "seed=9223372036854775807",
            "optimizer.clip=null",
            "data.verify=no",
            "optimizer.betas=[0.5, 0.6]",
            "masking.corruption={mask: 0.9, keep: 0}",
            "masking.corruption.draw=independent",
            "out=a=b",
        )
        assert settings.optimizer.learning_rate == 1e-4
        assert type(settings.optimizer.learning_rate) is float
        assert settings.seed == 2**63 - 1
        assert settings.optimizer.clip is None
        assert settings.data.verify is False
        assert settings.optimizer.betas == (0.5, 0.6)
        assert settings.masking.corruption == CorruptionSettings(
            mask=0.9, random=0.1, keep=0, draw="independent"
        )
        assert settings.out == "a=b"

    def test_the_last_wins(self) -> None:
        assert assigned("seed=1", "seed=2").seed == 2

    @pytest.mark.parametrize(
        ("assignment", "message"),
        [
            ("seed", "--set seed: write it as --set name=value"),
            ("sede=1", "--set sede=1: unknown setting 'sede'; did you mean 'seed'?"),
            ("optimizer.lr=1", "--set optimizer.lr=1: unknown setting 'optimizer.lr'; "),
            ("learning_rate=1", "--set learning_rate=1: unknown setting 'learning_rate'; did you mean 'optimizer.learning_rate'?"),
            ("optimizer.learning_rate.x=1", "--set optimizer.learning_rate.x=1: unknown setting 'optimizer.learning_rate.x'; did you mean 'optimizer.learning_rate'?"),
            ("optim=1", "--set optim=1: unknown setting 'optim'; "),
            ("=1", "--set =1: unknown setting ''; "),
            ("seed=[1", "--set seed=[1: '[1' is not a YAML value"),
        ],
    )  # fmt: skip
    def test_refused(self, assignment: str, message: str) -> None:
        with pytest.raises(UserError) as caught:
            parse_assignments([assignment], PretrainSettings)
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("assignment", "message"),
        [
            ("seed=many", "setting 'seed': .*not 'many'"),
            ("masking.corruption.keep=0.5", r"setting 'masking\.corruption': mask \+ random \+ keep must be 1"),
            ("masking.corruption={maks: 1}", r"setting 'masking.corruption.maks': unknown setting 'masking\.corruption\.maks'; did you mean 'masking\.corruption\.mask'"),
            ("optimizer=fast", "setting 'optimizer': "),
        ],
    )  # fmt: skip
    def test_wrong_values_name_the_setting(self, assignment: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            assigned(assignment)


class TestLayers:
    def test_defaults_file_flags_assignments(self, write: Any) -> None:
        file = read_yaml(
            write(
                "out: here\nseed: 1\nbatch: {size: 10, micro_size: 5}\nmasking: {segments: 3, corruption: "
                "{draw: independent}}\n"
            ),
            PretrainSettings,
        )
        flags = nested({"seed": 2, "batch.size": 20, "out": None, "masking.segments": 4})
        last = parse_assignments(["masking.segments=5"], PretrainSettings)
        settings = build(PretrainSettings, file, flags, last)
        assert (settings.seed, settings.batch.size, settings.batch.micro_size) == (2, 20, 5)
        assert settings.masking.segments == 5
        assert settings.masking.corruption.draw == "independent"
        assert settings.masking.corruption.mask == CorruptionSettings().mask
        assert settings.out == "here"
        assert build(PretrainSettings, file, flags).masking.segments == 4
        assert build(PretrainSettings, file).masking.segments == 3

    def test_flags_that_were_not_given_are_left_out(self) -> None:
        flat = {"out": None, "seed": 0, "a.b": False, "a.c.d": "", "a.c.e": None, "f.g": None}
        assert nested(flat) == {"seed": 0, "a": {"b": False, "c": {"d": ""}}}

    def test_a_later_budget_replaces_the_whole_group(self) -> None:
        for later in (nested({"budget.epochs": 2}), parse_assignments(["budget.epochs=2"], PretrainSettings)):
            settings = build(PretrainSettings, {"budget": {"steps": 5, "tokens": 9}}, later)
            assert settings.budget == BudgetSettings(epochs=2)
        assert build(PretrainSettings, {"budget": {"steps": 5}}, {"seed": 1}).budget == BudgetSettings(
            steps=5
        )

    def test_null_above_a_value_unsets_it(self) -> None:
        assert (
            build(PretrainSettings, {"optimizer": {"clip": 3}}, {"optimizer": {"clip": None}}).optimizer.clip
            is None
        )

    trees = st.recursive(
        st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=8
    )

    @quick
    @given(*[st.dictionaries(st.sampled_from("abc"), trees)] * 3)
    def test_merge(self, a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
        before = repr((a, b))
        merged = merge(a, b)
        assert repr((a, b)) == before
        assert merge(a, {}) == merge({}, a) == a
        assert merge(a, a) == a
        assert merge(merged, b) == merged
        assert merged.keys() == a.keys() | b.keys()
        assert all(merged[name] == a[name] for name in a.keys() - b.keys())
        assert merge({"x": a}, {"x": b}) == {"x": merged}


def values_of(annotation: Any, limits: list[Any]) -> st.SearchStrategy[Any]:  # noqa: PLR0911
    """Valid values of a setting, from its type: an independent reading of the annotations."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        more = [m for extra in parts[1:] for m in getattr(extra, "metadata", [extra])]
        return values_of(parts[0], limits + more)
    if origin in (Union, types.UnionType):
        return st.one_of(*(values_of(part, limits) for part in parts))
    if origin is tuple and parts[-1] is Ellipsis:
        distinct = get_origin(parts[0]) in (Annotated, Literal)  # those name things, and each counts once
        return st.lists(values_of(parts[0], []), unique=distinct).map(tuple)
    if origin is tuple:
        return st.tuples(*(values_of(part, []) for part in parts))
    if origin is dict:
        free = st.one_of(
            st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text("abc"), st.booleans()
        )
        return st.dictionaries(st.text("pqr_", min_size=1), st.text("abc") if parts[1] is str else free)
    if origin is Literal:
        return st.sampled_from(parts)
    for pattern in (m.func.pattern for m in limits if isinstance(m, AfterValidator)):
        return st.from_regex(pattern, fullmatch=True, alphabet=st.characters(codec="ascii"))
    bound = {name: getattr(m, name) for m in limits for name in ("ge", "gt", "le", "lt") if hasattr(m, name)}
    low, high = bound.get("ge", bound.get("gt")), bound.get("le", bound.get("lt"))
    simple = {
        int: lambda: st.integers(low, 2**70 if high is None else high - ("lt" in bound)),
        float: lambda: st.floats(low, high, exclude_min="gt" in bound, exclude_max="lt" in bound, allow_nan=False, allow_infinity=False),
        bool: st.booleans,
        str: lambda: st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        type(None): st.none,
    }  # fmt: skip
    return simple[annotation]()


def some(section: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Arbitrary valid settings."""
    if section is CorruptionSettings:
        cut = st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted)
        return st.builds(
            lambda ab, draw: CorruptionSettings(mask=ab[0] / 100, random=(ab[1] - ab[0]) / 100, keep=1 - ab[1] / 100, draw=draw),
            cut, st.sampled_from(["stratified", "independent"]),
        )  # fmt: skip

    if section is RateScheduleSettings:
        moving = st.builds(
            RateScheduleSettings,
            shape=st.sampled_from(["linear", "cosine", "step"]),
            final_rate=st.floats(0.01, 0.9),
            plateaus=st.integers(2, 9),
        )
        return st.one_of(st.just(RateScheduleSettings()), moving)

    def value(field: FieldInfo) -> st.SearchStrategy[Any]:
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            return some(field.annotation)
        return values_of(field.annotation, list(field.metadata))

    given = {name: value(field) for name, field in section.model_fields.items()}
    if section is TokenizeSettings:
        one = st.sampled_from([("a", None), (None, "wordpiece"), (None, "bpe")])
        return st.builds(
            lambda pair, **rest: section(
                **{**rest, "sources": ("x", *rest["sources"]), "tokenizer": pair[0], "train_tokenizer": pair[1],
                   "pmi_size": rest["pmi_size"] if rest["pmi"] else None,
                   "add_tokens": rest["add_tokens"] if pair[0] else None, "extend_vocab": rest["extend_vocab"] if pair[0] else None,
                   "shard": None,
                   **({"vocab_size": 8192, "lowercase": False, "strip_accents": False, "normalize": None} if pair[0] else {})}
            ), one, **given
        )  # fmt: skip
    return st.builds(section, **given)


class TestRoundTrip:
    @pytest.mark.parametrize("section", [PretrainSettings, EvaluateSettings, MasksSettings, TokenizeSettings])
    def test_yaml_gives_equal_settings(self, section: type[Section], tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"

        @quick
        @given(some(section))
        def check(before: Section) -> None:
            path.write_text(to_yaml(before), encoding="utf-8", newline="\n")
            after = build(section, read_yaml(path, section))
            assert after == before
            assert repr(after) == repr(before)  # also the types

        check()

    @pytest.mark.parametrize("text", ["", "null\n", "{}\n", "seeds: 3\n"])
    def test_a_file_that_lacks_a_setting_is_named(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        with pytest.raises(
            UserError, match=r"config\.yaml: setting 'checkpoint': it is missing: give it a value$"
        ):
            saved_settings(FinetuneSettings, path)

    def test_order_and_names_are_those_of_the_definition(self) -> None:
        tree = yaml.safe_load(to_yaml(PretrainSettings()))
        assert list(tree) == list(PretrainSettings.model_fields)

        def names(node: dict[str, Any], prefix: str = "") -> list[str]:
            return [
                n
                for k, v in node.items()
                for n in (names(v, f"{prefix}{k}.") if isinstance(v, dict) and v else [prefix + k])
            ]

        assert names(tree) == list(setting_names(PretrainSettings))

    def test_every_setting_is_described(self) -> None:
        def undescribed(section: type[BaseModel]) -> list[str]:
            return [
                name
                for name, field in section.model_fields.items()
                if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
                and not field.description
            ]

        for section in (
            PretrainSettings,
            EvaluateSettings,
            MasksSettings,
            TokenizeSettings,
            RateScheduleSettings,
            *(type(v) for _, v in PretrainSettings()),
        ):
            if issubclass(section, BaseModel):
                assert not undescribed(section)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        PretrainSettings().seed = 3  # type: ignore[misc]


def test_choices() -> None:
    assert choices(TokenizeSettings, "documents") == ("auto", "blank-line", "line", "file")
    assert choices(TokenizeSettings, "train_tokenizer") == ("wordpiece", "bpe", "unigram")
    floats = ("float32", "bfloat16", "bfloat16-weights", "float16")
    assert choices(PretrainSettings, "precision") == ("auto", *floats)


def test_one_tokenizer() -> None:
    for wrong in ({}, {"tokenizer": "a", "train_tokenizer": "bpe"}):
        with pytest.raises(UserError, match=r"^say which tokenizer"):
            build(TokenizeSettings, {"sources": ["x"], "out": "y", **wrong})
    with pytest.raises(UserError, match="setting 'store': "):
        build(EvaluateSettings, {"checkpoints": ["x"]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no text: give SOURCE"),
        ({"sources": ["x"], "tokenizer": "a", "pmi_size": 9}, "--pmi-size needs --pmi"),
        ({"pmi": True, "tokenizer": "a"}, "takes no other options"),
        ({"pmi": True, "lowercase": True}, "takes no other options"),
        *(
            ({"sources": ["x"], "tokenizer": "a", **spelling}, "are for --train-tokenizer")
            for spelling in (
                {"lowercase": True},
                {"strip_accents": True},
                {"normalize": "nfc"},
                {"vocab_size": 99},
            )
        ),
    ],
)
def test_what_tokenize_needs(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(TokenizeSettings, {"out": "y", **given})
    assert build(TokenizeSettings, {"out": "y", "pmi": True, "pmi_size": 9}).sources == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"final_rate": 0.3}, "final_rate needs a shape"),
        ({"shape": "linear"}, "shape linear needs the final_rate"),
        ({"shape": "step", "final_rate": 0.3, "plateaus": 1}, "plateaus"),
    ],
)
def test_rate_schedules_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(PretrainSettings, {"masking": {"schedule": given}})


def test_options_of_a_strategy_have_names_of_their_own() -> None:
    tree = parse_assignments(["masking.options.p=0.3", "masking.options.kind=x"], PretrainSettings)
    assert build(PretrainSettings, tree).masking.options == {"p": 0.3, "kind": "x"}
    whole = parse_assignments(["masking.options={p: 0.3}"], PretrainSettings)
    swept = parse_assignments(["sweep.run.optimizer.learning_rate=[1e-3, 4e-3]"], CompareSettings)
    assert swept == {"sweep": {"run": {"optimizer": {"learning_rate": ["1e-3", "4e-3"]}}}}  # as YAML has it
    assert build(PretrainSettings, whole).masking.options == {"p": 0.3}
    with pytest.raises(UserError, match=r"unknown setting 'masking\.optoins\.p'"):
        parse_assignments(["masking.optoins.p=0.3"], PretrainSettings)
    with pytest.raises(UserError, match="options"):
        build(PretrainSettings, parse_assignments(["masking.options=3"], PretrainSettings))


def test_no_heavy_library_is_imported() -> None:
    code = (
        "import sys, fmlm_cli.config; print(*{'torch', 'transformers', 'datasets', 'pyarrow'} & "
        "set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_texts_of_the_command_line_are_utf8_in_any_locale() -> None:
    for word, text in ((b"sch\xc3\xb6n", "schön"), (b"plain", "plain")):
        settings = PredictSettings(checkpoint="x", texts=[word.decode("ascii", "surrogateescape")])
        assert settings.texts == (text,)
    with pytest.raises(UserError, match=r"setting 'texts': .*is not valid UTF-8"):
        build(PredictSettings, {"checkpoint": "x", "texts": [b"sch\xf6n".decode("ascii", "surrogateescape")]})
