{{/* What the pods of all components have in common. */}}

{{/* (root, component): the head of a pod's spec. */}}
{{- define "behemoth.podSpec" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- $section := index $root.Values $component -}}
serviceAccountName: {{ include "behemoth.serviceAccountName" . }}
automountServiceAccountToken: false
# A service called "worker" would give every container variables of its address.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "behemoth.grace" (list $component $section.drain) }}
{{- with $root.Values.global.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- include "behemoth.podSecurityContext" $root | nindent 2 }}
{{- with $section.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $section.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $section.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $section.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "behemoth.selector" . | nindent 8 }}
{{- end -}}

{{- define "behemoth.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ .Values.global.runAsUser }}
runAsGroup: {{ .Values.global.runAsUser }}
fsGroup: {{ .Values.global.runAsUser }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "behemoth.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities:
  drop: [ALL]
{{- end -}}

{{/* (root, component): name, image and fences of a container that runs its image. */}}
{{- define "behemoth.container" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- $section := index $root.Values $component -}}
image: {{ include "behemoth.image" (list $root $section.image) }}
imagePullPolicy: {{ $section.image.pullPolicy }}
securityContext: {{- include "behemoth.containerSecurityContext" $root | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
{{- end -}}

{{/* (root, component): pod metadata. Arguments roll the pods by themselves; files need the sum. */}}
{{- define "behemoth.podMetadata" -}}
{{- $root := index . 0 -}}{{- $section := index $root.Values (index . 1) -}}
labels: {{- include "behemoth.labels" . | nindent 2 }}
  {{- with $section.podLabels }}{{- toYaml . | nindent 2 }}{{- end }}
{{- with $section.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "behemoth.modelPath" -}}
{{- eq .Values.model.source "embedded" | ternary "/opt/behemoth/models/tiny" "/model" -}}
{{- end -}}

{{- define "behemoth.modelMount" -}}
{{- if ne .Values.model.source "embedded" -}}
- name: model
  mountPath: /model
  readOnly: true
  {{- if and (eq .Values.model.source "pvc") .Values.model.pvc.subPath }}
  subPath: {{ .Values.model.pvc.subPath }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "behemoth.modelVolume" -}}
{{- $model := .Values.model -}}
{{- if eq $model.source "pvc" -}}
- name: model
  persistentVolumeClaim:
    claimName: {{ $model.pvc.existingClaim }}
    readOnly: true
{{- else if eq $model.source "hostPath" -}}
- name: model
  hostPath:
    path: {{ $model.hostPath.path }}
    type: Directory
{{- else if eq $model.source "image" -}}
- name: model
  image:
    reference: {{ $model.image.reference }}
    pullPolicy: {{ $model.image.pullPolicy }}
{{- end -}}
{{- end -}}

{{- define "behemoth.mtlsMount" -}}
{{- if .Values.mtls.enabled -}}
- name: mtls
  mountPath: /etc/behemoth/mtls
  readOnly: true
{{- end -}}
{{- end -}}

{{/* (root, component) */}}
{{- define "behemoth.mtlsVolume" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.mtls.enabled -}}
- name: mtls
  secret:
    secretName: {{ include "behemoth.mtlsSecret" . }}
    defaultMode: 0440
{{- end -}}
{{- end -}}

{{/* (root, component): flags of a gRPC server. */}}
{{- define "behemoth.serverArgs" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- $ports := index (include "behemoth.ports" $root | fromYaml) $component -}}
- --listen=0.0.0.0:{{ $ports.grpc }}
- --health-listen=0.0.0.0:{{ $ports.health }}
- --metrics-listen=0.0.0.0:{{ $ports.metrics }}
- --log-level={{ $root.Values.global.logLevel }}
- --drain-timeout-s={{ (index $root.Values $component).drain.timeoutSeconds }}
{{- if $root.Values.hardened }}
- --reflection=false
{{- end }}
{{- if $root.Values.mtls.enabled }}
- --tls-cert-file=/etc/behemoth/mtls/tls.crt
- --tls-key-file=/etc/behemoth/mtls/tls.key
- --tls-client-ca-file=/etc/behemoth/mtls/ca.crt
{{- end }}
{{- end -}}

{{/* (root, component): its container ports. */}}
{{- define "behemoth.containerPorts" -}}
{{- $root := index . 0 -}}
{{- range $name, $port := index (include "behemoth.ports" $root | fromYaml) (index . 1) }}
- name: {{ $name }}
  containerPort: {{ $port }}
{{- end }}
{{- end -}}

{{/* (port, service): the kubelet speaks gRPC in plain text only, hence the port of its own. */}}
{{- define "behemoth.grpcProbe" -}}
grpc:
  port: {{ index . 0 }}
  {{- with index . 1 }}
  service: {{ . }}
  {{- end }}
{{- end -}}
