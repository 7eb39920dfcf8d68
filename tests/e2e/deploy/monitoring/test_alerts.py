"""Every alert fires on the series that it is about, and clears: promtool runs the rules over time."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tools import CHART, ROOT, promtool  # noqa: E402

PROMETHEUS = ROOT / "deploy/prometheus"
RULES = PROMETHEUS / "behemoth.rules.yaml"
G, T, W = (f'job="behemoth-{part}",instance="a"' for part in ("gateway", "tokenizer", "worker"))
QUIET = "0x300"


def counter(first, second, minutes=60):
    """A counter that grows by `first` a minute, then by `second`."""
    return f"0+{first}x{minutes} {first * minutes}+{second}x{2 * minutes}"


def late(name, labels, slow, fast, edge):
    """A histogram whose observations are all above `edge`, later all below it."""
    return {f'{name}_bucket{{{labels},le="{edge}"}}': counter(slow, fast),
            f'{name}_bucket{{{labels},le="80"}}': counter(fast, fast),
            f'{name}_bucket{{{labels},le="+Inf"}}': counter(fast, fast)}


REQUESTS = 'behemoth_requests_total{{{},endpoint="chat",code="{}"}}'.format
# alert: (series by minute, minute at which it must fire, minute at which it must have cleared)
CASES = {
    "GatewayDown": ({f"behemoth_build_info{{{G}}}": "_x10 1x50"}, 5, 15),
    "NoReadyWorkers": ({f"behemoth_workers_usable{{{G}}}": "0x10 2x50"}, 5, 15),
    "ErrorRatioHigh": ({REQUESTS(G, 200): counter(60, 60), REQUESTS(G, 503): counter(20, 0)}, 50, 75),
    "ErrorRatioElevated": ({REQUESTS(G, 200): counter(60, 60), REQUESTS(G, 500): counter(4, 0)},
                           55, 110),
    "TtftP95High": (late("behemoth_time_to_first_token_seconds", G, 0, 60, 2.5), 30, 75),
    "ItlP95High": (late("behemoth_inter_token_latency_seconds", G, 0, 600, 0.04), 30, 75),
    "RejectionRateHigh": ({REQUESTS(G, 200): counter(60, 60),
                           f'behemoth_rejected_total{{{G},reason="full"}}': counter(10, 0)}, 30, 75),
    "ClientCancelRateHigh": ({REQUESTS(G, 200): counter(60, 60),
                              f'behemoth_cancelled_total{{{G},stage="waiting"}}': counter(50, 0)},
                             40, 85),
    "TokenizerFailing": ({f"behemoth_tokenizer_failures_total{{{G}}}": counter(12, 0)}, 30, 75),
    "QueueGrowing": ({f"behemoth_waiting_requests{{{W}}}": "50x30 0x30"}, 20, 40),
    "KvCacheSaturated": ({f"behemoth_kv_use_ratio{{{W}}}": "0.99x30 0.5x30"}, 20, 40),
    "PreemptionRateHigh": ({f"behemoth_preemptions_total{{{W}}}": counter(60, 0)}, 30, 75),
    "EngineDead": ({f'behemoth_engine_state{{{W},state="failed"}}': "1x30 0x30"}, 5, 40),
    "WorkerRestarted": ({f"process_start_time_seconds{{{W}}}": "100x10 700x60"}, 15, 40),
    "WorkerLoadStuck": ({f'behemoth_engine_state{{{W},state="loading"}}': "1x60",
                         f"behemoth_load_ratio{{{W}}}": "0.3x20 0.3+0.01x40"}, 15, 30),
    "NonFiniteLogits": ({f"behemoth_non_finite_logits_total{{{W}}}": "0x10 3x60"}, 12, 40),
    "GpuXidError": ({'DCGM_FI_DEV_XID_ERRORS{gpu="0",Hostname="n"}': "0x5 79x10 0x30"}, 10, 30),
    "GpuRowRemapFailure": ({'DCGM_FI_DEV_ROW_REMAP_FAILURE{gpu="0",Hostname="n"}': "1x10 0x30"},
                           5, 30),
    "TargetMissing": ({f"up{{{G}}}": "1x60", f"up{{{T}}}": "1x60", f"up{{{W}}}": "0x20 1x40"}, 15, 30),
    "FilesRunningOut": ({f"process_open_fds{{{G}}}": "950x20 10x40",
                         f"process_max_fds{{{G}}}": "1000x60"}, 15, 30),
    # promtool's clock begins at 0: the certificate ends at day 1, then it is renewed for a year.
    "CertExpirySoon": ({f"behemoth_certificate_expiry_timestamp_seconds{{{G}}}":
                        "86400x20 31536000x40"}, 15, 30),
}
# Where a second series alone would make an alert fire for another reason.
AT_REST = {f"up{{{T}}}": "1x300", f"up{{{W}}}": "1x300", f"behemoth_build_info{{{G}}}": "1x300"}


def alerts():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def unit(name, series, fires, clears):
    expression = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
    return {"name": name, "interval": "1m",
            "input_series": [{"series": key, "values": value} for key, value in series.items()],
            "promql_expr_test": [
                {"expr": expression, "eval_time": f"{minute}m",
                 "exp_samples": [{"labels": "{}", "value": value}]}
                for minute, value in ((fires, 1), (clears, 0))]}


def run(tests, folder):
    file = folder / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m",
                                    "tests": tests}))
    return subprocess.run([promtool(), "test", "rules", file], capture_output=True, text=True)


def test_there_is_a_case_for_every_alert():
    assert set(CASES) == set(alerts())


@pytest.mark.parametrize("name", CASES)
def test_it_fires_and_clears(name, tmp_path):
    series, fires, clears = CASES[name]
    others = {key: value for key, value in AT_REST.items() if key not in series}
    result = run([unit(name, {**others, **series}, fires, clears)], tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_nothing_fires_while_all_is_well(tmp_path):
    series = {**AT_REST, f"up{{{G}}}": "1x300", REQUESTS(G, 200): "0+60x300",
              REQUESTS(G, 503): QUIET, f"behemoth_workers_usable{{{G}}}": "2x300",
              f"behemoth_waiting_requests{{{W}}}": QUIET, f"behemoth_kv_use_ratio{{{W}}}": "0.4x300",
              f'behemoth_engine_state{{{W},state="failed"}}': QUIET,
              f"process_start_time_seconds{{{W}}}": "100x300",
              **late("behemoth_inter_token_latency_seconds", G, 600, 600, 0.04)}
    silent = [unit(name, series, 60, 120) for name in CASES]
    for one in silent:
        one["promql_expr_test"] = [test | {"exp_samples": [{"labels": "{}", "value": 0}]}
                                   for test in one["promql_expr_test"]]
    result = run(silent, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_case_that_should_not_pass_does_not(tmp_path):
    assert run([unit("GatewayDown", AT_REST, 5, 15)], tmp_path).returncode != 0


def test_the_rules_are_well_made():
    result = subprocess.run([promtool(), "check", "rules", RULES], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    check = subprocess.run([sys.executable, PROMETHEUS / "generate.py", "--check"],
                           capture_output=True, text=True)
    assert check.returncode == 0, check.stderr
    runbook = (ROOT / "deploy/README.md").read_text()
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description", "runbook_url"} <= set(rule["annotations"])
        assert rule["annotations"]["runbook_url"].endswith(f"#{name.lower()}")
        assert f"\n### {name}\n" in runbook, f"deploy/README.md has no section {name}"


def test_the_chart_s_rules_are_the_same_alerts(tmp_path):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chart"))
    from rendering import BASE, merged, template
    values = merged(BASE, {"monitoring": {"prometheusRule": {
        "enabled": True, "thresholds": {"waitingRequests": 98765}}}})
    rendered = [one for one in yaml.safe_load_all(template(values).stdout)
                if one and one["kind"] == "PrometheusRule"]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rendered[0]["spec"]))
    result = subprocess.run([promtool(), "check", "rules", file], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    made = {rule["alert"]: rule for group in rendered[0]["spec"]["groups"] for rule in group["rules"]}
    assert set(made) == set(CASES)
    assert "> 98765" in made["QueueGrowing"]["expr"]
    text = (CHART / "files/alerts.yaml").read_text()
    assert "%" not in "".join(rule["expr"] for rule in made.values()) and "%gateway%" in text
