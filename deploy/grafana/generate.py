#!/usr/bin/env python3
"""Writes the Grafana dashboards into the chart: one table of panels, stable ids, no hand-kept JSON.

Each panel is (title, kind, unit, what it shows, section of the runbook, {legend: expression}).
In expressions GW, TOK and WRK stand for the chosen processes, RANGE for Grafana's rate interval.

usage: generate.py [--check]      --check writes nothing and exits 1 if something would change
"""

import json
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "helm/behemoth/dashboards"

SELECTORS = {
    "GW": 'namespace=~"$namespace",job=~".*-gateway"',
    "TOK": 'namespace=~"$namespace",job=~".*-tokenizer"',
    "WRK": 'namespace=~"$namespace",job=~".*-worker",instance=~"$worker"',
    "RANGE": "$__rate_interval",
}


def quantiles(metric, where):
    """p50, p95 and p99 of a histogram over all its processes."""
    return {f"p{percent}": f"histogram_quantile({percent / 100}, "
                           f"sum by (le) (rate({metric}_bucket{{{where}}}[RANGE])))"
            for percent in (50, 95, 99)}


TTFT = quantiles("behemoth_time_to_first_token_seconds", "GW")
ITL = quantiles("behemoth_inter_token_latency_seconds", "GW")
FAILED = 'sum(rate(behemoth_requests_total{GW,code=~"5.."}[RANGE]))'
ALL = "sum(rate(behemoth_requests_total{GW}[RANGE]))"

