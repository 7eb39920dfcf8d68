{{/* What the schema cannot see: values that contradict each other. Each message names the value. */}}

{{- define "behemoth.validate" -}}
{{- $v := .Values -}}
{{- include "behemoth.validate.model" $v.model -}}
{{- range $component := list "gateway" "tokenizer" "worker" -}}
{{- $section := index $v $component -}}
{{- if and (eq $section.image.tag "latest") (not $section.image.digest) -}}
{{- fail (printf "%s.image.tag: latest is not a version" $component) -}}
{{- end -}}
{{- range $section.extraArgs -}}
{{- if regexMatch "^--api[-_]key(=|$)" . -}}
{{- fail (printf "%s.extraArgs: keys come from gateway.apiKeys.existingSecret, never from arguments" $component) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if lt (int $v.gateway.drain.timeoutSeconds) (int $v.worker.drain.timeoutSeconds) -}}
{{- fail (printf "gateway.drain.timeoutSeconds: %d is below worker.drain.timeoutSeconds %d: the gateway would cut streams that the worker still finishes" (int $v.gateway.drain.timeoutSeconds) (int $v.worker.drain.timeoutSeconds)) -}}
{{- end -}}
{{- include "behemoth.validate.gateway" $v.gateway -}}
{{- include "behemoth.validate.autoscaling" $v.worker -}}
{{- if and $v.mtls.enabled (not $v.mtls.certManager) -}}
{{- range $component, $secret := $v.mtls.existingSecrets -}}
{{- if not $secret -}}{{- fail (printf "mtls.existingSecrets.%s: needed with mtls.enabled and without certManager" $component) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "behemoth.validate.model" -}}
{{- if and (eq .source "pvc") (not .pvc.existingClaim) -}}{{- fail "model.pvc.existingClaim: needed with model.source pvc" -}}{{- end -}}
{{- if and (eq .source "hostPath") (not .hostPath.path) -}}{{- fail "model.hostPath.path: needed with model.source hostPath" -}}{{- end -}}
{{- if and (eq .source "image") (not .image.reference) -}}{{- fail "model.image.reference: needed with model.source image" -}}{{- end -}}
{{- if and (eq .source "image") (regexMatch "(:latest|/[^:@]*)$" .image.reference) -}}{{- fail "model.image.reference: needs a tag other than latest, or a digest" -}}{{- end -}}
{{- end -}}

{{- define "behemoth.validate.gateway" -}}
{{- if and .ingress.enabled (not .ingress.host) -}}{{- fail "gateway.ingress.host: needed with gateway.ingress.enabled" -}}{{- end -}}
{{- if and .route.enabled (not .route.parentRefs) -}}{{- fail "gateway.route.parentRefs: needed with gateway.route.enabled" -}}{{- end -}}
{{- if and .inferencePool.enabled (not .inferencePool.endpointPicker) -}}{{- fail "gateway.inferencePool.endpointPicker: needed with gateway.inferencePool.enabled" -}}{{- end -}}
{{- if and .autoscaling.enabled (gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) -}}{{- fail "gateway.autoscaling.minReplicas: above maxReplicas" -}}{{- end -}}
{{- end -}}

{{- define "behemoth.validate.autoscaling" -}}
{{- $scaling := .autoscaling -}}
{{- if ne $scaling.kind "none" -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}{{- fail "worker.autoscaling.minReplicas: above maxReplicas" -}}{{- end -}}
{{- $grace := include "behemoth.grace" (list "worker" .drain) | int -}}
{{- if le (int $scaling.scaleDownSeconds) $grace -}}
{{- fail (printf "worker.autoscaling.scaleDownSeconds: %d must exceed the worker's grace period of %d" (int $scaling.scaleDownSeconds) $grace) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $scaling.kind "keda") (not $scaling.prometheusAddress) -}}{{- fail "worker.autoscaling.prometheusAddress: needed with keda" -}}{{- end -}}
{{- end -}}
