{{/* Both monitors name the job <fullname>-<component>: alerts and scalers select by it. */}}
{{- define "behemoth.relabelings" -}}
- sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_component]
  targetLabel: job
  replacement: {{ include "behemoth.fullname" . }}-$1
{{- end -}}