DASHBOARDS = {
    "overview": ("Behemoth: overview", [
        ("Workers that serve", "stat", "none", "Ready workers, as the gateways see them, and all "
         "that there are.", "noreadyworkers",
         {"serving": "max(behemoth_workers_usable{GW})", "known": "max(behemoth_workers_known{GW})"}),
        ("Requests in flight", "stat", "none", "Admitted and not ended, all gateways.",
         "rejectionratehigh", {"in flight": "sum(behemoth_requests_in_flight{GW})"}),
        ("Failed requests", "stat", "percentunit", "Share of replies with 5xx.", "errorratiohigh",
         {"failed": f"{FAILED} / {ALL}"}),
        ("Tokens generated", "stat", "none", "In a second, all workers.", "itlp95high",
         {"tokens/s": "sum(rate(behemoth_worker_generation_tokens_total{WRK}[RANGE]))"}),
        ("Requests", "timeseries", "reqps", "By status code.", "errorratiohigh",
         {"{{code}}": "sum by (code) (rate(behemoth_requests_total{GW}[RANGE]))"}),
        ("Time to first token", "timeseries", "s", "From a request's arrival at the gateway.",
         "ttftp95high", TTFT),
        ("Time between tokens", "timeseries", "s", "Of one sequence, at the gateway.", "itlp95high",
         ITL),
        ("Tokens", "timeseries", "none", "Prompt tokens computed and tokens sampled, in a second.",
         "queuegrowing",
         {"prompt": "sum(rate(behemoth_worker_prompt_tokens_total{WRK}[RANGE]))",
          "sampled": "sum(rate(behemoth_worker_generation_tokens_total{WRK}[RANGE]))"}),
        ("Running and waiting", "timeseries", "none", "Sequences that hold blocks, requests that "
         "wait for some.", "queuegrowing",
         {"running": "sum(behemoth_running_sequences{WRK})",
          "waiting": "sum(behemoth_waiting_requests{WRK})"}),
        ("KV blocks in use", "timeseries", "percentunit", "By worker.", "kvcachesaturated",
         {"{{instance}}": "behemoth_kv_use_ratio{WRK}"}),
        ("Versions", "table", "none", "What runs where.", "targetmissing",
         {"": "behemoth_build_info{namespace=~\"$namespace\"}"}),
    ]),
    "slo": ("Behemoth: service levels", [
        ("Availability, 30 days", "stat", "percentunit", "Share of requests without 5xx.",
         "errorratiohigh",
         {"good": '1 - sum(increase(behemoth_requests_total{GW,code=~"5.."}[30d])) '
                  "/ sum(increase(behemoth_requests_total{GW}[30d]))"}),
        ("Error budget left", "stat", "percentunit", "Of 1 % in 30 days.", "errorratioelevated",
         {"left": '1 - sum(increase(behemoth_requests_total{GW,code=~"5.."}[30d])) '
                  "/ (0.01 * sum(increase(behemoth_requests_total{GW}[30d])))"}),
        ("Burn rate", "timeseries", "none", "Error ratio over the budget's 1 %: 1 uses it up in 30 "
         "days, 14.4 in two.", "errorratiohigh",
         {f"{window}": f'sum(rate(behemoth_requests_total{{GW,code=~"5.."}}[{window}])) '
                       f"/ sum(rate(behemoth_requests_total{{GW}}[{window}])) / 0.01"
          for window in ("5m", "1h", "6h")}),
        ("First tokens within 10 s", "timeseries", "percentunit", "Share of requests.", "ttftp95high",
         {"within": 'sum(rate(behemoth_time_to_first_token_seconds_bucket{GW,le="10"}[RANGE])) '
                    "/ sum(rate(behemoth_time_to_first_token_seconds_count{GW}[RANGE]))"}),
        ("Tokens within 200 ms", "timeseries", "percentunit", "Share of tokens.", "itlp95high",
         {"within": 'sum(rate(behemoth_inter_token_latency_seconds_bucket{GW,le="0.2"}[RANGE])) '
                    "/ sum(rate(behemoth_inter_token_latency_seconds_count{GW}[RANGE]))"}),
    ]),
    "gateway": ("Behemoth: gateway, tokenizer and clients", [
        ("Requests by route", "timeseries", "reqps", "Routes of ours; what matches none is 'none'.",
         "errorratiohigh",
         {"{{endpoint}}": "sum by (endpoint) (rate(behemoth_requests_total{GW}[RANGE]))"}),
        ("Refused", "timeseries", "reqps", "Before any work, by reason.", "rejectionratehigh",
         {"{{reason}}": "sum by (reason) (rate(behemoth_rejected_total{GW}[RANGE]))"}),
        ("Clients that left", "timeseries", "reqps", "By how far their request was.",
         "clientcancelratehigh",
         {"{{stage}}": "sum by (stage) (rate(behemoth_cancelled_total{GW}[RANGE]))"}),
        ("Slow readers", "timeseries", "reqps", "Streams cut because nobody read them.",
         "clientcancelratehigh",
         {"gateway": "sum(rate(behemoth_stream_slow_reader_total{GW}[RANGE]))",
          "worker": "sum(rate(behemoth_worker_slow_reader_total{WRK}[RANGE]))"}),
        ("Connections", "timeseries", "none", "Open client connections and requests in flight.",
         "filesrunningout",
         {"connections": "sum(behemoth_http_connections{GW})",
          "in flight": "sum(behemoth_requests_in_flight{GW})"}),
        ("Request time", "timeseries", "s", "Generation requests, from arrival to end.",
         "itlp95high", quantiles("behemoth_e2e_request_latency_seconds", "GW")),
        ("Prompt cache", "timeseries", "percentunit", "Share of prompt tokens found in a cache.",
         "ttftp95high",
         {"cached": "sum(rate(behemoth_prompt_tokens_cached_total{GW}[RANGE])) "
                    "/ sum(rate(behemoth_prompt_tokens_total{GW}[RANGE]))"}),
        ("Tokenizer, as requests see it", "timeseries", "s", "One call, network included.",
         "tokenizerfailing", quantiles("behemoth_tokenizer_encode_seconds", "GW")),
        ("Tokenizer calls", "timeseries", "reqps", "By method and gRPC code, and failures at the "
         "gateways.", "tokenizerfailing",
         {"{{method}} {{code}}":
          "sum by (method, code) (rate(behemoth_tokenizer_requests_total{TOK}[RANGE]))",
          "failed": "sum(rate(behemoth_tokenizer_failures_total{GW}[RANGE]))"}),
        ("Text encoded", "timeseries", "Bps", "UTF-8 bytes in a second.", "tokenizerfailing",
         {"bytes": "sum(rate(behemoth_tokenizer_text_bytes_total{TOK}[RANGE]))"}),
        ("Processor", "timeseries", "none", "Cores in use, by process.", "ttftp95high",
         {"{{job}} {{instance}}":
          'rate(process_cpu_seconds_total{namespace=~"$namespace",job=~".*-(gateway|tokenizer)"}[RANGE])'}),
        ("Memory", "timeseries", "bytes", "Resident, by process.", "filesrunningout",
         {"{{job}} {{instance}}":
          'process_resident_memory_bytes{namespace=~"$namespace",job=~".*-(gateway|tokenizer)"}'}),
        ("File descriptors", "timeseries", "percentunit", "Share in use, by process.",
         "filesrunningout",
         {"{{job}} {{instance}}":
          'process_open_fds{namespace=~"$namespace",job=~".*-(gateway|tokenizer)"} '
          '/ process_max_fds{namespace=~"$namespace",job=~".*-(gateway|tokenizer)"}'}),
    ]),
    "worker": ("Behemoth: worker engine", [
        ("State", "timeseries", "none", "1 for the state that a worker is in.", "enginedead",
         {"{{instance}} {{state}}": "behemoth_engine_state{WRK} == 1"}),
        ("Load", "timeseries", "percentunit", "Weights read.", "workerloadstuck",
         {"{{instance}}": "behemoth_load_ratio{WRK}"}),
        ("Since the last step", "timeseries", "s", "Rises while nothing runs.", "enginedead",
         {"{{instance}}": "time() - behemoth_last_step_timestamp_seconds{WRK}"}),
        ("Step time", "timeseries", "s", "One forward pass with all around it.", "itlp95high",
         quantiles("behemoth_step_seconds", "WRK")),
        ("Steps", "timeseries", "none", "In a second.", "itlp95high",
         {"{{instance}}": "rate(behemoth_steps_total{WRK}[RANGE])"}),
        ("Tokens of a step", "timeseries", "none", "Prefill chunks and decodes together.",
         "ttftp95high", quantiles("behemoth_step_tokens", "WRK")),
        ("Running", "timeseries", "none", "Sequences that hold blocks.", "queuegrowing",
         {"{{instance}}": "behemoth_running_sequences{WRK}"}),
        ("Waiting", "timeseries", "none", "Requests.", "queuegrowing",
         {"{{instance}}": "behemoth_waiting_requests{WRK}"}),
        ("Waiting tokens", "timeseries", "none", "Prompt tokens still to compute: what autoscaling "
         "looks at.", "queuegrowing", {"{{instance}}": "behemoth_waiting_tokens{WRK}"}),
        ("Where the time goes", "timeseries", "s", "p95 of queue, prefill and decode.",
         "ttftp95high",
         {part: f"histogram_quantile(0.95, sum by (le) (rate(behemoth_worker_{part}_seconds_bucket"
                "{WRK}[RANGE])))" for part in ("queue", "prefill", "decode")}),
        ("First token at the worker", "timeseries", "s", "Without gateway and tokenizer.",
         "ttftp95high", quantiles("behemoth_worker_time_to_first_token_seconds", "WRK")),
        ("Between tokens at the worker", "timeseries", "s", "Without the way to the client.",
         "itlp95high", quantiles("behemoth_worker_inter_token_latency_seconds", "WRK")),
        ("Request at the worker", "timeseries", "s", "From arrival to finish.", "itlp95high",
         quantiles("behemoth_worker_request_seconds", "WRK")),
        ("Prompt length", "timeseries", "none", "Tokens.", "ttftp95high",
         quantiles("behemoth_worker_prompt_tokens", "WRK")),
        ("Output length", "timeseries", "none", "Tokens.", "itlp95high",
         quantiles("behemoth_worker_generation_tokens", "WRK")),
        ("Requests ended", "timeseries", "reqps", "By gRPC code.", "errorratiohigh",
         {"{{code}}": "sum by (code) (rate(behemoth_worker_requests_total{WRK}[RANGE])) > 0"}),
        ("Requests refused", "timeseries", "reqps", "At the worker's own door, by gRPC code.",
         "rejectionratehigh",
         {"{{code}}": "sum by (code) (rate(behemoth_worker_refused_total{WRK}[RANGE])) > 0"}),
        ("Non-finite logits", "timeseries", "none", "Requests failed for NaN or infinity.",
         "nonfinitelogits", {"{{instance}}": "increase(behemoth_non_finite_logits_total{WRK}[RANGE])"}),
    ]),
    "gpu": ("Behemoth: GPU and KV cache", [
        ("KV blocks in use", "timeseries", "percentunit", "By worker.", "kvcachesaturated",
         {"{{instance}}": "behemoth_kv_use_ratio{WRK}"}),
        ("Preemptions", "timeseries", "none", "Sequences done again for want of blocks, in a second.",
         "preemptionratehigh", {"{{instance}}": "rate(behemoth_preemptions_total{WRK}[RANGE])"}),
        ("Prefix cache", "timeseries", "percentunit", "Share of prompt tokens found.",
         "kvcachesaturated",
         {"hits": "sum(rate(behemoth_prefix_cache_hits_total{WRK}[RANGE])) "
                  "/ sum(rate(behemoth_prefix_cache_queries_total{WRK}[RANGE]))"}),
        ("Planned memory", "timeseries", "bytes", "What the plan gave to each part at start.",
         "kvcachesaturated",
         {"{{instance}} {{rank}} {{part}}": "behemoth_planned_memory_bytes{WRK}"}),
        ("GPU busy", "timeseries", "percentunit", "Share of time with a kernel; says little of load.",
         "itlp95high", {"{{Hostname}} {{gpu}}": "avg by (Hostname, gpu) (DCGM_FI_PROF_GR_ENGINE_ACTIVE)"}),
        ("Tensor cores", "timeseries", "percentunit", "Share of cycles.", "itlp95high",
         {"{{Hostname}} {{gpu}}": "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"}),
        ("Memory traffic", "timeseries", "percentunit", "Decode is bound by it: near 1 is as fast as "
         "it gets.", "itlp95high", {"{{Hostname}} {{gpu}}": "DCGM_FI_PROF_DRAM_ACTIVE"}),
        ("GPU memory", "timeseries", "decmbytes", "In use.", "kvcachesaturated",
         {"{{Hostname}} {{gpu}}": "DCGM_FI_DEV_FB_USED"}),
        ("Power", "timeseries", "watt", "Drawn.", "gpuxiderror",
         {"{{Hostname}} {{gpu}}": "DCGM_FI_DEV_POWER_USAGE"}),
        ("Temperature", "timeseries", "celsius", "Of the chip.", "gpuxiderror",
         {"{{Hostname}} {{gpu}}": "DCGM_FI_DEV_GPU_TEMP"}),
        ("XID errors", "stat", "none", "The last one; 0 = none.", "gpuxiderror",
         {"{{Hostname}} {{gpu}}": "DCGM_FI_DEV_XID_ERRORS"}),
    ]),
}


