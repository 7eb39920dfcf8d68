{{/*
How long a pod may take to start and to end. All of it is computed here, and only here.

  grace   = preStop + drain timeout + closing       (the kubelet counts preStop in)
  startup = (weights / slowest storage + warm-up) x 1.5

A pod that Kubernetes kills before its own drain ends loses streams without a word; a grace period
that is set by hand must therefore be at least the computed one.
*/}}

{{/* Last bytes of streams that have ended, and the exit itself. */}}
{{- define "behemoth.closingSeconds" -}}10{{- end -}}

{{/* (component's name, its drain section) */}}
{{- define "behemoth.grace" -}}
{{- $name := index . 0 -}}{{- $drain := index . 1 -}}
{{- $needed := add $drain.preStopSeconds $drain.timeoutSeconds (include "behemoth.closingSeconds" . | int) -}}
{{- $given := $drain.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{- $needed -}}
{{- else if lt (int $given) (int $needed) -}}
{{- fail (printf "%s.drain.terminationGracePeriodSeconds: %d is below preStopSeconds %d + timeoutSeconds %d + %s for closing = %d" $name (int $given) (int $drain.preStopSeconds) (int $drain.timeoutSeconds) (include "behemoth.closingSeconds" .) (int $needed)) -}}
{{- else -}}
{{- int $given -}}
{{- end -}}
{{- end -}}

{{/* (drain section): the lifecycle, where there is one. Zero seconds need none. */}}
{{- define "behemoth.lifecycle" -}}
{{- if gt (int .preStopSeconds) 0 -}}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .preStopSeconds }}
{{- end -}}
{{- end -}}

{{- define "behemoth.startupPeriodSeconds" -}}5{{- end -}}

{{/* (worker.startup section): seconds, a multiple of the period. */}}
{{- define "behemoth.startupBudget" -}}
{{- $period := include "behemoth.startupPeriodSeconds" . | float64 -}}
{{- $seconds := .budgetSeconds -}}
{{- if kindIs "invalid" $seconds -}}
{{- $read := divf (mulf .weightsGB 1000) .slowestReadMBPerSecond -}}
{{- $seconds = mulf (addf $read .warmUpSeconds) 1.5 -}}
{{- end -}}
{{- mulf (ceil (divf $seconds $period)) $period | int -}}
{{- end -}}
