"""``coldaisle size`` as a person uses it: the real program, its text, its JSON and its refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lab.program import PROGRAM

SERVE = ("serve", "--model", "llama-3.3-70b", "--users", "200", "--isl", "2k", "--osl", "300")
TRAIN = ("train", "--model", "llama-3.1-8b", "--tokens", "1e12")
FINE = ("finetune", "--model", "llama-3.1-8b", "--tokens", "1e9", "--method", "lora")


def size(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*PROGRAM, "size", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=100, check=False
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def told(*arguments: str, status: int = 0) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(size(*arguments, "--json", status=status).stdout)
    assert made["schema"] == "coldaisle.size/1"
    return made


def figures(made: Any) -> list[dict[str, Any]]:
    """Every figure of an answer, however deep."""
    if isinstance(made, list):
        return [one for part in made for one in figures(part)]
    if isinstance(made, dict):
        mine = [made] if {"value", "low", "high", "unit"} <= made.keys() else []
        return mine + [one for part in made.values() for one in figures(part)]
    return []


@pytest.mark.parametrize("request_", [SERVE, TRAIN, FINE], ids=lambda words: words[0])
def test_the_answer_comes_first_and_fits_eighty_columns(request_: tuple[str, ...]) -> None:
    lines = size(*request_, "--part", "h100_sxm,h200_sxm").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("ANSWER") for line in lines[:6])
    assert any("h200_sxm" in line for line in lines[:30]), "the parts are compared"


@pytest.mark.parametrize("request_", [SERVE, TRAIN, FINE], ids=lambda words: words[0])
def test_json_has_every_figure_with_its_interval_and_unit(request_: tuple[str, ...]) -> None:
    made = told(*request_, "--part", "h100_sxm,h200_sxm")
    assert [part["part"] for part in made["parts"]] == ["h100_sxm", "h200_sxm"]
    assert made["best"] in {"h100_sxm", "h200_sxm"}
    every = figures(made["parts"])
    assert len(every) > 40
    for one in every:
        assert one["low"] <= one["value"] <= one["high"], one
        assert one["unit"], one
    assert all(part["binding"] for part in made["parts"])


def test_each_number_is_explained() -> None:
    text = size(*SERVE, "--part", "h100_sxm", "--explain").stdout
    assert text.count("\n      = ") > 15
    assert text.count("\n      from ") > 5


def test_the_speed_of_expert_parallelism_is_not_cut_at_eighty_columns() -> None:
    lines = size(
        "serve", "--model", "deepseek-v3/r1", "--rate", "20", "--part", "h200_sxm"
    ).stdout.splitlines()
    table = lines[lines.index("EXPERT PARALLELISM") + 1 :]
    assert "throughput a GPU" in table[0]
    assert all("tok/s" in line for line in table[4:8]), "degrees that hold a request"


def test_what_costs_takes_a_price_with_its_day() -> None:
    assert "$" not in size(*SERVE, "--part", "h100_sxm").stdout.replace("PART=$/h", "")
    priced = size(
        *SERVE, "--part", "h100_sxm", "--price", "h100_sxm=2.35", "--price-date", "2026-11-01"
    ).stdout
    assert "2026-11-01" in priced
    assert "$" in priced
    size(*SERVE, "--part", "h100_sxm", "--price", "h100_sxm=2.35", status=3)


def test_more_users_take_no_fewer_gpus() -> None:
    counts = [
        told("serve", "--model", "llama-3.3-70b", "--users", str(users), "--part", "h100_sxm")["parts"][0]["gpus"]["value"]
        for users in (10, 200, 2000)
    ]  # fmt: skip
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_what_fits_nowhere_says_what_binds() -> None:
    request = ("train", "--model", "llama-3.1-405b", "--tokens", "1e12", "--part", "t4", "--gpus", "4")
    done = size(*request, status=2)
    assert "cannot be done" in done.stdout
    assert "What binds: memory" in " ".join(done.stdout.split())
    made = told(*request, status=2)
    assert not made["fits"]
    assert made["parts"][0]["gpus"] is None
    assert made["parts"][0]["binding"]["name"] == "memory"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("serve", "--model", "made up"), "there is no model made up"),
        (("serve", "--model", "llama-3.3-70b", "--users", "0"), "--users"),
        (("serve", "--model", "llama-3.3-70b", "--isl", "-5"), "--isl"),
        (("serve", "--model", "llama-3.3-70b", "--part", "abacus"), "abacus"),
        (("serve",), "--model"),
        (("train", "--params", "0", "--tokens", "1"), "--params"),
        (("train", "--model", "llama-3.1-8b", "--tokens", "nan"), "--tokens"),
        ((*TRAIN, "--part", "h100_sxm", "--gpus", "64", "--tp", "7"), "TP 7"),
        ((*TRAIN, "--part", "h100_sxm", "--gpus", "100", "--tp", "8"), "no multiple"),
        ((*FINE, "--rank", "99999999"), "wider than"),
        ((*SERVE, "--price", "h100_sxm=2", "--price-date", "2999-01-01"), "still to come"),
        ((*SERVE, "--price", "h100_sxm=cheap", "--price-date", "2026-11-01"), "--price"),
        (
            ("serve", "--model", "llama-3.3-70b", "--part", "h100_sxm", "--replicas", "1000000"),
            "at most 131,072",
        ),
        (("serve", "--model", "llama-3.3-70b", "--max-model-len", "1e12"), "longest request"),
        (("serve", "--model", "llama-3.1-8b", "--layers", "1000000"), "at most 10,000"),
        (("serve", "--model", "llama-3.1-8b", "--params", "1B"), "for attention alone"),
        (("train", "--params", "7B", "--hidden", "1e30", "--tokens", "1T"), "more than anything has"),
        ((*TRAIN[:3], "--tokens", "1e-3", "--part", "h100_sxm"), "at least one"),
        ((*TRAIN, "--price", "2", "--price-date", "2026-11-01", "--used", "0"), "utilisation is 0"),
        ((*TRAIN, "--part", "h100_sxm", "--gpus", "8", "--measured", "1e300"), "--measured"),
        (("guess",), "guess"),
    ],
)
def test_nonsense_is_one_sentence_and_what_to_do(arguments: tuple[str, ...], words: str) -> None:
    done = size(*arguments, status=3)
    assert done.stdout == ""
    assert done.stderr.startswith("coldaisle: ")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_a_hostile_name_is_inert() -> None:
    done = size("serve", "--model", "evil\x1b]0;x\x07\u202e", status=3)
    assert not {"\x1b", "\x07", "\u202e"} & set(done.stderr)


def test_a_config_of_hugging_face_is_a_model(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {
                "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
                "max_position_embeddings": 131072,
            }
        )
    )  # fmt: skip
    made = told("serve", "--model", str(path), "--users", "10", "--part", "h100_sxm")
    assert made["request"]["dtype"] == "bf16"
    assert made["request"]["model"]["params"] == pytest.approx(8.03e9, rel=0.01)
    path.write_text("{")
    done = size("serve", "--model", str(path), "--users", "10", status=3)
    assert str(path) in done.stderr


def test_the_catalogue_is_listed() -> None:
    assert "h100_sxm" in size("parts").stdout
    assert "Llama-2-70B" in size("models").stdout


def test_the_catalogue_fits_eighty_columns() -> None:
    head, *rows = size("parts").stdout.splitlines()
    assert head.endswith("links")
    assert max(map(len, rows)) <= 80


def test_what_was_measured_is_held_against_what_is_calculated() -> None:
    request = (*TRAIN, "--part", "h100_sxm", "--gpus", "8")
    made = told(*request)
    rate = made["parts"][0]["sections"]["time"]["figures"]["tokens/s"]["value"]
    slow = told(*request, "--measured", f"{rate / 2:.0f}")
    assert slow["request"]["measured_tokens_s"] == pytest.approx(rate / 2, rel=1e-3)
    found = slow["parts"][0]["sections"]["measured against calculated"]
    assert found["figures"]["calculated / measured"]["value"] == pytest.approx(2.0, rel=1e-3)
    assert found["note"].startswith("slower than calculated")
    assert "before buying" in slow["parts"][0]["warnings"][0]
    same = told(*request, "--measured", f"{rate:.0f}")["parts"][0]
    assert same["sections"]["measured against calculated"]["note"].startswith("agree")
    assert not any("were measured" in words for words in same["warnings"])


@pytest.mark.parametrize("more", [(), ("--part", "h100_sxm"), ("--part", "h100_sxm,h200_sxm", "--gpus", "8")])
def test_a_measured_rate_takes_its_part_and_its_number(more: tuple[str, ...]) -> None:
    assert "--measured" in size(*TRAIN, *more, "--measured", "30k", status=3).stderr


def test_it_works_without_the_screen() -> None:
    code = "import sys, coldaisle.tui.size; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert not {"textual", "rich", "pandas"} & set(done.stdout.split())


def test_weights_are_taken_as_they_are_published() -> None:
    serve = ("serve", "--model", "deepseek-r1", "--users", "10", "--part", "h200_sxm")
    assert told(*serve)["request"]["dtype"] == "fp8"
    assert told(*serve, "--dtype", "bf16")["request"]["dtype"] == "bf16"


def test_a_hybrid_of_fewer_layers_keeps_its_share_that_have_keys_and_values(tmp_path: Path) -> None:
    config = {
        "model_type": "qwen3_next", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 16,
        "num_key_value_heads": 2, "head_dim": 256, "vocab_size": 151936, "full_attention_interval": 4,
        "intermediate_size": 5120, "num_experts": 512, "num_experts_per_tok": 10, "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
        "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
    }  # fmt: skip
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))

    def layers(*more: str) -> Any:
        asked = (
            "serve",
            "--model",
            str(file),
            "--part",
            "h100-sxm",
            "--users",
            "9",
            "--isl",
            "1k",
            "--osl",
            "100",
        )
        return told(*asked, *more)["request"]["model"]["kv_layers"]

    assert (layers(), layers("--layers", "24"), layers("--layers", "24", "--kv-layers", "8")) == (12, 6, 8)
    assert layers("--layers", "1") == 1


def test_a_model_without_keys_and_values_is_served_and_trained() -> None:
    shape = ("--params", "2.8B", "--layers", "64", "--hidden", "2560", "--kv-layers", "0")
    (part,) = told("serve", *shape, "--part", "h100_sxm")["parts"]
    kept = part["sections"]["keys and values"]["figures"]
    assert (kept["a token"]["value"], kept["a request"]["value"]) == (0, 0)
    assert kept["requests at once, full length"]["value"] == 2048  # the engine's limit
    assert any("is not told, and counted as nothing" in warning for warning in part["warnings"])
    told("train", *shape, "--tokens", "1T", "--part", "h100_sxm", "--gpus", "8")
    size("serve", *shape[:-1], "-1", "--part", "h100_sxm", status=3)


def test_json_says_whether_expert_parallelism_does_better() -> None:
    (part,) = told("serve", "--model", "deepseek-v3", "--part", "h200_sxm", "--users", "500")["parts"]
    found = part["sections"]["expert parallelism against the layout"]["figures"]
    best, layout = found["throughput a GPU"]["value"], found["throughput a GPU of the layout"]["value"]
    assert found["over the layout's"]["value"] == pytest.approx(best / layout)
    degree = found["degree that serves most"]["value"]
    table = part["sections"]["expert parallelism"]["figures"]
    assert table[f"EP {degree:.0f}: throughput a GPU"]["value"] == best
    assert found["fewest GPUs that hold it"]["value"] == 8


def test_a_load_beyond_all_clusters_is_an_answer() -> None:
    made = told("serve", "--model", "llama-3.1-8b", "--part", "h100_sxm", "--users", "1e12", status=2)
    assert made["parts"][0]["gpus"] is None
    assert made["parts"][0]["binding"]["name"] == "load"


def test_the_longest_request_that_is_accepted_has_room() -> None:
    asked = ("serve", "--model", "llama-3.1-8b", "--part", "h100_sxm")
    few, many = (told(*asked, *more)["parts"][0]["gpus"]["value"] for more in ((), ("--max-model-len", "1M")))
    assert (few, many) == (1, 2)
    none = told(*asked, "--max-model-len", "1M", "--gpus", "1", status=2)["parts"][0]
    assert "one request of 1,000,000 tokens needs" in none["answer"]


def test_what_does_not_fit_beside_the_engine_says_so() -> None:
    asked = ("serve", "--model", "llama-3.1-8b", "--part", "h100_sxm", "--memory-share", "1%")
    (part,) = told(*asked, status=2)["parts"]
    assert part["binding"]["name"] == "engine"
    assert "and the engine itself" in part["answer"]