def filled(expression):
    for name, value in SELECTORS.items():
        expression = expression.replace(name, value)
    return expression


def variables():
    def query(name, label, expression, multi=True):
        return {"name": name, "label": label, "type": "query", "query": expression, "refresh": 2,
                "datasource": {"type": "prometheus", "uid": "${datasource}"}, "multi": multi,
                "includeAll": multi, "allValue": ".*", "sort": 1,
                "current": {"text": "All", "value": "$__all"}}
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        query("namespace", "Namespace", "label_values(behemoth_build_info, namespace)"),
        query("model", "Model", 'label_values(behemoth_model_info{namespace=~"$namespace"}, model_name)'),
        query("worker", "Worker", 'label_values(behemoth_model_info{namespace=~"$namespace",'
                                  'model_name=~"$model"}, instance)'),
        {"name": "runbook", "label": "Runbook", "type": "textbox", "query": "deploy/README.md#",
         "current": {"text": "deploy/README.md#", "value": "deploy/README.md#"}},
    ]


def panel(number, spec, place):
    title, kind, unit, text, section, expressions = spec
    return {
        "id": number, "title": title, "type": kind, "gridPos": place,
        "description": f"{text} What to do: ${{runbook}}{section}",
        "links": [{"title": "What to do", "url": f"${{runbook}}{section}", "targetBlank": True}],
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "fieldConfig": {"defaults": {"unit": unit, **({"min": 0} if kind == "timeseries" else {})},
                        "overrides": []},
        "targets": [{"refId": chr(65 + i), "expr": filled(expression), "legendFormat": legend,
                     **({"format": "table", "instant": True} if kind == "table" else {})}
                    for i, (legend, expression) in enumerate(expressions.items())],
    }


