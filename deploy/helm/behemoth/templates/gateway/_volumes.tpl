{{/* Secrets and files of the gateway: mounted whole, so that the kubelet's updates reach them. */}}
{{- define "behemoth.gateway.mounts" -}}
{{- if .Values.gateway.apiKeys.existingSecret }}
- name: api-keys
  mountPath: /etc/behemoth/api-keys
  readOnly: true
{{- end }}
{{- if .Values.gateway.tls.existingSecret }}
- name: tls
  mountPath: /etc/behemoth/tls
  readOnly: true
{{- end }}
{{- if .Values.gateway.thinkingPresets }}
- name: presets
  mountPath: /etc/behemoth/presets
  readOnly: true
{{- end }}
{{ include "behemoth.mtlsMount" . }}
{{- end -}}

{{- define "behemoth.gateway.volumes" -}}
{{- with .Values.gateway.apiKeys.existingSecret }}
- name: api-keys
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.gateway.tls.existingSecret }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- if .Values.gateway.thinkingPresets }}
- name: presets
  configMap:
    name: {{ include "behemoth.fullname" . }}-thinking-presets
{{- end }}
{{ include "behemoth.mtlsVolume" (list . "gateway") }}
{{- end -}}
