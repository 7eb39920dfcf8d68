{{/* Names, labels, images, addresses. Components are gateway, tokenizer, worker, test. */}}

{{- define "behemoth.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters leave room for every suffix below the 63 of a DNS label. */}}
{{- define "behemoth.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* (root, component): what selects its pods; never a version, because it cannot change. */}}
{{- define "behemoth.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "behemoth.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* (root, component) */}}
{{- define "behemoth.labels" -}}
{{- $root := index . 0 -}}
{{ include "behemoth.selector" . }}
app.kubernetes.io/part-of: behemoth-serve
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* (root, image section) */}}
{{- define "behemoth.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* (root, component) */}}
{{- define "behemoth.serviceAccountName" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- $account := (index $root.Values $component).serviceAccount -}}
{{- if $account.name -}}{{- $account.name -}}
{{- else if $account.create -}}{{- printf "%s-%s" (include "behemoth.fullname" $root) $component -}}
{{- else -}}default{{- end -}}
{{- end -}}

{{/* (root, component): the headless service's name as certificates carry it. */}}
{{- define "behemoth.host" -}}
{{- $root := index . 0 -}}
{{- printf "%s-%s.%s.svc" (include "behemoth.fullname" $root) (index . 1) $root.Release.Namespace -}}
{{- end -}}

{{/* (root, component): where its mTLS certificate comes from. */}}
{{- define "behemoth.mtlsSecret" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- if $root.Values.mtls.certManager -}}
{{- printf "%s-%s-mtls" (include "behemoth.fullname" $root) $component -}}
{{- else -}}
{{- index $root.Values.mtls.existingSecrets $component -}}
{{- end -}}
{{- end -}}

{{/* Ports: the one place that knows their numbers. */}}
{{- define "behemoth.ports" -}}
gateway: {http: 8000, metrics: 8001}
tokenizer: {grpc: 50051, health: 50061, metrics: 9101}
worker: {grpc: 50052, health: 50062, metrics: 9102}
{{- end -}}