def dashboard(name, title, specs):
    panels, x, y = [], 0, 0
    for number, spec in enumerate(specs, 1):
        width, height = (6, 4) if spec[1] == "stat" else (24, 6) if spec[1] == "table" else (12, 8)
        if x + width > 24:
            x, y = 0, y + panels[-1]["gridPos"]["h"]
        panels.append(panel(number, spec, {"x": x, "y": y, "w": width, "h": height}))
        x += width
    return {"uid": f"behemoth-{name}", "title": title, "tags": ["behemoth"], "schemaVersion": 39,
            "editable": True, "refresh": "30s", "time": {"from": "now-3h", "to": "now"},
            "templating": {"list": variables()}, "panels": panels,
            "links": [{"type": "dashboards", "tags": ["behemoth"], "title": "Behemoth",
                       "asDropdown": True, "keepTime": True, "includeVars": True}]}


def main():
    wanted = {TARGET / f"behemoth-{name}.json":
              json.dumps(dashboard(name, title, specs), indent=1, sort_keys=True) + "\n"
              for name, (title, specs) in DASHBOARDS.items()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        if stale or set(TARGET.glob("*.json")) != set(wanted):
            sys.exit("run deploy/grafana/generate.py")
        return
    for path in stale:
        path.write_text(wanted[path])


if __name__ == "__main__":
    main()
