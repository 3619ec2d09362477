{{/* Names, labels and the image. The objects of one release are called after it; those that people type have names of their own. */}}

{{- define "tollkeeper.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "tollkeeper.selector" . }}
{{- end }}

{{- define "tollkeeper.selector" -}}
app.kubernetes.io/name: tollkeeper
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "tollkeeper.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Where the gate's pods are: the sidecar's are Envoy Gateway's. */}}
{{- define "tollkeeper.gateNamespace" -}}
{{ eq .Values.gate.mode "sidecar" | ternary .Values.gateway.namespace .Release.Namespace }}
{{- end }}

{{- define "tollkeeper.secretsName" -}}
{{ .Values.secrets.existingSecret | default (printf "%s-secrets" .Release.Name) }}
{{- end }}

{{- define "tollkeeper.adminStoreName" -}}
{{ .Values.store.adminSecret | default (printf "%s-admin-store" .Release.Name) }}
{{- end }}

{{- define "tollkeeper.gateStoreName" -}}
{{ .Values.store.gateSecret | default (printf "%s-gate-store" .Release.Name) }}
{{- end }}

{{- define "tollkeeper.passwordName" -}}
{{ .Values.admin.existingSecret | default (printf "%s-password" .Values.admin.name) }}
{{- end }}

{{- define "tollkeeper.gateServerName" -}}
{{ .Values.gate.tls.serverName | default (include "tollkeeper.gateHost" .) }}
{{- end }}

{{- define "tollkeeper.gateHost" -}}
{{ .Release.Name }}-gate.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end }}

{{/* By which Envoy Gateway's proxies of our Gateway are known. */}}
{{- define "tollkeeper.proxySelector" -}}
gateway.envoyproxy.io/owning-gateway-name: {{ .Values.gateway.name }}
gateway.envoyproxy.io/owning-gateway-namespace: {{ .Values.gateway.namespace }}
{{- end }}
