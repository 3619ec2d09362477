{{/* The admin's options. */}}

{{- define "tollkeeper.adminArgs" -}}
- admin
- --listen=0.0.0.0:8085
- --http-listen=0.0.0.0:9092
- --publish-to=cluster
- --models={{ .Values.admin.models }}
- --gateway-namespace={{ .Values.gateway.namespace }}
- --gateway-name={{ .Values.gateway.name }}
- --gateway-listeners={{ include "tollkeeper.listeners" . }}
- --gate-targets={{ include "tollkeeper.gateTargets" . }}
{{- if eq .Values.gate.mode "deployment" }}
- --gate-tls-name={{ include "tollkeeper.gateServerName" . }}
- --gate-tls-ca={{ include "tollkeeper.gateCa" . }}
- --gate-tls-client={{ include "tollkeeper.gateClient" . }}
{{- end }}
{{- if not .Values.gateway.patches }}
- --no-patches
{{- end }}
{{- with .Values.gateway.meter }}
- --gateway-meter={{ . }}
{{- end }}
{{- if .Values.gateway.aiGateway }}
- --ai-gateway
{{- end }}
{{- with .Values.admin }}
- --default-host={{ .defaultHost }}
- --gateway-url={{ .gatewayUrl }}
- --admin-username={{ .username }}
{{- with .corsOrigins }}
- --cors-origins={{ join "," . }}
{{- end }}
{{- with .trustedProxies }}
- --trusted-proxies={{ join "," . }}
{{- end }}
{{- if .allowAnonymous }}
- --allow-anonymous
{{- end }}
{{- if .keyRecovery }}
- --key-recovery
{{- end }}
{{- end }}
{{ include "tollkeeper.commonArgs" . }}
{{- end }}

{{/* Envoy has a listener for each port, and it is called after the first of those that share it. */}}
{{- define "tollkeeper.listeners" -}}
{{- $ports := dict }}
{{- $names := list }}
{{- range .Values.gateway.listeners }}
{{- $port := .port | toString }}
{{- if not (hasKey $ports $port) }}
{{- $_ := set $ports $port .name }}
{{- $names = append $names .name }}
{{- end }}
{{- end }}
{{- join "," $names }}
{{- end }}

{{/* Cluster-wide, so it names the release's namespace too. */}}
{{- define "tollkeeper.roleName" -}}
{{ .Release.Namespace }}-{{ .Values.admin.name }}
{{- end }}
