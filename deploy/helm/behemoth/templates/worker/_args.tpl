{{/* Flags that decide what fits: the same for the init container's check and for the worker. */}}
{{- define "behemoth.worker.capacityArgs" -}}
{{- $worker := .Values.worker -}}
- --backend={{ $worker.backend }}
- --tensor-parallel-size={{ eq $worker.backend "cuda" | ternary ($worker.gpu.tensorParallelSize | int) 1 }}
- --gpu-memory-utilization={{ $worker.gpu.memoryUtilization }}
- --max-model-len={{ $worker.maxModelLen | int64 }}
- --max-num-seqs={{ $worker.maxNumSeqs }}
- --max-step-tokens={{ $worker.maxStepTokens | int64 }}
- --kv-cache-dtype={{ $worker.kvCacheDtype }}
{{- range $worker.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* The component's resources, and its GPUs. */}}
{{- define "behemoth.worker.resources" -}}
{{- $resources := deepCopy .Values.worker.resources -}}
{{- if eq .Values.worker.backend "cuda" -}}
{{- $gpu := dict .Values.worker.gpu.resourceName (.Values.worker.gpu.tensorParallelSize | int) -}}
{{- $resources = mustMerge $resources (dict "limits" $gpu "requests" $gpu) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}
